"""Services asked by HTTP: a status decides, whatever else of the machine answers; on fakes, and on real TCP."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from controller_lab import ADDRESS, LAYOUT, Net, eventually, network
from controller_lab import VIP as LAB_VIP
from hypothesis import given
from hypothesis import strategies as st
from simulated import HOSTS, VIP, World, address, mac
from test_health import behind, status

from cpdb import Destination, HealthReport, VirtualIp
from forepath.settings.sections import _check_probe
from ryu_apps.effects import Effect, PacketOut
from ryu_apps.rules import virtual_mac
from ryu_apps.services.exchange import Exchange, HttpCheck
from ryu_apps.services.health import targets_of
from ryu_apps.topology import frames
from ryu_apps.topology.frames import ACK, FIN, PROBE_PORT, RST, SYN, Segment

OPENING = Segment(VIP, PROBE_PORT, address("s1"), 80, 1000, 0, SYN)


class Service:
    """A service's end of TCP: one connection at a time, and what it says to a request; None: it says nothing."""

    def __init__(self, reply: bytes | None) -> None:
        self.reply, self.open, self.requests = reply, False, list[bytes]()
        self._heard = 0

    def hear(self, one: Segment) -> list[Segment]:
        if one.flags & RST:
            # Only with the right number: others are an attack.
            self.open = self.open and one.sequence != self._heard
            return []
        if one.flags & SYN:
            if self.open:
                return [self._say(one, ACK, 501)]
            self.open, self._heard = True, one.sequence + 1
            return [self._say(one, SYN | ACK, 500)]
        if not self.open or not one.data:
            return []
        self._heard = one.sequence + len(one.data)
        self.requests.append(one.data)
        answers = [self._say(one, ACK, 501)]
        return answers if self.reply is None else [*answers, self._say(one, ACK, 501, self.reply)]

    def _say(self, one: Segment, flags: int, sequence: int, data: bytes = b"") -> Segment:
        return Segment(one.to, one.to_port, one.source, one.source_port, sequence, self._heard, flags, data)


def asked(world: World, services: dict[str, Service], seconds: float) -> None:
    for _ in range(int(seconds * 10)):
        world.now += 0.1
        effects: list[Effect] = [*world.network.tick(world.now), *world.network.ask(world.now)]
        while effects:
            one = effects.pop(0)
            question = frames.read_segment(one.data) if isinstance(one, PacketOut) else None
            name = next((name for name in services if question and question.to == address(name)), None)
            if question is not None and name is not None:
                for back in services[name].hear(question):
                    data = frames.probe_frame(back, mac(name), virtual_mac(VIP))
                    effects += world.network.packet_in(HOSTS[name], data, world.now)


def test_a_status_decides_and_each_connection_is_ended() -> None:
    world = World()
    world.start(behind(probe="http:80/health"))
    services = {"s1": Service(b"HTTP/1.1 204 No Content\r\n\r\n"), "s2": Service(b"HTTP/1.0 503 busy\r\n\r\n")}
    asked(world, services, 4)
    assert status(world) == {"s1": "up", "s2": "down"}
    assert all(one.startswith(b"GET /health HTTP/1.1\r\nHost: 10.0.0.100\r\n") for one in services["s1"].requests)
    assert not services["s1"].open and not services["s2"].open
    # Who takes the connection and says nothing is down, and can be asked again: the old connection is given up.
    services["s1"].reply, services["s2"].reply = None, b"HTTP/1.1 200 OK\r\n\r\n"
    before = len(services["s1"].requests)
    asked(world, services, 6)
    assert status(world) == {"s1": "down", "s2": "up"}
    assert len(services["s1"].requests) > before + 3


def test_another_status_than_the_wanted_one_is_no_answer() -> None:
    check = HttpCheck.parse("/login=302")
    assert check == HttpCheck("/login", 302) and HttpCheck.parse("/a") == HttpCheck("/a")
    assert check.is_met(b"HTTP/1.1 302 Found\r\n") and not check.is_met(b"HTTP/1.1 200 OK\r\n")
    assert not any(
        HttpCheck("/").is_met(data) for data in (b"", b"HTTP/1.1", b"HTTP/1.1 2x0 ", b"SSH-2.0-x", b"\0" * 99)
    )


@given(st.integers(0, 2**32 - 1), st.binary(max_size=40), st.integers(0, 63))
def test_no_segment_of_a_service_breaks_an_exchange(number: int, data: bytes, flags: int) -> None:
    exchange = Exchange(OPENING, HttpCheck("/"))
    for acknowledged in (number, 1001, 1001 + len(exchange.check.request(VIP) if exchange.check else b"")):
        verdict = exchange.hear(Segment(address("s1"), 80, VIP, PROBE_PORT, number, acknowledged, flags, data))
        assert (
            verdict.reply is None
            or frames.read_segment(frames.probe_frame(verdict.reply, mac("s1"), mac("s2"))) == verdict.reply
        )


def test_a_service_that_ends_without_a_word_is_not_well() -> None:
    exchange = Exchange(OPENING, HttpCheck("/"))
    assert exchange.hear(Segment(address("s1"), 80, VIP, PROBE_PORT, 500, 1001, SYN | ACK)).well is None
    ended = exchange.hear(Segment(address("s1"), 80, VIP, PROBE_PORT, 501, exchange.next, FIN | ACK))
    assert ended.well is False and ended.reply is not None and ended.reply.flags & RST


def test_probes_are_read_and_refused() -> None:
    assert targets_of("http:8080/a/b=204", VIP, [("10.0.0.1", "m")])[0][2:] == (8080, VIP, "/a/b=204")
    for good in ("http:80/", "http:8080/health=204", "tcp:80", "arp", "none"):
        assert _check_probe(good) == good
    for bad in ("http:80", "http:/x", "http:0/x", "http:80/ x", "http:80/x=99", "http:80/" + "x" * 40, "https:1/"):
        with pytest.raises(ValueError, match="is no probe"):
            _check_probe(bad)


# ---- on real TCP

SERVER = """
import http.server, pathlib, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(pathlib.Path(sys.argv[1]).read_text()) if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("0.0.0.0", 8080), Answer).serve_forever()
"""
lab = pytest.mark.lab


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("http")) as made:
        ends = tuple(Destination(name, ADDRESS[name], LAYOUT.client(name).mac, 100) for name in ("s1", "s2"))
        made.store.inventory.declare_virtual_ips([VirtualIp(LAB_VIP, "shop", 10, ends, probe="http:8080/health")])
        yield made


def healths(net: Net) -> dict[str, str]:
    return {one.destination: one.status for one in net.store.wanted.observed_of(HealthReport)}


def until(net: Net, wanted: dict[str, str]) -> bool:
    return eventually(lambda: healths(net) == wanted, 30)


@pytest.mark.parametrize("check", [pytest.param(until, marks=lab)])
def test_a_real_service_is_down_for_as_long_as_its_status_says_so(
    net: Net, check: Callable[[Net, dict[str, str]], bool]
) -> None:
    folder = net.lab.run_directory
    (folder / "server.py").write_text(SERVER)
    for name in ("s1", "s2"):
        (folder / name).write_text("200")
    argv = {name: (sys.executable, str(folder / "server.py"), str(folder / name)) for name in ("s1", "s2")}
    with net.background("s1", *argv["s1"]), net.background("s2", *argv["s2"]):
        net.controller()
        assert eventually(lambda: net.pings("c1", ADDRESS["s1"]) and net.pings("c1", ADDRESS["s2"]), 30), net.log()
        assert check(net, {"s1": "up", "s2": "up"}), (healths(net), net.log())
        (folder / "s1").write_text("503")
        assert check(net, {"s1": "down", "s2": "up"}), (healths(net), net.log())
        (folder / "s1").write_text("204")
        assert check(net, {"s1": "up", "s2": "up"}), (healths(net), net.log())


@pytest.mark.parametrize("room", [pytest.param(10, marks=lab)])
def test_where_a_real_table_is_full_services_work_and_it_is_said(net: Net, room: int) -> None:
    table = ("--", "--id=@t", "create", "Flow_Table", f"flow_limit={room}", "overflow_policy=refuse")
    subprocess.run(["ovs-vsctl", *table, "--", "set", "bridge", "leaf1", "flow_tables:0=@t"], check=True, timeout=20)
    try:
        if not net.controlled():
            net.controller()
        assert eventually(lambda: net.pings("c1", ADDRESS["s2"]) and net.pings("c2", ADDRESS["s1"]), 30), net.log()
        assert eventually(lambda: net.pings("c1", LAB_VIP) and net.pings("c2", LAB_VIP), 30), net.log()
        said = [one.key for one in net.store.alarms.open() if one.kind == "switch_lacks"]
        assert eventually(
            lambda: any("room" in one.key for one in net.store.alarms.open() if one.kind == "switch_lacks"), 30
        ), (said, net.log())
        assert net.pings("c1", LAB_VIP) and net.pings("c2", LAB_VIP)
    finally:
        subprocess.run(["ovs-vsctl", "clear", "bridge", "leaf1", "flow_tables"], check=False, timeout=20)

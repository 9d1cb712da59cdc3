"""The controller on real Open vSwitch: forwarding, virtual IPs, rows, limits, leases, moves, restarts."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_lab import ADDRESS, VIP, Net, eventually, network

from cpdb import Limit, LinkLoad, Pair, Reservation, ReservationReport, WantedWeights, WeightsReport

pytestmark = pytest.mark.lab
TALK = (sys.executable, str(Path(__file__).with_name("talk.py")))


@pytest.fixture(scope="module")
def _network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("lab")) as net:
        yield net


@pytest.fixture
def net(_network: Net) -> Iterator[Net]:
    """The network with a controller that has found everybody; a test may kill it, the next one gets another."""
    if not _network.controlled():
        start = time.time()
        _network.controller()
        assert eventually(lambda: _network.pings("c1", ADDRESS["s1"])), _network.log()
        assert eventually(lambda: _network.pings("c1", VIP)), _network.log()
        # What happened before it looked for the first time is not its to tell.
        # After a long absence switches try again only every 8 s.
        # Rows need somebody who speaks.
        assert eventually(lambda: _network.pings("c1", VIP) and _network.store.facts.communications(start), 30), (
            _network.log()
        )
    yield _network
    _network.store.wanted.clear(time.time())


def flows(switch: str, *more: str) -> str:
    argv = ["ovs-ofctl", "-O", "OpenFlow13", "dump-flows", switch, *more]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout


def test_everyone_reaches_everyone_and_no_switch_floods_by_itself(net: Net) -> None:
    names = sorted(ADDRESS)
    lost = [(a, b) for a in names for b in names if a != b and not net.pings(a, ADDRESS[b])]
    assert lost == []
    assert "FLOOD" not in "".join(flows(switch.name) for switch in net.lab.layout.switches)


def test_the_virtual_ip_answers_and_rows_tell_what_was_said(net: Net) -> None:
    start, times, size = time.time(), 7, 20_000
    with net.background("s1", *TALK, "serve_tcp", "0.0.0.0", "8080") as server:
        assert server.stdout is not None and server.stdout.readline()
        done = net.run("c1", *TALK, "connect_tcp", VIP, "8080", str(times), str(size))
    assert done.stdout.split() == [str(size)] * times

    def mine() -> list[tuple[int, int]]:
        rows = net.store.facts.communications(start)
        return [(row.bytes, row.new_connections) for row in rows if row.source == "c1" and row.virtual_ip == VIP]

    assert eventually(lambda: sum(row[1] for row in mine()) >= times)
    time.sleep(1.5)
    assert sum(row[1] for row in mine()) == times
    # Ethernet, IP and TCP heads and the acknowledgements come on top of what was sent.
    assert times * size <= sum(row[0] for row in mine()) <= times * size * 1.2
    assert {row.destination for row in net.store.facts.communications(start)} == {"s1"}
    loads = net.store.facts.loads(LinkLoad, start)
    assert sum(row.bytes for row in loads if (row.from_node, row.to_node) == ("leaf2", "s1")) >= times * size
    assert sum(row.bytes for row in loads if (row.from_node, row.to_node) == ("c1", "leaf1")) >= times * size


def test_silence_is_rows_of_zero(net: Net) -> None:
    start = time.time()
    assert net.pings("c1", VIP)

    def mine() -> list[int]:
        rows = [row for row in net.store.facts.communications(start) if row.source == "c1" and row.virtual_ip == VIP]
        return [row.bytes for row in rows]

    # It spoke once; since then every second says that it did not, though nothing was written about it.
    assert eventually(lambda: any(mine()) and mine()[-3:] == [0, 0, 0])


def reserve(net: Net, lease_s: float, bytes_per_s: float) -> int:
    now, pair = time.time(), Pair("c1", VIP)
    limits = (Limit(pair, bytes_per_s),)
    item = Reservation("r1", Pair("c2", VIP), 1e6, limits, "test", "a test", now, now + lease_s, dscp=46)
    return net.store.wanted.reserve(item)


def received(net: Net, bytes_per_s: float, seconds: float) -> float:
    """Bytes/s that arrive behind the virtual IP when c1 sends `bytes_per_s`."""
    with net.background("s1", *TALK, "serve_udp", "0.0.0.0", "9", str(seconds + 1)) as sink:
        assert sink.stdout is not None and sink.stdout.readline()
        net.run("c1", *TALK, "flood_udp", VIP, "9", str(bytes_per_s), str(seconds))
        return int(sink.stdout.readline()) / seconds


def installed(net: Net, generation: int) -> bool:
    rows = [row for row in net.store.wanted.observed_of(ReservationReport) if row.key == "r1"]
    return any(row.status == "installed" and row.generation >= generation for row in rows)


def test_a_reservation_limits_its_competitor_and_ends_without_the_controller(net: Net) -> None:
    rate = 250_000.0
    generation = reserve(net, 60, rate)
    assert eventually(lambda: installed(net, generation)), net.log()
    assert received(net, 1_000_000, 4) < 1.6 * rate
    # Another wish for the same: shorter now, and then everybody is dead.
    reserve(net, 8, rate)
    assert eventually(lambda: re.search(r"hard_timeout=[1-9],.*meter", flows("leaf1", "table=1")), 6)
    net.kill_controller()
    assert eventually(lambda: "hard_timeout" not in flows("leaf1", "table=1"), 12)
    assert received(net, 1_000_000, 3) > 2 * rate


def meters(switch: str) -> str:
    argv = ["ovs-ofctl", "-O", "OpenFlow13", "dump-meters", switch]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout


def test_a_withdrawn_reservation_is_removed_with_its_meter(net: Net) -> None:
    generation = reserve(net, 60, 250_000.0)
    assert eventually(lambda: installed(net, generation)), net.log()
    assert "rate=2000" in meters("leaf1")
    net.store.wanted.release("r1", time.time())
    assert eventually(lambda: "meter" not in flows("leaf1", "table=1"))
    assert "rate=2000" not in meters("leaf1")
    assert eventually(
        lambda: (
            {row.status for row in net.store.wanted.observed_of(ReservationReport) if row.key == "r1"} == {"removed"}
        )
    )


def test_weights_for_new_sources_are_told_as_taken_into_account(net: Net) -> None:
    generation = net.store.wanted.want_weights(WantedWeights(VIP, {"s1": 60, "s2": 0}, "test", "a test"))

    def told() -> list[tuple[int, str]]:
        return [(row.generation, row.status) for row in net.store.wanted.observed_of(WeightsReport)]

    assert eventually(lambda: told() == [(generation, "installed")]), (told(), net.log())
    generation = net.store.wanted.want_weights(WantedWeights(VIP, {"s1": 60, "s9": 1}, "test", "a test"))
    assert eventually(lambda: told() == [(generation, "refused")]), (told(), net.log())
    net.store.wanted.clear(time.time())
    assert eventually(lambda: told() == [(generation, "removed")]), (told(), net.log())


def test_traffic_goes_on_without_controller_and_a_new_one_adopts_what_is_there(net: Net) -> None:
    foreign = "cookie=0x77,table=3,priority=1,udp,tp_dst=4242,actions=drop"
    subprocess.run(["ovs-ofctl", "-O", "OpenFlow13", "add-flow", "leaf1", foreign], check=True)
    before = {line.split(",")[0].strip() for line in flows("leaf1").splitlines() if "0xf0ea2" in line}
    with net.background("c1", "ping", "-i", "0.2", "-w", "12", VIP) as ping:
        net.kill_controller()
        time.sleep(1)
        net.controller()
        time.sleep(9)
        ping.send_signal(signal.SIGINT)
        out, _ = ping.communicate(timeout=5)
    assert " 0% packet loss" in out
    after = flows("leaf1")
    assert before and all(cookie in after for cookie in before)
    assert "cookie=0x77" in after


def test_a_host_that_moves_is_found_again(net: Net) -> None:
    move = ["ovs-vsctl", "del-port", "leaf1", "leaf1-eth12", "--", "add-port", "leaf2", "leaf1-eth12"]
    subprocess.run([*move, "--", "set", "interface", "leaf1-eth12", "ofport_request=30"], check=True, timeout=10)
    assert eventually(lambda: net.pings("s2", ADDRESS["c2"])), net.log()
    assert eventually(lambda: {node.name: node.attached_to for node in net.store.inventory.nodes()}["c2"] == "leaf2")
    back = ["ovs-vsctl", "del-port", "leaf2", "leaf1-eth12", "--", "add-port", "leaf1", "leaf1-eth12"]
    subprocess.run([*back, "--", "set", "interface", "leaf1-eth12", "ofport_request=12"], check=True, timeout=10)
    assert eventually(lambda: net.pings("s1", ADDRESS["c2"])), net.log()


def test_hostile_bytes_before_any_handshake_harm_nobody(net: Net) -> None:
    hello = struct.pack("!BBHI", 4, 0, 8, 1)
    # A flow statistics reply whose only entry says that it is 0 bytes long.
    endless = struct.pack("!BBHIHH4x", 4, 19, 72, 2, 1, 0) + bytes(56)
    with socket.create_connection(("127.0.0.1", 6653), timeout=5) as attacker:
        attacker.sendall(hello + endless + os.urandom(5000))
        assert net.pings("c1", ADDRESS["s2"])
        assert eventually(lambda: "connection refused" in net.log()), net.log()
        start = time.time()
        assert eventually(lambda: net.pings("c1", VIP) and net.store.facts.communications(start)), net.log()


def test_a_switch_that_vanishes_is_gone_round_and_comes_back_by_difference(net: Net) -> None:
    where = ["ovs-vsctl", "get-controller", "spine1"]
    controller = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    connections = net.log().count("switch=spine1")
    subprocess.run(["ovs-vsctl", "del-controller", "spine1"], check=True)
    try:
        assert eventually(lambda: net.log().count("switch=spine1") > connections), net.log()
        for name in ("c1", "s1", "s2"):
            assert net.pings("c2", ADDRESS[name])
        # Only the other spine is used now: what the lost one holds can no longer be changed.
        assert eventually(lambda: not re.search(r"output:1\b|group:", towards_hosts("leaf1"))), flows("leaf1")
    finally:
        subprocess.run(["ovs-vsctl", "set-controller", "spine1", controller], check=True)
    assert eventually(lambda: net.log().count("switch=spine1") > connections + 1), net.log()
    assert net.pings("c1", ADDRESS["s2"])


def towards_hosts(switch: str) -> str:
    """The rules by which packets to one host go on."""
    return "\n".join(line for line in flows(switch, "table=3").splitlines() if "dl_dst=02:" in line)


def test_a_dead_link_is_gone_round(net: Net) -> None:
    try:
        for device in ("leaf1-eth1", "leaf1-eth2"):
            subprocess.run(["ip", "link", "set", device, "down"], check=True)
            assert eventually(lambda: net.pings("c1", ADDRESS["s1"])), device + net.log()
            subprocess.run(["ip", "link", "set", device, "up"], check=True)
            assert eventually(lambda: "state: LINK_DOWN" not in ports("leaf1"))
    finally:
        for device in ("leaf1-eth1", "leaf1-eth2"):
            subprocess.run(["ip", "link", "set", device, "up"], check=True)


def ports(switch: str) -> str:
    argv = ["ovs-ofctl", "-O", "OpenFlow13", "dump-ports-desc", switch]
    text = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout
    # The switch's own local port is never up here.
    return text.split("LOCAL(")[0]

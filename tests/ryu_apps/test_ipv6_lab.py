"""Virtual IPs of IPv6 on real Open vSwitch: neighbours, TCP and UDP there and back, bytes counted, a limit holds."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_lab import ADDRESS, LAYOUT, Net, eventually, network

from cpdb import Destination, Limit, Pair, Reservation, ReservationReport, SplitReport, VirtualIp, WantedSplit
from ryu_apps.paths.next_hops import KEPT_IDLE_S

pytestmark = pytest.mark.lab
TALK = (sys.executable, str(Path(__file__).with_name("talk.py")))
BY_SOURCE, BY_CONNECTION, ONLY = "fd00:77::101", "fd00:77::102", "fd00:77::103"
ADDRESS6 = {name: f"fd00:77::{address.rpartition('.')[2]}" for name, address in ADDRESS.items()}
SERVERS = ("s1", "s2")
# One client uses both, with the same machines behind them, and c2 the first one as well.
CLIENT = dict.fromkeys((BY_SOURCE, BY_CONNECTION), "c1")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("ipv6")) as net:
        behind = tuple(Destination(name, ADDRESS6[name], LAYOUT.client(name).mac, 100) for name in SERVERS)
        vips = [VirtualIp(BY_SOURCE, "one", 10, behind), VirtualIp(BY_CONNECTION, "two", 5, behind, True, "connection")]
        vips.append(VirtualIp(ONLY, "three", 5, behind[:1]))
        net.store.inventory.declare_virtual_ips(vips)
        for name, address in ADDRESS6.items():
            device = f"{name}-eth0"
            net.run(name, "sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
            net.run(name, "ip", "addr", "add", f"{address}/64", "dev", device, "nodad")
        net.settings["pairs.path_timeout_s"] = "2"
        net.controller()
        assert eventually(lambda: net.pings("c1", ADDRESS6["s1"]) and net.pings("c1", ADDRESS6["s2"]), 30), net.log()
        # Rows need somebody who speaks.
        for vip in (BY_SOURCE, BY_CONNECTION):
            assert eventually(lambda vip=vip: net.pings(CLIENT[vip], vip) and rows(net, 0.0, vip), 20), net.log()  # type: ignore[misc]
        yield net


def rows(net: Net, since: float, vip: str) -> list[tuple[int, int]]:
    """(bytes, new connections) of its client in each row to a virtual IP."""
    found = net.store.facts.communications(since)
    return [(row.bytes, row.new_connections) for row in found if (row.source, row.virtual_ip) == (CLIENT[vip], vip)]


def sent_bytes(net: Net, client: str) -> int:
    return int(net.run(client, "cat", f"/sys/class/net/{client}-eth0/statistics/tx_bytes").stdout)


@contextlib.contextmanager
def serving(net: Net, role: str, *argv: str) -> Iterator[list[str]]:
    """A talker at each server; once it has ended, their last lines."""
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        ears = [stack.enter_context(net.background(name, *TALK, role, "::", *argv)) for name in SERVERS]
        for ear in ears:
            assert ear.stdout is not None and ear.stdout.readline() == "ready\n"
        yield told
        if role == "serve_udp":
            told += [ear.communicate(timeout=20)[0] for ear in ears]


def test_a_neighbour_finds_the_virtual_ip_also_when_it_has_forgotten_it(net: Net) -> None:
    net.run("c1", "ip", "-6", "neigh", "flush", "dev", "c1-eth0")
    assert net.pings("c1", BY_SOURCE, 3)
    known = net.run("c1", "ip", "-6", "neigh", "show", BY_SOURCE).stdout
    assert "f2:ea:" in known and "router" not in known, known
    # Who takes an address asks for it first: as often as a busy controller may need to answer.
    net.run("c2", "sh", "-c", "echo 8 > /proc/sys/net/ipv6/conf/c2-eth0/dad_transmits")
    net.run("c2", "ip", "addr", "add", f"{BY_SOURCE}/64", "dev", "c2-eth0")
    refused = f"{BY_SOURCE}/64 scope global dadfailed"
    taken = eventually(lambda: refused in net.run("c2", "ip", "addr", "show", "dev", "c2-eth0").stdout, 12)
    net.run("c2", "ip", "addr", "del", f"{BY_SOURCE}/64", "dev", "c2-eth0")
    assert taken, net.log()
    assert net.pings("c1", BY_SOURCE)


@pytest.mark.parametrize("vip", [BY_SOURCE, BY_CONNECTION])
def test_tcp_goes_there_and_back_and_is_counted_exactly(net: Net, vip: str) -> None:
    start, times, size = time.time(), 16, 50_000
    with serving(net, "serve_tcp", "8080"):
        before = sent_bytes(net, CLIENT[vip])
        done = net.run(CLIENT[vip], *TALK, "connect_tcp", vip, "8080", str(times), str(size))
        sent = sent_bytes(net, CLIENT[vip]) - before
    assert done.stdout.split() == [str(size)] * times, done.stdout
    assert eventually(lambda: sum(row[1] for row in rows(net, start, vip)) >= times), net.log()
    time.sleep(1.5)
    assert sum(row[1] for row in rows(net, start, vip)) == times
    assert sum(row[0] for row in rows(net, start, vip)) == pytest.approx(sent, rel=0.005)
    behind = {row.destination for row in net.store.facts.communications(start) if row.virtual_ip == vip}
    assert behind in ({"s1"}, {"s2"}) if vip == BY_SOURCE else behind == {None}


def test_udp_arrives_whole_also_in_fragments_and_is_counted_exactly(net: Net) -> None:
    start, said, sent = time.time(), 0, dict.fromkeys(CLIENT, 0)
    with serving(net, "serve_udp", "9", "8") as told:
        for vip, size in ((BY_SOURCE, 1200), (BY_CONNECTION, 1200), (BY_SOURCE, 4000)):
            before = sent_bytes(net, CLIENT[vip])
            said += int(net.run(CLIENT[vip], *TALK, "flood_udp", vip, "9", "300000", "0.7", str(size)).stdout)
            sent[vip] += sent_bytes(net, CLIENT[vip]) - before
    assert sum(map(int, told)) == said
    for vip, size in sent.items():
        assert eventually(lambda vip=vip: sum(row[0] for row in rows(net, start, vip)) >= sent[vip] * 0.995)  # type: ignore[misc]
        assert sum(row[0] for row in rows(net, start, vip)) == pytest.approx(size, rel=0.005)


def test_a_limit_of_a_named_client_holds_for_its_ipv6(net: Net) -> None:
    rate, now, pair = 250_000.0, time.time(), Pair("c1", BY_SOURCE)
    wish = Reservation("r1", Pair("c2", BY_SOURCE), 1e6, (Limit(pair, rate),), "test", "a test", now, now + 30)
    generation = net.store.wanted.reserve(wish)

    def installed() -> bool:
        told = net.store.wanted.observed_of(ReservationReport)
        return any(row.status == "installed" and row.generation >= generation for row in told)

    assert eventually(installed), net.log()
    with serving(net, "serve_udp", "9", "5") as told:
        net.run("c1", *TALK, "flood_udp", BY_SOURCE, "9", "1000000", "4")
    assert 0.5 * rate < sum(map(int, told)) / 4 < 1.6 * rate


@pytest.mark.last
def test_switches_tell_who_has_the_virtual_ip_while_the_controller_is_dead(net: Net) -> None:
    assert net.pings("c1", BY_SOURCE)
    net.kill_controller()
    net.run("c1", "ip", "-6", "neigh", "flush", "dev", "c1-eth0")
    assert net.pings("c1", BY_SOURCE, 3)
    assert "f2:ea:" in net.run("c1", "ip", "-6", "neigh", "show", BY_SOURCE).stdout


@pytest.mark.last
def test_a_new_controller_counts_no_more_connections_than_there_are(net: Net) -> None:
    net.kill_controller()
    before, times, size = net.log().count("switch connected"), 16, 50_000
    net.controller()
    assert eventually(lambda: net.log().count("switch connected") >= before + len(LAYOUT.switches), 30), net.log()
    # The pair's last entries have gone with the controller that had made them, or are gone by then.
    time.sleep(3)
    start = time.time()
    with serving(net, "serve_tcp", "8080"):
        # Once more: a busy controller may learn of the pair when the first ones are over, which nobody counts then.
        for _ in range(2):
            net.run(CLIENT[BY_CONNECTION], *TALK, "connect_tcp", BY_CONNECTION, "8080", str(times), str(size))
            time.sleep(3)
    assert eventually(lambda: sum(row[0] for row in rows(net, start, BY_CONNECTION)) > 0.99 * times * size), net.log()
    time.sleep(1.5)
    # Packets that a switch's cache let through while the pair was met are no openings.
    assert times <= sum(row[1] for row in rows(net, start, BY_CONNECTION)) <= 2 * times


def test_a_split_takes_packets_of_ipv6_and_they_are_answered(net: Net) -> None:
    both = (("leaf1", "spine1", "leaf2"), ("leaf1", "spine2", "leaf2"))

    def sent() -> list[int]:
        return [int(Path(f"/sys/class/net/leaf1-eth{n}/statistics/tx_bytes").read_text()) for n in (1, 2)]

    def share_of(path: int) -> float:
        """This path's share of what 10 answered pings of 1,000 bytes send."""
        before = sent()
        assert net.run("c1", "ping", "-c", "10", "-i", "0.05", "-s", "1000", ONLY).returncode == 0, net.log()
        grown = [new - old for new, old in zip(sent(), before, strict=True)]
        return grown[path] / sum(grown)

    def installed() -> bool:
        rows = [one for one in net.store.wanted.observed_of(SplitReport) if one.key == "leaf1>leaf2"]
        return any(row.status == "installed" and row.generation >= generation for row in rows)

    assert eventually(lambda: net.pings("c1", ONLY), 10), net.log()
    other = int(share_of(0) > 0.5)
    ratios, ends = (1.0 - other, float(other)), time.time() + 60
    row = WantedSplit("leaf1", "leaf2", both, ratios, (3072, 3073), "test", "", time.time(), ends)
    generation = net.store.wanted.put_splits([row])
    assert eventually(installed, 20), net.store.wanted.observed()
    # All pings of two machines are one connection: it keeps its way until it is silent.
    time.sleep(KEPT_IDLE_S + 2)
    assert share_of(other) > 0.9
    net.store.wanted.clear_splits()

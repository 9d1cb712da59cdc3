"""What cannot be is marked: more than the line carries, bytes at one end of a link only; and staleness is measured."""

import random

from simulated import VIP, World, address

from cpdb import FlowKey
from ryu_apps.rules import Kind, PortId, Table, cookie, pair_number
from ryu_apps.telemetry.attribution import STRIKES, WINDOW_S, BothEnds, LineSpeeds, PairAttribution
from ryu_apps.telemetry.collector import RefreshTimes
from ryu_apps.telemetry.counters import CounterDelta

LINE = 1e6
A, B = PortId(1, 1), PortId(2, 1)
SHOP = FlowKey("c1", VIP, "s1")
MAIL = FlowKey("c1", "10.0.0.101", "s1")


def impossible(sizes: list[int], speeds: LineSpeeds | None = None) -> list[bool]:
    speeds = speeds or LineSpeeds()
    speeds.declare({"c1": LINE})
    return [
        speeds.impossible([SHOP], [size], float(second), second + 1.0) == {"c1"} for second, size in enumerate(sizes)
    ]


def test_a_full_line_is_plausible_also_when_its_bytes_come_in_lumps() -> None:
    assert not any(impossible([1_000_000] * 20))
    assert not any(impossible([0, 2_000_000] * 10))


def test_more_than_the_line_carries_is_found_at_once_or_after_a_while() -> None:
    assert impossible([100, 5_000_000, 100, 100])[:2] == [False, True]
    assert any(impossible([1_300_000] * 15))


def test_one_lie_does_not_stain_what_comes_after_it() -> None:
    assert impossible([2**60, *[500_000] * 4])[3:] == [False, False]


def test_pairs_of_one_source_share_its_line() -> None:
    speeds = LineSpeeds()
    speeds.declare({"c1": LINE})
    talks, sizes = [SHOP, MAIL], [1_500_000, 1_500_000]
    assert speeds.impossible(talks, sizes, 0.0, 1.0) == {"c1"}


def test_sources_with_an_unknown_line_are_believed() -> None:
    speeds = LineSpeeds()
    assert speeds.impossible([SHOP], [2**60], 0.0, 1.0) == set()


def windows(sent: float, received: float, count: int, ends: BothEnds | None = None) -> BothEnds:
    """Lets A send to B for so many windows, looked at once a second at odd moments."""
    ends, start, rng = ends or BothEnds(), 1000.0 if ends else 100.0, random.Random(5)
    ends.judge(lambda _: None, start)
    for second in range(int(count * WINDOW_S)):
        t = start + 1.0 + second
        for at, values in ((A, (int(sent), 1, 0, 0, 0, 0)), (B, (0, 0, 0, int(received), 1, 0))):
            ends.grew(at, CounterDelta(t, 1.0 + rng.uniform(-0.2, 0.2), values))
        ends.judge({A: B, B: A}.get, t)
    return ends


def test_bytes_at_one_end_only_make_a_link_doubtful_and_agreement_clears_it() -> None:
    for sent, received in ((500_000.0, 0.0), (0.0, 500_000.0), (500_000.0, 100_000.0)):
        ends = windows(sent, received, STRIKES + 2)
        assert ends.doubted == {A, B}
        assert windows(500_000.0, 500_000.0, 3, ends).doubted == frozenset()


def test_ends_that_agree_roughly_or_carry_little_are_not_doubted() -> None:
    assert windows(500_000.0, 480_000.0, 8).doubted == frozenset()
    assert windows(5_000.0, 0.0, 8).doubted == frozenset()


def test_a_switch_is_as_stale_as_its_quickest_entries_show() -> None:
    refresh_times = RefreshTimes()
    refresh_times.add(1, [5.0] * 30 + [10.0] * 20 + [400.0] * 500)
    refresh_times.add(2, [1.0] * 5)
    assert refresh_times.refresh_s(1) == 5.0
    assert refresh_times.refresh_s(2) is None
    (row,) = refresh_times.news(lambda dpid: f"leaf{dpid}", 100.0)
    assert (row.kind, row.switch, row.refresh_s) == ("refresh", "leaf1", 5.0)
    assert refresh_times.news(lambda dpid: f"leaf{dpid}", 101.0) == []
    assert len(refresh_times.news(lambda dpid: f"leaf{dpid}", 140.0)) == 1


# ---- with the eyes of the network


def world_with_a_pair() -> World:
    world = World()
    world.start()
    world.network.services.pairs.meet(address("c1"), world.network.services.virtual_ips[VIP], world.now)
    return world


def key(kind: Kind) -> int:
    return cookie(Table.ACCOUNT, kind, pair_number(address("c1"), VIP))


def test_a_cookie_becomes_names_and_keeps_them_for_the_last_word() -> None:
    world = world_with_a_pair()
    attribution = PairAttribution(world.network)
    assert attribution.account(key(Kind.PAIR)) == (SHOP, False)
    assert attribution.account(key(Kind.PAIR_SYN)) == (SHOP, True)
    world.network.services.pairs.refresh({}, world.now)
    assert attribution.account(key(Kind.PAIR)) == (SHOP, False)
    assert attribution.account(cookie(Table.ACCOUNT, Kind.PAIR, 12345)) is None


def test_only_rows_that_cross_a_doubted_link_are_marked() -> None:
    world = world_with_a_pair()
    attribution, network = PairAttribution(world.network), world.network
    assert attribution.account(key(Kind.PAIR)) is not None
    out = network.topology.snapshot.topology
    first_hop = out.path("leaf1", "leaf2")[1]
    at = PortId(0x11, out.port("leaf1", first_hop))
    peer = network.topology.links.peer(at)
    assert peer is not None
    source = attribution.sample_source(0x11, 200.0)
    assert list(source.judge([SHOP], [1000], 1.0)) == []
    for second in range(1, 25):
        t = world.now + second
        for end, values in ((at, (900_000, 1, 0, 0, 0, 0)), (peer, (0, 0, 0, 0, 0, 0))):
            attribution.port_grew(end, CounterDelta(t, 1.0, values))
        attribution.watch({}, t)
    assert list(source.judge([MAIL, SHOP], [1000, 1000], 1.0)) == [1]
    assert attribution.implausible == 1


def test_line_speeds_come_from_ports_of_hosts() -> None:
    world = world_with_a_pair()
    attribution = PairAttribution(world.network)
    attribution.watch({world.places["c1"]: LINE}, world.now)
    source = attribution.sample_source(0x11, world.now + 1.0)
    assert list(source.judge([SHOP], [50_000_000], 1.0)) == [0]


def test_sampled_packets_count_only_towards_a_virtual_ip() -> None:
    world = world_with_a_pair()
    attribution = PairAttribution(world.network)
    assert attribution.sampled(address("c1"), VIP) == SHOP
    assert attribution.sampled(address("c2"), VIP) == FlowKey("c2", VIP, None)
    assert attribution.sampled(address("c1"), address("s1")) is None

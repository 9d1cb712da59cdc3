"""Connections placed one by one: by weight, without the controller, and each stays where it is while it lives."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import FABRIC, HOSTS, VIP, World, address, declared, ip, mac

from cpdb import Destination, Standing, Withdrawal
from ryu_apps.declared import Declared
from ryu_apps.effects import PutRule
from ryu_apps.fakes.fake_packets import Packet, Transport, hashed
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.paths.next_hops import LabelShare, NextHop, Pin, label_rules
from ryu_apps.pipeline import PlacingShare, Share, desired
from ryu_apps.rules import Kind, PortId, Table, is_ours, kind_of, number_of, pair_number, virtual_mac
from ryu_apps.services.buckets import BUCKETS, BucketPlacement, destination_number, divide_buckets
from ryu_apps.services.conflicts import Conflicts
from ryu_apps.services.pairs import PairBudget, Pairs
from ryu_apps.status.destinations import LiveCountPublisher
from ryu_apps.topology.hosts import HostTable


def by_connection(weights: tuple[int, int], *standings: Standing) -> Declared:
    whole = declared(weights)
    vip = whole.virtual_ips[VIP]
    behind = tuple(
        replace(one, standing=standing)
        for one, standing in zip(vip.destinations, standings or [Standing.SERVING] * 2, strict=False)
    )
    return replace(whole, virtual_ips={VIP: replace(vip, destinations=behind, affinity="connection", probe="none")})


@pytest.fixture
def world() -> World:
    made = World()
    made.start(by_connection((300, 100)))
    return made


def opening(port: int, flags: str = "") -> Packet:
    ports = Transport(port, 80, flags)
    return ip("c1", "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP, ip_proto=6, transport=ports)


def served_by(world: World, port: int, flags: str = "S") -> str:
    ((host, got),) = world.send("c1", opening(port, flags=flags))
    assert (got.eth_dst, got.ip_dst) == (mac(host), address(host))
    return host


def change(world: World, what: Declared) -> None:
    world.network.declare(what, world.now)
    world.reconcile()


def test_new_connections_follow_the_weights_and_answers_come_from_the_virtual_ip(world: World) -> None:
    places = Counter(served_by(world, port) for port in range(10_000, 11_000))
    assert 0.70 < places["s1"] / 1000 < 0.80
    back = ip(
        "s1", "c1", ip_proto=6, transport=Transport(80, next(p for p in range(10_000, 11_000) if at(world, p) == "s1"))
    )
    ((host, got),) = world.send("s1", back)
    assert (host, got.ip_src, got.eth_src) == ("c1", VIP, virtual_mac(VIP))


def at(world: World, port: int) -> str:
    return served_by(world, port, "A")


def test_connections_stay_through_changes_of_weight_and_draining(world: World) -> None:
    before = {port: served_by(world, port) for port in range(20_000, 20_100)}
    assert set(before.values()) == {"s1", "s2"}
    change(world, by_connection((0, 100)))
    assert {port: at(world, port) for port in before} == before
    assert {served_by(world, port) for port in range(21_000, 21_100)} == {"s2"}
    change(world, by_connection((100, 100), Standing.SERVING, Standing.DRAINING))
    assert {port: at(world, port) for port in before} == before
    assert {served_by(world, port) for port in range(22_000, 22_100)} == {"s1"}


def test_a_destination_that_is_removed_is_left_at_once(world: World) -> None:
    before = [served_by(world, port) for port in range(20_000, 20_100)]
    assert "s2" in before
    change(world, by_connection((300, 100), Standing.SERVING))
    assert {at(world, port) for port in range(20_000, 20_100)} == {"s1"}


def test_no_connection_and_no_weight_asks_the_controller_more_than_once(world: World) -> None:
    world.asked = 0
    for port in range(30_000, 30_200):
        served_by(world, port)
    # The first packet of a source tells that it is there; then it is counted.
    assert world.asked <= 2
    rules = [rule for rule in world.switches[0x11].rules(world.now) if is_ours(rule.cookie)]
    assert sum(rule.table == Table.BUCKETS for rule in rules) == 2
    number = pair_number(address("c1"), VIP)
    counts = {
        kind_of(one.cookie): one.packets
        for one in world.switches[0x11].samples(world.now)
        if number_of(one.cookie) == number
    }
    assert counts[Kind.PAIR_SYN] >= 198


def test_a_connection_that_is_placed_goes_out_once_where_its_pair_is_divided(world: World) -> None:
    served_by(world, 20_000)
    leaf = world.switches[0x11]
    ways = sorted({end.port for link in FABRIC for end in link if end.dpid == 0x11})
    next_hops = tuple(NextHop(0, port, 32) for port in ways[:2])
    pins = tuple(Pin(address("c1"), mac(name), next_hops, number) for number, name in enumerate(("s1", "s2")))
    assert leaf.apply([PutRule(rule) for rule in label_rules(LabelShare(pins=pins))], world.now) == []
    for _ in range(3):
        sent = leaf.receive(opening(20_000, flags="A"), world.places["c1"].port, world.now)
        assert len(sent) == 1 and sent[0][0] in ways


def test_placing_goes_on_without_the_controller(world: World) -> None:
    world.alive = False
    assert {served_by(world, port) for port in range(30_000, 30_100)} == {"s1", "s2"}


@pytest.mark.parametrize("other", [PortId(0x11, 14), HOSTS["s2"]])
def test_where_a_link_is_down_the_switch_alone_gives_new_connections_to_others(other: PortId) -> None:
    world = World(places=HOSTS | {"s1": PortId(0x11, 13), "s2": other})
    world.start(by_connection((100, 100)))
    live = {port: served_by(world, port) for port in range(30_000, 30_100)}
    assert set(live.values()) == {"s1", "s2"}
    (before,) = world.network.services.destinations.spreads
    leaf, world.alive = world.switches[0x11], False
    leaf.down.add(13)
    assert {served_by(world, port) for port in range(31_000, 31_100)} == {"s2"}
    assert all(at(world, port) == "s2" for port, host in live.items() if host == "s2")
    # The controller hears of the link first, and of the machine later: until then, too.
    world.alive = True
    world.network.topology.port_changed(PortId(0x11, 13), False, world.now)
    world.reconcile()
    assert {served_by(world, port) for port in range(32_000, 32_100)} == {"s2"}
    leaf.down.clear()
    world.network.topology.port_changed(PortId(0x11, 13), True, world.now)
    # Until it is clear that no switch is there, nobody is learnt at a port.
    world.now += 2.0
    world.speak("s1")
    assert {served_by(world, port) for port in range(33_000, 33_100)} == {"s1", "s2"}
    # A controller that starts while it is down, and has never heard of the machine, finds in the switch where it was.
    adopted = Conflicts()
    adopted.adopt(0x11, leaf.rules(world.now), world.network.services.virtual_ips.values())
    adopted.follow((address(name), mac(name)) for name in ("s1", "s2"))
    here = {mac(name): world.places[name].port for name in ("s1", "s2") if world.places[name].dpid == 0x11}
    assert adopted.attached(0x11, HostTable()) == here
    leaf.down.add(13)
    del world.places["s1"]
    world.start(by_connection((100, 100)))
    assert {served_by(world, port) for port in range(34_000, 34_100)} == {"s2"}
    assert next(iter(world.network.services.destinations.spreads)).buckets == before.buckets


@settings(max_examples=40)
@given(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=2, max_size=6), st.sets(st.sampled_from([1, 2, 3])))
def test_whoever_stands_in_can_be_reached_as_long_as_anybody_can(places: list[int | None], down: set[int]) -> None:
    """Each destination at one of three ports, or elsewhere (port 4); some of the three are down."""
    behind = [Destination(f"s{n}", f"10.0.1.{n}", f"02:00:00:00:01:0{n}", 1 + n % 3) for n in range(len(places))]
    weights = {one.name: one.weight for one in behind}
    spread = BucketPlacement(VIP, tuple(behind), divide_buckets(weights))
    ports = {one.mac: place or 4 for one, place in zip(behind, places, strict=True)}
    attached = {mac: port for mac, port in ports.items() if port != 4}
    switch = FakeSwitch(1, frozenset({1, 2, 3, 4, 5}))
    rules = desired(Share((VIP,), ports, placing=PlacingShare((spread,), False, attached=attached)), {}).rules.values()
    assert switch.apply([PutRule(rule) for rule in rules], 0.0) == []
    switch.down = down
    reachable = {one.mac for one in behind if ports[one.mac] not in down}
    for port in range(1, 40):
        packet = opening(port, "S")
        owner = next(one.mac for one in behind if one.name == spread.buckets[hashed(packet) % BUCKETS])
        found = [got.eth_dst for _, got in switch.receive(packet, 5, 0.0)]
        assert found == [owner] if owner in reachable else len(found) == bool(reachable)


def test_stand_ins_share_what_they_take_over_by_weight() -> None:
    behind = tuple(Destination(f"s{n}", f"10.0.1.{n}", f"02:00:00:00:01:0{n}", 100 if n < 3 else 200) for n in range(4))
    spread = BucketPlacement(VIP, behind, divide_buckets({one.name: one.weight for one in behind}))
    attached = {one.mac: n for n, one in enumerate(behind, 1)}
    rules = desired(Share((VIP,), attached, placing=PlacingShare((spread,), False, attached=attached)), {}).rules
    assert sum(key.table in (Table.BUCKETS, Table.STAND_IN) for key in rules) <= 40
    switch = FakeSwitch(1, frozenset(range(1, 6)))
    assert switch.apply([PutRule(rule) for rule in rules.values()], 0.0) == []
    switch.down = {1}
    places = Counter(switch.receive(opening(port, "S"), 5, 0.0)[0][0] for port in range(1, 2001))
    assert 0.18 < places[2] / 2000 < 0.32 and 0.18 < places[3] / 2000 < 0.32 and 0.42 < places[4] / 2000 < 0.58


def test_when_nobody_serves_the_switch_drops_instead_of_asking(world: World) -> None:
    served_by(world, 1)
    change(world, by_connection((0, 0)))
    world.asked = 0
    assert world.send("c1", opening(40_000, flags="S")) == []
    assert world.asked == 0


def test_a_restart_moves_no_slot(world: World) -> None:
    change(world, by_connection((100, 100)))
    change(world, by_connection((100, 300)))
    (before,) = world.network.services.destinations.spreads
    world.start(by_connection((100, 300)))
    (after,) = world.network.services.destinations.spreads
    assert after.buckets == before.buckets
    assert len(after.buckets) == BUCKETS


def test_a_source_with_a_destination_of_its_own_keeps_it_until_it_is_silent() -> None:
    world = World()
    world.start(declared((100, 0)))
    assert world.send("c1", opening(1, flags="S"))[0][0] == "s1"
    change(world, by_connection((0, 100)))
    assert world.send("c1", opening(2, flags="S"))[0][0] == "s1"
    world.now += 61
    world.network.tick(world.now)
    world.reconcile()
    assert served_by(world, 3) == "s2"


class Counting:
    """A switch that is asked how many entries it has."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def ask_count(self, cookie: int, mask: int, table: int) -> int:
        assert (cookie >> 48, mask, table) == (0xF0EB, 2**64 - 1, 8)
        self.asked.append(cookie & 0xFFFFFFFF)
        return len(self.asked)


def test_what_a_draining_destination_still_has_is_counted_on_all_switches() -> None:
    live, wires = LiveCountPublisher(), {dpid: Counting() for dpid in (1, 2)}
    draining = by_connection((100, 100), Standing.SERVING, Standing.DRAINING).virtual_ips.values()
    pairs = Pairs(PairBudget(10), 60.0, 900.0)
    live.ask(draining, wires, 0.0)
    assert live.news(draining, pairs, 0.0) == []
    for dpid, switch in wires.items():
        assert switch.asked == [destination_number(VIP, "s2")]
        live.answered(dpid, 1, 4)
    assert [(row.key, row.count) for row in live.news(draining, pairs, 1.0)] == [(f"{VIP}/s2", 4)]
    assert live.news(draining, pairs, 2.0) == []
    serving = by_connection((100, 100)).virtual_ips.values()
    live.ask(serving, wires, 5.0)
    assert [(row.key, type(row)) for row in live.news(serving, pairs, 5.0)] == [(f"{VIP}/s2", Withdrawal)]
    assert all(len(switch.asked) == 1 for switch in wires.values())


def test_with_affinity_to_the_source_its_sources_are_counted() -> None:
    world = World()
    world.start(declared((0, 100)))
    world.send("c1", opening(1, flags="S"))
    vip = declared((100, 100)).virtual_ips[VIP]
    first, second = vip.destinations
    draining = [replace(vip, destinations=(first, replace(second, standing=Standing.DRAINING)))]
    assert [row.count for row in LiveCountPublisher().news(draining, world.network.services.pairs, 1.0)] == [1]

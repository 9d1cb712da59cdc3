"""More sources than there is room for pairs: everybody is served and counted, and an alarm says so."""

from dataclasses import replace

from simulated import VIP, World, address, declared, ip, mac

from cpdb import FlowKey
from ryu_apps.fakes.fake_packets import Packet, Transport
from ryu_apps.rules import Kind, kind_of, number_of, pair_number, virtual_mac
from ryu_apps.services.pairs import PairBudget, Pairs, sum_number
from ryu_apps.telemetry.attribution import PairAttribution

LEAF1, FABRIC_ONLY = 0x11, 0x21
MORE = "10.0.0.101"


def small(max_pairs: int = 1) -> World:
    """A network that has room for so many pairs; c1 has taken the first place."""
    world = World()
    world.start(declared((100, 100)))
    world.network.services.pairs = Pairs(PairBudget(max_pairs), 60.0, 900.0)
    world.reconcile()
    assert served_by(world, "c1", 40_000)
    return world


def opening(name: str, port: int) -> Packet:
    transport = Transport(port, 80, "S")
    return ip(name, "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP, ip_proto=6, transport=transport)


def served_by(world: World, name: str, port: int) -> str:
    ((host, got),) = world.send(name, opening(name, port))
    assert (got.eth_dst, got.ip_dst) == (mac(host), address(host))
    return host


def test_who_comes_after_the_last_place_is_served_in_both_directions_without_the_controller() -> None:
    world = small()
    asked = world.asked
    places = {port: served_by(world, "c2", port) for port in range(10_000, 10_200)}
    assert set(places.values()) == {"s1", "s2"}
    assert world.asked == asked
    for port in (10_000, 10_100):
        answer = ip(places[port], "c2", ip_proto=6, transport=Transport(80, port, "SA"))
        ((host, got),) = world.send(places[port], answer)
        assert (host, got.ip_src, got.eth_src) == ("c2", VIP, virtual_mac(VIP))
    # A connection that lives stays, and so does who had its place before.
    assert all(served_by(world, "c2", port) == place for port, place in places.items())
    assert len({served_by(world, "c1", port) for port in range(20_000, 20_050)}) == 1


def test_what_is_no_pairs_is_counted_in_one_sum_of_its_switch_and_virtual_ip() -> None:
    world = small()
    for port in range(10_000, 10_030):
        served_by(world, "c2", port)
    attribution = PairAttribution(world.network)
    samples = {one.cookie: one.packets for one in world.switches[LEAF1].samples(world.now)}
    (opening_sum,) = (
        one for one in samples if number_of(one) == sum_number(LEAF1, VIP) and kind_of(one) is Kind.PAIR_SYN
    )
    assert samples[opening_sum] == 30
    told = attribution.account(opening_sum, LEAF1)
    assert told == (FlowKey("leaf1", VIP, None), True)
    assert attribution.account(opening_sum, FABRIC_ONLY) is None
    own = pair_number(address("c1"), VIP)
    assert sum(packets for cookie, packets in samples.items() if number_of(cookie) == own and told) > 0
    # Where nobody enters there is nothing to count.
    spine = world.switches[FABRIC_ONLY].rules(world.now)
    assert not any(number_of(one.cookie) == sum_number(FABRIC_ONLY, VIP) for one in spine)


def test_an_alarm_stands_while_there_is_no_room_and_pairs_come_back_with_it() -> None:
    world = small()
    world.react(world.network.tick(world.now))
    assert world.alarms.counts["pairs_full"] == 1
    world.now += 1_000.0
    world.react(world.network.tick(world.now))
    world.react(world.network.tick(world.now))
    assert len(world.network.services.pairs) == 0
    assert world.alarms.counts["pairs_full"] <= 2
    world.reconcile()
    assert served_by(world, "c2", 10_000)
    assert world.network.services.pairs.of_addresses(address("c2"), VIP) is not None


def test_with_room_nothing_is_different() -> None:
    world = small(max_pairs=3)
    served_by(world, "c2", 10_000)
    assert len(world.network.services.pairs) == 2
    assert not any(number_of(one.cookie) == sum_number(LEAF1, VIP) for one in world.switches[LEAF1].rules(world.now))
    world.react(world.network.tick(world.now))
    assert world.alarms.counts["pairs_full"] == 0


def test_a_source_that_speaks_to_everybody_is_served_counted_in_sums_and_told() -> None:
    world, what = World(), declared((100, 100))
    other = replace(what.virtual_ips[VIP], address=MORE, name="more")
    world.start(replace(what, virtual_ips=what.virtual_ips | {MORE: other}))
    pairs = world.network.services.pairs = Pairs(PairBudget(10, source_share=0.1), 60.0, 900.0)
    world.reconcile()
    assert served_by(world, "c1", 40_000)
    for port in range(10_000, 10_020):
        ((host, got),) = world.send("c1", replace(opening("c1", port), eth_dst=virtual_mac(MORE), ip_dst=MORE))
        assert got.ip_dst == address(host)
    assert len(pairs) == 1 and pairs.of_addresses(address("c1"), VIP) is not None
    packets = {one.cookie: one.packets for one in world.switches[LEAF1].samples(world.now)}
    sums = [one for one in packets if number_of(one) == sum_number(LEAF1, MORE) and kind_of(one) is Kind.PAIR_SYN]
    # But the first, for which the rules of sums were made.
    assert [packets[one] for one in sums] == [20]
    world.react(world.network.tick(world.now))
    assert world.alarms.counts["source_crowded"] == 1 and not world.alarms.counts["port_crowded"]
    assert served_by(world, "c2", 10_000) and len(pairs) == 2

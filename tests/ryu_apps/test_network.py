"""The controller's mind on fake switches: packets arrive, virtual IPs turn there and back, leases end by themselves."""

from dataclasses import replace

import pytest
from simulated import FABRIC, HOSTS, VIP, World, address, declared, ip, mac

from cpdb import Limit, Pair, Reservation
from ryu_apps.effects import PacketOut
from ryu_apps.fakes.fake_packets import ArpFields, Packet, Transport
from ryu_apps.rules import ETH_ARP, Kind, PortId, Table, cookie, kind_of, number_of, pair_number, virtual_mac
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Arp


@pytest.fixture
def world() -> World:
    made = World()
    made.start()
    return made


def to_vip(source: str, **more: object) -> Packet:
    return ip(source, "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP, **more)


def test_everyone_reaches_everyone_without_asking(world: World) -> None:
    world.asked = 0
    for source in HOSTS:
        for to in HOSTS:
            if source != to:
                assert world.send(source, ip(source, to)) == [(to, ip(source, to))]
    assert world.asked == 0


def test_the_first_packet_to_a_virtual_ip_is_steered_counted_and_answered(world: World) -> None:
    first = to_vip("c1", ip_proto=6, transport=Transport(flags="S"))
    ((host, got),) = world.send("c1", first)
    assert (host, got.eth_dst, got.ip_dst) == ("s1", mac("s1"), address("s1"))
    reply = ip("s1", "c1", ip_proto=6, transport=Transport(flags="SA"))
    ((host, back),) = world.send("s1", reply)
    assert (host, back.eth_src, back.ip_src) == ("c1", virtual_mac(VIP), VIP)
    world.send("c1", to_vip("c1", ip_proto=6, transport=Transport(flags="A"), size=500))
    number = pair_number(address("c1"), VIP)
    counts = {
        kind_of(one.cookie): (one.packets, one.bytes)
        for one in world.switches[0x11].samples(world.now)
        if number_of(one.cookie) == number
    }
    assert counts[Kind.PAIR_SYN] == (1, 100)
    assert counts[Kind.PAIR] == (1, 500)


def test_others_still_reach_a_destination_by_its_own_address(world: World) -> None:
    world.send("c1", to_vip("c1"))
    assert world.send("c2", ip("c2", "s1")) == [("s1", ip("c2", "s1"))]
    assert world.send("s1", ip("s1", "c2")) == [("c2", ip("s1", "c2"))]


def test_a_live_pair_keeps_its_destination_and_an_idle_one_follows_new_weights(world: World) -> None:
    world.send("c1", to_vip("c1"))
    world.network.declare(declared((0, 100)), world.now)
    world.reconcile()
    assert world.send("c1", to_vip("c1"))[0][0] == "s1"
    assert world.send("c2", to_vip("c2"))[0][0] == "s2"
    world.now += 61
    world.network.tick(world.now)
    world.reconcile()
    assert world.send("c1", to_vip("c1"))[0][0] == "s2"


def test_switches_answer_for_virtual_ips_while_the_controller_is_dead(world: World) -> None:
    world.send("c1", to_vip("c1"))
    world.alive = False
    question = Packet(mac("c1"), frames.BROADCAST, ETH_ARP, arp=ArpFields(1, address("c1"), VIP))
    ((host, answer),) = world.send("c1", question)
    assert (host, answer.eth_src, answer.arp) == ("c1", virtual_mac(VIP), ArpFields(2, VIP, address("c1")))
    assert world.send("c1", to_vip("c1"))[0][0] == "s1"


def test_neighbours_that_know_each_other_confirm_it_without_the_controller(world: World) -> None:
    world.alive = False
    probe = Packet(mac("c1"), mac("s1"), ETH_ARP, arp=ArpFields(1, address("c1"), address("s1")))
    assert world.send("c1", probe) == [("s1", probe)]


def test_broadcast_reaches_everybody_else_once_without_the_controller(world: World) -> None:
    world.now += 3.0
    world.reconcile()
    world.alive = False
    packet = ip("c1", "s1", eth_dst=frames.BROADCAST)
    assert sorted(name for name, _ in world.send("c1", packet)) == ["c2", "s1", "s2"]
    assert world.send("c1", replace(packet, eth_dst="01:80:c2:00:00:0e")) == []


def test_who_only_speaks_to_groups_is_found_and_asks_the_controller_once(world: World) -> None:
    world.now += 3.0
    world.reconcile()
    hello = Packet("02:00:00:00:00:99", "33:33:00:00:00:fb", 0x86DD)
    world.asked = 0
    assert len(world.send("c1", hello)) == 3
    assert world.asked == 1
    assert world.send("s1", replace(hello, eth_src=mac("s1"), eth_dst=hello.eth_src))[0][0] == "c1"
    assert len(world.send("c1", hello)) == 3
    assert world.asked == 1


def test_an_address_that_moves_is_told_to_all_but_a_virtual_ip_is_not_taken_so(world: World) -> None:
    def told(address: str) -> list[int]:
        body = frames.Arp(frames.REQUEST, mac("c2"), address, mac("c2"), address)
        effects = world.network.packet_in(HOSTS["c2"], frames.arp(body, mac("c2"), frames.BROADCAST), world.now)
        return sorted(effect.dpid for effect in effects if isinstance(effect, PacketOut))

    world.now += 1.0
    assert told("10.0.0.7") == [0x11, 0x12, 0x13]
    assert told(VIP) == []


def test_a_moved_host_is_reached_after_its_first_word(world: World) -> None:
    world.send("c1", to_vip("c1"))
    place = PortId(0x13, 12)
    world.places["s1"] = place
    world.switches[0x13].ports |= {12}
    world.network.topology.port_changed(place, True, world.now)
    world.now += 2.0
    world.speak("s1")
    assert world.send("c1", to_vip("c1"))[0][0] == "s1"
    assert world.send("s1", ip("s1", "c1"))[0][1].ip_src == VIP


def test_a_port_where_a_switch_is_heard_is_no_place_for_hosts(world: World) -> None:
    at, other = PortId(0x11, 12), PortId(0x13, 30)
    world.network.topology.port_changed(other, True, world.now)
    world.react(world.network.packet_in(at, world.network.topology.signer.frame(other, world.now), world.now))
    assert world.network.topology.hosts.of_mac(mac("c2")) is None
    world.speak("c2")
    assert world.network.topology.hosts.of_mac(mac("c2")) is None


def test_an_unknown_host_is_asked_for_at_every_edge_and_found(world: World) -> None:
    world.network.topology.hosts.leave(HOSTS["s2"])
    data = frames.arp(
        Arp(frames.REQUEST, mac("c1"), address("c1"), "00:00:00:00:00:00", address("s2")), mac("c1"), frames.BROADCAST
    )
    effects = world.network.packet_in(HOSTS["c1"], data, world.now, cookie(Table.ACCOUNT, Kind.LISTEN, 1))
    asked = {PortId(one.dpid, port) for one in effects if isinstance(one, PacketOut) for port in one.ports}
    assert asked == set(HOSTS.values()) - {HOSTS["c1"]}
    assert world.network.packet_in(HOSTS["c1"], data, world.now, cookie(Table.ACCOUNT, Kind.LISTEN, 1)) == []
    world.speak("s2")
    (answer,) = world.network.packet_in(HOSTS["c1"], data, world.now, cookie(Table.ACCOUNT, Kind.LISTEN, 1))
    assert answer == PacketOut(0x11, (11,), frames.question_answer(_asked(data), mac("s2")))


def _asked(data: bytes) -> Arp:
    parsed = frames.parse(data)
    assert parsed is not None
    assert parsed.arp is not None
    return parsed.arp


def test_a_packet_to_a_lost_destination_waits_until_it_is_found(world: World) -> None:
    world.network.topology.hosts.leave(HOSTS["s1"])
    assert world.send("c1", to_vip("c1")) == []
    world.now += 0.3
    world.speak("s1")
    assert [host for host, _ in world.arrived] == ["s1"]


def test_a_dead_link_is_gone_round(world: World) -> None:
    for port, other in ((1, 2), (2, 1)):
        world.network.topology.port_changed(PortId(0x11, port), False, world.now)
        world.network.topology.port_changed(PortId(0x11, other), True, world.now)
        world.reconcile()
        assert world.send("c1", ip("c1", "s1")) == [("s1", ip("c1", "s1"))]


@pytest.mark.parametrize("port", [1, 2])
def test_a_switch_turns_to_its_spare_by_itself_when_its_link_goes_down(world: World, port: int) -> None:
    world.send("c1", to_vip("c1"))
    world.alive = False
    other = dict(FABRIC)[PortId(0x11, port)]
    world.switches[0x11].down.add(port)
    world.switches[other.dpid].down.add(other.port)
    assert world.send("c1", to_vip("c1"))[0][0] == "s1"
    assert world.send("c2", ip("c2", "s2")) == [("s2", ip("c2", "s2"))]


def test_a_new_controller_changes_nothing(world: World) -> None:
    world.send("c1", to_vip("c1"))
    world.send("c2", to_vip("c2"))
    world.reconcile()
    world.start()
    world.reconcile()
    assert world.reconcile() == 0
    before = world.asked
    assert world.send("c1", to_vip("c1"))[0][0] == "s1"
    assert world.asked == before


def reservation(now: float, lease_s: float, bytes_per_s: float) -> Reservation:
    limits = (Limit(Pair("c1", VIP), bytes_per_s),)
    return Reservation("r", Pair("c2", VIP), 1e6, limits, "o", "why", now, now + lease_s, dscp=46)


def delivered(world: World, seconds: float, bytes_per_s: float) -> float:
    """Bytes/s that arrive when c1 sends that much in packets of 1000 bytes."""
    count = int(seconds * bytes_per_s / 1000)
    got = 0
    for _ in range(count):
        world.now += seconds / count
        got += sum(packet.size for _, packet in world.send("c1", to_vip("c1", size=1000)))
    return got / seconds


def test_a_limit_holds_and_ends_with_its_lease_without_the_controller(world: World) -> None:
    world.send("c1", to_vip("c1"))
    world.send("c2", to_vip("c2"))
    world.network.declare(declared(reservations=(reservation(world.now, 8.0, 100_000),)), world.now)
    world.reconcile()
    assert world.send("c2", to_vip("c2"))[0][1].ip_dscp == 46
    assert 90_000 < delivered(world, 5.0, 1e6) < 150_000
    world.alive = False
    world.now += 4.5
    assert delivered(world, 2.0, 1e6) > 990_000
    assert world.send("c2", to_vip("c2"))[0][1].ip_dscp == 0


def test_a_flood_to_nowhere_is_dropped_by_the_switch(world: World) -> None:
    packet = ip("c1", "s1", eth_dst="02:00:00:00:99:99", ip_dst="10.0.9.9")
    world.asked = 0
    for _ in range(200):
        world.now += 0.001
        world.send("c1", packet)
    assert world.asked < 50
    world.now += 5.0
    world.network.tick(world.now)
    world.reconcile()
    world.asked = 0
    world.send("c1", packet)
    assert world.asked == 1

"""IPv6 as IPv4: hosts with both, virtual IPs that turn there and back, neighbours answered, counts, limits, paths."""

import struct
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import HOSTS, SWITCHES, VIP, VIP6, World, address, address6, declared, ip, ip6, mac

from cpdb import Destination, Limit, Pair, Reservation, VirtualIp, address_bytes, address_text
from ryu_apps.declared import Declared
from ryu_apps.effects import PacketOut
from ryu_apps.fakes.fake_packets import ArpFields, Packet, Transport
from ryu_apps.guest import Guest
from ryu_apps.network import Network
from ryu_apps.openflow import decode_match, encode_match
from ryu_apps.paths.routing import pair_flows
from ryu_apps.pipeline import PairShare, Rewrite, Share, desired
from ryu_apps.rules import Kind, PortId, Table, cookie, kind_of, number_of, pair_number, virtual_mac
from ryu_apps.services.pairs import PairBudget, Pairs
from ryu_apps.shares import Limits, share
from ryu_apps.status.publishers import node_records
from ryu_apps.telemetry.attribution import PairAttribution
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Arp, Segment
from ryu_apps.topology.hosts import MAX_ADDRESSES, HostTable

ADDRESSES6 = st.binary(min_size=16, max_size=16).map(address_text)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: bytes((raw[0] & 0xFE, *raw[1:])).hex(":"))


def both(affinity: str = "source") -> Declared:
    """A network with one service of each family on the same machines."""
    one = declared((100, 100))
    behind = tuple(Destination(name, address6(name), mac(name), 100) for name in ("s1", "s2"))
    other = VirtualIp(VIP6, "shop6", 10, behind, affinity=affinity)
    return replace(one, virtual_ips={VIP: replace(one.virtual_ips[VIP], affinity=affinity), VIP6: other})


@pytest.fixture(params=["source", "connection"])
def world(request: pytest.FixtureRequest) -> World:
    made = World()
    made.start(both(request.param))
    for name in HOSTS:
        made.advertise(name)
    return made


def to_vip(source: str, **more: object) -> Packet:
    return ip6(source, "s1", eth_dst=virtual_mac(VIP6), ip_dst=VIP6, **more)


@pytest.mark.parametrize(("proto", "flags"), [(6, "S"), (17, "")])
def test_a_connection_is_turned_there_and_back_and_counted(world: World, proto: int, flags: str) -> None:
    ports = Transport(40_000, 80, flags)
    ((server, got),) = world.send("c1", to_vip("c1", ip_proto=proto, transport=ports))
    assert (got.eth_dst, got.ip_dst, got.ip_src) == (mac(server), address6(server), address6("c1"))
    reply = ip6(server, "c1", ip_proto=proto, transport=Transport(80, 40_000, "SA" if flags else ""))
    ((client, back),) = world.send(server, reply)
    assert (client, back.eth_src, back.ip_src) == ("c1", virtual_mac(VIP6), VIP6)
    world.asked = 0
    more = to_vip("c1", ip_proto=proto, transport=Transport(40_000, 80, "A"), size=500)
    assert world.send("c1", more)[0][0] == server
    assert world.asked == 0
    # As many bytes as of IPv4
    four = [ip("c1", "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP, ip_proto=proto, transport=ports), more]
    four[1] = replace(four[0], transport=more.transport, size=500)
    for packet in four:
        world.send("c1", packet)
    assert counted(world, address6("c1"), VIP6) == counted(world, address("c1"), VIP) >= 500


def counted(world: World, source: str, virtual_ip: str) -> int:
    number = pair_number(source, virtual_ip)
    samples = [one for one in world.switches[0x11].samples(world.now) if number_of(one.cookie) == number]
    return sum(one.bytes for one in samples if kind_of(one.cookie) in (Kind.PAIR, Kind.PAIR_SYN))


def test_both_families_of_a_host_are_one_name_and_pairs_of_their_own(world: World) -> None:
    world.send("c1", to_vip("c1"))
    world.send("c1", ip("c1", "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP))
    rows = PairAttribution(world.network)
    talks = [rows.account(cookie(Table.ACCOUNT, Kind.PAIR, one.number)) for one in world.network.services.pairs]
    assert {(talk[0].source, talk[0].virtual_ip) for talk in talks if talk} == {("c1", VIP), ("c1", VIP6)}


def test_who_has_no_name_is_called_by_each_of_its_addresses() -> None:
    world = World()
    world.start(replace(both(), nodes=tuple(one for one in declared().nodes if one.name != "c1")))
    world.advertise("c1")
    host = world.network.topology.hosts.of_address(address6("c1"))
    assert host is not None and host is world.network.topology.hosts.of_address(address("c1"))
    names = world.network.topology.snapshot.directory.names(host)
    assert names == {address("c1"): (address("c1"),), address6("c1"): (address6("c1"),)}


def test_a_limit_of_a_named_source_is_one_of_its_address_in_the_family_of_the_virtual_ip(world: World) -> None:
    world.send("c1", to_vip("c1"))
    limit = Limit(Pair("c1", VIP6), 1250.0)
    wish = Reservation("r", Pair("c2", VIP6), 1e5, (limit,), "test", "", world.now, world.now + 60.0)
    world.network.declare(replace(both(), reservations=(wish,)), world.now)
    world.reconcile()
    sent = sum(len(world.send("c1", to_vip("c1", size=1000))) for _ in range(60))
    # Its bucket holds 200 kbit.
    assert 20 <= sent <= 27
    assert len(world.send("c1", ip("c1", "s1"))) == 1


# ---- neighbours


def asks(sender: str, sender_address: str, target: str) -> bytes:
    return frames.neighbour(Arp(frames.REQUEST, mac(sender), sender_address, "", target), mac(sender), group_of(target))


def group_of(target: str) -> str:
    return (b"\x33\x33\xff" + address_bytes(target)[13:]).hex(":")


def is_sound(data: bytes) -> bool:
    """Whether the checksum of an ICMPv6 message covers it and its pseudo head (RFC 8200, 8.1)."""
    head, body = data[14:54], data[54:]
    covered = head[8:40] + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    return (total & 0xFFFF) + (total >> 16) in (0xFFFF, 0x1FFFE) and int.from_bytes(head[4:6]) == len(body)


def test_switches_answer_for_a_virtual_ip_and_the_controller_where_they_cannot(world: World) -> None:
    question = Packet(mac("c1"), group_of(VIP6), 0x86DD, ip_proto=58, transport=Transport(icmpv6_type=135))
    question = replace(question, ip_src=address6("c1"), arp=ArpFields(1, address6("c1"), VIP6))
    ((host, told),) = world.send("c1", question)
    assert (host, told.eth_src, told.arp) == ("c1", virtual_mac(VIP6), ArpFields(2, VIP6, address6("c1")))
    assert told.transport.icmpv6_type == 136
    world.alive = False
    assert len(world.send("c1", question)) == 1
    data, listens = asks("c1", address6("c1"), VIP6), cookie(Table.ACCOUNT, Kind.LISTEN, pair_number("", VIP6))
    (answer,) = world.network.packet_in(HOSTS["c1"], data, world.now, listens)
    assert isinstance(answer, PacketOut) and answer.ports == (HOSTS["c1"].port,)
    frame = frames.parse(answer.data)
    assert frame is not None and frame.arp == Arp(frames.REPLY, virtual_mac(VIP6), VIP6, mac("c1"), address6("c1"))
    # Solicited and override, and no router
    assert answer.data[58] >> 5 == 0b011 and is_sound(answer.data)


def test_who_would_take_a_virtual_ip_for_its_own_is_told_with_everybody_else(world: World) -> None:
    question = Packet(mac("c2"), group_of(VIP6), 0x86DD, ip_proto=58, transport=Transport(icmpv6_type=135))
    world.alive = False
    assert world.send("c2", replace(question, ip_src="::", arp=ArpFields(1, "::", VIP6))) == []
    listens = world.switches[0x11].asked_by
    (answer,) = world.network.packet_in(HOSTS["c2"], asks("c2", "::", VIP6), world.now, listens)
    assert isinstance(answer, PacketOut)
    assert answer.data[:6].hex(":") == "33:33:00:00:00:01" and answer.data[58] >> 5 == 0b001 and is_sound(answer.data)
    assert world.network.topology.hosts.of_address(VIP6) is None


def test_a_destination_that_answers_as_a_neighbour_is_up(world: World) -> None:
    world.now += 1.0
    asked = {one.data for one in world.network.ask(world.now) if isinstance(one, PacketOut)}
    assert {frames.question(address6("s1"), mac("s1"))} <= asked
    data = frames.question_answer(
        Arp(frames.REQUEST, frames.PROBE_MAC, frames.PROBE_ADDRESS, "", address6("s1")), mac("s1")
    )
    world.network.packet_in(HOSTS["s1"], data, world.now, cookie(Table.ACCOUNT, Kind.LISTEN, 3))
    words = {(one.virtual_ip, one.name): one.health.status for one in world.network.services.destinations.words()}
    assert (words[VIP6, "s1"], words[VIP6, "s2"]) == ("up", "unknown")


@given(ADDRESSES6, ADDRESSES6, MACS, MACS)
def test_neighbour_discovery_is_read_as_it_was_written(sender: str, target: str, one: str, other: str) -> None:
    question = Arp(frames.REQUEST, one, sender, "00:00:00:00:00:00", target)
    data = frames.neighbour(question, one, group_of(target))
    heard, answer = frames.parse(data), frames.question_answer(question, other)
    assert is_sound(data) and is_sound(answer)
    assert (
        heard is not None
        and heard.arp == question
        and heard.ip_dst == address_text(address_bytes("ff02::1:ff00:0")[:13] + address_bytes(target)[13:])
    )
    if sender != "::":
        told = frames.parse(answer)
        assert told is not None and told.arp == Arp(frames.REPLY, other, target, one, sender)


@given(st.binary(max_size=120))
def test_no_frame_of_ipv6_is_too_wild(body: bytes) -> None:
    head = bytes.fromhex("020000000001020000000002" + "86dd")
    frames.parse(head + body)
    frames.parse(head + bytes((0x60, 0, 0, 0, 0, 80, 58, 255)) + body)
    frames.read_segment(head + body)


@given(ADDRESSES6, ADDRESSES6, st.integers(1, 65535), st.binary(max_size=50))
def test_a_probe_of_ipv6_is_read_as_it_was_sent(source: str, to: str, port: int, data: bytes) -> None:
    one = Segment(source, frames.PROBE_PORT, to, port, 7, 9, frames.SYN, data)
    assert frames.read_segment(frames.probe_frame(one, mac("c1"), mac("s1"))) == one


# ---- hosts


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.booleans()), max_size=80))
def test_an_address_is_one_hosts_and_a_host_has_few(words: list[tuple[int, int, bool]]) -> None:
    table, newest = HostTable(), {}
    for number, last, ipv6 in words:
        said = f"fd00::{last:x}" if ipv6 else f"10.0.0.{last}"
        table.learn(mac(f"h{number}"), said, PortId(1, number), 1.0)
        newest[said] = mac(f"h{number}")
        assert (holder := table.of_address(said)) is not None and holder.mac == newest[said]
    for host in table:
        assert len([one for one in host.addresses if ":" not in one]) <= 1
        assert len([one for one in host.addresses if ":" in one]) <= MAX_ADDRESSES
        assert all(table.of_address(one) is host for one in host.addresses)


def test_link_local_addresses_are_nobodys_name() -> None:
    data = frames.neighbour(Arp(frames.REQUEST, mac("c1"), "fe80::1", "", "fd00::9"), mac("c1"), group_of("fd00::9"))
    frame = frames.parse(data)
    assert frame is not None and frame.speaker is None


def test_a_named_host_keeps_its_declared_addresses_and_is_written_down_with_both() -> None:
    world = World()
    nodes = [replace(one, address6=address6("c1")) if one.name == "c1" else one for one in declared().nodes]
    world.start(replace(both(), nodes=tuple(nodes)))
    world.advertise("c1")
    at, place = cookie(Table.ACCOUNT, Kind.LISTEN, 3), HOSTS["c1"]
    other = frames.neighbour(Arp(frames.REPLY, mac("c1"), "fd00::9:9", "", "ff02::1"), mac("c1"), "33:33:00:00:00:01")
    world.network.packet_in(place, other, world.now, at)
    told = {one.name: (one.address, one.address6) for one in node_records(world.network) if one.mac == mac("c1")}
    assert told == {"c1": (address("c1"), address6("c1"))}


def test_both_families_of_two_machines_take_the_same_path_of_a_split() -> None:
    world = World()
    world.start(both())
    for name in ("c1", "c2", "s1", "s2"):
        world.advertise(name)
    for name in ("c1", "c2"):
        world.send(name, to_vip(name))
        world.send(name, ip(name, "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP))
    flows = pair_flows(world.network.topology, world.network.services)
    chosen = {(one.pair.virtual_ip, *one.names): (one.source_address, one.destination_address) for one in flows}
    assert len({key[0] for key in chosen}) == 2
    for (_, *names), ends in chosen.items():
        assert ends == tuple(map(address, names))
    assert {one.key[1] for one in flows} >= {address6("c1"), address("c1"), VIP, VIP6}


def test_a_thousand_hosts_of_both_families_cost_what_their_pairs_are_and_no_more() -> None:
    network, leaf = Network(Pairs(PairBudget(5000), 60.0, 900.0)), SWITCHES["leaf1"]
    network.declare(both(), 0.0)
    for dpid in SWITCHES.values():
        network.topology.switch_up(dpid, dict.fromkeys(range(1, 1200), True), 0.0)
    tracemalloc.start()
    for number in range(1, 1001):
        at, own = PortId(leaf, 100 + number), f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"
        for said in (f"10.1.{number >> 8}.{number & 255}", f"fd00:1::{number:x}", f"fd00:1::1:{number:x}"):
            network.topology.hosts.learn(own, said, at, 1.0)
    for name in HOSTS:
        network.topology.hosts.learn(mac(name), address(name), HOSTS[name], 1.0)
    few = len(desired(share(network, leaf, Limits((), ())), {}).rules)
    for number in range(1, 1001):
        at = PortId(leaf, 100 + number)
        network.services.meet(at, f"10.1.{number >> 8}.{number & 255}", network.services.virtual_ips[VIP], 1.0)
        network.services.meet(at, f"fd00:1::{number:x}", network.services.virtual_ips[VIP6], 1.0)
    rules = desired(share(network, leaf, Limits((), ())), {}).rules
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Of each host one rule, whatever addresses it has; of each pair both counts and its rewriting
    assert few < 1000 + 60 and len(rules) - few == 3 * 2000
    assert memory < 40e6
    # The next one is as cheap as the first.
    network.services.meet(PortId(leaf, 101), "fd00:1::1:1", network.services.virtual_ips[VIP6], 1.0)
    more = desired(share(network, leaf, Limits((), ())), {}).rules
    assert len(more.keys() - rules.keys()) == 3 and not rules.keys() - more.keys()
    assert all(decode_match(encode_match(key.match)) == key.match for key in more)


@pytest.mark.parametrize("guest", [Guest(), Guest(0), Guest(14)])
def test_a_guest_has_the_same_rules_and_leaves_no_question_for_its_virtual_ip_to_others(guest: Guest) -> None:
    steer = Rewrite(address6("c1"), VIP6, address6("s1"), mac("s1"))
    part = Share((VIP6,), {}, PairShare(((address6("c1"), VIP6),), (steer,)), guest=guest)
    rules = desired(part, {}).rules
    asked = [rule for key, rule in rules.items() if key.match.question_for == VIP6 and key.table == Table.ACCOUNT]
    assert len(asked) == 3 and all(rule.goto is None for rule in asked)
    kept = {
        rule.actions[-1].protocol for rule in rules.values() if rule.table == Table.SERVE and len(rule.actions) == 3
    }
    assert kept == {0, 6, 17}
    assert all(decode_match(encode_match(key.match)) == key.match for key in rules)

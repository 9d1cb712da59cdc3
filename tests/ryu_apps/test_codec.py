"""The codec's laws: what was encoded is decoded as it was, and the bytes are those that the framework makes."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from framework_messages import framework_bytes, match_message, serialized
from hypothesis import given, settings
from hypothesis import strategies as st

from cpdb import FIRST_TAG, LAST_TAG, Destination
from ryu_apps.effects import (
    AddGroup,
    AddMeter,
    Change,
    DeleteGroup,
    DeleteMeter,
    DeleteRule,
    ModifyGroup,
    ModifyMeter,
    PutRule,
)
from ryu_apps.framework import offline_datapath, ofproto, parser
from ryu_apps.openflow import (
    EntryFilter,
    MultipartKind,
    Phase,
    check,
    decode_actions,
    decode_groups,
    decode_match,
    decode_meters,
    decode_rules,
    encode_actions,
    encode_barrier,
    encode_change,
    encode_match,
    encode_packet_out,
    encode_request,
    encode_resubmit,
    has_failover,
    max_meters,
)
from ryu_apps.rules import (
    ANY_LABEL,
    BRIDGE_GROUPS,
    CONTROLLER,
    ETH_IPV4,
    ETH_IPV6,
    MULTICAST,
    PORT_MAX,
    PROTO_TCP,
    PROTO_UDP,
    TCP_OPENING,
    Action,
    AnswerArp,
    BucketMatch,
    ChooseDestination,
    Desired,
    DestinationMatch,
    FreshMatch,
    GroupBucket,
    GroupKind,
    Kind,
    LearnConnection,
    LearnNextHop,
    LearnSource,
    Match,
    Meter,
    NoteSeen,
    NoteUp,
    Output,
    PickBucket,
    PopLabel,
    PortMatch,
    PushLabel,
    ResubmitTable,
    Rule,
    SetField,
    SwitchGroup,
    Table,
    ToController,
    ToGroup,
    cookie,
    in_vlan,
)
from ryu_apps.services.buckets import BucketPlacement, divide_buckets, placement_rules
from ryu_apps.switch.reconcile import Holding, difference

NOW = 1000.0
bytes_1, bytes_2, bytes_4 = (st.integers(0, 2 ** (8 * size) - 1) for size in (1, 2, 4))
macs = st.integers(0, 2**48 - 1).map(lambda number: number.to_bytes(6, "big").hex(":"))
ipv4_addresses = bytes_4.map(lambda number: str(IPv4Address(number)))
# Those that mean IPv4 are written in several ways, and no rule of ours has one.
ipv6_addresses = st.integers(2**64, 2**128 - 1).map(lambda number: str(IPv6Address(number)))
addresses = ipv4_addresses | ipv6_addresses
address_pairs = st.tuples(ipv4_addresses, ipv4_addresses) | st.tuples(ipv6_addresses, ipv6_addresses)
labels = st.integers(FIRST_TAG, LAST_TAG)
ports = st.integers(1, PORT_MAX - 1)
xids = bytes_4


def maybe(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | values


bucket_matches = st.builds(lambda first, mask: BucketMatch(first & mask, mask), bytes_4, bytes_4)
matches = st.builds(
    Match,
    in_port=maybe(ports),
    eth_type=maybe(bytes_2),
    eth_src=maybe(macs),
    eth_dst=maybe(macs | st.sampled_from([BRIDGE_GROUPS, MULTICAST])),
    ip_proto=maybe(bytes_1),
    ip_src=maybe(addresses | st.builds(in_vlan, addresses, st.integers(1, 4094))),
    ip_dst=maybe(addresses),
    question_for=maybe(addresses),
    label=maybe(labels | st.just(ANY_LABEL)),
    port_dst=maybe(st.builds(PortMatch, st.sampled_from([PROTO_TCP, PROTO_UDP]), bytes_2)),
    message_type=maybe(bytes_1 | st.just(TCP_OPENING)),
    register=maybe(bucket_matches | st.builds(DestinationMatch, bytes_4) | st.just(FreshMatch())),
).filter(lambda one: one.label is None or one.ip_src is None or (one.label < 0 and "@" not in one.ip_src))
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Output, ports | st.just(CONTROLLER)),
    st.builds(ToGroup, bytes_4),
    st.builds(SetField, st.sampled_from(["eth_src", "eth_dst"]), macs),
    st.builds(SetField, st.sampled_from(["ip_src", "ip_dst"]), addresses),
    st.builds(SetField, st.just("ip_dscp"), st.integers(0, 63)),
    st.builds(SetField, st.just("icmpv6_type"), bytes_1),
    st.builds(AnswerArp, macs, addresses),
    st.builds(PushLabel, labels),
    st.just(PopLabel()),
    st.builds(ResubmitTable, bytes_1),
    st.integers(1, 16).map(lambda bits: PickBucket(1 << bits)),
    st.builds(ChooseDestination, bytes_4),
    st.builds(NoteUp, st.lists(bytes_2, min_size=1, max_size=5).map(tuple), st.integers(0, 16)),
    st.builds(
        lambda protocol, ends, *more: LearnConnection(protocol, *ends, *more),
        st.sampled_from([0, 6, 17]),
        address_pairs,
        macs,
        bytes_4,
        bytes_2,
    ),
    st.builds(LearnSource, bytes_2, eth_type=st.sampled_from([ETH_IPV4, ETH_IPV6])),
    st.builds(LearnNextHop, st.sampled_from([0, 6, 17]), st.sampled_from([ETH_IPV4, ETH_IPV6]), st.integers(1, 0xFFFF)),
    st.just(NoteSeen()),
    st.builds(ToController, bytes_2),
)
several_actions = st.lists(actions, max_size=4).map(tuple)
# In a bucket the framework loses the padding of `learn`, and a switch would not take it there.
bucket_actions = several_actions.filter(
    lambda several: not any(isinstance(action, LearnConnection | LearnNextHop | LearnSource) for action in several)
)
rules = st.builds(
    Rule,
    table=st.sampled_from(Table).map(int),
    priority=bytes_2,
    match=matches,
    actions=several_actions,
    goto=maybe(st.integers(12, 20)),
    meter=maybe(st.integers(60_000, 61_000)),
    cookie=st.builds(cookie, st.sampled_from(Table), st.sampled_from(Kind), st.integers(0, 2**40 - 1)),
    # Whole seconds: a switch knows no others.
    lease_until=maybe(st.integers(1, 65535).map(lambda seconds: NOW + seconds)),
)
meters = st.builds(Meter, st.integers(1, 2**31), bytes_4, bytes_4)
groups = st.one_of(
    st.builds(
        SwitchGroup,
        bytes_4,
        st.just(GroupKind.SELECT),
        st.lists(st.builds(GroupBucket, bucket_actions, bytes_2, maybe(ports)), max_size=3).map(tuple),
    ),
    st.builds(
        SwitchGroup,
        bytes_4,
        st.just(GroupKind.FAST_FAILOVER),
        st.lists(st.builds(GroupBucket, bucket_actions, st.just(0), maybe(ports)), max_size=3).map(tuple),
    ),
)
changes: st.SearchStrategy[Change] = st.one_of(
    rules.map(PutRule),
    rules.map(DeleteRule),
    meters.map(AddMeter),
    meters.map(ModifyMeter),
    st.integers(1, 2**31).map(DeleteMeter),
    groups.map(AddGroup),
    groups.map(ModifyGroup),
    bytes_4.map(DeleteGroup),
)


# ---- equal to the framework's


@given(changes, xids, st.floats(NOW - 1e5, NOW + 1e5))
@settings(max_examples=300)
def test_the_bytes_of_every_change_are_those_of_the_framework(change: Change, xid: int, now: float) -> None:
    assert encode_change(change, now, xid) == framework_bytes(change, now, xid)


@given(st.lists(ports, min_size=1, max_size=4), st.binary(max_size=100), xids)
def test_frames_are_sent_as_the_framework_sends_them(out: list[int], data: bytes, xid: int) -> None:
    def packet_out(in_port: int, to: list[int]) -> bytes:
        sent = [parser.OFPActionOutput(port) for port in to]
        made = parser.OFPPacketOut(
            offline_datapath(), buffer_id=ofproto.OFP_NO_BUFFER, in_port=in_port, actions=sent, data=data
        )
        return serialized(made, xid)

    assert encode_packet_out(out, data, xid) == packet_out(ofproto.OFPP_CONTROLLER, out)
    assert encode_resubmit(7, data, xid) == packet_out(7, [ofproto.OFPP_TABLE])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), bytes_1, xids)
def test_questions_are_those_of_the_framework(number: int, mask: int, table: int, xid: int) -> None:
    datapath, everything = offline_datapath(), (ofproto.OFPP_ANY, ofproto.OFPG_ANY)
    flows = (datapath, 0, table, *everything, number, mask, match_message(Match()))
    theirs = {
        MultipartKind.FLOWS: parser.OFPFlowStatsRequest(*flows),
        MultipartKind.AGGREGATE: parser.OFPAggregateStatsRequest(*flows),
        MultipartKind.TABLES: parser.OFPTableStatsRequest(datapath, 0),
        MultipartKind.TABLE_FEATURES: parser.OFPTableFeaturesStatsRequest(datapath, 0, []),
        MultipartKind.PORTS: parser.OFPPortStatsRequest(datapath, 0, ofproto.OFPP_ANY),
        MultipartKind.GROUPS: parser.OFPGroupDescStatsRequest(datapath, 0),
        MultipartKind.GROUP_FEATURES: parser.OFPGroupFeaturesStatsRequest(datapath, 0),
        MultipartKind.METERS: parser.OFPMeterConfigStatsRequest(datapath, 0, ofproto.OFPM_ALL),
        MultipartKind.METER_FEATURES: parser.OFPMeterFeaturesStatsRequest(datapath, 0),
    }
    assert theirs.keys() == set(MultipartKind)
    for kind, message in theirs.items():
        assert encode_request(kind, xid, EntryFilter(number, mask, table)) == serialized(message, xid)
    assert encode_barrier(xid) == serialized(parser.OFPBarrierRequest(datapath), xid)


def test_our_numbers_are_those_of_the_framework() -> None:
    assert (CONTROLLER, PORT_MAX) == (ofproto.OFPP_CONTROLLER, ofproto.OFPP_MAX)
    assert {kind.name: kind.value for kind in GroupKind} == {
        "SELECT": ofproto.OFPGT_SELECT,
        "FAST_FAILOVER": ofproto.OFPGT_FF,
    }


# ---- decode(encode(x)) == x


@given(matches)
def test_a_match_is_read_as_it_was_written(match: Match) -> None:
    assert decode_match(encode_match(match)) == match


@given(several_actions)
def test_actions_are_read_as_they_were_written_and_in_their_order(several: tuple[Action, ...]) -> None:
    data = encode_actions(several)
    assert decode_actions(data, 0, len(data)) == several


@given(st.lists(rules, max_size=4))
def test_rules_are_read_as_they_were_written(several: list[Rule]) -> None:
    body = b"".join(flow_entry(encode_change(PutRule(rule), NOW, 1)) for rule in several)
    check(multipart(MultipartKind.FLOWS, body), Phase.OPEN)
    assert list(decode_rules(body, NOW)) == several


@given(st.lists(meters, max_size=4))
def test_meters_are_read_as_they_were_written(several: list[Meter]) -> None:
    body = b"".join(meter_entry(encode_change(AddMeter(meter), NOW, 1)) for meter in several)
    check(multipart(MultipartKind.METERS, body), Phase.OPEN)
    assert list(decode_meters(body)) == several


@given(st.lists(groups, max_size=3))
def test_groups_are_read_as_they_were_written(several: list[SwitchGroup]) -> None:
    body = b"".join(group_entry(encode_change(AddGroup(group), NOW, 1)) for group in several)
    check(multipart(MultipartKind.GROUPS, body), Phase.OPEN)
    assert list(decode_groups(body)) == several


@given(rules, st.floats(0, 60_000))
def test_a_lease_ends_when_it_was_to_end_however_old_the_rule_is(rule: Rule, age_s: float) -> None:
    body = flow_entry(encode_change(PutRule(rule), NOW, 1), age_s)
    (read,) = decode_rules(body, NOW + age_s)
    assert read.lease_until == (None if rule.lease_until is None else pytest.approx(rule.lease_until, abs=1e-3))


def test_what_is_not_ours_is_left_out() -> None:
    foreign = bytes.fromhex("000b000800000000") + bytes.fromhex("ffff001000002320 0012000000000000".replace(" ", ""))
    ours = encode_actions((Output(1), PopLabel()))
    data = ours[:16] + foreign + ours[16:]
    assert decode_actions(data, 0, len(data)) == (Output(1), PopLabel())
    all_group = struct.pack("!HBxI", 8, 0, 5)
    assert list(decode_groups(all_group + struct.pack("!HBxI", 8, 1, 6))) == [SwitchGroup(6, GroupKind.SELECT, ())]
    assert list(decode_meters(struct.pack("!HHI", 8, 0, 9))) == [Meter(9, 0, 0)]


def test_what_a_switch_can_do_is_read_from_its_features() -> None:
    for kinds, answer in ((1 << 3, True), (0b0111, False)):
        assert has_failover(struct.pack("!II", kinds, 0) + bytes(32)) is answer
    assert max_meters(struct.pack("!IIIBB2x", 4096, 1 << 1, 0, 1, 0)) == 4096
    assert max_meters(struct.pack("!IIIBB2x", 4096, 0, 0, 1, 0)) == 0


# Written by hand as Open vSwitch 3.1 formats them: fields under Nicira's numbers, a mask of all ones left out.
NICIRA_FIELDS = {
    "0001000c 00010004 0000000c 00000000": Match(register=BucketMatch(12, 0xFFFF_FFFF)),
    "0001000f 00000602 0800 00000c01 06 00": Match(eth_type=0x0800, ip_proto=6),
    "0001001b 80000a02 0800 80001401 06 00014504 0002 0012 0000000000": Match(
        eth_type=0x0800, ip_proto=6, message_type=TCP_OPENING
    ),
}


@pytest.mark.parametrize("text", NICIRA_FIELDS)
def test_fields_under_nicira_s_numbers_are_read_too(text: str) -> None:
    assert decode_match(bytes.fromhex(text.replace(" ", ""))) == NICIRA_FIELDS[text]


def flow_entry(message: bytes, age_s: float = 0.0) -> bytes:
    """An entry of a flow statistics reply that says what this message adds."""
    number, _mask, table, _command, idle, hard, priority = struct.unpack_from("!QQBBHHH", message, 8)
    age = (int(age_s), int(age_s % 1 * 1e9))
    body = message[48:]
    head = struct.pack("!HBxIIHHHH4xQQQ", 48 + len(body), table, *age, priority, idle, hard, 0, number, 0, 0)
    return head + body


def meter_entry(message: bytes) -> bytes:
    """An entry of a meter configuration reply."""
    _command, flags, number = struct.unpack_from("!HHI", message, 8)
    return struct.pack("!HHI", 8 + len(message) - 16, flags, number) + message[16:]


def group_entry(message: bytes) -> bytes:
    """An entry of a group description reply."""
    _command, kind, number = struct.unpack_from("!HBxI", message, 8)
    return struct.pack("!HBxI", 8 + len(message) - 16, kind, number) + message[16:]


def multipart(kind: MultipartKind, body: bytes) -> bytes:
    """A whole reply."""
    return struct.pack("!BBHIHH4x", 4, 19, 16 + len(body), 1, kind, 0) + body


# ---- rules that place connections


@st.composite
def spreads(draw: st.DrawFn) -> BucketPlacement:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True))
    own = draw(st.sampled_from([ipv4_addresses, ipv6_addresses]))
    behind = tuple(Destination(name, draw(own), draw(macs), draw(st.integers(1, 9))) for name in names)
    return BucketPlacement(draw(own), behind, divide_buckets({vm.name: vm.weight for vm in behind}))


@settings(max_examples=40)
@given(spreads())
def test_rules_that_place_connections_are_what_the_framework_makes(spread: BucketPlacement) -> None:
    for rule in placement_rules((spread,), True).values():
        for change in (PutRule(rule), DeleteRule(rule)):
            assert encode_change(change, NOW, 7) == framework_bytes(change, NOW, 7)


@settings(max_examples=40)
@given(spreads())
def test_what_a_switch_reports_is_read_as_what_was_sent(spread: BucketPlacement) -> None:
    sent = placement_rules((spread,), True)
    body = b"".join(flow_entry(framework_bytes(PutRule(rule), NOW, 7)) for rule in sent.values())
    assert Holding.read(decode_rules(body, NOW), (), 60_000).rules == sent


def test_a_change_of_weight_sends_slots_only() -> None:
    behind = tuple(Destination(f"s{n}", f"10.0.0.{n}", f"02:00:00:00:00:{n:02x}", 100) for n in range(8))
    weights = {one.name: 100 for one in behind}
    before = BucketPlacement("10.1.0.1", behind, divide_buckets(weights))
    after = BucketPlacement("10.1.0.1", behind, divide_buckets(weights | {"s3": 50}, before.buckets))
    held = Holding(dict(placement_rules((before,), True)))
    changes = difference(held, Desired(placement_rules((after,), True), {}))
    assert 0 < len(changes) < 40
    assert {change.rule.table for change in changes if isinstance(change, PutRule | DeleteRule)} == {9}


def test_rules_are_counted_by_virtual_ips_and_destinations_never_by_sources() -> None:
    def spread(number: int) -> BucketPlacement:
        behind = tuple(
            Destination(f"s{n}", f"10.{number}.0.{n}", f"02:00:00:00:{number:02x}:0{n}", 100) for n in range(8)
        )
        return BucketPlacement(f"10.{number}.1.1", behind, divide_buckets({one.name: one.weight for one in behind}))

    many = tuple(spread(number) for number in range(50))
    # Each: its entry, its end, 8 slots, 3 x 8 destinations, 8 for answers, 2 to meet sources; and one for all.
    assert len(placement_rules(many, True)) == 50 * 44 + 1
    assert len(placement_rules(many, False)) == 50 * 42

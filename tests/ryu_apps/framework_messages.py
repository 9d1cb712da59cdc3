"""Our changes as the framework's messages: what the codec's bytes are held against."""

import struct
from ipaddress import ip_address
from typing import Any, NamedTuple

from cpdb import FIRST_TAG
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
from ryu_apps.openflow.learn import FIN_IDLE_S, MAX_CONNECTIONS, MAX_MET
from ryu_apps.openflow.messages import lease_s
from ryu_apps.rules import (
    ANY_LABEL,
    BRIDGE_GROUPS,
    ETH_IPV4,
    ETH_IPV6,
    LEARNED,
    MULTICAST,
    OWNER,
    OWNER_MASK,
    OWNER_SHIFT,
    PROTO_TCP,
    PROTO_UDP,
    TCP_OPENING,
    Action,
    AnswerArp,
    BucketMatch,
    ChooseDestination,
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
    PushLabel,
    ResubmitTable,
    Rule,
    SetField,
    SwitchGroup,
    Table,
    ToController,
    ToGroup,
    kind_of,
    virtual_mac,
)

PLAIN = ("in_port", "eth_type", "eth_src", "eth_dst", "ip_proto", "ip_src", "ip_dst")
ANY_VLAN = (ofproto.OFPVID_PRESENT | FIRST_TAG, ofproto.OFPVID_PRESENT | FIRST_TAG)
METER_FLAGS = ofproto.OFPMF_KBPS | ofproto.OFPMF_BURST | ofproto.OFPMF_STATS
GROUP_TYPES = {GroupKind.SELECT: ofproto.OFPGT_SELECT, GroupKind.FAST_FAILOVER: ofproto.OFPGT_FF}
LEARN_PRIORITY = {PROTO_TCP: 20, PROTO_UDP: 20, 0: 10}
PORTS = {PROTO_TCP: ("tcp_src", "tcp_dst"), PROTO_UDP: ("udp_src", "udp_dst")}


def framework_bytes(change: Change, now: float, xid: int) -> bytes:
    """What the framework would send."""
    return serialized(message_of_change(change, now), xid)


def serialized(message: Any, xid: int) -> bytes:
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


def message_of_change(change: Change, now: float) -> Any:
    datapath = offline_datapath()
    match change:
        case PutRule(rule):
            return put_rule(datapath, rule, now)
        case DeleteRule(rule):
            return delete_rule(datapath, rule)
        case AddMeter(meter):
            return put_meter(datapath, ofproto.OFPMC_ADD, meter)
        case ModifyMeter(meter):
            return put_meter(datapath, ofproto.OFPMC_MODIFY, meter)
        case DeleteMeter(number):
            return parser.OFPMeterMod(datapath, ofproto.OFPMC_DELETE, METER_FLAGS, number, [])
        case AddGroup(group):
            return put_group(datapath, ofproto.OFPGC_ADD, group)
        case ModifyGroup(group):
            return put_group(datapath, ofproto.OFPGC_MODIFY, group)
        case DeleteGroup(number):
            return parser.OFPGroupMod(datapath, ofproto.OFPGC_DELETE, ofproto.OFPGT_FF, number, [])


def put_rule(datapath: Any, rule: Rule, now: float) -> Any:
    instructions = []
    if rule.meter is not None:
        instructions.append(parser.OFPInstructionMeter(rule.meter, ofproto.OFPIT_METER))
    if rule.actions:
        actions = [message for action in rule.actions for message in action_messages(action)]
        instructions.append(parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions))
    if rule.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(rule.goto))
    told = ofproto.OFPFF_SEND_FLOW_REM if kind_of(rule.cookie) in (Kind.PAIR, Kind.PAIR_SYN) else 0
    return parser.OFPFlowMod(
        datapath,
        cookie=rule.cookie,
        table_id=rule.table,
        command=ofproto.OFPFC_ADD,
        hard_timeout=lease_s(rule, now),
        priority=rule.priority,
        flags=ofproto.OFPFF_RESET_COUNTS | told,
        match=match_message(rule.match),
        instructions=instructions,
    )


def delete_rule(datapath: Any, rule: Rule) -> Any:
    return parser.OFPFlowMod(
        datapath,
        cookie=OWNER << OWNER_SHIFT,
        cookie_mask=OWNER_MASK,
        table_id=rule.table,
        command=ofproto.OFPFC_DELETE_STRICT,
        priority=rule.priority,
        out_port=ofproto.OFPP_ANY,
        out_group=ofproto.OFPG_ANY,
        match=match_message(rule.match),
    )


def put_meter(datapath: Any, command: int, meter: Meter) -> Any:
    band = parser.OFPMeterBandDrop(meter.rate_kbit_s, meter.burst_kbit)
    return parser.OFPMeterMod(datapath, command, METER_FLAGS, meter.number, [band])


def put_group(datapath: Any, command: int, group: SwitchGroup) -> Any:
    buckets = [bucket_message(bucket, group.kind) for bucket in group.buckets]
    return parser.OFPGroupMod(datapath, command, GROUP_TYPES[group.kind], group.number, buckets)


def bucket_message(bucket: GroupBucket, kind: GroupKind) -> Any:
    watched = ofproto.OFPP_ANY if bucket.watch_port is None else bucket.watch_port
    actions = [message for action in bucket.actions for message in action_messages(action)]
    return parser.OFPBucket(bucket.weight if kind is GroupKind.SELECT else 0, watched, ofproto.OFPG_ANY, actions)


def match_message(match: Match) -> Any:
    plain = {name: value for name in PLAIN if (value := getattr(match, name)) is not None}
    fields = {of_family(name, value): value for name, value in plain.items()}
    if match.port_dst is not None:
        fields[PORTS[match.port_dst.ip_proto][1]] = match.port_dst.port
    if match.message_type == TCP_OPENING:
        fields["tcp_flags"] = (0x002, 0x012)
    elif match.message_type is not None:
        fields["icmpv6_type"] = match.message_type
    if match.eth_dst == BRIDGE_GROUPS:
        fields["eth_dst"] = ("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0")
    if match.eth_dst == MULTICAST:
        fields["eth_dst"] = ("01:00:00:00:00:00", "01:00:00:00:00:00")
    if match.label is not None:
        fields["vlan_vid"] = ANY_VLAN if match.label == ANY_LABEL else ofproto.OFPVID_PRESENT | match.label
    if match.question_for is not None and ":" in match.question_for:
        fields["ipv6_nd_target"] = match.question_for
    elif match.question_for is not None:
        fields |= {"arp_op": 1, "arp_tpa": match.question_for}
    if isinstance(match.register, BucketMatch):
        fields["reg0"] = tuple(match.register)
    if isinstance(match.register, DestinationMatch):
        fields["reg1"] = match.register.number
    if isinstance(match.register, FreshMatch):
        fields["reg14"] = 0
    if match.ip_src and "@" in match.ip_src:
        fields[of_family("ip_src", match.ip_src)], vlan = match.ip_src.split("@")
        fields["vlan_vid"] = ofproto.OFPVID_PRESENT | int(vlan)
    return parser.OFPMatch(**fields)


def action_messages(action: Action) -> list[Any]:
    match action:
        case Output(port):
            return [parser.OFPActionOutput(port, ofproto.OFPCML_NO_BUFFER)]
        case SetField(field, value):
            return [parser.OFPActionSetField(**{of_family(field, value): value})]
        case AnswerArp(mac, address):
            return answer_arp(mac, address)
        case PopLabel():
            return [parser.OFPActionPopVlan()]
        case PushLabel(label):
            vlan = parser.OFPActionSetField(vlan_vid=ofproto.OFPVID_PRESENT | label)
            return [parser.OFPActionPushVlan(0x8100), vlan]
        case ToGroup(number):
            return [parser.OFPActionGroup(number)]
        case ResubmitTable(table):
            return [parser.NXActionResubmitTable(in_port=0xFFF8, table_id=table)]
        case PickBucket(buckets):
            bits = buckets.bit_length() - 2
            return [parser.NXActionMultipath(3, 0xF0EA, 0, buckets - 1, 0, bits, "reg0")]
        case NoteUp(ports, shift):
            return [parser.NXActionBundleLoad(0, 0, 0, 2, len(ports), shift << 6 | 15, "reg0", list(ports))]
        case ChooseDestination(number):
            return [parser.NXActionRegLoad(31, "reg1", number)]
        case NoteSeen():
            return [parser.NXActionRegLoad(31, "reg14", 1)]
        case ToController(number):
            return [parser.NXActionController(0xFFFF, number, ofproto.OFPR_ACTION)]
        case LearnConnection():
            return [learn_there(action), learn_back(action)]
        case LearnNextHop():
            return [learn_next_hop(action)]
        case LearnSource(hold_s, _, eth_type):
            ip, bits = ("ipv4", 32) if eth_type == ETH_IPV4 else ("ipv6", 128)
            ends = (f"{ip}_src", f"{ip}_dst")
            specs = [equal(eth_type, "eth_type", 16), *(same(end, end, bits) for end in ends)]
            return [LimitedLearn.limited(MAX_MET, Table.MEET, specs, 0, hold_s, 1, LEARNED << OWNER_SHIFT)]


def answer_arp(mac: str, address: str) -> list[Any]:
    def move(source: str, to: str, bits: int) -> Any:
        return parser.NXActionRegMove(src_field=source, dst_field=to, n_bits=bits)

    if ":" in address:
        return [
            move("eth_src", "eth_dst", 48),
            parser.OFPActionSetField(eth_src=mac),
            move("ipv6_src", "ipv6_dst", 128),
            parser.OFPActionSetField(ipv6_src=address),
            UnknownField(bytes.fromhex("0019 0010 10000401 02")),
            parser.OFPActionSetField(ipv6_nd_tll=mac),
            UnknownField(bytes.fromhex("0019 0010 10000204 60000000")),
            parser.OFPActionOutput(ofproto.OFPP_IN_PORT),
        ]
    return [
        move("eth_src", "eth_dst", 48),
        parser.OFPActionSetField(eth_src=mac),
        parser.OFPActionSetField(arp_op=2),
        move("arp_sha", "arp_tha", 48),
        parser.OFPActionSetField(arp_sha=mac),
        move("arp_spa", "arp_tpa", 32),
        parser.OFPActionSetField(arp_spa=address),
        parser.OFPActionOutput(ofproto.OFPP_IN_PORT),
    ]


class UnknownField(parser.OFPAction):
    """Sets a field of Open vSwitch's that the framework does not know (ovs-fields(7): ICMPv6 ND)."""

    def __init__(self, plain: bytes) -> None:
        self.plain = plain

    def serialize(self, buf: bytearray, offset: int) -> None:
        buf[offset:] = self.plain.ljust(16, b"\0")
        self.len = 16


class LimitedLearn(parser.NXActionLearn):
    """The framework's `learn` with a limit (NXAST_LEARN2): how many entries of this cookie there may be."""

    _subtype = 45
    limit = 0

    @classmethod
    def limited(cls, limit: int, *what: Any) -> Any:
        made = cls(*what)
        made.limit = limit
        return made

    def serialize_body(self) -> bytearray:
        plain = super().serialize_body()
        after = struct.calcsize(parser.NXActionLearn._fmt_str)
        return bytearray(plain[:after] + self.limit.to_bytes(4, "big") + bytes(4) + plain[after:])


def equal(value: int, field: str, bits: int) -> Any:
    return parser.NXFlowSpecMatch(src=value, dst=(field, 0), n_bits=bits)


def same(source: str, field: str, bits: int) -> Any:
    return parser.NXFlowSpecMatch(src=(source, 0), dst=(field, 0), n_bits=bits)


def load(value: int, field: str, bits: int) -> Any:
    return parser.NXFlowSpecLoad(src=value, dst=(field, 0), n_bits=bits)


def of_family(name: str, value: Any) -> str:
    """The framework's name of an address's field."""
    return name if name not in ("ip_src", "ip_dst") else name.replace("ip", "ipv6" if ":" in value else "ipv4")


def number(mac: str) -> int:
    """A MAC as a number."""
    return int(mac.replace(":", ""), 16)


class Ends(NamedTuple):
    """Names and size of the fields with both addresses of a packet."""

    source: str
    to: str
    bits: int


def ends_of(action: LearnConnection) -> Ends:
    one = action.virtual_ip
    return Ends(of_family("ip_src", one), of_family("ip_dst", one), 128 if ":" in one else 32)


def learn_there(action: LearnConnection) -> Any:
    source, to, bits = ends_of(action)
    ends = [same(source, source, bits), equal(int(ip_address(action.virtual_ip)), to, bits)]
    ends += [same(port, port, 16) for port in PORTS.get(action.protocol, ())]
    written = [load(number(action.mac), "eth_dst", 48), load(int(ip_address(action.address)), to, bits)]
    return learn(action, [*protocol(action), *ends, *written])


def learn_back(action: LearnConnection) -> Any:
    source, to, bits = ends_of(action)
    ends = [equal(int(ip_address(action.address)), source, bits), same(source, to, bits)]
    ports = PORTS.get(action.protocol, ())
    ends += [same(port, other, 16) for port, other in zip(ports, ports[::-1], strict=True)]
    mac = number(virtual_mac(action.virtual_ip))
    written = [load(mac, "eth_src", 48), load(int(ip_address(action.virtual_ip)), source, bits)]
    return learn(action, [*protocol(action), *ends, *written])


def learn_next_hop(action: LearnNextHop) -> Any:
    ip, bits = ("ipv4", 32) if action.eth_type == ETH_IPV4 else ("ipv6", 128)
    specs = [equal(action.eth_type, "eth_type", 16)]
    specs.append(equal(action.protocol, "ip_proto", 8) if action.protocol else same("ip_proto", "ip_proto", 8))
    specs += [same(f"{ip}_{end}", f"{ip}_{end}", bits) for end in ("src", "dst")]
    specs += [same(port, port, 16) for port in PORTS.get(action.protocol, ())]
    specs.append(parser.NXFlowSpecLoad(src=("reg1", 0), dst=("reg1", 0), n_bits=32))
    priority = LEARN_PRIORITY[action.protocol]
    return LimitedLearn.limited(MAX_MET, action.table, specs, action.idle_s, 0, priority, LEARNED << OWNER_SHIFT)


def protocol(action: LearnConnection) -> list[Any]:
    spec = equal(action.protocol, "ip_proto", 8) if action.protocol else same("ip_proto", "ip_proto", 8)
    return [equal(ETH_IPV6 if ":" in action.virtual_ip else ETH_IPV4, "eth_type", 16), spec]


def learn(action: LearnConnection, specs: list[Any]) -> Any:
    priority, mark = LEARN_PRIORITY[action.protocol], LEARNED << OWNER_SHIFT | action.number
    fin_s = FIN_IDLE_S if action.protocol == PROTO_TCP else 0
    what = (Table.AFFINITY, specs, action.idle_s, 0, priority, mark, 2, fin_s)
    return LimitedLearn.limited(2 * MAX_CONNECTIONS, *what)

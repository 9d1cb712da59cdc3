"""Our changes as the framework's messages: what the codec's bytes are held against."""

import struct
from typing import Any

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
    LearnSource,
    Match,
    Meter,
    NoteSeen,
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

PLAIN = ("in_port", "eth_type", "eth_src", "eth_dst", "ip_proto", "ipv4_src", "ipv4_dst")
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
    fields = {name: value for name in PLAIN if (value := getattr(match, name)) is not None}
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
    if match.arp_request_for is not None:
        fields |= {"arp_op": 1, "arp_tpa": match.arp_request_for}
    if isinstance(match.register, BucketMatch):
        fields["reg0"] = tuple(match.register)
    if isinstance(match.register, DestinationMatch):
        fields["reg1"] = match.register.number
    if isinstance(match.register, FreshMatch):
        fields["reg14"] = 0
    if match.ipv4_src and "@" in match.ipv4_src:
        fields["ipv4_src"], vlan = match.ipv4_src.split("@")
        fields["vlan_vid"] = ofproto.OFPVID_PRESENT | int(vlan)
    return parser.OFPMatch(**fields)


def action_messages(action: Action) -> list[Any]:
    match action:
        case Output(port):
            return [parser.OFPActionOutput(port, ofproto.OFPCML_NO_BUFFER)]
        case SetField(field, value):
            return [parser.OFPActionSetField(**{field: value})]
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
        case ChooseDestination(number):
            return [parser.NXActionRegLoad(31, "reg1", number)]
        case NoteSeen():
            return [parser.NXActionRegLoad(31, "reg14", 1)]
        case ToController(number):
            return [parser.NXActionController(0xFFFF, number, ofproto.OFPR_ACTION)]
        case LearnConnection():
            return [learn_there(action), learn_back(action)]
        case LearnSource(hold_s):
            specs = [
                equal(ETH_IPV4, "eth_type", 16),
                same("ipv4_src", "ipv4_src", 32),
                same("ipv4_dst", "ipv4_dst", 32),
            ]
            return [LimitedLearn.limited(MAX_MET, Table.MEET, specs, 0, hold_s, 1, LEARNED << OWNER_SHIFT)]


def answer_arp(mac: str, address: str) -> list[Any]:
    def move(source: str, to: str, bits: int) -> Any:
        return parser.NXActionRegMove(src_field=source, dst_field=to, n_bits=bits)

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


def number(text: str) -> int:
    """An address or MAC as a number."""
    parts = [int(part, 16) for part in text.split(":")] if ":" in text else [int(part) for part in text.split(".")]
    return int.from_bytes(bytes(parts), "big")


def learn_there(action: LearnConnection) -> Any:
    ends = [same("ipv4_src", "ipv4_src", 32), equal(number(action.virtual_ip), "ipv4_dst", 32)]
    ends += [same(port, port, 16) for port in PORTS.get(action.protocol, ())]
    to = [load(number(action.mac), "eth_dst", 48), load(number(action.address), "ipv4_dst", 32)]
    return learn(action, [*protocol(action), *ends, *to])


def learn_back(action: LearnConnection) -> Any:
    ends = [equal(number(action.address), "ipv4_src", 32), same("ipv4_src", "ipv4_dst", 32)]
    ports = PORTS.get(action.protocol, ())
    ends += [same(port, other, 16) for port, other in zip(ports, ports[::-1], strict=True)]
    to = [load(number(virtual_mac(action.virtual_ip)), "eth_src", 48), load(number(action.virtual_ip), "ipv4_src", 32)]
    return learn(action, [*protocol(action), *ends, *to])


def protocol(action: LearnConnection) -> list[Any]:
    spec = equal(action.protocol, "ip_proto", 8) if action.protocol else same("ip_proto", "ip_proto", 8)
    return [equal(ETH_IPV4, "eth_type", 16), spec]


def learn(action: LearnConnection, specs: list[Any]) -> Any:
    priority, mark = LEARN_PRIORITY[action.protocol], LEARNED << OWNER_SHIFT | action.number
    fin_s = FIN_IDLE_S if action.protocol == PROTO_TCP else 0
    what = (Table.AFFINITY, specs, action.idle_s, 0, priority, mark, 2, fin_s)
    return LimitedLearn.limited(2 * MAX_CONNECTIONS, *what)

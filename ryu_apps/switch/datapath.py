"""One switch's connection: translates rule records into OpenFlow 1.3 messages and back. The one place that sends."""

from typing import Any

import structlog

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
from ryu_apps.framework import ofproto, parser
from ryu_apps.rules import (
    CONTROLLER,
    OWNER,
    OWNER_MASK,
    OWNER_SHIFT,
    Action,
    Match,
    Meter,
    Rule,
)
from ryu_apps.switch.action_messages import decode_actions, encode_action
from ryu_apps.switch.group_messages import encode_group, forget_group
from ryu_apps.switch.nicira import read_register_fields, register_fields
from ryu_apps.switch.packing import METER_FLAGS, flags_of, lease_s
from ryu_apps.switch.vlan import read_tag_fields, tag_fields

Seconds = float

_log = structlog.get_logger("ryu_apps.switch.datapath")
# SYN set and ACK clear, as (value, mask)
_SYN = (0x002, 0x012)
_GROUP = ("01:00:00:00:00:00", "01:00:00:00:00:00")
_PLAIN = ("in_port", "eth_type", "eth_src", "eth_dst", "ip_proto", "ipv4_src", "ipv4_dst", "arp_op", "arp_tpa")


def encode_match(match: Match) -> Any:
    """An OFPMatch."""
    fields = {name: value for name in _PLAIN if (value := getattr(match, name)) is not None}
    if match.syn:
        fields["tcp_flags"] = _SYN
    if match.multicast:
        fields["eth_dst"] = _GROUP
    return parser.OFPMatch(**fields, **tag_fields(match), **register_fields(match))


def decode_match(match: Any) -> Match:
    """The inverse of `encode_match`; fields that we never set are left out."""
    fields = dict(match.items())
    known: dict[str, Any] = {name: fields[name] for name in _PLAIN if name in fields}
    if known.get("eth_dst") == _GROUP:
        del known["eth_dst"]
        known["multicast"] = True
    known |= read_tag_fields(fields) | read_register_fields(fields)
    return Match(**known, syn="tcp_flags" in fields or "tcp_flags_nxm" in fields)


def encode_rule(datapath: Any, rule: Rule, now: Seconds) -> Any:
    """An OFPFlowMod that adds the rule with a fresh lease and fresh counters."""
    instructions = []
    if rule.meter is not None:
        instructions.append(parser.OFPInstructionMeter(rule.meter, ofproto.OFPIT_METER))
    if rule.actions:
        actions = [message for action in rule.actions for message in encode_action(action)]
        instructions.append(parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions))
    if rule.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(rule.goto))
    return parser.OFPFlowMod(
        datapath,
        cookie=rule.cookie,
        table_id=rule.table,
        command=ofproto.OFPFC_ADD,
        hard_timeout=lease_s(rule, now),
        priority=rule.priority,
        flags=flags_of(rule),
        match=encode_match(rule.match),
        instructions=instructions,
    )


def decode_rule(stats: Any, now: Seconds) -> Rule:
    """A rule from one entry of a flow statistics reply."""
    actions: list[Action] = []
    goto = meter = None
    for instruction in stats.instructions:
        if instruction.type == ofproto.OFPIT_GOTO_TABLE:
            goto = instruction.table_id
        elif instruction.type == ofproto.OFPIT_METER:
            meter = instruction.meter_id
        elif instruction.type == ofproto.OFPIT_APPLY_ACTIONS:
            actions = decode_actions(instruction.actions)
    age_s = stats.duration_sec + stats.duration_nsec / 1e9
    return Rule(
        stats.table_id,
        stats.priority,
        decode_match(stats.match),
        tuple(actions),
        goto,
        meter,
        stats.cookie,
        now + stats.hard_timeout - age_s if stats.hard_timeout else None,
    )


def decode_meter(config: Any) -> Meter:
    """A meter from one entry of a meter configuration reply."""
    band = config.bands[0] if config.bands else None
    return Meter(config.meter_id, band.rate if band else 0, band.burst_size if band else 0)


def encode_change(datapath: Any, change: Change, now: Seconds) -> Any:
    """The message that makes a change."""
    match change:
        case PutRule(rule):
            return encode_rule(datapath, rule, now)
        case DeleteRule(rule):
            return _delete(datapath, rule)
        case AddMeter(meter):
            return _meter(datapath, ofproto.OFPMC_ADD, meter)
        case ModifyMeter(meter):
            return _meter(datapath, ofproto.OFPMC_MODIFY, meter)
        case DeleteMeter(number):
            return parser.OFPMeterMod(datapath, ofproto.OFPMC_DELETE, METER_FLAGS, number, [])
        case AddGroup(group):
            return encode_group(datapath, ofproto.OFPGC_ADD, group)
        case ModifyGroup(group):
            return encode_group(datapath, ofproto.OFPGC_MODIFY, group)
        case DeleteGroup(number):
            return forget_group(datapath, number)


def _delete(datapath: Any, rule: Rule) -> Any:
    return parser.OFPFlowMod(
        datapath,
        cookie=OWNER << OWNER_SHIFT,
        # Even with the same match and priority, a rule that is not ours stays.
        cookie_mask=OWNER_MASK,
        table_id=rule.table,
        command=ofproto.OFPFC_DELETE_STRICT,
        priority=rule.priority,
        out_port=ofproto.OFPP_ANY,
        out_group=ofproto.OFPG_ANY,
        match=encode_match(rule.match),
    )


def _meter(datapath: Any, command: int, meter: Meter) -> Any:
    band = parser.OFPMeterBandDrop(meter.rate_kbit_s, meter.burst_kbit)
    return parser.OFPMeterMod(datapath, command, METER_FLAGS, meter.number, [band])


assert CONTROLLER == ofproto.OFPP_CONTROLLER

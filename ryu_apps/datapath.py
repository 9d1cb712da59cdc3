"""One switch's connection: translates rule records into OpenFlow 1.3 messages and back. The one place that sends."""

from collections.abc import Iterable
from math import ceil
from typing import Any

import structlog

from ryu_apps.framework import kill, ofproto, parser, spawn, unbounded_queue
from ryu_apps.reconcile import AddMeter, Change, DeleteMeter, DeleteRule, ModifyMeter, PutRule
from ryu_apps.rules import (
    CONTROLLER,
    OWNER,
    OWNER_MASK,
    OWNER_SHIFT,
    Action,
    AnswerArp,
    Kind,
    Match,
    Meter,
    Output,
    Rule,
    SetField,
    kind_of,
)

Seconds = float

_log = structlog.get_logger("ryu_apps.datapath")
# SYN set and ACK clear, as (value, mask)
_SYN = (0x002, 0x012)
_GROUP = ("01:00:00:00:00:00", "01:00:00:00:00:00")
_PLAIN = ("in_port", "eth_type", "eth_src", "eth_dst", "ip_proto", "ipv4_src", "ipv4_dst", "arp_op", "arp_tpa")
_METER_FLAGS = ofproto.OFPMF_KBPS | ofproto.OFPMF_BURST | ofproto.OFPMF_STATS
# OpenFlow keeps timeouts in 16 bits.
_LONGEST_LEASE_S = 65535


def encode_match(match: Match) -> Any:
    """An OFPMatch."""
    fields = {name: value for name in _PLAIN if (value := getattr(match, name)) is not None}
    if match.syn:
        fields["tcp_flags"] = _SYN
    if match.multicast:
        fields["eth_dst"] = _GROUP
    return parser.OFPMatch(**fields)


def decode_match(match: Any) -> Match:
    """The inverse of `encode_match`; fields that we never set are left out."""
    fields = dict(match.items())
    known: dict[str, Any] = {name: fields[name] for name in _PLAIN if name in fields}
    if known.get("eth_dst") == _GROUP:
        del known["eth_dst"]
        known["multicast"] = True
    return Match(**known, syn="tcp_flags" in fields or "tcp_flags_nxm" in fields)


def _encode_action(action: Action) -> list[Any]:
    match action:
        case Output(port):
            return [parser.OFPActionOutput(port, ofproto.OFPCML_NO_BUFFER)]
        case SetField(field, value):
            return [parser.OFPActionSetField(**{field: value})]
        case AnswerArp(mac, address):
            return _answer_arp(mac, address)


def _answer_arp(mac: str, address: str) -> list[Any]:
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


def encode_rule(datapath: Any, rule: Rule, now: Seconds) -> Any:
    """An OFPFlowMod that adds the rule with a fresh lease and fresh counters."""
    instructions = []
    if rule.meter is not None:
        instructions.append(parser.OFPInstructionMeter(rule.meter, ofproto.OFPIT_METER))
    if rule.actions:
        actions = [message for action in rule.actions for message in _encode_action(action)]
        instructions.append(parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions))
    if rule.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(rule.goto))
    flags = ofproto.OFPFF_RESET_COUNTS
    if kind_of(rule.cookie) in (Kind.PAIR, Kind.PAIR_SYN):
        # Its final counters are told when it goes: no byte is lost between two questions.
        flags |= ofproto.OFPFF_SEND_FLOW_REM
    lease_s = 0 if rule.lease_until is None else min(_LONGEST_LEASE_S, max(1, ceil(rule.lease_until - now)))
    return parser.OFPFlowMod(
        datapath,
        cookie=rule.cookie,
        table_id=rule.table,
        command=ofproto.OFPFC_ADD,
        hard_timeout=lease_s,
        priority=rule.priority,
        flags=flags,
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
            actions = _decode_actions(instruction.actions)
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


def _decode_actions(messages: Iterable[Any]) -> list[Action]:
    actions: list[Action] = []
    fields: dict[str, Any] = {}
    for one in messages:
        if one.type == ofproto.OFPAT_OUTPUT and one.port != ofproto.OFPP_IN_PORT:
            actions.append(Output(one.port))
        elif one.type == ofproto.OFPAT_SET_FIELD:
            fields[one.key] = one.value
    if "arp_spa" in fields:
        return [*actions, AnswerArp(fields["eth_src"], fields["arp_spa"])]
    return [*(SetField(name, value) for name, value in fields.items()), *actions]


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
            return parser.OFPMeterMod(datapath, ofproto.OFPMC_DELETE, _METER_FLAGS, number, [])


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
    return parser.OFPMeterMod(datapath, command, _METER_FLAGS, meter.number, [band])


class Wire:
    """Sends to one switch without ever waiting: a green thread of its own drains the queue."""

    def __init__(self, datapath: Any, most: int = 100_000) -> None:
        self.dpid: int = datapath.id
        self._datapath = datapath
        self._queue = unbounded_queue()
        self._most = most
        self._thread = spawn(self._drain)

    def _drain(self) -> None:
        while True:
            message = self._queue.get()
            self._datapath.send_msg(message)

    def close(self) -> None:
        """Stops sending; what is still queued is lost with the connection."""
        kill(self._thread)

    def _send(self, message: Any) -> int:
        if self._queue.qsize() > self._most:
            _log.warning("switch does not read, connection closed", dpid=self.dpid, queued=self._queue.qsize())
            self._datapath.close()
        xid: int = self._datapath.set_xid(message)
        self._queue.put(message)
        return xid

    def change(self, change: Change, now: Seconds) -> int:
        """Sends one change, returns its transaction number."""
        return self._send(encode_change(self._datapath, change, now))

    def barrier(self) -> int:
        """Asks to be told when everything so far is done."""
        return self._send(parser.OFPBarrierRequest(self._datapath))

    def out(self, ports: Iterable[int], data: bytes) -> None:
        """Sends a frame out of ports."""
        actions = [parser.OFPActionOutput(port) for port in ports]
        self._packet_out(ofproto.OFPP_CONTROLLER, actions, data)

    def resubmit(self, port: int, data: bytes) -> None:
        """Puts a frame through the switch's tables as if it had just come in at `port`: it is counted there."""
        self._packet_out(port, [parser.OFPActionOutput(ofproto.OFPP_TABLE)], data)

    def _packet_out(self, port: int, actions: list[Any], data: bytes) -> None:
        message = parser.OFPPacketOut(
            self._datapath, buffer_id=ofproto.OFP_NO_BUFFER, in_port=port, actions=actions, data=data
        )
        self._send(message)

    def ask_rules(self, cookie: int = 0, mask: int = 0, table: int = ofproto.OFPTT_ALL) -> int:
        """Asks for flow statistics, restricted by cookie and table."""
        message = parser.OFPFlowStatsRequest(
            self._datapath, 0, table, ofproto.OFPP_ANY, ofproto.OFPG_ANY, cookie, mask, parser.OFPMatch()
        )
        return self._send(message)

    def ask_ports(self) -> int:
        """Asks for the counters of all ports."""
        return self._send(parser.OFPPortStatsRequest(self._datapath, 0, ofproto.OFPP_ANY))

    def ask_meters(self) -> tuple[int, int]:
        """Asks what meters the switch can have, and which it has."""
        return (
            self._send(parser.OFPMeterFeaturesStatsRequest(self._datapath, 0)),
            self._send(parser.OFPMeterConfigStatsRequest(self._datapath, 0, ofproto.OFPM_ALL)),
        )


assert CONTROLLER == ofproto.OFPP_CONTROLLER

"""Whole messages of ours as bytes, and rules, meters and groups from what a switch reports; OpenFlow 1.3.5, 7.3."""

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from math import ceil
from typing import NamedTuple

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
from ryu_apps.openflow.actions import (
    decode_actions,
    decode_instructions,
    encode_actions,
    encode_instructions,
    encode_meter_instruction,
    encode_part_output,
)
from ryu_apps.openflow.fields import decode_match, encode_match
from ryu_apps.openflow.walks import padded
from ryu_apps.rules import (
    CONTROLLER,
    OWNER,
    OWNER_MASK,
    OWNER_SHIFT,
    GroupBucket,
    GroupKind,
    Kind,
    Match,
    Meter,
    ResubmitTable,
    Rule,
    SwitchGroup,
    kind_of,
)

Seconds = float

_VERSION = 4
_PACKET_OUT, _FLOW_MOD, _GROUP_MOD, _MULTIPART_REQUEST, _BARRIER_REQUEST, _METER_MOD = 13, 14, 15, 18, 20, 29
_ROLE_REQUEST = 24
_EXPERIMENTER, _NICIRA, _SET_CONTROLLER_ID = 4, 0x2320, 20
_ADD, _MODIFY, _DELETE, _DELETE_STRICT = 0, 1, 2, 4
_SEND_FLOW_REMOVED, _RESET_COUNTS = 1, 4
# Rates in kbit/s, with a burst, and counted; 7.3.4.4
_METER_FLAGS = 1 | 4 | 8
_DROP_BAND = 1
_TOLD = frozenset((Kind.PAIR, Kind.PAIR_SYN))
_NO_BUFFER = _ANY = _ALL_METERS = 0xFFFFFFFF
ALL_TABLES = 0xFF
_PORT_TABLE = 0xFFFFFFF9
# OpenFlow keeps timeouts in 16 bits.
_MAX_LEASE_S = 65535

_HEAD = struct.Struct("!BBHI").pack
_FLOW = struct.Struct("!BBHIQQBBHHHIIIH2x")
_FLOW_ENTRY = struct.Struct("!HBxIIHHH6xQQQ")
_METER_HEAD = struct.Struct("!BBHIHHI")
_BAND = struct.Struct("!HHII4x")
_METER_ENTRY = struct.Struct("!HHI")
_GROUP_HEAD = struct.Struct("!BBHIHBxI")
_GROUP_ENTRY = struct.Struct("!HBxI")
_GROUP_BUCKET = struct.Struct("!HHII4x")
_PACKET_OUT_HEAD = struct.Struct("!BBHIIIH6x")
_MULTIPART = struct.Struct("!BBHIHH4x").pack
_FLOW_FILTER = struct.Struct("!B3xII4xQQ").pack
_METER_FEATURES = struct.Struct("!IIIBB2x")
_CONTROLLER_ID = struct.Struct("!II6xH").pack
_NUMBER = struct.Struct("!I4x").pack
_ROLE = struct.Struct("!BBHII4xQ")


class MultipartKind(IntEnum):
    """What a multipart request asks for, and its reply tells; 7.3.5."""

    FLOWS = 1
    AGGREGATE = 2
    TABLES = 3
    PORTS = 4
    GROUPS = 7
    GROUP_FEATURES = 8
    METERS = 10
    METER_FEATURES = 11
    TABLE_FEATURES = 12


class ControllerRole(IntEnum):
    """What a controller is to a switch; 7.3.9. AS_IT_IS only asks."""

    AS_IT_IS = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


class EntryFilter(NamedTuple):
    """Which flow entries are asked for: those with these bits in their cookie, in this table."""

    cookie: int = 0
    mask: int = 0
    table: int = ALL_TABLES


def encode_role(role: ControllerRole, generation: int, xid: int) -> bytes:
    """Asks to be taken for that; a switch refuses a generation that is older than the newest it knows. 7.3.9."""
    return _ROLE.pack(_VERSION, _ROLE_REQUEST, _ROLE.size, xid, role, generation)


def lease_s(rule: Rule, now: Seconds) -> int:
    """The hard timeout of a rule in whole seconds, 0 for none."""
    return 0 if rule.lease_until is None else min(_MAX_LEASE_S, max(1, ceil(rule.lease_until - now)))


def _flags(rule: Rule) -> int:
    # Of a pair's entry the final counters are told when it goes: no byte is lost between two questions.
    return _RESET_COUNTS | _SEND_FLOW_REMOVED if kind_of(rule.cookie) in _TOLD else _RESET_COUNTS


def encode_change(change: Change, now: Seconds, xid: int) -> bytes:
    """The message that makes a change. A rule gets a fresh lease and fresh counters."""
    match change:
        case PutRule(rule):
            return _put_rule(rule, now, xid)
        case DeleteRule(rule):
            return _delete_rule(rule, xid)
        case AddMeter(meter):
            return _put_meter(_ADD, meter, xid)
        case ModifyMeter(meter):
            return _put_meter(_MODIFY, meter, xid)
        case DeleteMeter(number):
            return _METER_HEAD.pack(_VERSION, _METER_MOD, _METER_HEAD.size, xid, _DELETE, _METER_FLAGS, number)
        case AddGroup(group):
            return _group_mod(_ADD, group, xid)
        case ModifyGroup(group):
            return _group_mod(_MODIFY, group, xid)
        case DeleteGroup(number):
            return _group_mod(_DELETE, SwitchGroup(number, GroupKind.FAST_FAILOVER, ()), xid)


def _put_rule(rule: Rule, now: Seconds, xid: int) -> bytes:
    meter = b"" if rule.meter is None else encode_meter_instruction(rule.meter)
    body = encode_match(rule.match) + meter + encode_instructions(rule.actions, rule.goto)
    head = _FLOW.pack(
        _VERSION, _FLOW_MOD, _FLOW.size + len(body), xid, rule.cookie, 0, rule.table, _ADD, 0, lease_s(rule, now),
        rule.priority, _NO_BUFFER, 0, 0, _flags(rule),
    )  # fmt: skip
    return head + body


def _delete_rule(rule: Rule, xid: int) -> bytes:
    match = encode_match(rule.match)
    # Even with the same match and priority, a rule that is not ours stays: the cookie must be one of ours.
    head = _FLOW.pack(
        _VERSION, _FLOW_MOD, _FLOW.size + len(match), xid, OWNER << OWNER_SHIFT, OWNER_MASK, rule.table,
        _DELETE_STRICT, 0, 0, rule.priority, _NO_BUFFER, _ANY, _ANY, 0,
    )  # fmt: skip
    return head + match


def _put_meter(command: int, meter: Meter, xid: int) -> bytes:
    size = _METER_HEAD.size + _BAND.size
    head = _METER_HEAD.pack(_VERSION, _METER_MOD, size, xid, command, _METER_FLAGS, meter.number)
    return head + _BAND.pack(_DROP_BAND, _BAND.size, meter.rate_kbit_s, meter.burst_kbit)


def _group_mod(command: int, group: SwitchGroup, xid: int) -> bytes:
    body = b"".join(_encode_bucket(bucket, group.kind) for bucket in group.buckets)
    size = _GROUP_HEAD.size + len(body)
    return _GROUP_HEAD.pack(_VERSION, _GROUP_MOD, size, xid, command, group.kind, group.number) + body


def _encode_bucket(bucket: GroupBucket, kind: GroupKind) -> bytes:
    actions = encode_actions(bucket.actions)
    weight = bucket.weight if kind is GroupKind.SELECT else 0
    watched = _ANY if bucket.watch_port is None else bucket.watch_port
    return _GROUP_BUCKET.pack(_GROUP_BUCKET.size + len(actions), weight, watched, _ANY) + actions


# ---- questions, and frames


def encode_barrier(xid: int) -> bytes:
    """Asks to be told when everything so far is done; 7.3.8."""
    return _HEAD(_VERSION, _BARRIER_REQUEST, 8, xid)


def encode_controller_id(number: int, xid: int) -> bytes:
    """Names this connection, so that actions can send packets to it alone; nicira-ext.h, NXT_SET_CONTROLLER_ID."""
    return _HEAD(_VERSION, _EXPERIMENTER, 24, xid) + _CONTROLLER_ID(_NICIRA, _SET_CONTROLLER_ID, number)


def encode_packet_out(ports: Iterable[int], data: bytes, xid: int) -> bytes:
    """Sends a frame out of ports; 7.3.7."""
    return _packet_out(CONTROLLER, b"".join(map(encode_part_output, ports)), data, xid)


def encode_resubmit(port: int, data: bytes, xid: int) -> bytes:
    """Puts a frame through the switch's tables as if it had just come in at `port`."""
    return _packet_out(port, encode_part_output(_PORT_TABLE), data, xid)


def _packet_out(in_port: int, actions: bytes, data: bytes, xid: int) -> bytes:
    size = _PACKET_OUT_HEAD.size + len(actions) + len(data)
    head = _PACKET_OUT_HEAD.pack(_VERSION, _PACKET_OUT, size, xid, _NO_BUFFER, in_port, len(actions))
    return head + actions + data


def encode_request(kind: MultipartKind, xid: int, flows: EntryFilter = EntryFilter()) -> bytes:
    """Asks for everything of a kind, of flow entries for those that pass the filter; 7.3.5."""
    body = b""
    if kind in (MultipartKind.FLOWS, MultipartKind.AGGREGATE):
        body = _FLOW_FILTER(flows.table, _ANY, _ANY, flows.cookie, flows.mask) + encode_match(Match())
    elif kind in (MultipartKind.PORTS, MultipartKind.METERS):
        body = _NUMBER(_ANY)
    return _MULTIPART(_VERSION, _MULTIPART_REQUEST, 16 + len(body), xid, kind, 0) + body


# ---- what a switch reports: bodies of sound replies, after their 16-byte header


def decode_rules(body: bytes, now: Seconds) -> Iterator[Rule]:
    """The rules of a flow statistics reply; leases end by the clock of `now`. 7.3.5.2."""
    at = 0
    while at < len(body):
        length, table, age_s, age_ns, priority, _idle, hard_s, cookie, *_ = _FLOW_ENTRY.unpack_from(body, at)
        match_at = at + _FLOW_ENTRY.size
        after = match_at + padded(int.from_bytes(body[match_at + 2 : match_at + 4]))
        does = decode_instructions(body, after, at + length)
        lease = now + hard_s - (age_s + age_ns / 1e9) if hard_s else None
        match = decode_match(body, match_at)
        yield Rule(table, priority, match, does.actions, does.goto, does.meter, cookie, lease)
        at += length


class WireEntry(NamedTuple):
    """Anybody's flow entry: the bytes that it counted, its match as it was sent, and the tables it leads to."""

    table: int
    priority: int
    cookie: int
    age_s: Seconds
    size: int
    match: bytes
    leads_to: frozenset[int]


def decode_entries(body: bytes) -> Iterator[WireEntry]:
    """The entries of a flow statistics reply, whoever made them. 7.3.5.2."""
    at = 0
    while at < len(body):
        length, table, age_s, age_ns, priority, _, _, cookie, _, counted = _FLOW_ENTRY.unpack_from(body, at)
        match_at = at + _FLOW_ENTRY.size
        after = match_at + padded(int.from_bytes(body[match_at + 2 : match_at + 4]))
        does = decode_instructions(body, after, at + length)
        leads_to = {one.table for one in does.actions if isinstance(one, ResubmitTable)}
        leads_to |= set() if does.goto is None else {does.goto}
        match = body[match_at:after]
        yield WireEntry(table, priority, cookie, age_s + age_ns / 1e9, counted, match, frozenset(leads_to))
        at += length


def decode_meters(body: bytes) -> Iterator[Meter]:
    """The meters of a meter configuration reply, each with its first band; 7.3.5.13."""
    at = 0
    while at < len(body):
        length, _flags, number = _METER_ENTRY.unpack_from(body, at)
        rate = burst = 0
        if length > _METER_ENTRY.size:
            _, _, rate, burst = _BAND.unpack_from(body, at + _METER_ENTRY.size)
        yield Meter(number, rate, burst)
        at += length


def decode_groups(body: bytes) -> Iterator[SwitchGroup]:
    """The groups of a group description reply, without those of types that are never ours; 7.3.5.10."""
    at = 0
    while at < len(body):
        length, kind, number = _GROUP_ENTRY.unpack_from(body, at)
        if kind in GroupKind._value2member_map_:
            buckets = _decode_buckets(body[at + _GROUP_ENTRY.size : at + length], GroupKind(kind))
            yield SwitchGroup(number, GroupKind(kind), tuple(buckets))
        at += length


def _decode_buckets(data: bytes, kind: GroupKind) -> Iterator[GroupBucket]:
    at = 0
    while at < len(data):
        length, weight, watched, _group = _GROUP_BUCKET.unpack_from(data, at)
        actions = decode_actions(data, at + _GROUP_BUCKET.size, at + length)
        is_select = kind is GroupKind.SELECT
        yield GroupBucket(actions, weight if is_select else 0, None if watched == _ANY else watched)
        at += length


def has_failover(body: bytes) -> bool:
    """Whether a group features reply names fast failover; 7.3.5.11."""
    return bool(int.from_bytes(body[:4]) & 1 << GroupKind.FAST_FAILOVER)


def max_meters(body: bytes) -> int:
    """How many meters a switch can have by its meter features reply, 0 when it has no kind of band; 7.3.5.14."""
    count, bands, *_ = _METER_FEATURES.unpack_from(body)
    return int(count) if bands else 0


_TABLE_BYTES = 24


def count_tables(body: bytes) -> int:
    """How many tables a switch has, by its table statistics reply: those from 0 on without a gap; 7.3.5.4."""
    numbers = {body[at] for at in range(0, len(body), _TABLE_BYTES)}
    return next(n for n in range(len(numbers) + 1) if n not in numbers) or 1


def max_entries(body: bytes) -> dict[int, int]:
    """How many entries each table of a table features reply has room for; 7.3.5.5."""
    found, at = {}, 0
    while at < len(body):
        length, table, entries = int.from_bytes(body[at : at + 2]), body[at + 2], body[at + 60 : at + 64]
        found[table] = int.from_bytes(entries)
        at += length
    return found

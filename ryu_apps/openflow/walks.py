"""Walks matches, instructions, actions and buckets down to the last nested length; OpenFlow 1.3.5, 7.2.3 to 7.2.5."""

import struct
from enum import StrEnum

from cpdb import ForepathError


class MalformedReason(StrEnum):
    """What kind of wrong a refused message is; the name under which refusals are counted."""

    VERSION = "version"
    TYPE = "type"
    PHASE = "phase"
    LENGTH = "length"
    VALUE = "value"
    SIZE = "size"


class MalformedMessage(ForepathError):
    """A peer sent something that no OpenFlow 1.3 switch may send."""

    def __init__(self, reason: MalformedReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def bad_length(what: str, length: int, at: int) -> MalformedMessage:
    """A length that does not fit: what has it, which it is, and where in the message or body it stands."""
    return MalformedMessage(MalformedReason.LENGTH, f"{what}: length {length} at byte {at} does not fit")


def bad_value(what: str, value: int, at: int) -> MalformedMessage:
    """A type or kind that a switch may not send there."""
    return MalformedMessage(MalformedReason.VALUE, f"{what} {value} at byte {at} is not one of OpenFlow 1.3")


_HEAD = struct.Struct("!HH").unpack_from
_FIELD = struct.Struct("!I").unpack_from
_MATCH_OXM = 1
_BASIC = 0x8000
_EXPERIMENTER = 0xFFFF
# A field may be there once, so a sound match is short; what is longer only keeps a parser busy.
_MAX_FIELDS = 256
# Bytes of the value of each field of class OFPXMC_OPENFLOW_BASIC, in the order of their numbers; 7.2.3.7, table 12
_WIDTHS: tuple[int, ...] = (
    4, 4, 8, 6, 6, 2, 2, 1, 1, 1, 1, 4, 4, 2, 2, 2, 2, 2, 2, 1, 1, 2, 4, 4, 6, 6, 16, 16, 4, 1, 1, 16, 6, 6,
    4, 1, 1, 3, 8, 2,
)  # fmt: skip


def padded(length: int) -> int:
    """`length` up to the next multiple of 8."""
    return (length + 7) & ~7


def walk_match(data: bytes, at: int, end: int, marks: list[int]) -> int:
    """Walks the ofp_match at `at`, which must end with its padding at or before `end`; returns where it ends.

    Positions of all bytes that decide the structure (types, lengths, field headers) are appended to `marks`. Raises
    MalformedMessage. OpenFlow 1.3.5, 7.2.3.1.
    """
    if at + 4 > end:
        raise bad_length("match", end - at, at)
    kind, length = _HEAD(data, at)
    if kind != _MATCH_OXM:
        raise bad_value("match type", kind, at)
    if length < 4 or at + padded(length) > end:
        raise bad_length("match", length, at)
    marks.extend(range(at, at + 4))
    here, stop, count = at + 4, at + length, 0
    while here < stop:
        here = walk_field(data, here, stop, marks)
        count += 1
    if count > _MAX_FIELDS:
        raise MalformedMessage(MalformedReason.VALUE, f"match at byte {at} has {count} fields, more than {_MAX_FIELDS}")
    return at + padded(length)


def walk_field(data: bytes, at: int, end: int, marks: list[int]) -> int:
    """Walks one OXM field (header, value, mask) that must end at or before `end`; returns where it ends. 7.2.3.2."""
    if at + 4 > end:
        raise bad_length("match field", end - at, at)
    header: int = _FIELD(data, at)[0]
    length = header & 0xFF
    stop = at + 4 + length
    if stop > end:
        raise bad_length("match field", length, at)
    taken = 0
    if header >> 16 == _EXPERIMENTER:
        # The experimenter's number and, in the style of ONF EXT-256, a type of its own; 7.2.3.8
        taken = 6 if length >= 6 and not header >> 9 & 0x7F else 4
    width = (length - taken) >> (header >> 8 & 1)
    if width <= 0 or (header >> 8 & 1 and (length - taken) & 1) or not _is_width(header, width):
        raise bad_length("match field", length, at)
    marks.extend(range(at, at + 4 + taken))
    return stop


def _is_width(header: int, width: int) -> bool:
    number = header >> 9 & 0x7F
    return header >> 16 != _BASIC or number >= len(_WIDTHS) or width == _WIDTHS[number]


def match_fields(match: bytes) -> dict[int, bytes]:
    """The unmasked fields of a sound match (`walk_match` accepts it): class << 7 | field -> value, as on the wire."""
    (length,) = struct.unpack_from("!H", match, 2)
    found: dict[int, bytes] = {}
    at = 4
    while at < length:
        (header,) = _FIELD(match, at)
        stop = at + 4 + (header & 0xFF)
        if not header >> 8 & 1:
            found[header >> 9] = match[at + 4 : stop]
        at = stop
    return found


_NICIRA_HEAD = struct.Struct("!IH").unpack_from
# Length of each action of fixed size; 7.2.5. Output, TTLs, VLAN, MPLS and PBB tags, queue, group.
_FIXED = {0: 16} | dict.fromkeys((11, 12, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 27), 8)
_SET_FIELD = 25
# Instructions of fixed size: goto table, write metadata, clear actions, meter; 7.2.4
_INSTRUCTIONS = {1: 8, 2: 24, 5: 8, 6: 8}
_WITH_ACTIONS = (3, 4)
_NICIRA = 0x2320
_LEARN, _CONNTRACK, _CONTROLLER2 = 16, 35, 37
# Nicira's actions of variable size are short; what is longer only keeps a parser busy.
_MAX_NICIRA_BYTES = 4096
_USER_DATA, _LAST_PROPERTY = 3, 4
_DEEPEST = 4


def walk_instructions(data: bytes, at: int, end: int, marks: list[int]) -> None:
    """Walks instructions that must fill [at, end) exactly, appending the positions that decide the structure.

    Raises MalformedMessage. OpenFlow 1.3.5, 7.2.4.
    """
    while at < end:
        kind, length = _tlv("instruction", data, at, end)
        marks.extend(range(at, at + 4))
        if kind in _WITH_ACTIONS:
            walk_actions(data, at + 8, at + length, marks)
        elif kind != _EXPERIMENTER and _INSTRUCTIONS.get(kind) != length:
            raise bad_length(f"instruction {kind}", length, at)
        at += length


def walk_actions(data: bytes, at: int, end: int, marks: list[int], depth: int = 0) -> None:
    """Walks actions that must fill [at, end) exactly. Raises MalformedMessage. OpenFlow 1.3.5, 7.2.5."""
    if depth > _DEEPEST:
        raise MalformedMessage(MalformedReason.VALUE, f"actions within actions, {depth} deep, at byte {at}")
    while at < end:
        kind, length = _tlv("action", data, at, end)
        marks.extend(range(at, at + 4))
        if kind == _SET_FIELD:
            stop = walk_field(data, at + 4, at + length, marks)
            if padded(stop - at) != length:
                raise bad_length("set-field action", length, at)
        elif kind == _EXPERIMENTER:
            _walk_experimenter(data, at, length, depth)
            marks.extend(range(at + 4, at + length))
        elif kind not in _FIXED:
            raise bad_value("action type", kind, at)
        elif _FIXED[kind] != length:
            raise bad_length(f"action {kind}", length, at)
        at += length


def _tlv(what: str, data: bytes, at: int, end: int) -> tuple[int, int]:
    # Type and length of something that is at least 8 bytes long and a multiple of 8.
    if at + 8 > end:
        raise bad_length(what, end - at, at)
    kind, length = _HEAD(data, at)
    if length < 8 or length & 7 or at + length > end:
        raise bad_length(what, length, at)
    return kind, length


def _walk_experimenter(data: bytes, at: int, length: int, depth: int) -> None:
    # 7.2.5.8 leaves the body to the experimenter. Nicira's is known to Ryu, and in three places Ryu would loop there.
    if length < 16:
        return
    experimenter, subtype = _NICIRA_HEAD(data, at + 4)
    if experimenter != _NICIRA or subtype not in (_LEARN, _CONNTRACK, _CONTROLLER2):
        return
    if length > _MAX_NICIRA_BYTES:
        raise bad_length(f"Nicira action {subtype}", length, at)
    if subtype == _CONNTRACK:
        if length < 24:
            raise bad_length("connection tracking action", length, at)
        walk_actions(data, at + 24, at + length, [], depth + 1)
    elif subtype == _CONTROLLER2:
        _walk_properties(data, at + 16, at + length)


def _walk_properties(data: bytes, at: int, end: int) -> None:
    # Properties of Nicira's controller action: type, length, value, padded to 8. Ryu takes all but one kind for 8 bytes
    # long and loses its way behind anything else, down to a length of 0.
    while at < end:
        if at + 8 > end:
            raise bad_length("controller action's property", end - at, at)
        kind, length = _HEAD(data, at)
        if kind > _LAST_PROPERTY:
            raise bad_value("controller action's property", kind, at)
        fits = length > 4 if kind == _USER_DATA else 4 <= length <= 8
        if not fits or at + padded(length) > end:
            raise bad_length("controller action's property", length, at)
        at += padded(length)


def walk_buckets(data: bytes, at: int, end: int) -> None:
    """Walks the buckets of a group that must fill [at, end) exactly. Raises MalformedMessage. 7.3.4.2."""
    while at < end:
        if at + 16 > end:
            raise bad_length("bucket", end - at, at)
        (length,) = struct.unpack_from("!H", data, at)
        if length < 16 or length & 7 or at + length > end:
            raise bad_length("bucket", length, at)
        walk_actions(data, at + 16, at + length, [])
        at += length

"""Walks the match of a flow entry, packet-in or flow-removed message, field by field; OpenFlow 1.3.5, 7.2.3."""

import struct

from ryu_apps.openflow.malformed import MalformedMessage, Reason, bad_length, bad_value

_HEAD = struct.Struct("!HH").unpack_from
_FIELD = struct.Struct("!I").unpack_from
_MATCH_OXM = 1
_BASIC = 0x8000
_EXPERIMENTER = 0xFFFF
# A field may be there once, so a sound match is short; what is longer only keeps a parser busy.
_MOST_FIELDS = 256
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
    if count > _MOST_FIELDS:
        raise MalformedMessage(Reason.VALUE, f"match at byte {at} has {count} fields, more than {_MOST_FIELDS}")
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

"""Walks actions, instructions and buckets; OpenFlow 1.3.5, 7.2.4 and 7.2.5, and Nicira's actions that hold others."""

import struct

from ryu_apps.openflow.malformed import MalformedMessage, Reason, bad_length, bad_value
from ryu_apps.openflow.match import padded, walk_field

_HEAD = struct.Struct("!HH").unpack_from
_NICIRA_HEAD = struct.Struct("!IH").unpack_from
# Length of each action of fixed size; 7.2.5. Output, TTLs, VLAN, MPLS and PBB tags, queue, group.
_FIXED = {0: 16} | dict.fromkeys((11, 12, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 27), 8)
_SET_FIELD = 25
_EXPERIMENTER = 0xFFFF
# Instructions of fixed size: goto table, write metadata, clear actions, meter; 7.2.4
_INSTRUCTIONS = {1: 8, 2: 24, 5: 8, 6: 8}
_WITH_ACTIONS = (3, 4)
_NICIRA = 0x2320
_LEARN, _CONNTRACK, _CONTROLLER2 = 16, 35, 37
# Nicira's actions of variable size are short; what is longer only keeps a parser busy.
_MOST_NICIRA_BYTES = 4096
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
        raise MalformedMessage(Reason.VALUE, f"actions within actions, {depth} deep, at byte {at}")
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
    if length > _MOST_NICIRA_BYTES:
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

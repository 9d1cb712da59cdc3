"""Tells entries of the same build apart from others at the speed of C: only the first of each build is walked."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ryu_apps.openflow.actions import walk_instructions
from ryu_apps.openflow.malformed import bad_length
from ryu_apps.openflow.match import walk_match

_LENGTH = struct.Struct("!H").unpack_from
# ofp_flow_stats: 48 bytes of counters, then the match; OpenFlow 1.3.5, 7.3.5.2
_MATCH_AT = 48
_LEAST = 56


@dataclass(frozen=True, slots=True)
class Shape:
    """How one build of flow entry looks: the bytes at `marks` decide it, and every entry with these same bytes is sound
    because this one was walked."""

    length: int
    match_at: int
    match_bytes: int
    marks: list[int]
    pick: Callable[[bytes, int], tuple[bytes, ...]]
    template: tuple[bytes, ...]


class Shapes:
    """The builds seen so far in one reply."""

    def __init__(self) -> None:
        self._known: dict[int, list[Shape]] = {}

    def at(self, body: bytes, at: int) -> Shape:
        """The shape of the entry at `at`. Raises MalformedMessage when the entry is not sound."""
        left = len(body) - at
        if left < _LEAST:
            raise bad_length("flow entry", left, at)
        (length,) = _LENGTH(body, at)
        if length > left:
            raise bad_length("flow entry", length, at)
        known = self._known.setdefault(length, [])
        for shape in known:
            if shape.pick(body, at) == shape.template:
                return shape
        shape = _walk(body, at, length)
        # A hostile reply of many builds must not make the search long.
        if len(known) < 4:
            known.append(shape)
        return shape

    @staticmethod
    def goes_on(shape: Shape, body: bytes, at: int) -> bool:
        """Whether one more whole entry of this shape follows the one at `at`."""
        following = at + shape.length
        return following + shape.length <= len(body) and shape.pick(body, following) == shape.template


def _walk(body: bytes, at: int, length: int) -> Shape:
    # 7.3.5.2: the length of the entry, its match, and instructions that fill the rest.
    if length < _LEAST or length & 7:
        raise bad_length("flow entry", length, at)
    end, marks = at + length, [at, at + 1]
    start = walk_match(body, at + _MATCH_AT, end, marks)
    walk_instructions(body, start, end, marks)
    within = [mark - at for mark in marks]
    pick = struct.Struct(_format(within)).unpack_from
    return Shape(length, _MATCH_AT, start - at - _MATCH_AT, within, pick, pick(body, at))


def _format(marks: list[int]) -> str:
    # Consecutive marks become one string of bytes, what lies between them is skipped.
    parts, end = ["!"], 0
    start = stop = marks[0]
    for mark in [*marks[1:], -1]:
        if mark == stop + 1:
            stop = mark
            continue
        parts.append(f"{start - end}x{stop + 1 - start}s")
        end, start, stop = stop + 1, mark, mark
    return "".join(parts)

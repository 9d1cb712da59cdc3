"""Reads statistics replies into columns: counters and cookie, no object an entry; OpenFlow 1.3.5, 7.3.5.

All numbers are as the switch sent them. All ones (2**64 - 1) stands for a counter that the switch does not keep.
"""

import struct
import sys
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from itertools import repeat
from operator import add, mul
from typing import Self

from ryu_apps.openflow.walks import bad_length, walk_instructions, walk_match

_SWAP = sys.byteorder == "little"
_LENGTH = struct.Struct("!H").unpack_from


def numbers(code: str, data: bytes) -> "array[int]":
    """All big-endian unsigned numbers of `data`; `code` is array's, "Q" for 8 bytes, "I" for 4, "H" for 2."""
    found = array(code, data)
    if _SWAP:
        found.byteswap()
    return found


def ages(seconds: "array[int]", nanoseconds: "array[int]") -> "array[float]":
    """Both parts of a duration in one number, in seconds."""
    return array("d", map(add, seconds, map(mul, nanoseconds, repeat(1e-9))))


def same_ahead(data: bytes, at: int, length: int, marks: list[int]) -> int:
    """How many entries of `length` bytes follow each other from `at` on with the same bytes at all `marks`.

    `marks` are positions within an entry; both bytes of the entry's own length must be among them. The first entry
    counts, so the answer is at least 1 when one entry fits.
    """
    count = (len(data) - at) // length
    for mark in marks:
        if count == 1:
            break
        column = data[at + mark : at + count * length : length]
        count = len(column) - len(column.lstrip(column[:1]))
    return count


def runs(what: str, data: bytes, field: int, min_bytes: int) -> "list[tuple[int, int, int]]":
    """(at, length, count) of runs of entries of one length that fill `data` exactly.

    `field` is where in an entry its length stands, `min_bytes` its shortest sound length. Raises MalformedMessage.
    """
    found = []
    at, end = 0, len(data)
    while at < end:
        if at + min_bytes > end:
            raise bad_length(what, end - at, at)
        (length,) = _LENGTH(data, at + field)
        if length < min_bytes or at + length > end:
            raise bad_length(what, length, at)
        count = same_ahead(data, at, length, [field, field + 1])
        found.append((at, length, count))
        at += count * length
    return found


# ofp_flow_stats: 48 bytes of counters, then the match; OpenFlow 1.3.5, 7.3.5.2
_MATCH_AT = 48
_MIN_ENTRY_BYTES = 56


@dataclass(frozen=True, slots=True)
class Shape:
    """How one build of flow entry looks: the bytes at `marks` decide it, and every entry with these same bytes is sound
    because this one was walked.
    """

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
        if left < _MIN_ENTRY_BYTES:
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
    if length < _MIN_ENTRY_BYTES or length & 7:
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


# The name `bytes` means a counter below.
Raw = bytes
_PORT_BYTES = 112
_QUEUE_BYTES = 40
_COUNTED_BYTES = 40
_BUCKET_BYTES = 16


def _wide() -> "array[int]":
    return array("Q")


def _narrow() -> "array[int]":
    return array("I")


@dataclass(slots=True, kw_only=True)
class StatisticsColumns:
    """What all statistics have: one row an entry, and how long the thing has existed."""

    seconds: "array[int]" = field(default_factory=_narrow)
    nanoseconds: "array[int]" = field(default_factory=_narrow)

    @property
    def age_s(self) -> "array[float]":
        """How long each entry has existed, in seconds."""
        return ages(self.seconds, self.nanoseconds)

    def __len__(self) -> int:
        return len(self.seconds)

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """One after the other, in a new object."""
        whole = cls()
        for part in parts:
            for one in fields(cls):
                getattr(whole, one.name).extend(getattr(part, one.name))
        return whole


@dataclass(slots=True, kw_only=True)
class FlowColumns(StatisticsColumns):
    """Flow entries. `matches` holds each entry's ofp_match as sent, padding included, when they were asked for."""

    cookie: "array[int]" = field(default_factory=_wide)
    packets: "array[int]" = field(default_factory=_wide)
    bytes: "array[int]" = field(default_factory=_wide)
    matches: list[Raw] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class PortColumns(StatisticsColumns):
    """Ports."""

    number: "array[int]" = field(default_factory=_narrow)
    rx_packets: "array[int]" = field(default_factory=_wide)
    tx_packets: "array[int]" = field(default_factory=_wide)
    rx_bytes: "array[int]" = field(default_factory=_wide)
    tx_bytes: "array[int]" = field(default_factory=_wide)
    rx_dropped: "array[int]" = field(default_factory=_wide)
    tx_dropped: "array[int]" = field(default_factory=_wide)
    rx_errors: "array[int]" = field(default_factory=_wide)
    tx_errors: "array[int]" = field(default_factory=_wide)


@dataclass(slots=True, kw_only=True)
class QueueColumns(StatisticsColumns):
    """Queues of ports; `errors` are packets dropped because the queue overflowed."""

    port: "array[int]" = field(default_factory=_narrow)
    queue: "array[int]" = field(default_factory=_narrow)
    bytes: "array[int]" = field(default_factory=_wide)
    packets: "array[int]" = field(default_factory=_wide)
    errors: "array[int]" = field(default_factory=_wide)


@dataclass(slots=True, kw_only=True)
class MeterColumns(StatisticsColumns):
    """Meters: what came in, and what all bands together dropped or marked."""

    number: "array[int]" = field(default_factory=_narrow)
    flows: "array[int]" = field(default_factory=_narrow)
    packets: "array[int]" = field(default_factory=_wide)
    bytes: "array[int]" = field(default_factory=_wide)
    band_packets: "array[int]" = field(default_factory=_wide)
    band_bytes: "array[int]" = field(default_factory=_wide)


@dataclass(slots=True, kw_only=True)
class GroupColumns(StatisticsColumns):
    """Groups; their buckets' own counters are checked and left."""

    number: "array[int]" = field(default_factory=_narrow)
    references: "array[int]" = field(default_factory=_narrow)
    packets: "array[int]" = field(default_factory=_wide)
    bytes: "array[int]" = field(default_factory=_wide)


def decode_flow_stats(body: bytes, matches: bool = False) -> FlowColumns:
    """Decodes the entries that fill `body`, the reply after its 16-byte header. OpenFlow 1.3.5, 7.3.5.2.

    Every nested length (match fields, instructions, actions) is checked on the way. Raises MalformedMessage.
    """
    columns, shapes = FlowColumns(), Shapes()
    at, end = 0, len(body)
    while at < end:
        shape = shapes.at(body, at)
        count = 1
        if shapes.goes_on(shape, body, at):
            count = same_ahead(body, at, shape.length, shape.marks)
        stop = at + count * shape.length
        _take_flows(columns, body[at:stop], shape.length)
        if matches:
            first, size = at + shape.match_at, shape.match_bytes
            columns.matches += [body[here : here + size] for here in range(first, stop, shape.length)]
        at = stop
    return columns


def _take_flows(columns: FlowColumns, run: bytes, length: int) -> None:
    wide, narrow = numbers("Q", run), numbers("I", run)
    columns.cookie += wide[3 :: length // 8]
    columns.packets += wide[4 :: length // 8]
    columns.bytes += wide[5 :: length // 8]
    columns.seconds += narrow[1 :: length // 4]
    columns.nanoseconds += narrow[2 :: length // 4]


def decode_port_stats(body: bytes) -> PortColumns:
    """Decodes port statistics. Raises MalformedMessage. OpenFlow 1.3.5, 7.3.5.6."""
    _whole("port statistics", body, _PORT_BYTES)
    wide, narrow = numbers("Q", body), numbers("I", body)
    return PortColumns(
        seconds=narrow[26::28],
        nanoseconds=narrow[27::28],
        number=narrow[0::28],
        rx_packets=wide[1::14],
        tx_packets=wide[2::14],
        rx_bytes=wide[3::14],
        tx_bytes=wide[4::14],
        rx_dropped=wide[5::14],
        tx_dropped=wide[6::14],
        rx_errors=wide[7::14],
        tx_errors=wide[8::14],
    )


def decode_queue_stats(body: bytes) -> QueueColumns:
    """Decodes queue statistics. Raises MalformedMessage. OpenFlow 1.3.5, 7.3.5.8."""
    _whole("queue statistics", body, _QUEUE_BYTES)
    wide, narrow = numbers("Q", body), numbers("I", body)
    return QueueColumns(
        seconds=narrow[8::10],
        nanoseconds=narrow[9::10],
        port=narrow[0::10],
        queue=narrow[1::10],
        bytes=wide[1::5],
        packets=wide[2::5],
        errors=wide[3::5],
    )


def decode_meter_stats(body: bytes) -> MeterColumns:
    """Decodes meter statistics. Raises MalformedMessage. OpenFlow 1.3.5, 7.3.5.12."""
    columns = MeterColumns()
    for at, length, count in runs("meter statistics", body, 4, _COUNTED_BYTES):
        bands = _parts("meter statistics", length, at)
        run = body[at : at + count * length]
        wide, narrow = numbers("Q", run), numbers("I", run)
        step = length // 8
        columns.number += narrow[0 :: step * 2]
        columns.flows += narrow[3 :: step * 2]
        columns.packets += wide[2::step]
        columns.bytes += wide[3::step]
        columns.seconds += narrow[8 :: step * 2]
        columns.nanoseconds += narrow[9 :: step * 2]
        columns.band_packets += _summed(wide, 5, step, bands, count)
        columns.band_bytes += _summed(wide, 6, step, bands, count)
    return columns


def decode_group_stats(body: bytes) -> GroupColumns:
    """Decodes group statistics. Raises MalformedMessage. OpenFlow 1.3.5, 7.3.5.9."""
    columns = GroupColumns()
    for at, length, count in runs("group statistics", body, 0, _COUNTED_BYTES):
        _parts("group statistics", length, at)
        run = body[at : at + count * length]
        wide, narrow = numbers("Q", run), numbers("I", run)
        step = length // 8
        columns.number += narrow[1 :: step * 2]
        columns.references += narrow[2 :: step * 2]
        columns.packets += wide[2::step]
        columns.bytes += wide[3::step]
        columns.seconds += narrow[8 :: step * 2]
        columns.nanoseconds += narrow[9 :: step * 2]
    return columns


def _whole(what: str, body: bytes, size: int) -> None:
    if len(body) % size:
        raise bad_length(what, len(body) % size, len(body) // size * size)


def _parts(what: str, length: int, at: int) -> int:
    # Bands and buckets alike are two 8-byte counters behind 40 bytes.
    if (length - _COUNTED_BYTES) % _BUCKET_BYTES:
        raise bad_length(what, length, at)
    return (length - _COUNTED_BYTES) // _BUCKET_BYTES


def _summed(wide: "array[int]", first: int, step: int, bands: int, count: int) -> "array[int]":
    if not bands:
        return array("Q", bytes(8 * count))
    columns = (wide[first + 2 * band :: step] for band in range(bands))
    # A hostile sum must not grow beyond what a column can hold.
    return array("Q", (min(sum(row), 2**64 - 1) for row in zip(*columns, strict=True)))

"""Reads statistics replies into columns: counters and cookie, no object an entry; OpenFlow 1.3.5, 7.3.5.

All numbers are as the switch sent them. All ones (2**64 - 1) stands for a counter that the switch does not keep.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Self

from ryu_apps.openflow.columns import ages, numbers, runs, same_ahead
from ryu_apps.openflow.malformed import bad_length
from ryu_apps.openflow.shapes import Shapes

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
class Columns:
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
class FlowColumns(Columns):
    """Flow entries. `matches` holds each entry's ofp_match as sent, padding included, when they were asked for."""

    cookie: "array[int]" = field(default_factory=_wide)
    packets: "array[int]" = field(default_factory=_wide)
    bytes: "array[int]" = field(default_factory=_wide)
    matches: list[Raw] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class PortColumns(Columns):
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
class QueueColumns(Columns):
    """Queues of ports; `errors` are packets dropped because the queue overflowed."""

    port: "array[int]" = field(default_factory=_narrow)
    queue: "array[int]" = field(default_factory=_narrow)
    bytes: "array[int]" = field(default_factory=_wide)
    packets: "array[int]" = field(default_factory=_wide)
    errors: "array[int]" = field(default_factory=_wide)


@dataclass(slots=True, kw_only=True)
class MeterColumns(Columns):
    """Meters: what came in, and what all bands together dropped or marked."""

    number: "array[int]" = field(default_factory=_narrow)
    flows: "array[int]" = field(default_factory=_narrow)
    packets: "array[int]" = field(default_factory=_wide)
    bytes: "array[int]" = field(default_factory=_wide)
    band_packets: "array[int]" = field(default_factory=_wide)
    band_bytes: "array[int]" = field(default_factory=_wide)


@dataclass(slots=True, kw_only=True)
class GroupColumns(Columns):
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

"""Communications in bulk: everything that one observer read at one moment, in columns, and how those are packed.

Block: version (1 byte), type codes of bytes, packets and connections (3), whether flags follow (1), padding (3), rows
(uint32), then zlib of the columns, each padded to 8 bytes. Every column takes the narrowest unsigned type that fits.
"""

import struct
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cpdb.model import Seconds

if TYPE_CHECKING:
    Column = memoryview[int]

IMPLAUSIBLE = 1


class FlowKey(NamedTuple):
    """Who communicates with which virtual IP, and which destination answers (None: not known).

    Make each one once and keep it: they are looked up by the million.
    """

    source: str
    virtual_ip: str
    destination: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one observer read at one moment, in columns of equal length.

    With `complete`, a flow key that this observer reported before and that is not listed said nothing: a batch is also
    the proof of silence, so quiet pairs cost nothing.

    `t` ends the interval. Columns are array('q'); `flags` is array('B') (bit 0: implausible, keep out of training).
    `sampling` N: counted from 1 in N packets. (`writer`, `seq`) is unique: written twice, it is stored once;
    a batch without a writer is always stored. Raises ValueError when the columns differ in length.
    """

    observer: str
    t: Seconds
    interval_s: Seconds
    flow_keys: Sequence[FlowKey]
    bytes: "array[int]"
    packets: "array[int]"
    connections: "array[int]"
    flags: "array[int] | None" = None
    sampling: int | None = None
    complete: bool = False
    writer: str = ""
    seq: int = 0

    def __post_init__(self) -> None:
        count = len(self.flow_keys)
        columns = (self.bytes, self.packets, self.connections, self.flags)
        if any(column is not None and len(column) != count for column in columns):
            raise ValueError(f"{self.observer}: columns of a batch differ in length")


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as read back: flow keys by number, columns as memoryviews of the narrowest unsigned type that fits.

    `np.asarray(column)` gives the right dtype without copying; `key_ids` is always uint32. `flags` is None when
    no row has one.
    """

    id: int
    observer: str
    t: Seconds
    interval_s: Seconds
    key_ids: "Column"
    bytes: "Column"
    packets: "Column"
    connections: "Column"
    flags: "Column | None"
    sampling: int | None
    complete: bool


VERSION = 1
HEAD = struct.Struct("<B3s?3xI")
ALIGN = 8
# Higher levels take three to six times as long and save two per cent.
LEVEL = 1
WIDTHS = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"), (1 << 64, "Q"))
SIZES = {code: array(code).itemsize for _, code in WIDTHS}


class Columns(NamedTuple):
    """The columns of one batch; `flags` is None when no row has one."""

    key_ids: "Column"
    bytes: "Column"
    packets: "Column"
    connections: "Column"
    flags: "Column | None"


def pack(key_ids: "array[int]", counts: Sequence["Sequence[int]"], flags: "Sequence[int] | None") -> bytes:
    """One block from the flow keys' numbers (array 'I'), the counts (bytes, packets, connections) and flags.

    Raises ValueError when a count is negative or above 64 bits.
    """
    columns = [_narrow(column) for column in counts]
    codes = "".join(column.typecode for column in columns).encode()
    parts = [key_ids, *columns]
    flagged = flags is not None and any(flags)
    if flagged:
        parts.append(array("B", flags or ()))
    head = HEAD.pack(VERSION, codes, flagged, len(key_ids))
    return head + zlib.compress(b"".join(_padded(part) for part in parts), LEVEL)


def unpack(block: bytes) -> Columns:
    """The columns of a block. Raises ValueError when it is torn or of another version."""
    try:
        version, codes, flagged, count = HEAD.unpack_from(block)
        raw = memoryview(zlib.decompress(memoryview(block)[HEAD.size :]))
    except (struct.error, zlib.error) as error:
        raise ValueError(f"a stored batch is torn: {error}") from error
    if version != VERSION:
        raise ValueError(f"a stored batch has version {version}, this program reads {VERSION}")
    columns, at = [], 0
    for code in "I" + codes.decode() + "B" * flagged:
        size = count * SIZES[code]
        columns.append(raw[at : at + size].cast(code))
        at += size + -size % ALIGN
    return Columns(columns[0], columns[1], columns[2], columns[3], columns[4] if flagged else None)


def _narrow(values: Sequence[int]) -> "array[int]":
    most = max(values, default=0)
    code = next((code for limit, code in WIDTHS if most < limit), "Q")
    try:
        return array(code, values)
    except OverflowError as error:
        raise ValueError(f"a count is negative or above 64 bits: {error}") from error


def _padded(column: "array[int]") -> bytes:
    raw = column.tobytes()
    return raw + bytes(-len(raw) % ALIGN)

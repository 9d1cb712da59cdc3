"""Communications in bulk: everything that one observer read at one moment, in columns instead of rows."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cpdb.records import Seconds

if TYPE_CHECKING:
    Column = memoryview[int]

IMPLAUSIBLE = 1


class Talk(NamedTuple):
    """Who talks to which virtual IP, and which destination answers (None: not known). Make each one once, keep it."""

    source: str
    virtual_ip: str
    destination: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one observer read at one moment, in columns of equal length.

    With `complete`, a talk that this observer reported before and that is not listed said nothing: a batch is also
    the proof of silence, so quiet pairs cost nothing.

    `t` ends the interval. Columns are array('q'); `flags` is array('B') (bit 0: implausible, keep out of training).
    `sampling` N: counted from 1 in N packets. (`writer`, `seq`) is unique: written twice, it is stored once;
    a batch without a writer is always stored. Raises ValueError when the columns differ in length.
    """

    observer: str
    t: Seconds
    interval_s: Seconds
    talks: Sequence[Talk]
    bytes: "array[int]"
    packets: "array[int]"
    connections: "array[int]"
    flags: "array[int] | None" = None
    sampling: int | None = None
    complete: bool = False
    writer: str = ""
    seq: int = 0

    def __post_init__(self) -> None:
        count = len(self.talks)
        columns = (self.bytes, self.packets, self.connections, self.flags)
        if any(column is not None and len(column) != count for column in columns):
            raise ValueError(f"{self.observer}: columns of a batch differ in length")


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as read back: talks by number, columns as memoryviews of the narrowest unsigned type that fits.

    `np.asarray(column)` gives the right dtype without copying; `talk_ids` is always uint32. `flags` is None when
    no row has one.
    """

    id: int
    observer: str
    t: Seconds
    interval_s: Seconds
    talk_ids: "Column"
    bytes: "Column"
    packets: "Column"
    connections: "Column"
    flags: "Column | None"
    sampling: int | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rolled-up row: what a talk said within the `covered_s` measured seconds that ended in (t - step_s, t]."""

    talk: Talk
    t: int
    step_s: int
    covered_s: float
    bytes: int
    packets: int
    connections: int
    peak_bytes_per_s: float

"""Keeps what was measured lately as arrays and reads only what is new; what comes late finds its place as well.

Two windows that hold the same rows answer alike, whenever and in how many parts they read them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpdb import FlowKey, LinkLoad, Pair, Seconds, Store, StoredBatch, VmLoad

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# A structured array: a row a load, a field a column.
LoadRows = NDArray[np.void]
UNKNOWN = -1


@dataclass(slots=True, eq=False)
class FlowNames:
    """What flow keys' numbers stand for: pairs and destinations, themselves by number, and observers. Grows only."""

    pairs: list[Pair] = field(default_factory=list)
    destinations: dict[str, int] = field(default_factory=dict)
    observers: dict[str, int] = field(default_factory=dict)
    pair_of: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    destination_of: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _pairs: dict[Pair, int] = field(default_factory=dict)

    def learn(self, keys: Mapping[int, FlowKey], most: int) -> None:
        """Takes in the flow keys with numbers up to `most`."""
        fresh = [keys.get(number) for number in range(len(self.pair_of), most + 1)]
        found = [(UNKNOWN, UNKNOWN) if key is None else self._placed(key) for key in fresh]
        columns = np.array(found, dtype=np.int64).reshape(-1, 2).T
        self.pair_of, self.destination_of = (
            np.concatenate(both) for both in zip((self.pair_of, self.destination_of), columns, strict=True)
        )

    def _placed(self, key: FlowKey) -> tuple[int, int]:
        pair = Pair(key.source, key.virtual_ip)
        number = self._pairs.setdefault(pair, len(self.pairs))
        if number == len(self.pairs):
            self.pairs.append(pair)
        return number, self.destinations.setdefault(key.destination, len(self.destinations)) if key.destination else -1


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Communications of a stretch of time as parallel arrays.

    `t`, `interval_s`, `observer` and `complete` are by batch, in the order of time; the rest by row: the batch that it
    is in, pair and destination by number (UNKNOWN: no machine is named), what was said.
    """

    names: FlowNames
    t: Floats
    interval_s: Floats
    observer: Ints
    complete: Bools
    batch: Ints
    pair: Ints
    destination: Ints
    bytes: Floats
    connections: Floats

    @classmethod
    def of(cls, batches: Sequence[StoredBatch], names: FlowNames) -> "Traffic":
        """Of batches in the order of (t, id), whose flow keys are known to `names`."""
        key = _joined([one.key_ids for one in batches]).astype(np.int64)
        return cls(
            names,
            np.array([one.t for one in batches], dtype=np.float64),
            np.array([one.interval_s for one in batches], dtype=np.float64),
            np.array([names.observers[one.observer] for one in batches], dtype=np.int64),
            np.array([one.complete for one in batches], dtype=np.bool_),
            np.repeat(np.arange(len(batches)), [len(one.key_ids) for one in batches]),
            names.pair_of[key],
            names.destination_of[key],
            _joined([one.bytes for one in batches]).astype(np.float64),
            _joined([one.connections for one in batches]).astype(np.float64),
        )

    def listed(self) -> "Listed":
        """Which observer listed which pair, and since when."""
        code = self.observer[self.batch] * len(self.names.pairs) + self.pair
        found, row = np.unique(code, return_index=True)
        return Listed(found // max(1, len(self.names.pairs)), self.pair[row], row, self.batch[row])


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """Parallel arrays: an observer, a pair that it listed, and the row and the batch in which it did so first."""

    observer: Ints
    pair: Ints
    row: Ints
    batch: Ints


def _joined(columns: Sequence[Any]) -> NDArray[Any]:
    return np.concatenate([np.asarray(one) for one in columns]) if columns else np.zeros(0, dtype=np.int64)


def sum_by(number: Ints, weights: Any, count: int) -> Floats:
    """Sums of the weights of each number below `count`."""
    # Of nothing at all numpy's own sum is an integer.
    return np.bincount(number, weights, minlength=count).astype(np.float64, copy=False)


class TrafficWindow:
    """The batches of the last `window_s`; each is read once."""

    def __init__(self, window_s: Seconds) -> None:
        self.names = FlowNames()
        self._window_s = window_s
        self._read_up_to = 0
        self._now = -np.inf
        self._batches: list[StoredBatch] = []

    def read(self, store: Store, now: Seconds) -> None:
        """Takes in what is new, and lets go of what is older than the window. Raises StoreError."""
        if now < self._now:  # a clock that went back, or a replay: what was let go of is needed again
            self._batches, self._read_up_to = [], 0
        self._now = now
        fresh = store.facts.batches(self._read_up_to, now - self._window_s)
        if fresh:
            self._read_up_to = fresh[-1].id
            self._name(store, fresh)
        kept = [one for one in self._batches if one.t > now - self._window_s]
        self._batches = sorted([*kept, *fresh], key=lambda one: (one.t, one.id))

    def _name(self, store: Store, fresh: Iterable[StoredBatch]) -> None:
        most = max((max(one.key_ids, default=0) for one in fresh), default=0)
        if most >= len(self.names.pair_of):
            self.names.learn(store.facts.flow_keys(), most)
        for one in fresh:
            self.names.observers.setdefault(one.observer, len(self.names.observers))

    def between(self, since: Seconds, until: Seconds) -> Traffic:
        """What ended in (since, until]."""
        first, last = (bisect_right(self._batches, t, key=lambda one: one.t) for t in (since, until))
        return Traffic.of(self._batches[first:last], self.names)


MACHINE_ROW = np.dtype(
    [
        ("id", "i8"), ("t", "f8"), ("vm", "i4"), ("host", "i4"), ("running", "?"), ("used", "f8"), ("limit", "f8"),
        ("vcpus", "i4"), ("memory_used", "i8"), ("memory_limit", "i8"), ("dirty", "f8"),
    ]
)  # fmt: skip
LINK_ROW = np.dtype(
    [
        ("id", "i8"), ("t", "f8"), ("link", "i4"), ("interval_s", "f8"), ("bytes", "f8"), ("packets", "f8"),
        ("drops", "f8"),
    ]
)  # fmt: skip
RUNNING = "running"


class LoadWindow:
    """The loads of one kind of the last `window_s`; each is read once. What they are about is numbered in `names`."""

    def __init__(self, kind: type[VmLoad] | type[LinkLoad], row: np.dtype[np.void], window_s: Seconds) -> None:
        self.names: dict[Any, int] = {}
        self._kind, self._row, self._window_s = kind, row, window_s
        self._read_up_to = 0
        self._now = -np.inf
        self._parts: list[tuple[Seconds, LoadRows]] = []

    def read(self, store: Store, now: Seconds) -> None:
        """Takes in what is new, and lets go of what is older than the window. Raises StoreError."""
        if now < self._now:
            self._parts, self._read_up_to = [], 0
        self._now = now
        for part in store.facts.load_parts(self._kind, self._read_up_to, now - self._window_s):
            self.take(part)
        self._parts = [one for one in self._parts if one[0] > now - self._window_s]

    def take(self, rows: Sequence[Sequence[Any]]) -> None:
        """Takes in rows of (id, *fields of the record)."""
        if rows:
            packed = np.empty(len(rows), dtype=self._row)
            self._fill(packed, list(zip(*rows, strict=True)))
            self._read_up_to = max(self._read_up_to, int(packed["id"].max()))
            self._parts.append((float(packed["t"].max()), packed))

    def _fill(self, packed: LoadRows, columns: Sequence[Sequence[Any]]) -> None:
        raise NotImplementedError

    def _numbers(self, names: Iterable[Any]) -> list[int]:
        return [self.names.setdefault(name, len(self.names)) for name in names]

    def between(self, since: Seconds, until: Seconds) -> LoadRows:
        """What was measured in (since, until], in the order of (t, id)."""
        parts = [rows for newest, rows in self._parts if newest > since]
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=self._row)
        t = rows["t"]
        if len(t) and not (t[1:] >= t[:-1]).all():
            rows = rows[np.lexsort((rows["id"], t))]
            t = rows["t"]
        return rows[slice(*np.searchsorted(t, (since, until), side="right"))]


class MachineWindow(LoadWindow):
    """What machines used lately."""

    def __init__(self, window_s: Seconds) -> None:
        super().__init__(VmLoad, MACHINE_ROW, window_s)
        self.hosts: list[str] = []
        self._hosts: dict[str, int] = {}

    def _fill(self, packed: LoadRows, columns: Sequence[Sequence[Any]]) -> None:
        number, vm, host, t, state, used, limit, vcpus, memory_used, memory_limit, _, _, dirty = columns
        packed["vm"] = self._numbers(vm)
        packed["host"] = [self._hosts.setdefault(one, len(self._hosts)) for one in host]
        self.hosts[len(self.hosts) :] = list(self._hosts)[len(self.hosts) :]
        packed["running"] = [one == RUNNING for one in state]
        packed["dirty"] = [np.nan if one is None else one for one in dirty]
        for name, column in (
            ("id", number), ("t", t), ("used", used), ("limit", limit), ("vcpus", vcpus), ("memory_used", memory_used),
            ("memory_limit", memory_limit),
        ):  # fmt: skip
            packed[name] = column


class LinkWindow(LoadWindow):
    """What links carried lately; they are named by their two ends."""

    def __init__(self, window_s: Seconds) -> None:
        super().__init__(LinkLoad, LINK_ROW, window_s)

    def _fill(self, packed: LoadRows, columns: Sequence[Sequence[Any]]) -> None:
        number, a, b, *rest = columns
        packed["id"] = number
        packed["link"] = self._numbers(zip(a, b, strict=True))
        for name, column in zip(("t", "interval_s", "bytes", "packets", "drops"), rest, strict=True):
            packed[name] = column


class Windows:
    """What pairs said, machines used and links carried in the last `window_s`."""

    def __init__(self, window_s: Seconds) -> None:
        self.traffic, self.machines, self.links = TrafficWindow(window_s), MachineWindow(window_s), LinkWindow(window_s)

    def read(self, store: Store, now: Seconds) -> None:
        """Takes in what is new in each. Raises StoreError."""
        for window in (self.traffic, self.machines, self.links):
            window.read(store, now)

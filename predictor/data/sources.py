"""Reads what is new in the store, once each, and spreads it over a panel: also what comes late, and what is silent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cpdb import (
    IMPLAUSIBLE,
    FlowKey,
    HostLoad,
    LinkLoad,
    Pair,
    Quantity,
    Store,
    StoredBatch,
    Subject,
    SubjectKind,
    VmLoad,
    Window,
)
from predictor.data.panel import IntervalAmounts, Panel
from predictor.data.parts import WHOLE, Feed
from predictor.data.view import ALL, CHANNELS, QUANTITIES, Floats, Ints, Rows, SeriesView


class Source(Protocol):
    """Where a predictor gets its series from."""

    @property
    def subjects(self) -> Sequence[Subject]:
        """What each series is about; grows only."""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Peak and mean of each channel in turn."""

    @property
    def step_s(self) -> float:
        """Length of a cell."""

    def join(self, subjects: Sequence[Subject]) -> None:
        """Gives subjects that were known before a restart their places, in this order, before the first `read`."""

    def read(self, store: Store, now: float) -> int:
        """Takes in what is new and not from after `now`; returns how many rows. Raises StoreError."""

    def view(self, now: float) -> SeriesView | None:
        """All that is known at `now`, None while that is nothing. Good until the next `read`."""

    def window(self, first: int, count: int, rows: Rows = ALL) -> Floats:
        """Rates of some cells (by number): channels x series x cells, NaN = not known."""


def pair_of(flow_key: FlowKey) -> Subject:
    """The pair that a flow key belongs to, whichever destination answers."""
    return Subject(SubjectKind.PAIR, flow_key.source, flow_key.virtual_ip)


class PanelSource:
    """A source whose series lie in a panel that it fills itself."""

    def __init__(self, panel: Panel, quantities: tuple[Quantity, ...]) -> None:
        self.panel = panel
        self.quantities = quantities

    @property
    def subjects(self) -> Sequence[Subject]:
        """See Source."""
        return self.panel.subjects

    @property
    def step_s(self) -> float:
        """See Source."""
        return self.panel.step_s

    def join(self, subjects: Sequence[Subject]) -> None:
        """See Source."""
        for subject in subjects:
            self.panel.row_of(subject)

    def view(self, now: float) -> SeriesView | None:
        """See Source."""
        return self.panel.view(now, np.arange(len(self.panel.subjects)))

    def window(self, first: int, count: int, rows: Rows = ALL) -> Floats:
        """See Source."""
        return self.panel.window(first, count, rows)


class FlowSeries(PanelSource):
    """Communications, summed over the flow keys of a feed that `key` gives the same subject."""

    def __init__(
        self, panel: Panel, window_s: float, key: Callable[[FlowKey], Subject | None] = pair_of, feed: Feed = WHOLE
    ) -> None:
        super().__init__(panel, QUANTITIES)
        self._window_s = window_s
        self._key = key
        self.feed = feed
        self._read_up_to = 0
        self._early: list[StoredBatch] = []
        self._row_of_key: Ints = np.zeros(0, dtype=np.int64)
        self._reported: dict[str, Ints] = {}
        self._groups: dict[str, int] = {}
        self._group_of: list[int] = []

    @classmethod
    def of_pairs(cls, step_s: float, window_s: float, most: int, feed: Feed = WHOLE) -> "FlowSeries":
        """The usual source: a series for each pair, cells of `step_s`, at least `window_s` of them remembered."""
        return cls(Panel(step_s, window_s, len(CHANNELS), most), window_s, feed=feed)

    @property
    def of_pairs_only(self) -> bool:
        """Does each series stand for one pair?"""
        return self._key is pair_of

    def view(self, now: float) -> SeriesView | None:
        """See Source. Series whose subjects begin with the same name (the source of a pair) make a group."""
        for subject in self.subjects[len(self._group_of) :]:
            self._group_of.append(self._groups.setdefault(subject.a, len(self._groups)))
        return self.panel.view(now, np.array(self._group_of, dtype=np.int64))

    def read(self, store: Store, now: float) -> int:
        """See Source. A batch from the future of `now` (clocks differ) waits until its time."""
        fresh = self.feed.batches(store, self._read_up_to, now - self._window_s)
        if fresh:
            self._read_up_to = max(batch.id for batch in fresh)
            self._name(store, fresh)
        batches = [*self._early, *fresh]
        self._early = [batch for batch in batches if batch.t > now]
        return sum(self._take(batch) for batch in batches if batch.t <= now)

    def _name(self, store: Store, batches: Sequence[StoredBatch]) -> None:
        most = max((int(np.asarray(batch.key_ids).max(initial=0)) for batch in batches), default=0)
        begin = len(self._row_of_key)
        if most < begin:
            return
        flow_keys = self.feed.flow_keys(store)
        numbers = range(begin, most + 1)
        keys = [self._key(flow_keys[number]) if number in flow_keys else None for number in numbers]
        rows = [-1 if key is None else self.panel.row_of(key) for key in keys]
        self._row_of_key = np.concatenate([self._row_of_key, np.array(rows, dtype=np.int64)])

    def _take(self, batch: StoredBatch) -> int:
        rows = self._row_of_key[np.asarray(batch.key_ids)]
        columns = (batch.bytes, batch.packets, batch.connections)
        amounts = np.stack([np.asarray(column).astype(np.float64) for column in columns])
        good = rows >= 0
        if batch.flags is not None:
            # What the controller did not believe stays unknown: it is neither learnt nor taken for silence.
            good &= (np.asarray(batch.flags) & IMPLAUSIBLE) == 0
        self.panel.refused += int((~good).sum())
        silent = self._silent(batch, rows[rows >= 0])
        if not good.all():
            rows, amounts = rows[good], amounts[:, good]
        self.panel.put(IntervalAmounts(rows, amounts, silent, batch.t, batch.interval_s))
        return len(good)

    def _silent(self, batch: StoredBatch, listed: Ints) -> Ints:
        """Series that this observer has reported before and does not list: if it tells all, they said nothing."""
        spoke = np.zeros(len(self.subjects), dtype=bool)
        spoke[listed] = True
        known = np.zeros(len(self.subjects), dtype=bool)
        before = self._reported.get(batch.observer, listed[:0])
        known[before] = True
        if (spoke & ~known).any():
            self._reported[batch.observer] = np.flatnonzero(spoke | known)
        return np.flatnonzero(known & ~spoke) if batch.complete else listed[:0]


LINK_QUANTITIES = (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN, Quantity.PACKETS_PEAK, Quantity.PACKETS_MEAN)
MACHINE_QUANTITIES = (Quantity.CPU_PEAK, Quantity.CPU_MEAN, Quantity.MEMORY_PEAK, Quantity.MEMORY_MEAN)
# A machine that was not looked at for longer than this has a gap, not a long interval.
MAX_INTERVAL_S = 5.0
# Coarser cells are made of fine ones so many seconds old: late rows have arrived by then.
SETTLED_S = 5.0
MAX_SUBJECTS = 20_000
# Roll-ups are of ten seconds and of minutes.
ROLLED_UP_S = 10


def virtual_ip_of(flow_key: FlowKey) -> Subject | None:
    """The virtual IP that a flow key belongs to."""
    return Subject(SubjectKind.VIRTUAL_IP, flow_key.virtual_ip)


def destination_of(flow_key: FlowKey) -> Subject | None:
    """The destination that a flow key leads to, None while it is not known."""
    return None if flow_key.destination is None else Subject(SubjectKind.DESTINATION, flow_key.destination)


def sums(key: Callable[[FlowKey], Subject | None], step_s: float, window_s: float) -> FlowSeries:
    """Communications summed over all pairs that `key` gives the same subject."""
    return FlowSeries(Panel(step_s, window_s, len(CHANNELS), MAX_SUBJECTS), window_s, key)


class LoadSeries(PanelSource):
    """What links carried, or what machines used: read from the rows that were measured of them."""

    def __init__(self, kinds: Sequence[type[Any]], step_s: float, window_s: float) -> None:
        quantities = LINK_QUANTITIES if LinkLoad in kinds else MACHINE_QUANTITIES
        super().__init__(Panel(step_s, window_s, len(quantities) // 2, MAX_SUBJECTS), quantities)
        self._kinds = tuple(kinds)
        self._window_s = window_s
        self._last: dict[Subject, float] = {}
        self._read_at: float | None = None
        self.host_of: dict[str, str] = {}  # the host that each VM was last seen on
        self.limits = Panel(step_s, window_s, 1, MAX_SUBJECTS)  # what each VM might use at most, in cores
        self.limits.subjects = self.panel.subjects  # it has the same row in both

    def read(self, store: Store, now: float) -> int:
        """See Source. Who asks again at the same moment has read it already."""
        if now == self._read_at:
            return 0
        self._read_at = now
        newest = max(self._last.values(), default=now - self._window_s)
        since = max(now - self._window_s, newest - MAX_INTERVAL_S)
        rows = [row for kind in self._kinds for row in store.facts.loads(kind, since, now)]
        return self._take(sorted(rows, key=lambda row: row.t))

    def _take(self, rows: Iterable[LinkLoad | HostLoad | VmLoad]) -> int:
        moments: dict[tuple[float, float], list[tuple[int, tuple[float, ...]]]] = {}
        limits: dict[tuple[float, float], list[tuple[int, tuple[float, ...]]]] = {}
        taken = 0
        for row in rows:
            subject = machine_of(row)
            place, last = self.panel.row_of(subject), self._last.get(subject, -np.inf)
            if row.t <= last or place < 0:
                continue
            self._last[subject] = row.t
            interval_s = row.interval_s if isinstance(row, LinkLoad) else min(row.t - last, MAX_INTERVAL_S)
            if last == -np.inf and not isinstance(row, LinkLoad):
                interval_s = self.panel.step_s
            key = row.t, round(interval_s, 3)
            moments.setdefault(key, []).append((place, _amounts(row, interval_s)))
            if isinstance(row, VmLoad):
                self.host_of[row.vm] = row.host
                limits.setdefault(key, []).append((place, (row.cpu_cores_limit * interval_s,)))
            taken += 1
        _put(self.panel, moments)
        _put(self.limits, limits)
        return taken


def _put(panel: Panel, moments: Mapping[tuple[float, float], Sequence[tuple[int, tuple[float, ...]]]]) -> None:
    """Amounts of series by the end and the length of their intervals."""
    for (t, interval_s), group in moments.items():
        places = np.array([place for place, _ in group], dtype=np.int64)
        amounts = np.array([amount for _, amount in group], dtype=np.float64).T
        panel.put(IntervalAmounts(places, amounts, places[:0], t, interval_s))


def machine_of(row: LinkLoad | HostLoad | VmLoad) -> Subject:
    """What a measured row is about."""
    if isinstance(row, LinkLoad):
        return Subject(SubjectKind.LINK, row.from_node, row.to_node)
    if isinstance(row, HostLoad):
        return Subject(SubjectKind.HOST, row.host)
    return Subject(SubjectKind.VM, row.vm)


def _amounts(row: LinkLoad | HostLoad | VmLoad, interval_s: float) -> tuple[float, ...]:
    if isinstance(row, LinkLoad):
        return float(row.bytes), float(row.packets)
    # Cores and bytes in use are levels: times the interval they become amounts like all others.
    return row.cpu_cores_used * interval_s, float(row.memory_bytes_used) * interval_s


# Of what was rolled up before the start no more values are read: a second's work or two.
MAX_RECALLED = 1_000_000


class CoarseSeries(PanelSource):
    """Another source's series in longer cells: what is read once serves both tiers.

    What the fine source no longer holds at the start comes from the roll-ups of the store, where cells are multiples of
    theirs: so hours and days before a restart, or of an import, count from the first forecast on.
    """

    def __init__(self, fine: Source, step_s: float, window_s: float) -> None:
        panel = Panel(step_s, window_s, len(fine.quantities) // 2, MAX_SUBJECTS)
        panel.max_bytes = fine.panel.max_bytes if isinstance(fine, PanelSource) else None
        super().__init__(panel, fine.quantities)
        self._fine = fine
        self._window_s = window_s
        self._next: int | None = None

    def read(self, store: Store, now: float) -> int:
        """See Source. The fine source must have read already; the store is asked at the first time only."""
        self.join(self._fine.subjects[len(self.subjects) :])
        step_s = self._fine.step_s
        until = int((now - SETTLED_S) / step_s)
        rows = 0
        if self._next is None:
            view = self._fine.view(now)
            self._next = until if view is None else view.start
            rows = self._recall(store, self._next * step_s)
        first, self._next = self._next, max(self._next, until)
        for cell in range(first, until):
            rates = self._fine.window(cell, 1)[..., 0]
            known = np.flatnonzero(~np.isnan(rates[0, : len(self.subjects)]))
            rows += len(known)
            self.panel.put(IntervalAmounts(known, rates[:, known] * step_s, known[:0], (cell + 1) * step_s, step_s))
        return rows

    def _recall(self, store: Store, until: float) -> int:
        """Takes what was rolled up in the window before `until`; returns how many values. Of pairs only."""
        step_s = round(self.step_s)
        if not isinstance(self._fine, FlowSeries) or not self._fine.of_pairs_only or step_s % ROLLED_UP_S:
            return 0
        end = int(until // step_s) * step_s
        pairs = max(1, len(store.series.pairs(Window(step_s, end - self._window_s, end))))
        since = end - step_s * min(self.panel.cells, MAX_RECALLED // pairs)
        taken = 0
        channels = (store.series.rows(Window(step_s, since, end, quantity)) for quantity in CHANNELS)
        for (t, sizes), (_, packets), (_, connections) in zip(*channels, strict=True):
            own = [pair for pair in sizes if self._fine.feed.owns(pair)]
            places = np.array([self.panel.row_of(_pair(pair)) for pair in own], dtype=np.int64)
            rates = np.array([[kind.get(pair, 0.0) for pair in own] for kind in (sizes, packets, connections)])
            good = places >= 0
            self.panel.put(IntervalAmounts(places[good], rates[:, good] * step_s, places[:0], t, step_s))
            taken += int(good.sum())
        return taken


def _pair(pair: Pair) -> Subject:
    return Subject(SubjectKind.PAIR, pair.source, pair.virtual_ip)

"""Gives the models one immutable picture of the past: rates on a regular grid, and what each window of it held."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpdb import Quantity

Floats = NDArray[Any]
Ints = NDArray[np.int64]
Rows = Ints | slice

# A window of which more than a fifth is missing has no truth to be compared with.
KNOWN_SHARE = 0.8
ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Target:
    """The mean (or the peak) of `length` cells that begin `first` cells after the first cell to be forecast.

    That cell is the one `view.lead` cells after the cell that follows the origin. So the next h cells are (first 0,
    length h), and the single cell h steps ahead is (first h - 1, length 1).
    """

    channel: int
    first: int
    length: int
    peak: bool = False

    @property
    def reach(self) -> int:
        """Cells from the first one to be forecast to the end of the window: so long until the truth is known."""
        return self.first + self.length


@dataclass(frozen=True, slots=True)
class ForecastSpec:
    """What every model is asked for: targets, and quantile levels that ascend."""

    targets: tuple[Target, ...]
    levels: tuple[float, ...]

    @property
    def channels(self) -> Ints:
        """Channel of each target."""
        return np.array([target.channel for target in self.targets], dtype=np.int64)

    @property
    def reach(self) -> int:
        """The farthest reach of all targets, in cells."""
        return max(target.reach for target in self.targets)

    def empty(self, origins: int, series: int) -> Floats:
        """A forecast (origins x series x targets x levels) that says nothing yet."""
        return np.full((origins, series, len(self.targets), len(self.levels)), np.nan, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class SeriesView:
    """Rates (channels x series x cells, per second, NaN = missing) up to the last cell that anyone knows.

    Windows to be forecast begin `lead` cells after that last cell (0 = at once): rows need time to arrive.
    Cell k is cell number `start + k` of a grid of `step_s` that began at Unix time 0, for features of the calendar.
    A view may show a part of the series only: `rows` are then their places among all `population` series, at which a
    model keeps what it knows of each series. `turn` are the places (within this view) of the series whose slowly
    moving parts, such as bands and periods, shall be renewed at this update. `groups` numbers what belongs together
    (series of one source have the same number).
    """

    rates: Floats
    lead: int = 0
    start: int = 0
    step_s: float = 1.0
    rows: Rows = field(default_factory=lambda: ALL)
    population: int = -1
    turn: Rows = field(default_factory=lambda: ALL)
    groups: Ints | None = None
    _targets: dict[tuple[int, int, bool], Floats] = field(default_factory=dict, repr=False, compare=False)
    _taken: list[tuple[Rows, "SeriesView"]] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.population < 0:
            object.__setattr__(self, "population", self.series)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.rates.shape[0])

    @property
    def series(self) -> int:
        """Number of series in this view."""
        return int(self.rates.shape[1])

    @property
    def cells(self) -> int:
        """Number of cells of history; the last one is the origin of live forecasts."""
        return int(self.rates.shape[2])

    @property
    def last(self) -> Ints:
        """The origin of live forecasts: the last cell, as an array of one."""
        return np.array([self.cells - 1], dtype=np.int64)

    def target(self, target: Target) -> Floats:
        """Series x cells: value of the target whose window begins at each cell (`first` does not matter here).

        NaN where the window has not ended within this view or too much of it is missing.
        """
        key = (target.channel, target.length, target.peak)
        if key not in self._targets:
            self._targets[key] = window_values(self.rates[target.channel], target.length, target.peak)
        return self._targets[key]

    def begins(self, target: Target, origins: Ints) -> Ints:
        """Cell at which the window of the target begins for each origin; may lie beyond this view."""
        return np.asarray(origins, dtype=np.int64) + 1 + self.lead + target.first

    def truth(self, targets: Sequence[Target], which: Ints, origin: int) -> Floats:
        """Series x `which` (places in targets): what the windows held that were to be forecast at this origin."""
        begins = [origin + 1 + self.lead + targets[number].first for number in which]
        values = [self.target(targets[number])[:, begin] for number, begin in zip(which, begins, strict=True)]
        return np.stack(values, axis=-1)

    def until(self, cells: int) -> "SeriesView":
        """The same past as it was known when only the first `cells` cells were over. Shares memory."""
        known = {}
        for key, values in self._targets.items():
            known[key] = values[..., :cells].copy()
            known[key][..., max(0, cells - key[1] + 1) :] = np.nan
        return self._with(self.rates[..., :cells], self.rows, self.turn, self.groups, known)

    def part(self, rows: Rows) -> "SeriesView":
        """The same past of some series only (places within this view)."""
        places = rows if _all(self.rows) else np.arange(self.population)[self.rows][rows]
        groups = None if self.groups is None else self.groups[rows]
        known = {key: values[rows] for key, values in self._targets.items()}
        return self._with(self.rates[:, rows], places, ALL, groups, known)

    def take(self, rows: Rows) -> "SeriesView":
        """As `part`, but the same object each time for the same `rows` object: models share what it has computed."""
        for taken, view in self._taken:
            if taken is rows:
                return view
        view = self.part(rows)
        self._taken.append((rows, view))
        return view

    def with_turn(self, turn: Rows) -> "SeriesView":
        """The same view, but it is the turn of others."""
        return self._with(self.rates, self.rows, turn, self.groups, self._targets)

    def due(self) -> "SeriesView":
        """The part of this view whose turn it is."""
        return self if _all(self.turn) else self.take(self.turn)

    def _with(
        self, rates: Floats, rows: Rows, turn: Rows, groups: Ints | None, known: dict[tuple[int, int, bool], Floats]
    ) -> "SeriesView":
        return SeriesView(rates, self.lead, self.start, self.step_s, rows, self.population, turn, groups, known)

    def __reduce__(self) -> tuple[type["SeriesView"], tuple[Any, ...]]:
        # What can be computed again need not travel to another process.
        return SeriesView, (
            self.rates, self.lead, self.start, self.step_s, self.rows, self.population, self.turn, self.groups,
        )  # fmt: skip


def _all(rows: Rows) -> bool:
    return isinstance(rows, slice) and rows == ALL


def window_values(rates: Floats, length: int, peak: bool) -> Floats:
    """Peak or mean over each window of `length` cells of series x cells: same shape, see SeriesView.target."""
    series, cells = rates.shape
    result = np.full((series, cells), np.nan, dtype=np.float32)
    ends = cells - length + 1
    if ends <= 0:
        return result
    if length == 1:
        result[...] = rates
        return result
    known = ~np.isnan(rates)
    if known.all():
        result[:, :ends] = _window_peaks(rates, length) if peak else _window_sums(rates, length) / length
        return result
    count = _window_sums(known, length)
    filled = np.where(known, rates, 0.0)
    held = _window_peaks(filled, length) if peak else _window_sums(filled, length) / np.maximum(count, 1)
    result[:, :ends] = np.where(count >= KNOWN_SHARE * length, held, np.nan)
    return result


def _window_sums(values: Floats, width: int) -> Floats:
    total = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, dtype=np.float64, out=total[..., 1:])
    # Differences of sums may come out a hair below zero; rates cannot.
    sums: Floats = np.maximum(total[..., width:] - total[..., :-width], 0.0)
    return sums


def _window_peaks(values: Floats, width: int) -> Floats:
    # Doubling: the peak over 2n cells is the larger of two peaks over n, so width 30 costs 5 passes, not 30.
    span, peaks = 1, values
    while 2 * span <= width:
        peaks = np.maximum(peaks[..., :-span], peaks[..., span:])
        span *= 2
    rest = width - span
    return np.maximum(peaks[..., : peaks.shape[-1] - rest], peaks[..., rest:])


def last_known(rates: Floats) -> Floats:
    """Each cell's newest known value at or before it (same shape); NaN before the first."""
    known = ~np.isnan(rates)
    if known.all():
        return rates
    index = np.where(known, np.arange(rates.shape[-1]), 0)
    np.maximum.accumulate(index, axis=-1, out=index)
    return np.take_along_axis(rates, index, axis=-1)


def fair_sample(sources: Ints, rows: int, rng: np.random.Generator) -> Ints:
    """Positions (ascending) of at most `rows` rows such that no source has more than it must.

    `sources` is the source of each row. A source has all its rows, or as many as any other that was cut (max-min
    fairness), so that flooding the sample with one source's rows displaces at most its own equal share.
    """
    shuffled = rng.permutation(len(sources))
    _, owner, counts = np.unique(sources[shuffled], return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    begins = np.cumsum(counts) - counts
    # The how-manieth of its source each row is, in random order
    turn = np.empty(len(sources), dtype=np.int64)
    turn[order] = np.arange(len(sources)) - np.repeat(begins, counts)
    chosen = np.flatnonzero(turn < _cap(counts, rows))
    left = rows - len(chosen)
    if left > 0:
        # What an equal cap leaves over goes round, one each.
        next_ones = np.flatnonzero(turn == _cap(counts, rows))
        chosen = np.concatenate([chosen, next_ones[:left]])
    picked: Ints = np.sort(shuffled[chosen])
    return picked


def bounded_rows(sources: Ints, share: float) -> int:
    """How many rows may be chosen fairly (`fair_sample`) so that no source has more than `share` of them.

    With fewer than 1 / share sources some must have more: then all of them.
    """
    counts = np.unique(sources, return_counts=True)[1]
    if len(counts) * share < 1:
        return len(sources)
    low, high = 1, int(counts.max(initial=1))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle <= share * np.minimum(counts, middle).sum() else (low, middle - 1)
    return int(np.minimum(counts, low).sum())


def _cap(counts: Ints, rows: int) -> int:
    """The largest number of rows per source with which all together stay within `rows`."""
    low, high = 0, int(counts.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(counts, middle).sum()) <= rows else (low, middle - 1)
    return low


CHANNELS = ("bytes", "packets", "connections")
BYTES, PACKETS, CONNECTIONS = range(len(CHANNELS))
# Peak and mean of each channel in turn. Targets are ordered by horizon first, then in this order.
QUANTITIES = (
    Quantity.BYTES_PEAK,
    Quantity.BYTES_MEAN,
    Quantity.PACKETS_PEAK,
    Quantity.PACKETS_MEAN,
    Quantity.CONNECTIONS_PEAK,
    Quantity.CONNECTIONS_MEAN,
)


def make_spec(horizons: Sequence[int], channels: int, levels: Sequence[float]) -> ForecastSpec:
    """Asks for peak and mean of each channel over the next cells of each horizon (cells, ascending)."""
    return ForecastSpec(
        tuple(
            Target(channel, 0, horizon, peak)
            for horizon in horizons
            for channel in range(channels)
            for peak in (True, False)
        ),
        tuple(levels),
    )

"""Seasonal naive: it will be as it was at this point of the earlier cycles, once a period stands out from chance."""

from typing import ClassVar

import numpy as np

from predictor.periods import find_periods
from predictor.quantiles import weighted_quantiles
from predictor.view import Ask, Floats, Ints, View

CYCLES = 8
# What recurs is rarely punctual: neighbours in phase are samples too, the nearer the weightier.
SHIFTS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
SHIFT_WEIGHTS = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
TOLERANCE = 0.06
FADING = 0.85
# Say of a cycle in which nothing was as it is now: little, but if all are like that they share it.
DOUBTFUL = 0.05
LONGEST_COMPARED = 120


class SeasonalNaive:
    """Quantiles of the windows at the same phase of up to 8 earlier cycles, recent cycles counting more."""

    name: ClassVar[str] = "seasonal_naive"
    slow: ClassVar[bool] = False
    replayable: ClassVar[bool] = True
    costly: ClassVar[bool] = True

    def __init__(self, ask: Ask, _seed: int = 0) -> None:
        self.ask = ask
        self.periods: Floats = np.zeros(0)

    def fit(self, view: View) -> None:
        """Looks for the period of each series in the view."""
        more = view.population - len(self.periods)
        self.periods = np.pad(self.periods, (0, max(0, more)), constant_values=np.nan)
        self.periods[view.rows] = find_periods(view)

    def update(self, view: View) -> None:
        """Looks again where it is a series' turn."""
        self.fit(view.due())

    def predict(self, view: View, origins: Ints) -> Floats:
        """See Model; NaN for series without a period or with fewer than two windows to look back at."""
        fan = self.ask.empty(len(origins), view.series)
        if len(self.periods) < view.population:
            return fan
        periods = self.periods[view.rows]
        who = np.flatnonzero(~np.isnan(periods))
        if len(who):
            sub = view if len(who) == view.series else view.part(who)
            for number, origin in enumerate(origins.tolist()):
                fan[number, who] = self._at(sub, periods[who], origin)
        return fan

    def _at(self, view: View, periods: Floats, origin: int) -> Floats:
        fan: Floats = self.ask.empty(1, view.series)[0]
        back = lookback(periods, TOLERANCE)
        alike = agreement(view.rates[0, :, : origin + 1], periods)
        weights = (FADING ** np.arange(CYCLES) * alike)[..., None] * SHIFT_WEIGHTS  # series x cycles x shifts
        flat = weights.reshape(view.series, -1)
        for number, target in enumerate(self.ask.targets):
            begin = view.begins(target, np.array([origin]))[0] - back
            begin = np.where(begin + target.length - 1 <= origin, begin, -1)
            samples = gather(view.target(target), begin)
            values = weighted_quantiles(samples.reshape(view.series, -1), flat, self.ask.levels)
            cycles = (~np.isnan(samples)).any(axis=-1).sum(axis=-1)
            fan[:, number] = np.where(cycles[:, None] < 2, np.nan, values)
        return fan

    def adopt(self, old: "SeasonalNaive") -> None:
        """Keeps the periods."""
        self.periods = old.periods


def agreement(series: Floats, periods: Floats) -> Floats:
    """How much the last cycle of series (pairs x cells) was like each earlier one: pairs x cycles, DOUBTFUL .. 1.

    The correlation of square roots. So, once a phase has moved, what was before the move loses its say within a cycle.
    """
    cells = series.shape[-1]
    reach = int(min(LONGEST_COMPARED, np.ceil(periods.max())))
    back = np.round(periods[:, None] * np.arange(CYCLES + 1)).astype(np.int64)
    index = cells - 1 - np.arange(reach)[None, None, :] - back[:, :, None]
    inside = (index >= 0) & (np.arange(reach) < periods[:, None, None])
    flat = np.where(inside, index, 0).reshape(len(series), -1)
    values = np.sqrt(np.take_along_axis(series, flat, axis=-1)).reshape(index.shape)
    shared = inside & ~np.isnan(values) & ~np.isnan(values[:, :1])
    return np.maximum(_correlation(values[:, :1], values, shared)[:, 1:], DOUBTFUL)


def _correlation(one: Floats, other: Floats, shared: Floats) -> Floats:
    count = np.maximum(shared.sum(axis=-1, keepdims=True), 1)
    centred = []
    for values in (np.broadcast_to(one, other.shape), other):
        known = np.where(shared, values, 0.0)
        centred.append(np.where(shared, known - known.sum(axis=-1, keepdims=True) / count, 0.0))
    spread = np.sqrt(np.square(centred[0]).sum(axis=-1) * np.square(centred[1]).sum(axis=-1))
    correlation: Floats = (centred[0] * centred[1]).sum(axis=-1) / np.where(spread > 0, spread, np.inf)
    return correlation


def lookback(periods: Floats, tolerance: float) -> Floats:
    """Cells to look back: pairs x cycles x shifts, whole numbers."""
    reach = np.maximum(1.0, tolerance * periods)[:, None, None] * SHIFTS
    cycles = periods[:, None, None] * np.arange(1, CYCLES + 1)[None, :, None]
    back: Floats = np.round(cycles).astype(np.int64) - np.round(reach).astype(np.int64)
    return back


def gather(targets: Floats, begin: Floats) -> Floats:
    """Targets (series x cells) of the windows that begin at `begin` (series x any shape); NaN where that is no cell."""
    inside = (begin >= 0) & (begin < targets.shape[-1])
    index = np.where(inside, begin, 0).reshape(len(begin), -1)
    values = np.take_along_axis(targets, index, axis=-1).reshape(begin.shape)
    return np.where(inside, values, np.nan)

"""Seasonal naive: it will be as it was at this point of the earlier cycles, once a period stands out from chance."""

from typing import ClassVar

import numpy as np

from predictor.models.base import Ask
from predictor.periods import find_periods
from predictor.quantiles import weighted_quantiles
from predictor.view import BYTES, Floats, View

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
    renew_every: ClassVar[int] = 5

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.periods: Floats = np.zeros(0)
        self._age = 0

    def fit(self, view: View) -> None:
        """Looks for each pair's period."""
        self.periods = find_periods(view)
        self._age = 0

    def update(self, view: View) -> None:
        """Looks again every few cycles."""
        self._age += 1
        if self._age >= self.renew_every or len(self.periods) != view.pairs:
            self.fit(view)

    def predict(self, view: View) -> Floats:
        """See Model; NaN for pairs without a period or with fewer than two windows to look back at."""
        fan = self.ask.empty(view.pairs)
        who = np.flatnonzero(~np.isnan(self.periods[: view.pairs]))
        if not len(who):
            return fan
        back = lookback(self.periods[who], TOLERANCE)
        recent = FADING ** np.arange(CYCLES) * agreement(view.rates[BYTES][who], self.periods[who])
        weights = recent[:, :, None] * SHIFT_WEIGHTS  # pairs x cycles x shifts
        for number, horizon in enumerate(self.ask.horizons):
            begin = view.cells + view.lead - back
            samples = gather(view.targets(horizon)[:, who], begin)
            cycles = (~np.isnan(samples)).any(axis=-1).sum(axis=-1)  # quantities x pairs
            flat = samples.reshape(*samples.shape[:2], -1)
            values = weighted_quantiles(flat, weights.reshape(len(who), -1), self.ask.levels)
            values[cycles < 2] = np.nan
            fan[who, number] = values.transpose(1, 0, 2)
        return fan


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
    """Targets (quantities x pairs x cells) of the windows that begin at `begin` (pairs x cycles x shifts).

    Windows before the view or not over yet are NaN.
    """
    cells = targets.shape[-1]
    inside = (begin >= 0) & (begin < cells)
    index = np.where(inside, begin, 0).reshape(len(begin), -1)
    values = np.take_along_axis(targets, index[None], axis=-1).reshape(len(targets), *begin.shape)
    return np.where(inside[None], values, np.nan)

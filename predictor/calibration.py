"""Stretches fans whose outer quantiles were wrong too often, and shrinks those that were right too often."""

from collections.abc import Sequence

import numpy as np

from predictor.issues import Verdict
from predictor.view import QUANTITIES, Floats

# Each miss moves the factor by STEP * level, each hit back by STEP * (1 - level), on a log scale: it rests where the
# share of hits is the level (stochastic approximation, as in adaptive conformal inference, Gibbs and Candes 2021).
STEP = 0.03
NARROWEST, WIDEST = 0.8, 1.6
UPPER, LOWER = 0.9, 0.1


class Calibration:
    """A factor above and one below the median, per pair, horizon and quantity (each pairs x horizons x quantities)."""

    def __init__(self, horizons: int, levels: Sequence[float]) -> None:
        grid = np.asarray(levels)
        self._middle = int(np.argmin(np.abs(grid - 0.5)))
        self._upper = int(np.argmin(np.abs(grid - UPPER)))
        self._lower = int(np.argmin(np.abs(grid - LOWER)))
        self._levels = grid
        self._logs = np.zeros((2, 0, horizons, len(QUANTITIES)))

    def resize(self, pairs: int) -> None:
        """Makes room for pairs that have joined; their factors begin at 1."""
        more = max(0, pairs - self._logs.shape[1])
        self._logs = np.pad(self._logs, ((0, 0), (0, more), (0, 0), (0, 0)))

    def learn(self, verdict: Verdict) -> None:
        """Takes note of whether the truth lay beyond the fan's upper or lower quantile."""
        fan = verdict.issue.final[:, verdict.horizon]
        known = ~np.isnan(verdict.actual) & ~np.isnan(fan).any(axis=-1)
        above = verdict.actual > fan[..., self._upper]
        below = verdict.actual < fan[..., self._lower]
        shares = (1.0 - self._levels[self._upper], self._levels[self._lower])
        for logs, missed, share in zip(self._logs, (above, below), shares, strict=True):
            part = logs[: len(fan), verdict.horizon]
            moved = part + np.where(known, STEP * (missed - share), 0.0)
            part[...] = np.clip(moved, np.log(NARROWEST), np.log(WIDEST))

    def apply(self, fan: Floats) -> Floats:
        """The fan (pairs x horizons x quantities x levels) with the distance to its median stretched or shrunk."""
        median = fan[..., self._middle : self._middle + 1]
        over, under = np.exp(self._logs)[..., None]
        distance = fan - median
        stretched: Floats = median + distance * np.where(distance > 0, over, under)
        return stretched

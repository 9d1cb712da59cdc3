"""Exponentially weighted moving averages: the recent level, with single spikes smoothed away."""

from typing import ClassVar

import numpy as np
from scipy.signal import lfilter

from predictor.models.base import Running
from predictor.view import Floats, View


def ewma(values: Floats, alpha: float) -> Floats:
    """Weighted mean of all known values so far along the last axis, weights falling by (1 - alpha) per cell.

    s = sum (1 - a)^k y / sum (1 - a)^k over known cells, so a gap adds nothing; NaN before the first value.
    """
    known = ~np.isnan(values)
    keep = [1.0, alpha - 1.0]
    total: Floats = lfilter([1.0], keep, np.where(known, values, 0.0), axis=-1)
    weight: Floats = lfilter([1.0], keep, known.astype(np.float64), axis=-1)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


class Ewma(Running):
    """EWMA of the rate with alpha 0.2, with the band of its earlier errors."""

    name: ClassVar[str] = "ewma"
    parts: ClassVar[int] = 2
    alpha: ClassVar[float] = 0.2

    def advance(self, state: Floats, column: Floats) -> None:
        """See Running; the parts are the two sums of `ewma`."""
        known = ~np.isnan(column)
        state *= 1.0 - self.alpha
        state[0] += np.where(known, column, 0.0)
        state[1] += known

    def guess(self, state: Floats) -> Floats:
        """See Running."""
        total, weight = state
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)

    def history(self, view: View) -> Floats:
        """See Running."""
        return ewma(view.rates, self.alpha)


class EwmaSlow(Ewma):
    """EWMA with alpha 0.05: the level of the last minute rather than of the last seconds."""

    name: ClassVar[str] = "ewma_slow"
    alpha: ClassVar[float] = 0.05

"""Exponentially weighted moving average: the recent level, with single spikes smoothed away."""

from typing import ClassVar

import numpy as np
from scipy.signal import lfilter

from predictor.models.base import PointBand
from predictor.view import Floats, View

ALPHA = 0.2


def ewma(values: Floats, alpha: float) -> Floats:
    """Weighted mean of all known values so far along the last axis, weights falling by (1 - alpha) per cell.

    s = sum (1 - a)^k y / sum (1 - a)^k over known cells, so a gap adds nothing; NaN before the first value.
    """
    known = ~np.isnan(values)
    keep = [1.0, alpha - 1.0]
    total: Floats = lfilter([1.0], keep, np.where(known, values, 0.0), axis=-1)
    weight: Floats = lfilter([1.0], keep, known.astype(np.float64), axis=-1)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


class Ewma(PointBand):
    """EWMA of the rate with alpha 0.2, with the band of its earlier errors."""

    name: ClassVar[str] = "ewma"

    def points(self, view: View, tail: int) -> Floats:
        """See PointBand."""
        return ewma(view.rates, ALPHA)[..., None, -tail:]

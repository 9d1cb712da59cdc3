"""The mean of all that is remembered: hard to beat when traffic has no memory."""

from typing import ClassVar

import numpy as np

from predictor.models.base import PointBand
from predictor.view import Floats, View


class TrainMean(PointBand):
    """Mean rate of the view up to each cell; its band makes the fan that of all windows seen."""

    name: ClassVar[str] = "train_mean"
    memory: ClassVar[int] = 900

    def points(self, view: View, tail: int) -> Floats:
        """See PointBand."""
        known = ~np.isnan(view.rates)
        count = np.cumsum(known, axis=-1)
        total = np.cumsum(np.where(known, view.rates, 0.0), axis=-1, dtype=np.float64)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)[..., None, -tail:]

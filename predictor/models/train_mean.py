"""The mean of all that is remembered: hard to beat when traffic has no memory."""

from typing import ClassVar

import numpy as np

from predictor.models.base import Running
from predictor.view import Floats, View

# From so many cells on, old ones begin to fade: a mean that nothing can move any more is of no use.
LONGEST = 100_000


class TrainMean(Running):
    """Mean rate up to each cell; its band makes the fan that of all windows seen."""

    name: ClassVar[str] = "train_mean"
    parts: ClassVar[int] = 2
    memory: ClassVar[int] = 3000

    def advance(self, state: Floats, column: Floats) -> None:
        """See Running; the parts are the mean and how many cells it is of."""
        mean, count = state
        known = ~np.isnan(column)
        count += known
        np.minimum(count, LONGEST, out=count)
        mean += np.where(known, (column - mean) / np.maximum(count, 1.0), 0.0)

    def guess(self, state: Floats) -> Floats:
        """See Running."""
        mean, count = state
        return np.where(count > 0, mean, np.nan)

    def history(self, view: View) -> Floats:
        """See Running."""
        known = ~np.isnan(view.rates)
        count = np.cumsum(known, axis=-1)
        total = np.cumsum(np.where(known, view.rates, 0.0), axis=-1, dtype=np.float64)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

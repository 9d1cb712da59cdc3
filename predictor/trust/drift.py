"""Notices that a series has begun to behave otherwise, from the losses of what was said about it."""

import numpy as np

from predictor.data.view import Floats

# Page's cumulative sum (1954) in Hinkley's form for a rise of the mean: loss in units of its own running mean, less 1,
# less SLACK, summed while above 0. One outlier counts at most CAP, so that it alone is no drift.
SLACK = 0.5
CAP = 6.0
LIMIT = 6.0
USUAL_ALPHA = 0.02
# While a rise is suspected, the running mean learns slower, or it would get used to what is to be found.
SUSPECTING = 0.2
# The running mean must rest on something before it is held against anyone.
MIN_LOSSES = 30.0


class DriftDetector:
    """One-sided test per series, on losses of windows that are `overlap` cells long and begin at every cell.

    Neighbouring windows share cells, so the limit grows with `overlap`. After an alarm a series counts as changed for
    `aftermath` cycles.
    """

    def __init__(self, overlap: int, aftermath: int = 60) -> None:
        self._limit = LIMIT * overlap
        self._aftermath = aftermath
        self.total = 0
        self._usual, self._count, self._sum, self._changed = (np.zeros(0, dtype=np.float32) for _ in range(4))

    def resize(self, series: int) -> None:
        """Makes room for series that have joined."""
        more = series - len(self._sum)
        if more > 0:
            grown = [np.pad(array, (0, more)) for array in self.state().values()]
            self._usual, self._count, self._sum, self._changed = grown

    def step(self, losses: Floats) -> Floats:
        """One window's loss per series (NaN = none); a mask of those that drifted: their usual loss begins anew."""
        self.resize(len(losses))
        known = ~np.isnan(losses)
        loss = np.where(known, losses, 0.0)
        ratio = np.minimum(loss / np.maximum(self._usual, 1e-12), CAP)
        ready = known & (self._count >= MIN_LOSSES)
        self._sum = np.where(ready, np.maximum(self._sum + ratio - 1.0 - SLACK, 0.0), self._sum)
        drifted = ready & (self._sum > self._limit)
        # The mean learns quickly while young, and slowly from outliers.
        slow = np.where(self._sum > 0.2 * self._limit, SUSPECTING * USUAL_ALPHA, USUAL_ALPHA)
        alpha = np.where(known, np.maximum(slow, 1.0 / (self._count + 1.0)), 0.0)
        tamed = np.where(self._count >= MIN_LOSSES, np.minimum(loss, CAP * self._usual), loss)
        self._usual = np.where(drifted, 0.0, self._usual + alpha * (tamed - self._usual)).astype(np.float32)
        self._count = np.where(drifted, 0.0, self._count + known).astype(np.float32)
        self._sum = np.where(drifted, 0.0, self._sum).astype(np.float32)
        self._changed = np.where(drifted, self._aftermath, np.maximum(self._changed - 1.0, 0.0)).astype(np.float32)
        self.total += int(drifted.sum())
        return np.asarray(drifted)

    @property
    def changed(self) -> Floats:
        """Mask of series that drifted lately: their old scores should fade sooner."""
        return self._changed > 0

    def state(self) -> dict[str, Floats]:
        """What is running, as arrays."""
        return {"usual": self._usual, "count": self._count, "sum": self._sum, "changed": self._changed}

    def restore(self, state: dict[str, Floats]) -> None:
        """Takes over what `state` gave; raises KeyError or ValueError when it does not fit."""
        arrays = [state[name].astype(np.float32) for name in ("usual", "count", "sum", "changed")]
        if any(array.shape != (len(arrays[0]),) or not np.isfinite(array).all() for array in arrays):
            raise ValueError("drift: no sound numbers")
        self._usual, self._count, self._sum, self._changed = arrays

"""Decides how much say each model has for each pair, quantity and horizon: the less it lost lately, the more."""

import numpy as np
from numpy.typing import NDArray

from predictor.view import QUANTITIES, Floats

# So many scores at par with the reference every model is given to start with: a lucky few windows prove nothing.
# The horizon in cells comes on top, as windows that overlap are not so many witnesses.
PRIOR = 8.0
# Fewer scores than this, and a model that is no baseline is not asked at all.
FEWEST = 10.0
# Sharp enough that a model twice as good as the rest speaks practically alone.
SHARPNESS = 15.0


class Ledger:
    """Exponentially fading sums of pinball loss: models x pairs x horizons x quantities.

    A model is measured against the reference on the very same windows, so one that had nothing to say during a
    surge is not the better for it.
    """

    def __init__(
        self, models: tuple[str, ...], horizons: tuple[int, ...], reference: str, baselines: tuple[str, ...]
    ) -> None:
        self.models = models
        self.reference = models.index(reference)
        self.baseline = np.array([name in baselines for name in models])
        self._prior = PRIOR + np.array(horizons, dtype=np.float64)[:, None]
        self._shape = (len(models), 0, len(horizons), len(QUANTITIES))
        self.loss, self.against, self.count = (np.zeros(self._shape) for _ in range(3))

    def resize(self, pairs: int) -> None:
        """Makes room for pairs that have joined; they begin with the reference."""
        more = pairs - self.loss.shape[1]
        if more > 0:
            room = ((0, 0), (0, more), (0, 0), (0, 0))
            self.loss, self.against, self.count = (
                np.pad(array, room) for array in (self.loss, self.against, self.count)
            )

    def fade(self, horizon: int, factor: float) -> None:
        """Lets all sums of one horizon (by position) fade by `factor`."""
        for array in (self.loss, self.against, self.count):
            array[:, :, horizon] *= factor

    def add(self, horizon: int, losses: Floats, weight: float = 1.0) -> None:
        """Adds losses (models x pairs x quantities, NaN = no forecast or no truth) of one window of one horizon."""
        pairs = losses.shape[1]
        against = np.broadcast_to(losses[self.reference], losses.shape)
        both = ~np.isnan(losses) & ~np.isnan(against)
        self.loss[:, :pairs, horizon] += weight * np.where(both, losses, 0.0)
        self.against[:, :pairs, horizon] += weight * np.where(both, against, 0.0)
        self.count[:, :pairs, horizon] += weight * both

    def ratios(self) -> Floats:
        """Loss of each model in units of the reference's on the same windows, drawn towards 1 while scores are few."""
        mean = self.against / np.maximum(self.count, 1e-9)
        ratio = (self.loss + self._prior * mean) / np.maximum(self.against + self._prior * mean, 1e-9)
        return np.where(self.against > 0, ratio, 1.0)

    def weights(self, able: NDArray[np.bool_]) -> Floats:
        """Say of each model, pair, horizon and quantity among those `able` to speak; sums to 1 over models.

        Exponential weights (Vovk 1990): a model that loses SHARPNESS^-1 of the reference's loss more than the best has
        e times less to say. So near equals share the word, which is steadier than either, and clear losers have none.
        """
        ratio = self.ratios()
        trusted = able & (self.baseline[:, None, None, None] | (self.count >= FEWEST))
        ratio = np.where(trusted, ratio, np.inf)
        best = ratio.min(axis=0)
        say = np.exp(-SHARPNESS * (ratio - np.where(np.isfinite(best), best, 0.0)))
        shares: Floats = say / np.maximum(say.sum(axis=0), 1e-9)
        return shares

    def take_over(self, other: "Ledger", where: NDArray[np.bool_]) -> None:
        """Replaces sums by those of another ledger where `where` (models x pairs) holds."""
        mask = where[:, :, None, None]
        self.loss = np.where(mask, other.loss, self.loss)
        self.against = np.where(mask, other.against, self.against)
        self.count = np.where(mask, other.count, self.count)

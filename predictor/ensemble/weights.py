"""Decides how much say each model has for each series and target: the less it lost lately, the more."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.data.view import ALL, Floats, Ints, Rows, Target

# So many scores at par with what all series together say are given to every model to start with: a lucky few windows
# prove nothing. The length of the window comes on top, as windows that overlap are not so many witnesses.
PRIOR = 8.0
# Fewer scores than this, and a model that is no baseline is not asked at all - unless all series together have many.
MIN_SCORES = 10.0
MIN_POOLED = 200.0
# What all series say together fades so many times more slowly.
POOL_SLOWER = 4.0
# One window may count for so many times the usual loss in what all series say together.
WORST = 10.0
# Learning rate: sharpness grows with the root of the number of windows, see `LossScoreboard.weights`.
SHARPNESS = 1.5
# Who loses so many times the reference's loss more than the best has no say, and less than so much is no loss.
HOPELESS, FAULTLESS = 1e6, 1e-3
# A half life is at least so many lengths of the window, or luck would choose.
MIN_WINDOWS = 4
NEVER = -(10**9)


@dataclass(frozen=True, slots=True)
class Contest:
    """Who competes for what: names of models, targets, which models are baselines, which one is the yardstick."""

    models: tuple[str, ...]
    targets: tuple[Target, ...]
    baselines: tuple[str, ...]
    reference: str
    half_life: float = 60.0  # cells


class LossScoreboard:
    """Exponentially fading sums of pinball loss: models x series x targets.

    A model is measured against the reference on the very same windows, so one that had nothing to say during a
    surge is not the better for it.
    """

    def __init__(self, contest: Contest) -> None:
        self.contest = contest
        self.reference = contest.models.index(contest.reference)
        self.baseline = np.array([name in contest.baselines for name in contest.models])
        lengths = np.array([target.length for target in contest.targets], dtype=np.float64)
        self._prior = (PRIOR + lengths).astype(np.float32)
        self.half_life = np.maximum(contest.half_life, MIN_WINDOWS * lengths)
        shape = (len(contest.models), 0, len(contest.targets))
        self.loss: Floats = np.zeros(shape, dtype=np.float32)
        self.against: Floats = self.loss.copy()
        self.count: Floats = self.loss.copy()
        self._at = np.zeros(shape[1:], dtype=np.int64)
        self.pool = np.zeros((3, shape[0], shape[2]))  # loss, against, count of all series together
        self._pool_at = np.full(shape[2], NEVER)

    @property
    def series(self) -> int:
        """Number of series that have a record."""
        return int(self.loss.shape[1])

    def resize(self, series: int) -> None:
        """Makes room for series that have joined; they begin with what all others say together."""
        more = series - self.series
        if more > 0:
            room = ((0, 0), (0, more), (0, 0))
            self.loss, self.against, self.count = (
                np.pad(array, room) for array in (self.loss, self.against, self.count)
            )
            self._at = np.pad(self._at, room[1:], constant_values=NEVER)

    def add(self, losses: Floats, targets: Ints, rows: Rows, cell: int) -> None:
        """Adds losses (models x rows x targets, NaN = no forecast or no truth) of windows that ended at `cell`.

        What was there before fades by the cells that have passed since, but never by more than one half life.
        """
        against = np.broadcast_to(losses[self.reference], losses.shape)
        both = ~np.isnan(losses) & ~np.isnan(against)
        own, reference = np.where(both, losses, 0.0), np.where(both, against, 0.0)
        where = np.ix_(np.arange(self.series)[rows], targets)
        passed = np.minimum(np.maximum(cell - self._at[where], 0), self.half_life[targets])
        factor = 0.5 ** (passed / self.half_life[targets])
        self._at[where] = cell
        index: tuple[Any, ...] = (slice(None), *where)
        for array, new in ((self.loss, own), (self.against, reference), (self.count, both)):
            array[index] = array[index] * factor + new
        self._add_to_pool(np.stack([own, reference, both]), targets, index, cell)

    def _add_to_pool(self, new: Floats, targets: Ints, index: tuple[Any, ...], cell: int) -> None:
        own, reference, both = new
        usual = self.against[index] / np.maximum(self.count[index], 1e-9)
        usual = usual.max(axis=0, keepdims=True)
        usual = np.where(usual > 0, usual, np.inf)
        slow = POOL_SLOWER * self.half_life[targets]
        factor = 0.5 ** (np.minimum(cell - self._pool_at[targets], slow) / slow)
        self._pool_at[targets] = cell
        for part, values in zip(self.pool, (own / usual, reference / usual, both * np.isfinite(usual)), strict=True):
            part[:, targets] = part[:, targets] * factor + np.minimum(values, WORST).sum(axis=1)

    def pooled(self) -> Floats:
        """Loss of each model in units of the reference's over all series: models x targets, drawn towards 1."""
        loss, against, _ = self.pool
        ratio: Floats = (loss + self._prior) / (against + self._prior)
        return ratio.astype(np.float32)

    def ratios(self, rows: Rows = ALL) -> Floats:
        """The same for each series (models x rows x targets), drawn towards all series' while its scores are few."""
        loss, against, count = self.loss[:, rows], self.against[:, rows], self.count[:, rows]
        prior = against * (self._prior / np.maximum(count, 1e-9))
        pooled = self.pooled()[:, None]
        ratio: Floats = (loss + prior * pooled) / np.maximum(against + prior, 1e-30)
        return np.where(against > 0, ratio, pooled)

    def weights(self, able: NDArray[np.bool_], rows: Rows = ALL) -> Floats:
        """Say of each model for rows and targets among those `able` to speak; sums to 1 over models.

        Exponentially weighted averaging: after n windows of losses between 0 and B, with the learning rate
        sqrt(8 ln M / n) / B, the average loses at most B sqrt(n ln M / 2) more than the best of M models (Cesa-Bianchi
        and Lugosi 2006, theorem 2.2; the pinball loss is convex, so the blend of quantiles loses no more than the
        average). B is not known here: the rate is SHARPNESS / sqrt(n) in units of the reference's mean loss. Fading
        makes n the number of windows that still count, so the bound holds against whoever was best lately.
        Where the best loses little, the rate is that for small losses: with what the best has lost in all, L, in the
        place of n the average loses about sqrt(2 L ln M) + ln M more than L (section 2.4 there).
        """
        count = self.count[:, rows]
        many = (self.pool[2] >= MIN_POOLED)[:, None]
        trusted = able & (self.baseline[:, None, None] | (count >= MIN_SCORES) | many)
        ratio = np.where(trusted, self.ratios(rows), np.inf)
        best = ratio.min(axis=0)
        lost = self._lost(ratio.argmin(axis=0)[None], rows)
        sharpness = SHARPNESS * np.sqrt((self._prior + count.max(axis=0)) / np.minimum(lost, 1.0))
        ahead = np.where(np.isfinite(best), best, 0.0) - ratio
        say = np.exp(sharpness * np.maximum(ahead, -HOPELESS))
        shares: Floats = say / np.maximum(say.sum(axis=0), 1e-9)
        return shares

    def _lost(self, models: Ints, rows: Rows) -> Floats:
        """Mean loss of one model for each row and target (1 x rows x targets) in units of the reference's.

        One window lost like the reference comes on top: few without a fault prove nothing.
        """
        loss, against, count = (
            np.take_along_axis(of[:, rows], models, 0)[0] for of in (self.loss, self.against, self.count)
        )
        unit = against / np.maximum(count, 1e-9)
        lost: Floats = (loss + unit) / np.maximum(against + unit, 1e-30)
        return np.where(against > 0, np.maximum(lost, FAULTLESS), 1.0)

    def forget(self, series: Ints, share: float) -> None:
        """Leaves only `share` of what was noted about some series: they have begun to behave otherwise."""
        for array in (self.loss, self.against, self.count):
            array[:, series] *= share

    def state(self) -> dict[str, Floats]:
        """All that was noted, as arrays; series keep their order."""
        own = {"loss": self.loss, "against": self.against, "count": self.count, "at": self._at}
        return {**own, "pool": self.pool, "pool_at": self._pool_at}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Takes over what `state` gave. Raises KeyError or ValueError when it does not fit."""
        for name, value in self.state().items():
            axis = 1 if name in ("loss", "against", "count") else 0
            own = name in ("pool", "pool_at")
            shape = value.shape if own else (*value.shape[:axis], len(state["at"]), *value.shape[axis + 1 :])
            if state[name].shape != shape or not np.isfinite(state[name]).all():
                raise ValueError(f"scoreboard: {name} is of other models or targets")
        self.loss, self.against, self.count = (state[name].copy() for name in ("loss", "against", "count"))
        self._at, self.pool, self._pool_at = state["at"].copy(), state["pool"].astype(float), state["pool_at"].copy()

    def take_over(self, other: "LossScoreboard", where: NDArray[np.bool_], rows: Ints) -> None:
        """Replaces sums of `rows` by another scoreboard's (of these rows only) where `where` (models x rows) holds.

        What all series say together is taken over while nothing is known of it.
        """
        mask = where[:, :, None]
        for mine, theirs in ((self.loss, other.loss), (self.against, other.against), (self.count, other.count)):
            mine[:, rows] = np.where(mask, theirs, mine[:, rows])
        anything = np.asarray(where.any(axis=0))[:, None]
        self._at[rows] = np.where(anything, other._at, self._at[rows])
        self.pool = np.where(self.pool[2] == 0, other.pool, self.pool)
        self._pool_at = np.maximum(self._pool_at, other._pool_at)

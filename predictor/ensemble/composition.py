"""Makes one fan of all models' fans, and learns from what came: the same live, in replays and in backtests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from predictor.data.view import ALL, Floats, Ints, Rows
from predictor.ensemble.weights import Contest, Ledger
from predictor.models.quantiles import lawful, nearest, pinball, widened

# Each miss moves the factor by STEP * level, each hit back by STEP * (1 - level), on a log scale: it rests where the
# share of hits is the level (stochastic approximation, as in adaptive conformal inference, Gibbs and Candes 2021).
STEP = 0.03
# All series together move a factor of their own: the more of them are asked at a time, the more it is moved, and the
# less the factors of single series, as both act on the same fan.
MANY = 30.0
LEAST_OWN = 0.4
NARROWEST, WIDEST = 0.8, 1.6
POOLED_NARROWEST, POOLED_WIDEST = 0.5, 3.0
UPPER, LOWER = 0.9, 0.1


class Calibration:
    """A factor above and one below the median, per series and target, and one of all series together per target."""

    def __init__(self, targets: int, levels: Sequence[float]) -> None:
        self._levels = np.asarray(levels)
        self._middle, self._upper, self._lower = (nearest(levels, level) for level in (0.5, UPPER, LOWER))
        self._logs = np.zeros((2, 0, targets), dtype=np.float32)
        self._pooled = np.zeros((2, targets))

    def resize(self, series: int) -> None:
        """Makes room for series that have joined; their own factors begin at 1."""
        more = max(0, series - self._logs.shape[1])
        self._logs = np.pad(self._logs, ((0, 0), (0, more), (0, 0)))

    def learn(self, fan: Floats, actual: Floats, targets: Ints, rows: Rows) -> None:
        """Takes note of whether truths (rows x targets) lay beyond the fan's (the same x levels) outer quantiles."""
        known = ~np.isnan(actual) & ~np.isnan(fan).any(axis=-1)
        beyond = (actual > fan[..., self._upper], actual < fan[..., self._lower])
        shares = (1.0 - self._levels[self._upper], self._levels[self._lower])
        where = np.ix_(np.arange(self._logs.shape[1])[rows], targets)
        asked = known.sum(axis=0)
        together = asked / (asked + MANY)
        for logs, pooled, missed, share in zip(self._logs, self._pooled, beyond, shares, strict=True):
            surprise = np.where(known, missed - share, 0.0)
            logs[where] = np.clip(
                logs[where] + STEP * np.maximum(1.0 - together, LEAST_OWN) * surprise, np.log(NARROWEST), np.log(WIDEST)
            )
            moved = pooled[targets] + STEP * together * surprise.sum(axis=0) / np.maximum(asked, 1)
            pooled[targets] = np.clip(moved, np.log(POOLED_NARROWEST), np.log(POOLED_WIDEST))

    def apply(self, fan: Floats, rows: Rows = ALL) -> Floats:
        """The fan (rows x targets x levels) with the distance to its median stretched or shrunk."""
        median = fan[..., self._middle : self._middle + 1]
        over, under = np.exp(self._logs[:, rows] + self._pooled[:, None].astype(np.float32))[..., None]
        distance = fan - median
        distance[..., : self._middle] *= under
        distance[..., self._middle + 1 :] *= over
        distance += median
        return distance

    def state(self) -> dict[str, Floats]:
        """What was learnt, as arrays; series keep their order."""
        return {"logs": self._logs, "pooled": self._pooled}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Takes over what `state` gave. Raises KeyError or ValueError when it does not fit."""
        logs, pooled = state["logs"], state["pooled"]
        fits = logs.ndim == 3 and logs.shape[::2] == self._logs.shape[::2] and pooled.shape == self._pooled.shape
        if not fits or not (np.isfinite(logs).all() and np.isfinite(pooled).all()):
            raise ValueError("calibration: of other targets")
        self._logs, self._pooled = logs.copy(), pooled.astype(float)


NOBODY = 255


@dataclass(frozen=True, slots=True)
class Truth:
    """What some windows held that ended at cell number `cell`: `actual` is rows x targets, NaN = not known."""

    actual: Floats
    targets: Ints
    rows: Rows
    cell: int


class Composition:
    """Weights of models and calibration of their blend, per series and target."""

    def __init__(self, contest: Contest, levels: Sequence[float]) -> None:
        self.contest = contest
        self.levels = tuple(levels)
        self.ledger = Ledger(contest)
        self.calibration = Calibration(len(contest.targets), levels)

    def resize(self, series: int) -> None:
        """Makes room for series that have joined."""
        self.ledger.resize(series)
        self.calibration.resize(series)

    def blend(
        self, fans: Sequence[Floats | None], rows: Rows = ALL, factor: Floats | None = None
    ) -> tuple[Floats, Ints]:
        """The final fan (rows x targets x levels) and the position of the model with the most say (NOBODY = none).

        `fans` are the lawful fans of the models in their order, None = was not asked; `factor` (rows) widens.
        """
        shape = next(fan.shape for fan in fans if fan is not None)
        able = np.stack([np.zeros(shape[:-1], bool) if fan is None else ~np.isnan(fan[..., 0]) for fan in fans])
        weights = self.ledger.weights(able, rows)
        total = np.zeros(shape, dtype=np.float32)
        for fan, weight, speaks in zip(fans, weights, able, strict=True):
            if fan is not None:
                total += weight[..., None] * (fan if speaks.all() else np.where(speaks[..., None], fan, 0.0))
        anyone = able.any(axis=0)
        if not anyone.all():
            total[~anyone] = np.nan
        final = self.calibration.apply(total, rows)
        if factor is not None and (factor != 1.0).any():
            final = widened(final, factor[:, None], self.levels)
        return lawful(final), np.where(anyone, weights.argmax(axis=0), NOBODY)

    def learn(self, fans: Floats, final: Floats, truth: Truth) -> tuple[Floats, Floats]:
        """Takes note of truths about fans (models x rows x targets x levels) and the final fan (without models).

        The arrays hold `truth.targets` only. Returns pinball losses of the models and of the final fan.
        """
        losses = pinball(fans, truth.actual[None], self.levels)
        self.ledger.add(losses, truth.targets, truth.rows, truth.cell)
        self.calibration.learn(final, truth.actual, truth.targets, truth.rows)
        return losses, pinball(final, truth.actual, self.levels)

    def promising(self, rows: Rows, least: float) -> Floats:
        """Models x rows: whether a model, if it spoke, would have a say of `least` or more for any target."""
        shape = self.ledger.count[:, rows].shape
        enough: Floats = np.asarray((self.ledger.weights(np.ones(shape, dtype=bool), rows) >= least).any(axis=-1))
        return enough

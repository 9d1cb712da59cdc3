"""Blends all models' forecasts into one and learns from what came: the same live, in replays and in backtests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cpdb import NO_MODEL, nearest_level
from predictor.data.view import ALL, Floats, Ints, Rows
from predictor.ensemble.weights import Contest, LossScoreboard
from predictor.models.quantiles import make_monotone, pinball_loss, widened

# Each miss moves the factor by STEP * level, each hit back by STEP * (1 - level), on a log scale: it rests where the
# share of hits is the level (stochastic approximation, as in adaptive conformal inference, Gibbs and Candes 2021).
STEP = 0.03
# All series together move a factor of their own: the more of them are asked at a time, the more it is moved, and the
# less the factors of single series, as both act on the same forecast.
MANY = 30.0
MIN_OWN = 0.4
NARROWEST, WIDEST = 0.8, 1.6
POOLED_NARROWEST, POOLED_WIDEST = 0.5, 3.0
UPPER, LOWER = 0.9, 0.1


class Calibration:
    """A factor above and one below the median, per series and target, and one of all series together per target."""

    def __init__(self, targets: int, levels: Sequence[float]) -> None:
        self._levels = np.asarray(levels)
        self._middle, self._upper, self._lower = (nearest_level(levels, level) for level in (0.5, UPPER, LOWER))
        self._logs = np.zeros((2, 0, targets), dtype=np.float32)
        self._pooled = np.zeros((2, targets))

    def resize(self, series: int) -> None:
        """Makes room for series that have joined; their own factors begin at 1."""
        more = max(0, series - self._logs.shape[1])
        self._logs = np.pad(self._logs, ((0, 0), (0, more), (0, 0)))

    def learn(self, quantiles: Floats, actual: Floats, targets: Ints, rows: Rows) -> None:
        """Takes note of whether truths (rows x targets) lay beyond the outer quantiles (the same x levels)."""
        known = ~np.isnan(actual) & ~np.isnan(quantiles).any(axis=-1)
        beyond = (actual > quantiles[..., self._upper], actual < quantiles[..., self._lower])
        shares = (1.0 - self._levels[self._upper], self._levels[self._lower])
        where = np.ix_(np.arange(self._logs.shape[1])[rows], targets)
        asked = known.sum(axis=0)
        together = asked / (asked + MANY)
        for logs, pooled, missed, share in zip(self._logs, self._pooled, beyond, shares, strict=True):
            surprise = np.where(known, missed - share, 0.0)
            logs[where] = np.clip(
                logs[where] + STEP * np.maximum(1.0 - together, MIN_OWN) * surprise, np.log(NARROWEST), np.log(WIDEST)
            )
            moved = pooled[targets] + STEP * together * surprise.sum(axis=0) / np.maximum(asked, 1)
            pooled[targets] = np.clip(moved, np.log(POOLED_NARROWEST), np.log(POOLED_WIDEST))

    def apply(self, quantiles: Floats, rows: Rows = ALL) -> Floats:
        """The forecast (rows x targets x levels) with the distance to its median stretched or shrunk."""
        median = quantiles[..., self._middle : self._middle + 1]
        over, under = np.exp(self._logs[:, rows] + self._pooled[:, None].astype(np.float32))[..., None]
        distance = quantiles - median
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
        self.scoreboard = LossScoreboard(contest)
        self.calibration = Calibration(len(contest.targets), levels)

    def resize(self, series: int) -> None:
        """Makes room for series that have joined."""
        self.scoreboard.resize(series)
        self.calibration.resize(series)

    def blend(
        self, forecasts: Sequence[Floats | None], rows: Rows = ALL, factor: Floats | None = None
    ) -> tuple[Floats, Ints]:
        """The final forecast (rows x targets x levels) and the position of the heaviest model (NO_MODEL = none).

        `forecasts` are the models' monotone ones in their order, None = was not asked; `factor` (rows) widens.
        """
        shape = next(quantiles.shape for quantiles in forecasts if quantiles is not None)
        able = np.stack(
            [
                np.zeros(shape[:-1], bool) if quantiles is None else ~np.isnan(quantiles[..., 0])
                for quantiles in forecasts
            ]
        )
        weights = self.scoreboard.weights(able, rows)
        total = np.zeros(shape, dtype=np.float32)
        for quantiles, weight, speaks in zip(forecasts, weights, able, strict=True):
            if quantiles is not None:
                total += weight[..., None] * (
                    quantiles if speaks.all() else np.where(speaks[..., None], quantiles, 0.0)
                )
        anyone = able.any(axis=0)
        if not anyone.all():
            total[~anyone] = np.nan
        final = self.calibration.apply(total, rows)
        if factor is not None and (factor != 1.0).any():
            final = widened(final, factor[:, None], self.levels)
        return make_monotone(final), np.where(anyone, weights.argmax(axis=0), NO_MODEL)

    def shares(self, forecasts: Floats, rows: Rows) -> Floats:
        """Say of each model in a blend of these forecasts (models x rows x targets x levels): means that sum to 1."""
        able = ~np.isnan(forecasts[..., 0])
        weights = self.scoreboard.weights(able, rows)
        shares: Floats = weights.sum(axis=(1, 2)) / max(1, int(able.any(axis=0).sum()))
        return shares

    def learn(self, forecasts: Floats, final: Floats, truth: Truth) -> tuple[Floats, Floats]:
        """Learns from truths about forecasts (models x rows x targets x levels) and the final one (without models).

        The arrays hold `truth.targets` only. Returns pinball losses of the models and of the final forecast.
        """
        losses = pinball_loss(forecasts, truth.actual[None], self.levels)
        self.scoreboard.add(losses, truth.targets, truth.rows, truth.cell)
        self.calibration.learn(final, truth.actual, truth.targets, truth.rows)
        return losses, pinball_loss(final, truth.actual, self.levels)

    def promising(self, rows: Rows, least: float) -> Floats:
        """Models x rows: whether a model, if it spoke, would have a say of `least` or more for any target."""
        shape = self.scoreboard.count[:, rows].shape
        enough: Floats = np.asarray((self.scoreboard.weights(np.ones(shape, dtype=bool), rows) >= least).any(axis=-1))
        return enough

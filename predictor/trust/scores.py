"""Keeps how every model did, by series and horizon, and rolls it up into one record a minute."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpdb import Quantity, ScoreBatch, Subject
from predictor.data.view import Floats, Ints

# The name under which what was really said is scored, beside the models that it was made of.
BLENDED = "auto"
# So many series have scores of their own, the busiest; one row more holds all of them together.
OWN_ROWS = 256
EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class ScoreShape:
    """What the positions of the arrays stand for; targets are horizons x quantities, horizon first."""

    models: tuple[str, ...]
    horizons_s: tuple[int, ...]
    quantities: tuple[Quantity, ...]
    tier: str = "fast"
    own_rows: int = OWN_ROWS

    @property
    def targets(self) -> int:
        """Number of targets."""
        return len(self.horizons_s) * len(self.quantities)


class ScoreRollup:
    """Sums of losses since the last roll-up, for the series that are watched and for all together."""

    def __init__(self, shape: ScoreShape, every_s: float) -> None:
        self.shape = shape
        self._every_s = every_s
        self._since: float | None = None
        self._watched: Ints = np.zeros(0, dtype=np.int64)
        self._place: Ints = np.zeros(0, dtype=np.int64)
        self._begin(np.zeros(0))

    def _begin(self, sizes: Floats) -> None:
        """Watches the largest series from now on; `sizes` is any measure of size per series (NaN = none)."""
        self._watched = np.sort(np.argsort(-np.nan_to_num(sizes), kind="stable")[: self.shape.own_rows])
        self._place = np.full(len(sizes), -1, dtype=np.int64)
        self._place[self._watched] = np.arange(len(self._watched))
        # Loss, covered, count; the last row is for everything
        self._sums = np.zeros((3, len(self.shape.models), len(self._watched) + 1, self.shape.targets))

    def add(self, losses: Floats, covered: Floats, targets: Ints, rows: Ints) -> None:
        """Takes note of windows that are over: which `targets` (positions) of which `rows` (series).

        `losses` is models x rows x targets and `covered` says for the same whether the 0.9 quantile held; the last
        model is what was really written. NaN losses are left out.
        """
        known = ~np.isnan(losses)
        news = np.stack([np.where(known, losses, 0.0), known & (covered > 0), known])
        self._sums[:, :, -1, targets] += news.sum(axis=2)
        # Series that have joined since the last roll-up count among all only.
        known_of = np.flatnonzero(rows < len(self._place))
        own = known_of[self._place[rows[known_of]] >= 0]
        where = np.ix_(np.arange(3), np.arange(len(self.shape.models)), self._place[rows[own]], targets)
        self._sums[where] += news[:, :, own]

    def due(self, now: float, subjects: Sequence[Subject], sizes: Floats) -> ScoreBatch | None:
        """One record each `every_s` seconds of what was added since the last, else None.

        Rows are the watched subjects and one named "*" for all; `sizes` (per series) decide who is watched next.
        """
        if self._since is None:
            self._since = now
            self._begin(sizes)
        if now - self._since < self._every_s:
            return None
        batch = self._batch(now, subjects) if self._sums[2].any() else None
        self._since = now
        self._begin(sizes)
        return batch

    def _batch(self, now: float, subjects: Sequence[Subject]) -> ScoreBatch:
        loss, covered, count = self._sums.transpose(0, 2, 1, 3)  # rows x models x targets
        number = np.maximum(count, 1.0)
        means = [np.where(count > 0, part / number, np.nan).astype("<f4") for part in (loss, covered)]
        named = [subjects[series] for series in self._watched.tolist()]
        return ScoreBatch(
            scored_at=now,
            subjects=(*named, Subject(named[0].kind, EVERYTHING, self.shape.tier)),
            models=self.shape.models,
            horizons_s=self.shape.horizons_s,
            quantities=self.shape.quantities,
            pinball=means[0].tobytes(),
            covered=means[1].tobytes(),
            count=count.astype("<u4").tobytes(),
        )


@dataclass(frozen=True, slots=True)
class ModelScore:
    """How one model did at one horizon and quantity: pinball loss in units of the reference's, share covered."""

    model: str
    horizon_s: int
    quantity: Quantity
    relative: float
    covered_q90: float
    count: int
    pinball: float


def summarise_scores(batches: Sequence[ScoreBatch], subject: Subject | None, reference: str) -> list[ModelScore]:
    """Sums up score batches of one shape: for one subject, or for all together (None).

    `relative` compares sums over the same windows only if both were asked there; NaN where the reference has no score.
    """
    totals: dict[tuple[str, int, Quantity], Floats] = {}
    for batch in batches:
        for key, sums in _sums(batch, subject).items():
            totals[key] = totals.get(key, np.zeros(3)) + sums
    found = []
    for (model, horizon_s, quantity), (loss, covered, count) in totals.items():
        if count:
            base = totals.get((reference, horizon_s, quantity), np.zeros(3))
            usual = base[0] / base[2] if base[2] else np.nan
            mean = loss / count
            relative = mean / usual if usual > 0 else (1.0 if mean == usual else np.nan)
            found.append(ModelScore(model, horizon_s, quantity, relative, covered / count, int(count), mean))
    return found


def _sums(batch: ScoreBatch, subject: Subject | None) -> dict[tuple[str, int, Quantity], Floats]:
    """Sums of loss and of covered windows, and how many there were."""
    rows = batch.rows((batch.subjects[-1] if subject is None else subject,))
    return {
        (row.model, row.horizon_s, row.quantity): row.count * np.array([row.pinball, row.covered, 1.0]) for row in rows
    }

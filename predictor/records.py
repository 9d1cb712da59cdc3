"""Turns arrays into the rows that other processes read: forecasts, and the scores that they earned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cpdb import Forecast, Pair, Score
from predictor.config import PredictorConfig
from predictor.issues import Issue, Verdict
from predictor.view import QUANTITIES, Floats


@dataclass(frozen=True, slots=True)
class Names:
    """What positions in arrays stand for. `pairs` may be longer than the arrays: pairs join at the end."""

    config: PredictorConfig
    pairs: Sequence[Pair]


def forecast_rows(issue: Issue, names: Names) -> list[Forecast]:
    """One row per spoken pair, horizon and quantity."""
    return [
        Forecast(
            pair=names.pairs[pair],
            issued_at=issue.issued_at,
            horizon_s=names.config.horizons_s[horizon],
            quantity=QUANTITIES[quantity],
            model=names.config.models[issue.chosen[pair, horizon, quantity]],
            quantiles=dict(zip(names.config.levels, issue.final[pair, horizon, quantity].tolist(), strict=True)),
        )
        for pair in np.flatnonzero(issue.spoken).tolist()
        for horizon in range(len(names.config.horizons_s))
        for quantity in range(len(QUANTITIES))
    ]


def score_rows(verdict: Verdict, names: Names, scored_at: float) -> Iterator[Score]:
    """Scores of what was written, for windows whose truth is known."""
    issue, horizon = verdict.issue, verdict.horizon
    judged = issue.spoken[:, None] & ~np.isnan(verdict.final_loss)
    covered = verdict.actual <= issue.final[:, horizon, :, upper(names.config.levels)]
    for pair, quantity in zip(*np.nonzero(judged), strict=True):
        yield Score(
            pair=names.pairs[pair],
            issued_at=issue.issued_at,
            scored_at=scored_at,
            horizon_s=names.config.horizons_s[horizon],
            quantity=QUANTITIES[quantity],
            model=names.config.models[issue.chosen[pair, horizon, quantity]],
            actual=float(verdict.actual[pair, quantity]),
            pinball=float(verdict.final_loss[pair, quantity]),
            covered_q90=bool(covered[pair, quantity]),
        )


def upper(levels: Sequence[float]) -> int:
    """Position of the level nearest to 0.9."""
    return int(np.argmin(np.abs(np.asarray(levels) - 0.9)))


@dataclass(slots=True)
class RollUp:
    """Means over all windows scored since the last call, for every model: what did the others do meanwhile?"""

    names: Names
    _last: float | None = None
    _sums: dict[int, list[Floats]] = field(default_factory=dict)

    def add(self, verdict: Verdict) -> None:
        """Remembers losses, truths and coverage of all models over one window."""
        fans = verdict.issue.fans[:, :, verdict.horizon]
        level = upper(self.names.config.levels)
        known = ~np.isnan(verdict.losses)
        actual = np.broadcast_to(verdict.actual, verdict.losses.shape)
        covered = actual <= fans[..., level]
        new = [np.where(known, part, 0.0) for part in (verdict.losses, actual, covered, np.ones(known.shape))]
        old = self._sums.get(verdict.horizon, [])
        for before, now in zip(old, new, strict=False):
            now[:, : before.shape[1]] += before
        self._sums[verdict.horizon] = new

    def rows(self, now: float) -> list[Score]:
        """One row per model, pair, horizon and quantity each `rollup_every_s`, else none.

        `actual` and `pinball` are means, `issued_at` is `now`, `covered_q90` says that 0.9 or more of the windows were.
        """
        if self._last is None:
            self._last = now
        if now - self._last < self.names.config.rollup_every_s:
            return []
        self._last = now
        rows = [row for horizon, sums in self._sums.items() for row in self._rolled(horizon, sums, now)]
        self._sums = {}
        return rows

    def _rolled(self, horizon: int, sums: list[Floats], now: float) -> Iterator[Score]:
        loss, actual, covered, count = sums
        for model, pair, quantity in zip(*np.nonzero(count), strict=True):
            here = (model, pair, quantity)
            yield Score(
                pair=self.names.pairs[pair],
                issued_at=now,
                scored_at=now,
                horizon_s=self.names.config.horizons_s[horizon],
                quantity=QUANTITIES[quantity],
                model=self.names.config.models[model] + "/mean",
                actual=float(actual[here] / count[here]),
                pinball=float(loss[here] / count[here]),
                covered_q90=bool(covered[here] >= 0.9 * count[here]),
            )

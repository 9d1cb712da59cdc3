"""Keeps what was forecast until its time has come, and then says what came instead."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cpdb import ForecastBatch, Pair, Quantity, Score, Subject, SubjectKind, TrustArrays, nearest_level
from predictor.config import PredictorConfig
from predictor.data.sources import Source
from predictor.data.view import Floats, ForecastSpec, Ints, window_values
from predictor.ensemble.composition import Truth

# Rows of a window arrive a little after its end.
GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class IssuedForecast:
    """Forecasts of one cycle that are to be judged: those of `rows` (places of series).

    `start` is the number of the first cell that they are about. `forecasts` is models x rows x targets x levels,
    `final` the same without models: what was written, `chosen` (rows x targets) the heaviest model of each;
    `written` tells which rows were written at all.
    """

    issued_at: float
    start: int
    rows: Ints
    forecasts: Floats
    final: Floats
    chosen: Ints
    written: Floats


@dataclass(frozen=True, slots=True)
class JudgedForecast:
    """What the windows of some targets of one issue turned out to be.

    `losses` is models x rows x targets, `final_loss` rows x targets: mean pinball loss, NaN = not known.
    """

    issued: IssuedForecast
    truth: Truth
    losses: Floats
    final_loss: Floats


class PendingForecasts:
    """Forecasts whose windows have not all been judged yet. Targets that end together are judged together."""

    newest: IssuedForecast

    def __init__(self, spec: ForecastSpec) -> None:
        self._spec = spec
        reaches = np.array([target.reach for target in spec.targets])
        self._waiting = {
            reach: (np.flatnonzero(reaches == reach), deque[IssuedForecast]()) for reach in np.unique(reaches).tolist()
        }

    def add(self, issued: IssuedForecast) -> None:
        """Waits for every target of this forecast."""
        self.newest = issued
        for _, queue in self._waiting.values():
            queue.append(issued)

    def due(self, source: Source, now: float) -> Iterator[tuple[IssuedForecast, Truth]]:
        """Truths about all windows that ended at least GRACE_S before `now`; each is told once."""
        reached = round((now - GRACE_S) / source.step_s)
        for reach, (targets, queue) in self._waiting.items():
            while queue and queue[0].start + reach <= reached:
                issued = queue.popleft()
                yield issued, Truth(self._actual(issued, targets, source), targets, issued.rows, issued.start + reach)

    def _actual(self, issued: IssuedForecast, targets: Ints, source: Source) -> Floats:
        actual = np.full((len(issued.rows), len(targets)), np.nan, dtype=np.float32)
        chosen = [self._spec.targets[number] for number in targets]
        first = min(target.first for target in chosen)
        rates = source.window(issued.start + first, chosen[0].reach - first, issued.rows)
        for number, one in enumerate(chosen):
            window = rates[one.channel][:, one.first - first :]
            actual[:, number] = window_values(window, one.length, one.peak)[:, 0]
        return actual


@dataclass(frozen=True, slots=True)
class ForecastLabels:
    """What positions in arrays stand for. `subjects` may be longer than the arrays: they join at the end."""

    config: PredictorConfig
    subjects: Sequence[Subject]
    quantities: tuple[Quantity, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FinalForecasts:
    """What is written of each series in one cycle.

    `values` is series x targets x levels, `chosen` (series x targets) the heaviest models, `active` the probability to
    be active at all (series x horizons), `horizon_s` (series x channels) how far ahead it is trusted, `doubts` why no
    farther (series x channels x 2); `allowed` bounds both.
    """

    values: Floats
    chosen: Ints
    active: Floats
    horizon_s: Ints
    doubts: Floats
    allowed: tuple[float, float]


def forecast_batch(now: float, final: FinalForecasts, places: Ints, names: ForecastLabels) -> ForecastBatch:
    """One batch of the series at `places`."""
    config = names.config
    everyone = len(places) == len(final.values)
    return ForecastBatch(
        issued_at=now,
        tier=config.tier,
        subjects=tuple(names.subjects[: len(places)] if everyone else (names.subjects[n] for n in places.tolist())),
        horizons_s=config.horizons_s,
        quantities=names.quantities,
        levels=config.levels,
        models=names.models,
        chosen=(final.chosen if everyone else final.chosen[places]).astype(np.uint8, copy=False).tobytes(),
        quantiles=(final.values if everyone else final.values[places]).astype("<f4", copy=False).tobytes(),
        activity=final.active[places].astype("<f4", copy=False).tobytes(),
        trusts=TrustArrays(
            final.horizon_s[places].astype("<u2").tobytes(), final.doubts[places].astype("<f4").tobytes(), final.allowed
        ),
    )


def score_rows(verdict: JudgedForecast, names: ForecastLabels, scored_at: float) -> Iterator[Score]:
    """Scores of what was written about pairs, for windows whose truth is known."""
    issued, targets, config = verdict.issued, verdict.truth.targets, names.config
    actual = verdict.truth.actual
    judged = issued.written[:, None] & ~np.isnan(verdict.final_loss)
    covered = actual <= issued.final[:, targets][..., nearest_level(config.levels, 0.9)]
    for row, number in zip(*np.nonzero(judged), strict=True):
        subject = names.subjects[issued.rows[row]]
        horizon, quantity = divmod(int(targets[number]), len(names.quantities))
        if subject.kind is SubjectKind.PAIR:
            yield Score(
                pair=Pair(subject.a, subject.b),
                issued_at=issued.issued_at,
                scored_at=scored_at,
                horizon_s=config.horizons_s[horizon],
                quantity=names.quantities[quantity],
                model=names.models[issued.chosen[row, targets[number]]],
                actual=float(actual[row, number]),
                pinball=float(verdict.final_loss[row, number]),
                covered_q90=bool(covered[row, number]),
            )

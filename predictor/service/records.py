"""Keeps what was foreseen until its time has come, and then says what came instead."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cpdb import ForecastBatch, Pair, Quantity, Score, Subject, SubjectKind
from predictor.config import PredictorConfig
from predictor.data.sources import Source
from predictor.data.view import Ask, Floats, Ints, window_values
from predictor.ensemble.composition import Truth
from predictor.models.quantiles import nearest

# Rows of a window arrive a little after its end.
GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Issue:
    """Forecasts of one cycle that are to be judged: those of `rows` (places of series).

    `start` is the number of the first cell that they are about. `fans` is models x rows x targets x levels, `final` the
    same without models: what was written, `chosen` (rows x targets) the position of the model with the most say in
    it; `spoken` tells which rows were written at all.
    """

    issued_at: float
    start: int
    rows: Ints
    fans: Floats
    final: Floats
    chosen: Ints
    spoken: Floats


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the windows of some targets of one issue turned out to be.

    `losses` is models x rows x targets, `final_loss` rows x targets: mean pinball loss, NaN = not known.
    """

    issue: Issue
    truth: Truth
    losses: Floats
    final_loss: Floats


class Issues:
    """Issues whose windows have not all been judged yet. Targets that end together are judged together."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        reaches = np.array([target.reach for target in ask.targets])
        self._waiting = {
            reach: (np.flatnonzero(reaches == reach), deque[Issue]()) for reach in np.unique(reaches).tolist()
        }

    def add(self, issue: Issue) -> None:
        """Waits for every target of this issue."""
        for _, queue in self._waiting.values():
            queue.append(issue)

    def due(self, source: Source, now: float) -> Iterator[tuple[Issue, Truth]]:
        """Truths about all windows that ended at least GRACE_S before `now`; each is told once."""
        reached = round((now - GRACE_S) / source.step_s)
        for reach, (targets, queue) in self._waiting.items():
            while queue and queue[0].start + reach <= reached:
                issue = queue.popleft()
                yield issue, Truth(self._actual(issue, targets, source), targets, issue.rows, issue.start + reach)

    def _actual(self, issue: Issue, targets: Ints, source: Source) -> Floats:
        actual = np.full((len(issue.rows), len(targets)), np.nan, dtype=np.float32)
        chosen = [self._ask.targets[number] for number in targets]
        first = min(one.first for one in chosen)
        rates = source.window(issue.start + first, chosen[0].reach - first, issue.rows)
        for number, one in enumerate(chosen):
            window = rates[one.channel][:, one.first - first :]
            actual[:, number] = window_values(window, one.length, one.peak)[:, 0]
        return actual


@dataclass(frozen=True, slots=True)
class Names:
    """What positions in arrays stand for. `subjects` may be longer than the arrays: they join at the end."""

    config: PredictorConfig
    subjects: Sequence[Subject]
    quantities: tuple[Quantity, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extras:
    """What else is known of each series: probability to talk (series x horizons) and horizon in force, or nothing."""

    talks: Floats | None = None
    horizon_s: Ints | None = None


def forecast_batch(now: float, fans: tuple[Floats, Ints], spoken: Ints, names: Names, extras: Extras) -> ForecastBatch:
    """One batch of the series at the places `spoken`; `fans` are final fans and who had the most say, of all series."""
    config = names.config
    final, chosen = fans
    everyone = len(spoken) == len(final)
    return ForecastBatch(
        issued_at=now,
        lane=config.tier,
        subjects=tuple(names.subjects[: len(final)]) if everyone else tuple(names.subjects[n] for n in spoken.tolist()),
        horizons_s=config.horizons_s,
        quantities=names.quantities,
        levels=config.levels,
        models=names.models,
        chosen=(chosen if everyone else chosen[spoken]).astype(np.uint8, copy=False).tobytes(),
        values=(final if everyone else final[spoken]).astype("<f4", copy=False).tobytes(),
        talks=b"" if extras.talks is None else extras.talks[spoken].astype("<f4", copy=False).tobytes(),
        horizon_s=b"" if extras.horizon_s is None else extras.horizon_s[spoken].astype("<u2").tobytes(),
    )


def score_rows(verdict: Verdict, names: Names, scored_at: float) -> Iterator[Score]:
    """Scores of what was written about pairs, for windows whose truth is known."""
    issue, targets, config = verdict.issue, verdict.truth.targets, names.config
    actual = verdict.truth.actual
    judged = issue.spoken[:, None] & ~np.isnan(verdict.final_loss)
    covered = actual <= issue.final[:, targets][..., nearest(config.levels, 0.9)]
    for row, number in zip(*np.nonzero(judged), strict=True):
        subject = names.subjects[issue.rows[row]]
        horizon, quantity = divmod(int(targets[number]), len(names.quantities))
        if subject.kind is SubjectKind.PAIR:
            yield Score(
                pair=Pair(subject.a, subject.b),
                issued_at=issue.issued_at,
                scored_at=scored_at,
                horizon_s=config.horizons_s[horizon],
                quantity=names.quantities[quantity],
                model=names.models[issue.chosen[row, targets[number]]],
                actual=float(actual[row, number]),
                pinball=float(verdict.final_loss[row, number]),
                covered_q90=bool(covered[row, number]),
            )

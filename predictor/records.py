"""Turns arrays into what other processes read: forecasts, and the scores that they earned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cpdb import ForecastBatch, Pair, Quantity, Score, Subject, SubjectKind
from predictor.calibration import nearest
from predictor.config import PredictorConfig
from predictor.issues import Verdict
from predictor.view import Floats, Ints


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
        lane=config.lane,
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

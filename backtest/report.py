"""Turns scores into one JSON document, the same for programs, for the page and for the table of results."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest import metrics
from backtest.baselines import BASELINES, WINDOW_BASELINES, filled
from backtest.protocol import Question
from backtest.scores import Scored, best_simple
from predictor import rolling

# A pair that always or never talked on train says nothing about foreseeing who talks.
RARELY, MOSTLY = 0.01, 0.99


def document(question: Question, scored: Mapping[str, Scored], shown: tuple[str, ...]) -> dict[str, Any]:
    """What was replayed, the figures of the methods in `shown`, and the best simple method everywhere."""
    recording = question.recording
    return {
        "file": recording.name,
        "step_s": recording.step_s,
        "rows": recording.rows,
        "train_rows": question.split,
        "test_rows": recording.rows - question.split,
        "series": len(recording.names),
        "series_scored": len(question.scored),
        "season_rows": question.season,
        "missing": float(np.isnan(recording.values[question.scored]).mean()),
        "best_simple": {
            "horizons": {str(at): _named(scored, "horizons", at) for at in question.horizons},
            "windows": {str(at): _named(scored, "windows", at) for at in question.windows},
        },
        "activity": activity(question),
        "models": {name: _figures(scored[name]) for name in shown},
    }


def _named(scored: Mapping[str, Scored], kind: str, at: int) -> dict[str, Any]:
    simple = tuple(BASELINES if kind == "horizons" else WINDOW_BASELINES)
    name, wape = best_simple(dict(scored), kind, at, simple)
    return {"model": name, "wape": wape}


def _figures(one: Scored) -> dict[str, Any]:
    return {
        "horizons": {str(at): figures for at, figures in one.horizons.items()},
        "windows": {str(at): figures for at, figures in one.windows.items()},
        "fit_seconds": one.fit_seconds,
        "predict_seconds": one.predict_seconds,
    }


def activity(question: Question) -> dict[str, Any]:
    """Average precision of "will it talk in the next rows?" by horizon, where that is a question at all; else empty.

    Beside the share of moments that are followed by talk, which a guess would reach, and a running mean of activity.
    """
    values = question.recording.values[question.scored]
    train = values[:, : question.split]
    known = np.maximum((~np.isnan(train)).sum(axis=1), 1)
    busy = (train > 0).sum(axis=1) / known
    asked = np.flatnonzero((busy >= RARELY) & (busy <= MOSTLY))
    if not len(asked):
        return {}
    past = filled(values[asked])
    foreseen = rolling(values[asked], question.horizons)
    recent = np.asarray(BASELINES["ewma"](_binary(question, past), np.arange(past.shape[1]), question.asked[0]))
    found: dict[str, Any] = {"series": len(asked), "horizons": {}}
    for number, ahead in enumerate(question.horizons):
        origins = np.arange(question.split - 1, question.recording.rows - ahead)
        label = np.stack([past[:, origins + step] > 0 for step in range(1, ahead + 1)]).any(axis=0)
        found["horizons"][str(ahead)] = {
            "base_rate": float(label.mean()),
            "average_precision": _precision(label, foreseen[number][:, origins]),
            "average_precision_ewma": _precision(label, recent[:, origins]),
            "silent_average_precision": _precision(~label, -foreseen[number][:, origins]),
        }
    return found


def _precision(label: Any, score: Any) -> float:
    return metrics.average_precision(label.ravel(), np.nan_to_num(score).ravel())


def _binary(question: Question, past: Any) -> Any:
    from backtest.baselines import Past

    return Past((past > 0).astype(np.float64), question.split, question.season)

"""Turns what every method said into the figures of the report, each beside the best simple method."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest import metrics
from backtest.baselines import BASELINES, WINDOW_BASELINES
from backtest.metrics import Yardstick
from backtest.protocol import BacktestTask, MethodForecast

Floats = NDArray[Any]
# Beyond this many series a table of each would bury the rest.
FEW_SERIES = 60


@dataclass(frozen=True, slots=True)
class Scored:
    """All figures of one method: by horizon and by window, in rows."""

    horizons: dict[int, dict[str, Any]]
    windows: dict[int, dict[str, Any]]
    fit_seconds: float
    predict_seconds: float


def score_all(question: BacktestTask, answers: dict[str, MethodForecast]) -> dict[str, Scored]:
    """Scores every answer, and each one's skill against the best simple method, which must be among the answers."""
    scored = {name: _score(question, answer) for name, answer in answers.items()}
    for kind, simple in (("horizons", BASELINES), ("windows", WINDOW_BASELINES)):
        for at in question.horizons if kind == "horizons" else question.windows:
            best = best_simple(scored, kind, at, tuple(simple))
            for one in scored.values():
                figures = getattr(one, kind)[at]
                figures["skill"] = 1.0 - figures["wape"] / best[1] if best[1] > 0 else math.nan
    return scored


def best_simple(
    scored: dict[str, Scored], kind: str, at: int, simple: tuple[str, ...] = tuple(WINDOW_BASELINES)
) -> tuple[str, float]:
    """Name and WAPE of the best simple method at a horizon or window; `kind` is "horizons" or "windows"."""
    known = {name: getattr(scored[name], kind)[at]["wape"] for name in simple if name in scored}
    name = min(known, key=lambda one: (math.isnan(known[one]), known[one]))
    return name, known[name]


def _score(question: BacktestTask, answer: MethodForecast) -> Scored:
    unit = Yardstick.of(question.past().values[:, : question.split])
    horizons, windows = {}, {}
    for number, window in enumerate(question.asked):
        truth = question.truth(window)
        point, quantiles = answer.points[number], answer.quantiles_by_target[number]
        if window.length == 1:
            horizons[window.ahead] = _of_rows(question, unit, truth, point, quantiles)
        else:
            windows[window.length] = _of_windows(question, truth, point, quantiles)
    return Scored(horizons, windows, answer.fit_seconds, answer.predict_seconds)


def _of_rows(
    question: BacktestTask, unit: Yardstick, truth: Floats, point: Floats, quantiles: Floats
) -> dict[str, Any]:
    upper = quantiles[..., metrics.nearest(question.levels, metrics.UPPER)]
    figures: dict[str, Any] = {
        "wape": metrics.wape(truth, point),
        "mase": metrics.mase(truth, point, unit.absolute),
        "rmsse": metrics.rmsse(truth, point, unit.squared),
        "wql": metrics.wql(truth, quantiles, question.levels),
        "coverage_q90": metrics.coverage(truth, upper, unit.covered),
        "peak_miss": metrics.peak_miss(truth, upper, unit.peak),
        "false_alarm": metrics.false_alarm(truth, upper, unit.peak),
    }
    if len(question.scored) <= FEW_SERIES:
        names = [question.recording.names[at] for at in question.scored]
        figures["wape_by_series"] = {name: metrics.wape(*pair) for name, *pair in zip(names, truth, point, strict=True)}
    return figures


def _of_windows(question: BacktestTask, truth: Floats, point: Floats, quantiles: Floats) -> dict[str, Any]:
    upper = quantiles[..., metrics.nearest(question.levels, metrics.UPPER)]
    return {
        "wape": metrics.wape(truth, point),
        "wql": metrics.wql(truth, quantiles, question.levels),
        "coverage_q90": metrics.coverage(truth, upper, np.ones(len(truth), dtype=np.bool_)),
    }

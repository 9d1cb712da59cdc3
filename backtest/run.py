"""One backtest from a recording to its report: which methods, in which order, on what rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest import metrics
from backtest.baselines import BASELINES, WINDOW_BASELINES, filled, season_rows
from backtest.live_models import AUTO, forecast_live
from backtest.protocol import BacktestTask, MethodForecast, answer_of_baseline
from backtest.reading import Recording, RecordingError
from backtest.scores import Scored, best_simple, score_all
from predictor import MODELS, ForecasterOptions, Model, build_models, known_models, rolling_probabilities

# A pair that always or never talked on train says nothing about foreseeing who talks.
RARELY, MOSTLY = 0.01, 0.99


def document(question: BacktestTask, scored: Mapping[str, Scored], shown: tuple[str, ...]) -> dict[str, Any]:
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


def activity(question: BacktestTask) -> dict[str, Any]:
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
    forecasts = rolling_probabilities(values[asked], question.horizons)
    recent = np.asarray(BASELINES["ewma"](_binary(question, past), np.arange(past.shape[1]), question.asked[0]))
    found: dict[str, Any] = {"series": len(asked), "horizons": {}}
    for number, ahead in enumerate(question.horizons):
        origins = np.arange(question.split - 1, question.recording.rows - ahead)
        label = np.stack([past[:, origins + step] > 0 for step in range(1, ahead + 1)]).any(axis=0)
        found["horizons"][str(ahead)] = {
            "base_rate": float(label.mean()),
            "average_precision": _precision(label, forecasts[number][:, origins]),
            "average_precision_ewma": _precision(label, recent[:, origins]),
            "silent_average_precision": _precision(~label, -forecasts[number][:, origins]),
        }
    return found


def _precision(label: Any, score: Any) -> float:
    return metrics.average_precision(label.ravel(), np.nan_to_num(score).ravel())


def _binary(question: BacktestTask, past: Any) -> Any:
    from backtest.baselines import TrainingHistory

    return TrainingHistory((past > 0).astype(np.float64), question.split, question.season)


# What people write, and what it is called inside.
SHORT = {"boosting": "gradient_boosting"}
FEWEST_TEST_ROWS = 5


@dataclass(frozen=True, slots=True)
class BacktestPlan:
    """What a person asked for: horizons and windows in rows, the share of train rows, model names, scored series.

    `fit_budget_s` is about how much CPU time one fit of one model may take, `seed` moves whatever is random.
    """

    horizons: tuple[int, ...] = (1, 3, 6)
    windows: tuple[int, ...] = ()
    train_fraction: float = 0.75
    models: tuple[str, ...] = (AUTO,)
    series: tuple[str, ...] = ()
    season: int | None = None
    fit_budget_s: float = 40.0
    refit_every: int = 0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report, and what it was made of."""

    question: BacktestTask
    report: dict[str, Any]
    answers: dict[str, MethodForecast]


def names_of(plan: BacktestPlan) -> tuple[str, ...]:
    """Model names as they are called inside; raises RecordingError for one that nobody knows."""
    names = tuple(dict.fromkeys(SHORT.get(name, name) for name in plan.models))
    every = (AUTO, *WINDOW_BASELINES, *known_models())
    unknown = [name for name in names if name not in every]
    if unknown or not names:
        listed = ", ".join(dict.fromkeys((*every, *SHORT)))
        raise RecordingError(f"--models {','.join(unknown) or 'nothing'}: no such model; there are {listed}")
    return names


def question_of(recording: Recording, plan: BacktestPlan) -> BacktestTask:
    """What is asked of every method; raises RecordingError when the recording is too short for it."""
    split = int(plan.train_fraction * recording.rows)
    ahead = max((*plan.horizons, *plan.windows))
    enough = split >= 2 * ahead + 2 and recording.rows - split >= max(FEWEST_TEST_ROWS, ahead + 1)
    if not 0 < plan.train_fraction < 1 or not enough:
        raise RecordingError(
            f"{recording.name}: --train-fraction {plan.train_fraction:g} leaves {split} of {recording.rows} rows to "
            f"learn from and {recording.rows - split} to judge by: too few to forecast {ahead} rows ahead"
        )
    found = recording.positions(plan.series)
    spoken = found[(np.nan_to_num(recording.values[found]) != 0).any(axis=1)]
    if not len(spoken):
        raise RecordingError(f"{recording.name}: every scored series is zero or missing throughout")
    season = plan.season or season_rows(recording.step_s)
    return BacktestTask(recording, split, plan.horizons, plan.windows, season, spoken)


def backtest(recording: Recording, plan: BacktestPlan, say: Callable[[str, int, int], None] | None = None) -> Outcome:
    """Replays a recording; `say` is told what is being done and how far it is. Raises RecordingError."""
    names = names_of(plan)
    question = question_of(recording, plan)
    answers = {name: answer_of_baseline(name, question) for name in WINDOW_BASELINES}
    asked = tuple(name for name in names if name not in answers)
    if asked:
        forecasts = forecast_live(
            question, _models(question, plan, asked), ForecasterOptions(refit_every=plan.refit_every), say
        )
        # A simple method keeps the figures of the textbook's definition, not those of the live model of its name.
        answers |= {name: answer for name, answer in forecasts.items() if name not in answers}
    scored = score_all(question, answers)
    shown = names if AUTO not in names else (*names, *(name for name in WINDOW_BASELINES if name not in names))
    return Outcome(question, document(question, scored, shown), {name: answers[name] for name in shown})


def _models(question: BacktestTask, plan: BacktestPlan, asked: Sequence[str]) -> dict[str, Model]:
    from backtest.live_models import ask_of

    # Alone or in company, the baselines are there: they are what `auto` falls back to.
    wanted = tuple(dict.fromkeys((*MODELS, *asked) if AUTO in asked else ("ewma", *asked)))
    models = build_models([name for name in wanted if name != AUTO], ask_of(question), plan.seed)
    for model in models.values():
        if hasattr(model, "fit_budget_s"):
            model.fit_budget_s = plan.fit_budget_s
    return models

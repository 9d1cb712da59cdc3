"""One backtest from a recording to its report: which methods, in which order, on what rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest.baselines import WINDOW_BASELINES, season_rows
from backtest.foreseeing import AUTO, foresee
from backtest.protocol import Answer, Question, answer_of_baseline
from backtest.reading import Recording, RecordingError
from backtest.report import document
from backtest.scores import score_all
from predictor import MODELS, Model, Options, build, known

# What people write, and what it is called inside.
SHORT = {"boosting": "gradient_boosting"}
FEWEST_TEST_ROWS = 5


@dataclass(frozen=True, slots=True)
class Plan:
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

    question: Question
    report: dict[str, Any]
    answers: dict[str, Answer]


def names_of(plan: Plan) -> tuple[str, ...]:
    """Model names as they are called inside; raises RecordingError for one that nobody knows."""
    names = tuple(dict.fromkeys(SHORT.get(name, name) for name in plan.models))
    every = (AUTO, *WINDOW_BASELINES, *known())
    unknown = [name for name in names if name not in every]
    if unknown or not names:
        listed = ", ".join(dict.fromkeys((*every, *SHORT)))
        raise RecordingError(f"--models {','.join(unknown) or 'nothing'}: no such model; there are {listed}")
    return names


def question_of(recording: Recording, plan: Plan) -> Question:
    """What is asked of every method; raises RecordingError when the recording is too short for it."""
    split = int(plan.train_fraction * recording.rows)
    ahead = max((*plan.horizons, *plan.windows))
    enough = split >= 2 * ahead + 2 and recording.rows - split >= max(FEWEST_TEST_ROWS, ahead + 1)
    if not 0 < plan.train_fraction < 1 or not enough:
        raise RecordingError(
            f"{recording.name}: --train-fraction {plan.train_fraction:g} leaves {split} of {recording.rows} rows to "
            f"learn from and {recording.rows - split} to judge by: too few to foresee {ahead} rows ahead"
        )
    found = recording.positions(plan.series)
    spoken = found[(np.nan_to_num(recording.values[found]) != 0).any(axis=1)]
    if not len(spoken):
        raise RecordingError(f"{recording.name}: every scored series is zero or missing throughout")
    season = plan.season or season_rows(recording.step_s)
    return Question(recording, split, plan.horizons, plan.windows, season, spoken)


def backtest(recording: Recording, plan: Plan, say: Callable[[str, int, int], None] | None = None) -> Outcome:
    """Replays a recording; `say` is told what is being done and how far it is. Raises RecordingError."""
    names = names_of(plan)
    question = question_of(recording, plan)
    answers = {name: answer_of_baseline(name, question) for name in WINDOW_BASELINES}
    asked = tuple(name for name in names if name not in answers)
    if asked:
        foreseen = foresee(question, _models(question, plan, asked), Options(refit_every=plan.refit_every), say)
        # A simple method keeps the figures of the textbook's definition, not those of the live model of its name.
        answers |= {name: answer for name, answer in foreseen.items() if name not in answers}
    scored = score_all(question, answers)
    shown = names if AUTO not in names else (*names, *(name for name in WINDOW_BASELINES if name not in names))
    return Outcome(question, document(question, scored, shown), {name: answers[name] for name in shown})


def _models(question: Question, plan: Plan, asked: Sequence[str]) -> dict[str, Model]:
    from backtest.foreseeing import ask_of

    # Alone or in company, the baselines are there: they are what `auto` falls back to.
    wanted = tuple(dict.fromkeys((*MODELS, *asked) if AUTO in asked else ("ewma", *asked)))
    models = build([name for name in wanted if name != AUTO], ask_of(question), plan.seed)
    for model in models.values():
        if hasattr(model, "fit_budget_s"):
            model.fit_budget_s = plan.fit_budget_s
    return models

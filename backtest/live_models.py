"""Forecasts a recording row by row with the live predictor's own forecaster, and keeps what each model said."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backtest.protocol import BacktestTask, Floats, Ints, MethodForecast
from backtest.reading import Recording
from predictor import ForecastBlock, Forecaster, ForecasterOptions, ForecastSpec, Model, SeriesView, Target

AUTO = "auto"
Say = Callable[[str, int, int], None]


@dataclass(slots=True)
class ModelClock:
    """CPU seconds that something has cost so far."""

    fit_seconds: float = 0.0
    predict_seconds: float = 0.0


@dataclass(slots=True)
class Timed:
    """A model with a clock; its copies share the clock, so that every fit is counted."""

    model: Any
    clock: ModelClock = field(default_factory=ModelClock)

    def __deepcopy__(self, memo: dict[int, object]) -> "Timed":
        return Timed(copy.deepcopy(self.model, memo), self.clock)

    def __getattr__(self, name: str) -> Any:
        # Asked only for what is not here; copying asks before `model` is there.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def fit(self, view: SeriesView) -> None:
        """See Model."""
        begin = time.process_time()
        self.model.fit(view)
        self.clock.fit_seconds += time.process_time() - begin

    def update(self, view: SeriesView) -> None:
        """See Model."""
        begin = time.process_time()
        self.model.update(view)
        self.clock.predict_seconds += time.process_time() - begin

    def predict(self, view: SeriesView, origins: Ints) -> Floats:
        """See Model."""
        begin = time.process_time()
        quantiles: Floats = self.model.predict(view, origins)
        self.clock.predict_seconds += time.process_time() - begin
        return quantiles


def ask_of(question: BacktestTask) -> ForecastSpec:
    """What the models are asked for: one target a window, in the same order."""
    targets = tuple(Target(0, window.ahead - 1, window.length) for window in question.asked)
    return ForecastSpec(targets, question.levels)


def view_of(question: BacktestTask) -> SeriesView:
    """The recording as models see it: scored series in the first channel, what goes with them in the others.

    A column that is not scored is kept as a further channel of the scored series whose name is most like its own.
    """
    recording, scored = question.recording, question.scored
    layers = [recording.values[scored]]
    for place, column in _companions(recording, scored):
        depth = next((n for n, layer in enumerate(layers[1:], 1) if np.isnan(layer[place]).all()), len(layers))
        if depth == len(layers):
            layers.append(np.full_like(layers[0], np.nan))
        layers[depth][place] = recording.values[column]
    return SeriesView(
        np.stack(layers).astype(np.float32), 0, round(recording.start / recording.step_s), recording.step_s
    )


def _companions(recording: Recording, scored: Ints) -> list[tuple[int, int]]:
    """(place among the scored, column) of columns that share the beginning of a scored series' name."""
    found = []
    for column in np.setdiff1d(np.arange(len(recording.names)), scored).tolist():
        alike = [_common(recording.names[column], recording.names[one]) for one in scored.tolist()]
        best = int(np.argmax(alike))
        if alike.count(alike[best]) == 1:
            found.append((best, column))
    return found


def _common(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def forecast_live(
    question: BacktestTask, models: Mapping[str, Model], options: ForecasterOptions, say: Say | None = None
) -> dict[str, MethodForecast]:
    """What each model and all together (`auto`) say at every origin; truths teach the weights as they would live.

    `say` is told what is being done, how far it is, and of how much.
    """
    timed = {name: Timed(model) for name, model in models.items()}
    forecaster = Forecaster(ask_of(question), timed, options)  # type: ignore[arg-type]
    view = view_of(question)
    answers = {name: _empty(question) for name in (*models, AUTO)}
    begin = time.process_time()
    if say:
        say("fitting", 0, 0)
    forecaster.fit(view.until(question.split))
    answers[AUTO].fit_seconds = time.process_time() - begin
    origins = np.arange(question.first_origin, question.recording.rows - 1)
    begin = time.process_time()
    for block in forecaster.walk(view, origins):
        _keep(question, answers, block)
        if say:
            say("foreseeing", int(block.origins[-1]) - question.first_origin + 1, len(origins))
    answers[AUTO].predict_seconds = time.process_time() - begin
    for name, one in timed.items():
        answers[name].fit_seconds, answers[name].predict_seconds = one.clock.fit_seconds, one.clock.predict_seconds
    return {name: answer.seal(question) for name, answer in answers.items()}


def _empty(question: BacktestTask) -> MethodForecast:
    answer = MethodForecast()
    for window in question.asked:
        shape = (len(question.scored), len(question.origins(window)))
        answer.points.append(np.full(shape, np.nan))
        answer.quantiles_by_target.append(np.full((*shape, len(question.levels)), np.nan, dtype=np.float32))
    return answer


def _keep(question: BacktestTask, answers: Mapping[str, MethodForecast], block: ForecastBlock) -> None:
    for name, answer in answers.items():
        said = block.final if name == AUTO else block.forecasts[name]
        for number, window in enumerate(question.asked):
            wanted = question.origins(window)
            inside = np.isin(block.origins, wanted)
            places = block.origins[inside] - wanted[0] if len(wanted) else wanted
            quantiles = said[inside][:, :, number].transpose(1, 0, 2)
            answer.quantiles_by_target[number][:, places] = quantiles
            answer.points[number][:, places] = quantiles[..., question.middle]

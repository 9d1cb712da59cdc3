"""Replays a recording row by row, as if each test row were now, and keeps what every method said at every origin."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.baselines import WINDOW_BASELINES, TargetRows, TrainingHistory, band, truths
from backtest.reading import Recording

Floats = NDArray[Any]
Ints = NDArray[np.int64]
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class BacktestTask:
    """What is asked: the first test row, horizons and window lengths in rows, the season, which series are scored."""

    recording: Recording
    split: int
    horizons: tuple[int, ...]
    windows: tuple[int, ...]
    season: int
    scored: Ints
    levels: tuple[float, ...] = LEVELS

    @property
    def asked(self) -> tuple[TargetRows, ...]:
        """Single rows first, then windows."""
        return tuple(TargetRows(ahead) for ahead in self.horizons) + tuple(
            TargetRows(1, length) for length in self.windows
        )

    @property
    def first_origin(self) -> int:
        """The earliest row from which a test row is forecast: near the end of train."""
        return self.split - max((*self.horizons, 0 if not self.windows else 1))

    def origins(self, window: TargetRows) -> Ints:
        """Origins on which a window is scored: all its rows are test rows, and each horizon has the same rows."""
        first = self.split - window.ahead if window.length == 1 else self.split
        return np.arange(max(first, 0), self.recording.rows - window.last)

    @property
    def middle(self) -> int:
        """Position of the median, which is the point forecast: it makes the least absolute error."""
        return int(np.argmin(np.abs(np.array(self.levels) - 0.5)))

    @property
    def upper(self) -> int:
        """Position of the level nearest to 0.9."""
        return int(np.argmin(np.abs(np.array(self.levels) - 0.9)))

    def past(self) -> TrainingHistory:
        """The scored series as the baselines see them."""
        return TrainingHistory(self.recording.values[self.scored], self.split, self.season)

    def truth(self, window: TargetRows) -> Floats:
        """Scored series x origins."""
        return truths(self.recording.values[self.scored], self.origins(window), window)


@dataclass(slots=True)
class MethodForecast:
    """What one method said: per window a point forecast (scored series x origins) and a quantiles (... x levels)."""

    points: list[Floats] = field(default_factory=list)
    quantiles_by_target: list[Floats] = field(default_factory=list)
    fit_seconds: float = 0.0
    predict_seconds: float = 0.0

    def seal(self, question: BacktestTask) -> "MethodForecast":
        """Clips at 0, and puts the last known row where nothing was said: no method may skip a row."""
        for number, window in enumerate(question.asked):
            stand_in = WINDOW_BASELINES["naive"](question.past(), question.origins(window), window)
            point, quantiles = self.points[number], self.quantiles_by_target[number]
            self.points[number] = np.maximum(np.where(np.isnan(point), stand_in, point), 0.0)
            self.quantiles_by_target[number] = np.maximum(
                np.where(np.isnan(quantiles), stand_in[..., None], quantiles), 0.0
            )
        return self


def answer_of_baseline(name: str, question: BacktestTask) -> MethodForecast:
    """A simple method with the quantiles of its own train errors as its quantiles."""
    answer, past = MethodForecast(), question.past()
    baseline = WINDOW_BASELINES[name]
    for window in question.asked:
        with _timed(lambda s: setattr(answer, "fit_seconds", answer.fit_seconds + s)):
            errors = band(past, baseline, window, question.levels)
        with _timed(lambda s: setattr(answer, "predict_seconds", answer.predict_seconds + s)):
            point = baseline(past, question.origins(window), window)
        answer.points.append(point)
        answer.quantiles_by_target.append(point[..., None] + errors[:, None])
    return answer.seal(question)


@contextmanager
def _timed(add: Callable[[float], None]) -> Iterator[None]:
    begin = time.process_time()
    yield
    add(time.process_time() - begin)

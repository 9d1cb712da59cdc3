"""The simple methods of the textbooks, exactly as they define them: the measuring sticks for everything cleverer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Floats = NDArray[Any]
Ints = NDArray[np.int64]

DAY_S = 86_400
# Below this step nothing is known of a day's shape; then a placeholder of 60 rows is taken.
SHORTEST_DAILY_STEP_S = 60
PLACEHOLDER = 60


@dataclass(frozen=True, slots=True)
class TargetRows:
    """What is asked for at an origin: the mean of `length` rows, the first of them `ahead` rows after the origin."""

    ahead: int
    length: int = 1

    @property
    def last(self) -> int:
        """Rows from the origin to the window's last row: then the truth is known."""
        return self.ahead + self.length - 1


@dataclass(frozen=True, slots=True)
class TrainingHistory:
    """Series (series x rows, NaN = missing), the first test row and the season in rows."""

    values: Floats
    split: int
    season: int


Baseline = Callable[[TrainingHistory, Ints, TargetRows], Floats]


def season_rows(step_s: float) -> int:
    """Rows of a day, or 60 where the step is so short that a day would hardly fit into a file."""
    return round(DAY_S / step_s) if step_s >= SHORTEST_DAILY_STEP_S else PLACEHOLDER


def window_means(values: Floats, length: int) -> Floats:
    """Mean of the known ones of `length` rows up to and with each row (same shape); fewer rows at the beginning."""
    known = ~np.isnan(values)
    total, count = (np.cumsum(np.where(known, part, 0.0), axis=1) for part in (values, known))
    sums, counts = total.copy(), count.copy()
    sums[:, length:] -= total[:, :-length]
    counts[:, length:] -= count[:, :-length]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def filled(values: Floats) -> Floats:
    """Each gap closed by the last known value before it; 0 before the first."""
    at = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(values.shape[1])), axis=1)
    closed: Floats = np.nan_to_num(np.take_along_axis(values, at, axis=1))
    return closed


def naive(past: TrainingHistory, origins: Ints, _window: TargetRows) -> Floats:
    """The last known row."""
    return filled(past.values)[:, origins]


def trailing_mean(past: TrainingHistory, origins: Ints, window: TargetRows) -> Floats:
    """The mean of as many rows as the window asked for has: only of use for windows."""
    return filled(window_means(past.values, window.length))[:, origins]


def ewma_of(alpha: float) -> Baseline:
    """sum (1-a)^k y / sum (1-a)^k over known rows, back to the first row."""

    def forecast(past: TrainingHistory, origins: Ints, _window: TargetRows) -> Floats:
        known = ~np.isnan(past.values)
        keep = [1.0, alpha - 1.0]
        total = lfilter([1.0], keep, np.where(known, past.values, 0.0), axis=-1)
        weight = lfilter([1.0], keep, known.astype(np.float64), axis=-1)
        return np.asarray(np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), 0.0))[:, origins]

    return forecast


def train_mean(past: TrainingHistory, origins: Ints, _window: TargetRows) -> Floats:
    """The mean of all train rows."""
    mean = window_means(past.values[:, : past.split], past.split)[:, -1:]
    return np.repeat(np.nan_to_num(mean), len(origins), axis=1)


def seasonal_naive(past: TrainingHistory, origins: Ints, window: TargetRows) -> Floats:
    """The same window one season earlier, or as many seasons as are needed for it to be known."""
    back = past.season * math.ceil(window.last / past.season)
    at = origins + window.last - back
    # A season longer than the history has nothing to say yet: the last row stands in.
    return filled(window_means(past.values, window.length))[:, np.where(at >= 0, at, origins)]


BASELINES: dict[str, Baseline] = {
    "naive": naive,
    "ewma": ewma_of(0.2),
    "ewma_05": ewma_of(0.05),
    "train_mean": train_mean,
    "seasonal_naive": seasonal_naive,
}
# Windows of several rows have one more.
WINDOW_BASELINES: dict[str, Baseline] = BASELINES | {"trailing_mean": trailing_mean}


def truths(values: Floats, origins: Ints, window: TargetRows) -> Floats:
    """What came: series x origins, NaN where a row of the window is missing or beyond the end."""
    whole = window_means(values, window.length)
    gap = window_means(np.isnan(values).astype(np.float64), window.length) > 0
    last = origins + window.last
    inside = np.where(last < values.shape[1], last, 0)
    return np.where((last < values.shape[1]) & ~gap[:, inside], whole[:, inside], np.nan)


def band(past: TrainingHistory, baseline: Baseline, window: TargetRows, levels: tuple[float, ...]) -> Floats:
    """Quantiles of a baseline's own errors on the train rows: series x levels, 0 where there was none."""
    origins = np.arange(0, past.split - window.last)
    errors = truths(past.values, origins, window) - baseline(past, origins, window)
    known = ~np.isnan(errors)
    return np.array(
        [
            np.quantile(row[seen], levels) if seen.any() else np.zeros(len(levels))
            for row, seen in zip(errors, known, strict=True)
        ]
    )

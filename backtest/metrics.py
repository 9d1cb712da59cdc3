"""Scores forecasts by the measures of the literature, pooled over series, with what is missing left out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

Floats = NDArray[Any]
Mask = NDArray[np.bool_]

# Weighted quantile loss is the mean over these levels.
LOSS_LEVELS = (0.1, 0.5, 0.9)
UPPER = 0.9
# Coverage is told over series that are zero in less than this share of the train rows: a zero is always covered.
MOSTLY_ZERO = 0.9
# A peak is what exceeds this quantile of the train rows; it is missed where the upper quantile is below NEAR of it.
PEAK = 0.95
NEAR = 0.9


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What scores are measured against, from train rows alone; all arrays have one value a series.

    `absolute` and `squared` are the mean absolute and the mean squared one-step change (Hyndman and Koehler 2006),
    `peak` the 95th percentile, `covered` says whether a series counts for coverage.
    """

    absolute: Floats
    squared: Floats
    peak: Floats
    covered: Mask

    @classmethod
    def of(cls, train: Floats) -> "Yardstick":
        """From train rows (series x rows, NaN = missing)."""
        change = np.diff(train, axis=1)
        zero = _mean(np.where(np.isnan(train), np.nan, train == 0))
        peak = np.array([np.quantile(row[~np.isnan(row)], PEAK) if (~np.isnan(row)).any() else np.nan for row in train])
        return cls(_mean(np.abs(change)), _mean(np.square(change)), peak, ~(zero >= MOSTLY_ZERO))


def _mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def share(part: Floats, whole: Floats) -> float:
    """sum(part) / sum(whole); NaN when the whole is nothing."""
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else float("nan")


def wape(truth: Floats, guess: Floats) -> float:
    """sum |y - f| / sum |y| over all known truths."""
    known = ~np.isnan(truth)
    return share(np.abs(truth - guess)[known], np.abs(truth[known]))


def mase(truth: Floats, guess: Floats, unit: Floats) -> float:
    """Mean over series of the mean absolute error in units of the one-step naive error on train."""
    return _over_series(_mean(np.abs(truth - guess)), unit)


def rmsse(truth: Floats, guess: Floats, unit: Floats) -> float:
    """Mean over series of sqrt(mean squared error in units of the one-step naive squared error on train)."""
    good = (unit > 0) & ~np.isnan(unit)
    ratio = _mean(np.square(truth - guess))[good] / unit[good]
    return float(np.nanmean(np.sqrt(ratio))) if np.isfinite(ratio).any() else float("nan")


def _over_series(errors: Floats, unit: Floats) -> float:
    good = (unit > 0) & ~np.isnan(unit) & ~np.isnan(errors)
    return float((errors[good] / unit[good]).mean()) if good.any() else float("nan")


def pinball(truth: Floats, quantile: Floats, level: float) -> Floats:
    """max(q (y - f), (q - 1) (y - f)), same shape; NaN where the truth is missing."""
    miss = truth - quantile
    loss: Floats = np.maximum(level * miss, (level - 1.0) * miss)
    return loss


def wql(truth: Floats, quantiles: Floats, levels: tuple[float, ...]) -> float:
    """Weighted quantile loss: mean over LOSS_LEVELS of 2 sum of pinball loss / sum |y|; quantiles has levels last."""
    known = ~np.isnan(truth)
    parts = [
        share(2 * pinball(truth, quantiles[..., nearest(levels, level)], level)[known], np.abs(truth[known]))
        for level in LOSS_LEVELS
    ]
    return float(np.mean(parts))


def nearest(levels: tuple[float, ...], level: float) -> int:
    """Position of the level nearest to `level`."""
    return int(np.argmin(np.abs(np.array(levels) - level)))


def coverage(truth: Floats, upper: Floats, series: Mask) -> float:
    """Share of truths at or below the upper quantile, over the series marked."""
    known = ~np.isnan(truth) & series[:, None]
    return share((truth <= upper)[known], np.ones(int(known.sum())))


def peak_miss(truth: Floats, upper: Floats, peak: Floats) -> float:
    """Share of peak points whose upper quantile fell short by more than a tenth."""
    peaks = ~np.isnan(truth) & (truth > peak[:, None])
    return share((upper < NEAR * truth)[peaks], np.ones(int(peaks.sum())))


def false_alarm(truth: Floats, upper: Floats, peak: Floats) -> float:
    """Share of points that are no peak although the upper quantile announced one."""
    calm = ~np.isnan(truth) & (truth <= peak[:, None])
    return share((upper > peak[:, None])[calm], np.ones(int(calm.sum())))


def average_precision(label: Mask, score: Floats) -> float:
    """sum (R_n - R_{n-1}) P_n over falling thresholds, tied scores together; NaN without a positive."""
    if not label.any():
        return float("nan")
    return float(average_precision_score(label, score))

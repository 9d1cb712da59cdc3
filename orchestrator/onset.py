"""Reads a single second out of forecasts of a window: when what is foreseen begins, and what a second of it needs.

A window's forecast says its highest second (the peak) and its mean. A rise that is there for a share s of the window
has a mean of base + s (peak - base), so peak and mean together say how long it is there; before it is measured, that is
the end of the window. Costs are paid by the second: providing a window's peak all window long idles for most of it.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol

import numpy as np

from cpdb import Seconds
from orchestrator.foreseen import Floats

MEDIAN = 0.5
# A window whose mean is at least this share of its peak is all alike.
FULL_SHARE = 0.75
NORMAL = NormalDist()
# The quantiles over which an expectation is taken: the middles of five equally likely fifths.
FIFTHS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read out of a window's forecasts.

    Without anything it is the window's peak at the configured level, with margin. `within_s`: what a second needs that
    begins within so many seconds, at `level` or the configured one. `level` alone: that plain quantile of the peak, or
    of the `mean`.
    """

    within_s: Seconds | None = None
    level: float | None = None
    mean: bool = False


PEAK = Reading()
Number = float | Floats


def rise_share(peak: Number, mean: Number, now: Number) -> Floats:
    """The share of a window for which a rise from `now` to `peak` is there, by its `mean`; 0 without a rise."""
    rises = np.asarray(peak > now)
    shares = np.divide(np.subtract(mean, now), np.subtract(peak, now), out=np.zeros(rises.shape), where=rises)
    return np.clip(shares, 0.0, 1.0)


def peak_level(level: float, seconds: Number) -> Floats:
    """The quantile of the highest of so many seconds that is about the `level` quantile of each one.

    Exact for seconds that vary independently: P(max <= x) = P(second <= x)^n.
    """
    return np.float64(level) ** np.maximum(1.0, seconds)


class Quantiles(Protocol):
    """Forecasts of a window, one or many: a `Forecast` or a column of them."""

    @property
    def horizon_s(self) -> int:
        """How long the window is."""

    def at(self, level: Any, /) -> Any:
        """The values at a level."""


@dataclass(frozen=True, slots=True)
class OnsetSign:
    """Of a link: whether a shortage is foreseen, within how many seconds it must show, and whether it is there."""

    foreseen: bool = False
    there: bool = False
    due_s: Seconds = 0.0


class RateBefore(NamedTuple):
    """A rate over the last seconds, and over a longer while: what is there before a rise."""

    now: Number
    usual: Number


class WindowForecast(NamedTuple):
    """What is forecast of a window's peak, and of its mean."""

    peak: Quantiles
    mean: Quantiles


def read_second(window: WindowForecast, measured: RateBefore, level: float, within_s: Seconds) -> Floats:
    """The `level` quantile of a second that begins within `within_s`, from forecasts of a window's peak and mean.

    What may begin later (with more than 1 - level) is not provided for yet: then a second needs what is measured now,
    or the mean. In the unit of the forecasts.
    """
    peak, mean = window
    highest, usual = peak.at(level), mean.at(level)
    part = mean.at(MEDIAN) < FULL_SHARE * peak.at(MEDIAN)
    # Within a rise that varies, what is there now is usual: seconds above it are short rises of their own.
    before = np.where(part, np.maximum(measured.usual, measured.now), measured.usual)
    lasts_s = peak.horizon_s * rise_share(highest, usual, before)
    begun = np.where(part, peak.at(peak_level(level, lasts_s)), _within_full(peak, mean, level))
    found: Floats = np.maximum(measured.now, np.where(peak.horizon_s - lasts_s > within_s, usual, begun))
    return found


def _within_full(peak: Quantiles, mean: Quantiles, level: float) -> Floats:
    """The quantile of a second of a window that is all alike.

    Its mean is not known for certain, and seconds vary around it: a normal spread of which the highest of n lies
    Phi^-1((n - 3/8) / (n + 1/4)) deviations above the mean (Blom, Statistical estimates and transformed beta-variables,
    1958). Both are independent and add in squares.
    """
    middle, n = mean.at(MEDIAN), peak.horizon_s
    deviations = NORMAL.inv_cdf(max(0.6, (n - 0.375) / (n + 0.25)))
    within = NORMAL.inv_cdf(level) * np.maximum(0.0, peak.at(MEDIAN) - middle) / deviations
    found = middle + np.copysign(np.hypot(mean.at(level) - middle, within), level - MEDIAN)
    capped: Floats = np.minimum(found, peak.at(level))
    return capped

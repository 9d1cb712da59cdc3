"""Reads a single second out of forecasts of a window: when what is foreseen begins, and what a second of it needs.

A window's forecast says its highest second (the peak) and its mean. A rise that is there for a share s of the window
has a mean of base + s (peak - base), so peak and mean together say how long it is there; before it is measured, that is
the end of the window. Costs are paid by the second: providing a window's peak all window long idles for most of it.
"""

from dataclasses import dataclass
from math import copysign, hypot
from statistics import NormalDist
from typing import NamedTuple

from cpdb import Forecast, Seconds

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


def rise_share(peak: float, mean: float, now: float) -> float:
    """The share of a window for which a rise from `now` to `peak` is there, by its `mean`; 0 without a rise."""
    return min(1.0, max(0.0, (mean - now) / (peak - now))) if peak > now else 0.0


def peak_level(level: float, seconds: Seconds) -> float:
    """The quantile of the highest of so many seconds that is about the `level` quantile of each one.

    Exact for seconds that vary independently: P(max <= x) = P(second <= x)^n.
    """
    return float(level ** max(1.0, seconds))


class RateBefore(NamedTuple):
    """A rate over the last seconds, and over a longer while: what is there before a rise."""

    now: float
    usual: float


class WindowForecast(NamedTuple):
    """What is forecast of a window's peak, and of its mean."""

    peak: Forecast
    mean: Forecast


def read_second(window: WindowForecast, measured: RateBefore, level: float, within_s: Seconds) -> float:
    """The `level` quantile of a second that begins within `within_s`, from forecasts of a window's peak and mean.

    What may begin later (with more than 1 - level) is not provided for yet: then a second needs what is measured now,
    or the mean. In the unit of the forecasts.
    """
    peak, mean = window
    lasts_s = peak.horizon_s * rise_share(peak.at(level), mean.at(level), measured.usual)
    if peak.horizon_s - lasts_s > within_s:
        return max(measured.now, mean.at(level))
    if mean.at(MEDIAN) < FULL_SHARE * peak.at(MEDIAN):
        return max(measured.now, peak.at(peak_level(level, lasts_s)))
    return max(measured.now, _within_full(peak, mean, level))


def _within_full(peak: Forecast, mean: Forecast, level: float) -> float:
    """The quantile of a second of a window that is all alike.

    Its mean is not known for certain, and seconds vary around it: a normal spread of which the highest of n lies
    Phi^-1((n - 3/8) / (n + 1/4)) deviations above the mean (Blom, Statistical estimates and transformed beta-variables,
    1958). Both are independent and add in squares.
    """
    middle, n = mean.at(MEDIAN), peak.horizon_s
    deviations = NORMAL.inv_cdf(max(0.6, (n - 0.375) / (n + 0.25)))
    within = NORMAL.inv_cdf(level) * max(0.0, peak.at(MEDIAN) - middle) / deviations
    found = middle + copysign(hypot(mean.at(level) - middle, within), level - MEDIAN)
    return min(found, peak.at(level))

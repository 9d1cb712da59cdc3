"""Learns what machines' communications cost them in CPU, so that a forecast of talk becomes a forecast of load."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_SAMPLES = 12
# Below this share of the limit a sample shows what the machine wanted; above it, only what it was given.
UNTHROTTLED_SHARE = 0.85
# The load must have varied by this share of its mean, or a slope would be an invention.
MIN_VARIATION = 0.08
# More than usual is asked from so many standard deviations above the mean on.
BUSY_DEVIATIONS = 1.5
Floats = NDArray[np.float64]


class Samples(NamedTuple):
    """Machines x moments in order of time: `x` is the rate of communications (1/s or bytes/s), the rest is in cores.

    What is not `known` is left out.
    """

    x: Floats
    used: Floats
    limit: Floats
    known: NDArray[np.bool_]

    @property
    def throttled(self) -> NDArray[np.bool_]:
        """Where a machine used about all that it might."""
        found: NDArray[np.bool_] = self.known & (self.used >= UNTHROTTLED_SHARE * self.limit)
        return found


@dataclass(frozen=True, slots=True)
class CpuRelation:
    """cores = base + slope * x, never falling; `spread_cores` is the residuals' standard deviation.

    `peer` is the machine from which it was borrowed, None when it is the machine's own.
    """

    feature: str
    base_cores: float
    slope: float
    spread_cores: float
    samples: int
    peer: str | None = None

    def cores(self, x: float) -> float:
        """CPU in cores that communications at rate `x` (of this relation's feature) need, spread included."""
        return self.base_cores + self.slope * max(0.0, x) + self.spread_cores


@dataclass(frozen=True, slots=True)
class MemoryRelation:
    """bytes = base + slope * x, never falling, with a normal spread around it; `peer` as for the CPU."""

    feature: str
    base_bytes: float
    slope: float
    spread_bytes: float
    samples: int
    peer: str | None = None

    def bytes_at(self, x: float, level: float) -> float:
        """What communications at rate `x` need with probability `level`, in bytes."""
        return self.base_bytes + self.slope * max(0.0, x) + NormalDist().inv_cdf(level) * self.spread_bytes


def fit_memory(feature: str, samples: Samples) -> list[MemoryRelation | None]:
    """The same lines for memory: what is used and the limits are bytes.

    A full machine shows what it has, not what it needs: such samples are left out.
    """
    found = fit_all(feature, samples._replace(known=samples.known & ~samples.throttled))
    return [
        None if one is None else MemoryRelation(feature, one.base_cores, one.slope, one.spread_cores, one.samples)
        for one in found
    ]


def fit_all(feature: str, samples: Samples) -> list[CpuRelation | None]:
    """Least squares with slope and base >= 0 over each machine's unthrottled samples; None is 'no opinion'.

    Throttled samples are censored: what a throttled stretch used in all, over all that was asked of it, bounds the
    slope from below, and may only raise it.
    """
    free = samples.known & ~samples.throttled
    count = np.maximum(1, free.sum(axis=1))
    x, y = np.where(free, samples.x, 0.0), np.where(free, samples.used, 0.0)
    mean_x, mean_y = x.sum(axis=1) / count, y.sum(axis=1) / count
    away = np.where(free, x - mean_x[:, None], 0.0)
    variance = (away**2).sum(axis=1) / count
    varied = (mean_x > 0) & (np.sqrt(variance) >= MIN_VARIATION * mean_x) & (free.sum(axis=1) >= MIN_SAMPLES)
    covariance = (away * np.where(free, y - mean_y[:, None], 0.0)).sum(axis=1) / count
    with np.errstate(divide="ignore", invalid="ignore"):
        # The upper bound keeps the base >= 0.
        slope = np.minimum(np.maximum(0.0, covariance / variance), mean_y / mean_x)
    base = mean_y - slope * mean_x
    slope = np.maximum(slope, _censored_slopes(samples, base, mean_x + BUSY_DEVIATIONS * np.sqrt(variance)))
    residuals = np.where(free, samples.used - base[:, None] - slope[:, None] * samples.x, np.nan)
    columns = (one.tolist() for one in (varied, base, slope, _spreads(residuals), count))
    return [
        CpuRelation(feature, start, rise, spread, number) if able else None
        for able, start, rise, spread, number in zip(*columns, strict=True)
    ]


def _spreads(residuals: Floats) -> Floats:
    """Median absolute deviations, scaled as for a normal distribution: one odd second must not buy a core."""
    return 1.4826 * _medians(np.abs(residuals - _medians(residuals)[:, None]))


def _medians(values: Floats) -> Floats:
    """Of each row without its NaN; 0 where there is nothing else."""
    if not values.shape[1]:
        return np.zeros(len(values))
    last = np.maximum(1, (~np.isnan(values)).sum(axis=1)) - 1
    ascending = np.sort(values, axis=1)
    middle = np.stack([last // 2, (last + 1) // 2], axis=1)
    found: Floats = np.nan_to_num(np.take_along_axis(ascending, middle, axis=1).mean(axis=1))
    return found


def _censored_slopes(samples: Samples, base: Floats, much: Floats) -> Floats:
    """The median of what throttled stretches say, 0 where there are none.

    A stretch has the sample before it and the one that ended it, and counts only when it was seen from both sides: its
    work may lag behind its requests by seconds. One in which hardly more than usual is asked (less than `much` in
    its busier half) was held back by other work, and says 0.
    """
    found, throttled = np.zeros(len(base)), samples.throttled
    for machine in np.flatnonzero(throttled.any(axis=1)):
        own = samples.known[machine]
        x = samples.x[machine][own]
        slopes = _slopes(throttled[machine][own], x, samples.used[machine][own] - base[machine], much[machine])
        found[machine] = float(np.median(slopes)) if len(slopes) else 0.0
    return found


def _slopes(throttled: NDArray[np.bool_], x: Floats, above: Floats, much: float) -> Floats:
    turn = np.diff(throttled.astype(np.int8))
    before, after = np.flatnonzero(turn == 1), np.flatnonzero(turn == -1) + 1
    after = after[after > before[0]] if len(before) else after[:0]
    before = before[: len(after)]
    asked, worked = (np.concatenate([[0.0], np.cumsum(one)]) for one in (x, above))
    total = asked[after + 1] - asked[before]
    stretches = (np.sort(x[one + 1 : other]) for one, other in zip(before, after, strict=True))
    busy = np.array([one[len(one) // 2 :].mean() > much for one in stretches], dtype=np.bool_)[total > 0]
    slopes: Floats = np.where(busy, (worked[after + 1] - worked[before])[total > 0] / total[total > 0], 0.0)
    return slopes

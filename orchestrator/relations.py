"""Learns what a machine's communications cost it in CPU, so that a forecast of talk becomes a forecast of load."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean, median

MIN_SAMPLES = 12
# Below this share of the limit a sample shows what the machine wanted; above it, only what it was given.
UNTHROTTLED_SHARE = 0.85
# The load must have varied by this share of its mean, or a slope would be an invention.
MIN_VARIATION = 0.08


@dataclass(frozen=True, slots=True)
class LoadSample:
    """One short window of one machine: `x` is the rate of communications (1/s or bytes/s), CPU is in cores."""

    x: float
    cores_used: float
    cores_limit: float

    @property
    def throttled(self) -> bool:
        return self.cores_used >= UNTHROTTLED_SHARE * self.cores_limit


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


def fit_memory(feature: str, samples: Sequence[LoadSample]) -> MemoryRelation | None:
    """The same line for memory: `cores_used` and `cores_limit` of the samples are bytes.

    A full machine shows what it has, not what it needs: such samples are left out.
    """
    found = fit(feature, [one for one in samples if not one.throttled])
    if found is None:
        return None
    return MemoryRelation(feature, found.base_cores, found.slope, found.spread_cores, found.samples)


def fit(feature: str, samples: Sequence[LoadSample]) -> CpuRelation | None:
    """Least squares with slope and base >= 0 over unthrottled samples (in order of time); None is 'no opinion'.

    Throttled samples are censored: what a throttled stretch used in all, over all that was asked of it, bounds the
    slope from below, and may only raise it.
    """
    free = [one for one in samples if not one.throttled]
    if len(free) < MIN_SAMPLES:
        return None
    mean_x, mean_y = fmean(one.x for one in free), fmean(one.cores_used for one in free)
    variance = fmean((one.x - mean_x) ** 2 for one in free)
    if mean_x <= 0 or variance**0.5 < MIN_VARIATION * mean_x:
        return None
    covariance = fmean((one.x - mean_x) * (one.cores_used - mean_y) for one in free)
    slope = min(max(0.0, covariance / variance), mean_y / mean_x)  # the upper bound keeps the base >= 0
    base = mean_y - slope * mean_x
    slope = max(slope, _censored_slope(samples, base))
    residuals = [one.cores_used - base - slope * one.x for one in free]
    return CpuRelation(feature, base, slope, _spread(residuals), len(free))


def _spread(residuals: Sequence[float]) -> float:
    # Median absolute deviation, scaled as for a normal distribution: one odd second must not buy a core.
    middle = median(residuals)
    return 1.4826 * median(abs(one - middle) for one in residuals)


def _censored_slope(samples: Sequence[LoadSample], base: float) -> float:
    slopes = [
        sum(one.cores_used - base for one in stretch) / total
        for stretch in _stretches(samples)
        if (total := sum(one.x for one in stretch)) > 0 and len(stretch) >= 3
    ]
    return median(slopes) if slopes else 0.0


def _stretches(samples: Sequence[LoadSample]) -> Iterator[list[LoadSample]]:
    """Throttled stretches, each with the sample before it and the sample that ended it.

    A stretch counts only when it was seen from both sides: its work may lag behind its requests by seconds.
    """
    current: list[LoadSample] = []
    for previous, one in pairwise(samples):
        if one.throttled:
            current = [*current, one] if current else ([] if previous.throttled else [previous, one])
        elif current:
            yield [*current, one]
            current = []

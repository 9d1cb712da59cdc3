"""Limits for machines: rules that say how much one may use for a while; what they cost in idle room and throttling."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Ints = NDArray[np.int64]
# A limit below this makes no sense for a machine that is to live, and slack is a share of the limit.
LEAST = 1e-3
BUCKETS = 200
# Kubernetes' Vertical Pod Autoscaler: the 90th percentile of a histogram that halves its memory every 24 h, + 15 %.
VPA_LEVEL, VPA_MARGIN = 0.9, 1.15


@dataclass(frozen=True, slots=True)
class Course:
    """Usage (machines x rows, at most `most`), set anew every `every` rows from the origin `first` on."""

    usage: Floats
    most: float
    every: int
    first: int
    season: int

    def origins(self) -> Ints:
        """Rows after which a limit is set; each holds for the `every` rows that follow."""
        return np.arange(self.first, self.usage.shape[1] - self.every, self.every)


Rule = Callable[[Course, Ints], Floats]


def judged(course: Course, limits: Floats) -> dict[str, float]:
    """Slack (mean share of the limit that lies idle) and throttle rate (share of rows with usage above the limit).

    `limits` is machines x origins.
    """
    origins = course.origins()
    rows = origins[:, None] + np.arange(1, course.every + 1)
    used = course.usage[:, rows]
    limit = np.clip(limits, LEAST, course.most)[..., None]
    slack = np.maximum(limit - used, 0.0) / limit
    return {"slack": float(slack.mean()), "throttle_rate": float((used > limit).mean())}


def fixed(course: Course, origins: Ints) -> Floats:
    """The most that was ever used while learning, for ever."""
    peak = course.usage[:, : course.first + 1].max(axis=1)
    return np.repeat(peak[:, None], len(origins), axis=1)


def reactive(course: Course, origins: Ints) -> Floats:
    """A tenth more than the most of the last two periods: it follows what was measured."""
    return _trailing(course.usage, 2 * course.every)[:, origins] * 1.1


def last_day(course: Course, origins: Ints) -> Floats:
    """The most of the last season."""
    return _trailing(course.usage, course.season)[:, origins]


def decaying_histogram(course: Course, origins: Ints) -> Floats:
    """The autoscaler's rule, with a half life of one season."""
    machines = np.arange(len(course.usage))
    weights = np.zeros((len(machines), BUCKETS + 1))
    width = course.most / BUCKETS
    bucket = np.clip(np.ceil(course.usage / width), 0, BUCKETS).astype(np.int64)
    wanted, found = set(origins.tolist()), []
    for row in range(int(origins[-1]) + 1):
        weights *= 0.5 ** (1.0 / course.season)
        weights[machines, bucket[:, row]] += 1.0
        if row in wanted:
            share = weights.cumsum(axis=1) / weights.sum(axis=1, keepdims=True)
            found.append((share >= VPA_LEVEL).argmax(axis=1) * width * VPA_MARGIN)
    return np.stack(found, axis=1)


RULES: Mapping[str, Rule] = {
    "fixed": fixed,
    "reactive": reactive,
    "last_day": last_day,
    "decaying_histogram": decaying_histogram,
}


def _trailing(values: Floats, rows: int) -> Floats:
    peak, width = values, 1
    while width < rows:
        step = min(width, rows - width)
        shifted = np.concatenate([np.repeat(peak[:, :1], step, axis=1), peak[:, :-step]], axis=1)
        peak, width = np.maximum(peak, shifted), width + step
    return peak

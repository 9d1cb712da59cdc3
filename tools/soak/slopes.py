"""Whether a figure grows, by its samples: a robust slope with its interval, against what a month may fill."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import theilslopes

from tools.soak.sampling import SoakSample

HOUR_S = 3600.0
MONTH_H = 30 * 24.0
# In a month that nobody looks: 1 GiB, and 1,024 handles (the usual limit of a process), threads or processes.
BOUNDS_PER_H = {
    "rss_mb": 1073.7 / MONTH_H,
    "pss_mb": 1073.7 / MONTH_H,
    "size_mb": 1073.7 / MONTH_H,
    "handles": 1024 / MONTH_H,
    "threads": 1024 / MONTH_H,
    "processes": 1024 / MONTH_H,
}
WARM_UP_SHARE = 1 / 3
# Samples that follow one another tell nearly the same: medians of so many parts of the time stand for them.
BLOCKS = 20
FEWEST = 5


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per hour of one figure after the warm-up, with its interval of 95 %; it went from `first` to `last`."""

    who: str
    what: str
    first: float
    last: float
    per_h: float
    low_per_h: float
    high_per_h: float

    @property
    def verdict(self) -> str:
        """`flat` where even the upper end is within the bound, `grows` where even the lower is not, else `unclear`."""
        bound = BOUNDS_PER_H[self.what]
        return "flat" if self.high_per_h <= bound else "grows" if self.low_per_h > bound else "unclear"

    @property
    def is_ours(self) -> bool:
        """Whether it is judged; other programs have their pid in their name."""
        return "/" not in self.who


def fit_slope(who: str, what: str, at_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Theil and Sen's slope of the medians of `BLOCKS` equal parts of the time (Sen 1968)."""
    t, v = np.asarray(at_s) / HOUR_S, np.asarray(values)
    edges = np.linspace(t[0], t[-1], BLOCKS + 1)
    number = np.clip(np.searchsorted(edges, t, side="right") - 1, 0, BLOCKS - 1)
    found = np.array([(np.median(t[number == one]), np.median(v[number == one])) for one in np.unique(number)])
    slope, _, low, high = theilslopes(found[:, 1], found[:, 0], 0.95)
    return Slope(who, what, float(found[0, 1]), float(found[-1, 1]), float(slope), float(low), float(high))


def find_slopes(samples: Iterable[SoakSample]) -> list[Slope]:
    """Of all that was there throughout after the first third, which is the warm-up; and of the number of processes."""
    kept, living = defaultdict[tuple[str, str], list[tuple[float, float]]](list), Counter[float]()
    all_samples = list(samples)
    begin = WARM_UP_SHARE * max((one.at_s for one in all_samples), default=0.0)
    for one in all_samples:
        if one.at_s >= begin:
            kept[one.who, one.what].append((one.at_s, one.value))
            living[one.at_s] += one.what == "threads"
    kept["all", "processes"] = sorted((at, float(count)) for at, count in living.items())
    return [
        fit_slope(*key, *zip(*series, strict=True))
        for key, series in kept.items()
        if len(series) >= max(FEWEST, 0.95 * len(living))
    ]

"""Chooses which matrices a split is hedged against: seen ones, forecast ones, and forecasts that erred as before."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from orchestrator.optimise.paths import Floats, Tunnels, optimum


@dataclass(frozen=True, slots=True)
class Risk:
    """What is minimised over scenarios: (1 - tail_weight) mean + tail_weight CVaR at `tail_level`, plus `churn`.

    CVaR is the mean of the worst 1 - tail_level of the scenarios (Rockafellar and Uryasev 2000). `churn` is the price
    of moving all traffic to other paths, in units of the MLU ratio: it keeps splits from moving for nothing.
    """

    tail_weight: float = 0.05
    tail_level: float = 0.95
    churn: float = 0.002

    def of(self, ratios: Floats, weights: Floats) -> float:
        """The risk of S ratios with S weights that add up to 1; churn is not in it."""
        mean = float(weights @ ratios)
        if not self.tail_weight:
            return mean
        tail = 1 - self.tail_level
        worst = np.argsort(-ratios, kind="stable")
        before = np.cumsum(weights[worst]) - weights[worst]
        taken = np.minimum(weights[worst], np.maximum(tail - before, 0.0))
        return (1 - self.tail_weight) * mean + self.tail_weight * float(taken @ ratios[worst]) / tail


@dataclass(frozen=True, slots=True)
class Scenarios:
    """S possible matrices (S x N), the best MLU of each (or another scale that makes them comparable), weights.

    `floor` is what no ratio can be below: 1 where `best` is the optimum, 0 for another scale.
    """

    demand: Floats
    best: Floats
    weight: Floats
    floor: float = 1.0

    def ratios(self, tunnels: Tunnels, splits: Floats) -> Floats:
        """The MLU ratio of each."""
        return np.asarray(tunnels.mlu(splits, self.demand) / self.best)


def scenarios(demand: Floats, best: Floats, weight: Floats | None = None, floor: float = 1.0) -> Scenarios:
    """Scenarios of those rows that carry traffic; equal weights unless told."""
    weight = np.ones(len(demand)) if weight is None else weight
    use = (best > 0) & (weight > 0)
    return Scenarios(demand[use], best[use], weight[use] / weight[use].sum(), floor)


# Scenarios times paths decide what a program costs: about a tenth of a second on one core, a second from 40,000 paths.
WORK = 200_000
MOST, FEWEST = 2048, 8
RECENT = 24
# Beyond so many paths a matrix's optimum is too dear to be found for each: an equal split gives the scale instead.
MOST_PATHS_FOR_OPTIMUM = 5000


@dataclass(frozen=True, slots=True)
class MeasuredMatrix:
    """A matrix that was measured, with its place in time (counted from 0), and the best MLU that it allowed.

    `optimal` are splits that reach it; without them `best` is what an equal split reaches, which is a scale only.
    """

    number: int
    demand: Floats
    best: float
    optimal: Floats | None = None


def measured(tunnels: Tunnels, number: int, demand: Floats) -> MeasuredMatrix:
    """A matrix with its optimum, or, where there are very many paths, with the scale that an equal split gives."""
    if len(tunnels.paths) > MOST_PATHS_FOR_OPTIMUM:
        return MeasuredMatrix(number, demand, float(tunnels.mlu(tunnels.equal(), demand)[0]))
    best = optimum(tunnels, demand)
    return MeasuredMatrix(number, demand, best.mlu, best.splits)


@dataclass(slots=True)
class History:
    """The matrices seen, thinned evenly over all of the past so that there are never more than `most`, and the newest.

    Thinning doubles the stride: what is kept at one moment is a part of what was kept before, so that splits hedged
    against it change little. The newest `recent` ones are always kept. With a `window` no older ones are: its matrices
    are thinned by a fixed stride where they are more than `most`. Histories with another `offset` keep other matrices.
    """

    most: int = MOST
    recent: int = RECENT
    window: int | None = None
    offset: int = 0
    _stride: int = 1
    _seen: int = 0
    _spread: list[tuple[int, MeasuredMatrix]] = field(default_factory=list)
    _newest: deque[tuple[int, MeasuredMatrix]] = field(default_factory=deque)

    def add(self, row: MeasuredMatrix) -> None:
        """Remembers the next matrix."""
        place = self._seen
        self._seen += 1
        self._newest.append((place, row))
        if len(self._newest) > (self.window or self.recent):
            self._newest.popleft()
        if self.window:
            return
        if (place - self.offset) % self._stride == 0:
            self._spread.append((place, row))
        if len(self._spread) > self.most:
            self._stride *= 2
            self._spread = [kept for kept in self._spread if (kept[0] - self.offset) % self._stride == 0]

    @property
    def seen(self) -> int:
        """How many matrices there were."""
        return self._seen

    @property
    def length(self) -> int:
        """How many matrices it looks back at."""
        return min(self._seen, self.window or self._seen)

    def rows(self) -> list[MeasuredMatrix]:
        """All that is kept, oldest first, none twice."""
        if self.window:
            stride = -(-self.window // self.most)
            return [row for place, row in self._newest if (place - self.offset) % stride == 0]
        kept = dict([*self._spread, *self._newest])
        return [kept[place] for place in sorted(kept)]

    def scenarios(self) -> Scenarios | None:
        """What is kept, with equal weights; None where nothing with traffic was seen yet."""
        rows = [row for row in self.rows() if row.best > 0]
        if not rows:
            return None
        floor = 0.0 if any(row.optimal is None for row in rows) else 1.0
        best = np.array([row.best for row in rows])
        return scenarios(np.array([row.demand for row in rows]), best, floor=floor)


def history_for(tunnels: Tunnels) -> History:
    """As many scenarios as these paths let a decision afford."""
    most = min(max(WORK // len(tunnels.paths), FEWEST), MOST)
    return History(most, min(RECENT, most // 2))


def of_quantiles(fan: Mapping[float, Floats]) -> tuple[Floats, Floats]:
    """One matrix per quantile level, every pair at that level at once: S x N, and weights S.

    `fan` gives N values per level. A level's weight is the probability between the middles to its neighbours. Pairs
    rarely peak together, so high levels overstate the whole: they are hedges, not expectations.
    """
    levels = np.array(sorted(fan))
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    return np.array([fan[level] for level in levels]), np.diff(edges)


def of_errors(forecast: Floats, truths: Floats, forecasts: Floats) -> Floats:
    """A forecast (N) that errs as earlier ones did (both K x N): K matrices, errors taken as ratios, whole rows.

    Whole rows keep which pairs err together. A pair without forecast or truth keeps its forecast; a ratio is at most
    10 either way.
    """
    usable = (forecasts > 0) & (truths > 0)
    ratio = np.divide(truths, forecasts, out=np.ones_like(truths), where=usable)
    return np.asarray(forecast * np.clip(ratio, 0.1, 10.0))


def blended(tunnels: Tunnels, seen: Scenarios, demand: Floats, share: float) -> Scenarios:
    """Scenarios seen, and others (S x N) that together have the weight `share`."""
    rows = [measured(tunnels, -1, row) for row in demand]
    rows = [row for row in rows if row.best > 0]
    if not rows:
        return seen
    weight = np.concatenate([(1 - share) * seen.weight, np.full(len(rows), share / len(rows))])
    together = np.concatenate([seen.demand, [row.demand for row in rows]])
    return scenarios(together, np.concatenate([seen.best, [row.best for row in rows]]), weight, seen.floor)

"""Says what splits are hedged against, and how a bad scenario counts against a usual one."""

from dataclasses import dataclass

import numpy as np

from orchestrator.routing.paths import Floats, Tunnels


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

"""Chooses splits that are good over many possible matrices instead of best for one: the hedged linear program."""

from dataclasses import dataclass

import numpy as np

from orchestrator.routing.oracle import tidy
from orchestrator.routing.paths import Floats, Ints, Tunnels
from orchestrator.routing.program import Program

# Cuts are added until the program's bound is so near to what its splits really cost, or so often.
GAP = 1e-3
MOST_ROUNDS = 25
# The first rows: links that are so near to the worst of their scenario.
NEAR = 0.97
CUTS_A_ROUND = 2


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


@dataclass(frozen=True, slots=True)
class Hedge:
    """Splits, the risk that they are promised to have, and a bound that no splits can beat on these scenarios."""

    splits: Floats
    risk: float
    bound: float
    rounds: int
    ratios: Floats


def scenarios(demand: Floats, best: Floats, weight: Floats | None = None, floor: float = 1.0) -> Scenarios:
    """Scenarios of those rows that carry traffic; equal weights unless told."""
    weight = np.ones(len(demand)) if weight is None else weight
    use = (best > 0) & (weight > 0)
    return Scenarios(demand[use], best[use], weight[use] / weight[use].sum(), floor)


def hedge(
    tunnels: Tunnels, given: Scenarios, risk: Risk, current: Floats | None = None, free: Ints | None = None
) -> Hedge:
    """The splits of least risk, by cutting planes: only links that can be a scenario's worst become rows.

    `free` names the pairs whose splits may change (all, unless told); the others keep those of `current`. Ends when
    the risk of the best splits seen is within 0.1 % of the bound.
    """
    start = tunnels.equal() if current is None else current
    program = Program(tunnels, given, risk, start, np.arange(len(tunnels.pairs)) if free is None else free)
    # The price of moving is for live splits; what is no more than a starting point is left for free.
    if current is None:
        program.price_moves(0.0)
    splits, best = start, Hedge(start, np.inf, -np.inf, 0, np.empty(0))
    ceiling: Floats | None = None
    bound = -np.inf
    for number in range(1, MOST_ROUNDS + 1):
        loads = tunnels.utilisation(splits, given.demand) / given.best[:, None]
        ratios = loads.max(axis=1)
        cost = risk.of(ratios, given.weight) + program.moved(splits)
        if cost < best.risk:
            best = Hedge(splits, cost, bound, number, ratios)
        if best.risk - bound <= GAP * best.risk:
            break
        program.cut(loads, ratios * NEAR if ceiling is None else ceiling, CUTS_A_ROUND)
        bound, splits, ceiling = program.solve()
        splits = tidy(tunnels, splits)
    return Hedge(best.splits, best.risk, bound, best.rounds, best.ratios)

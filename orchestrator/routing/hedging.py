"""Chooses splits that are good over many possible matrices instead of best for one: the hedged linear program."""

from dataclasses import dataclass

import numpy as np

from orchestrator.routing.oracle import tidy
from orchestrator.routing.paths import Floats, Ints, Tunnels
from orchestrator.routing.program import Program
from orchestrator.routing.risk import Risk, Scenarios

# Cuts are added until the program's bound is so near to what its splits really cost, or so often.
GAP = 1e-3
MOST_ROUNDS = 25
# The first rows: links that are so near to the worst of their scenario.
NEAR = 0.97
CUTS_A_ROUND = 2


@dataclass(frozen=True, slots=True)
class Hedge:
    """Splits, the risk that they are promised to have, and a bound that no splits can beat on these scenarios."""

    splits: Floats
    risk: float
    bound: float
    rounds: int
    ratios: Floats


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

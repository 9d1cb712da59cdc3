"""Chooses splits that are good over many possible matrices instead of best for one: the hedged linear program."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from orchestrator.optimise.paths import Floats, Ints, RoutingError, Tunnels, tidy
from orchestrator.optimise.scenarios import Risk, Scenarios

# A link that carries next to nothing of a scenario never becomes its worst.
NOTHING = 1e-6


class Program:
    """Minimise (1-a) sum_s p_s r_s + a (z + sum_s p_s x_s / (1-b)) + c sum_k m_k over w, r, z, x, m

    subject to r_s >= (load of link e in s) / (capacity_e best_s) for the rows (s, e) cut so far; r_s and z >= the
    scenarios' floor; x_s >= r_s - z, x_s >= 0 (CVaR as a linear program: Rockafellar and Uryasev 2000); m_k >= v_k
    (w_k - w0_k), m_k >= 0 with v_k the share of the pair of k (half
    of all traffic, half of all pairs); sum_k w_k = 1 for each pair.
    """

    def __init__(self, tunnels: Tunnels, given: Scenarios, risk: Risk, start: Floats, free: Ints) -> None:
        self.tunnels, self.given, self.risk, self.start = tunnels, given, risk, start
        chosen = np.zeros(len(tunnels.pairs), dtype=bool)
        chosen[free] = True
        self._columns = np.flatnonzero(chosen[tunnels.pair_of])
        self._pair = np.searchsorted(np.flatnonzero(chosen), tunnels.pair_of[self._columns])
        kept = np.where(chosen[tunnels.pair_of], 0.0, start)
        self._base = tunnels.utilisation(kept, given.demand) / given.best[:, None]
        self._usage = tunnels.usage[:, self._columns].tocsr()
        self._shared = given.demand[:, tunnels.pair_of[self._columns]] / given.best[:, None]
        self._cuts = np.zeros(self._base.shape, dtype=bool)
        mean = given.weight @ given.demand
        # Half by traffic, half by pair: a pair that says little must not move at will.
        self._share = (mean / mean.sum() + 1 / len(tunnels.pairs))[tunnels.pair_of] / 2
        self._churn = risk.churn
        self._rows = _Rows(len(self._columns), len(given.best), bool(risk.tail_weight))

    def price_moves(self, price: float) -> None:
        """Sets the price of moving all traffic."""
        self._churn = price

    def moved(self, splits: Floats) -> float:
        """The price of moving from the start to `splits`."""
        return self._churn * float(self._share @ np.maximum(splits - self.start, 0.0))

    def cut(self, loads: Floats, ceiling: Floats, most: int) -> None:
        """Adds rows for the `most` worst links of each scenario that are above its ceiling (loads S x L)."""
        over = loads - ceiling[:, None]
        over[self._cuts] = -np.inf
        most = min(most, loads.shape[1])
        worst = np.argpartition(-over, most - 1, axis=1)[:, :most]
        new = np.zeros_like(self._cuts)
        np.put_along_axis(new, worst, True, axis=1)
        self._cuts |= new & (over > NOTHING) & (loads > NOTHING)

    def solve(self) -> tuple[float, Floats, Floats]:
        """The bound, the splits of all paths and the ratio that each scenario is believed to have."""
        scenario, link = np.nonzero(self._cuts)
        loads = self._usage[link].multiply(self._shared[scenario]).tocsr()
        limits, right = self._rows.limits(loads, scenario, self._base[scenario, link])
        cost, lower = self._rows.cost(self.given, self.risk)
        if self._churn:
            limits, right, cost, lower = self._with_moves(limits, right, cost, lower)
        sums = sparse.csr_matrix(
            (np.ones(len(self._pair)), (self._pair, np.arange(len(self._pair)))), shape=(self._pairs(), len(cost))
        )
        bounds = np.column_stack([lower, np.full(len(cost), np.inf)])
        solved = linprog(cost, limits, right, sums, np.ones(self._pairs()), bounds, method="highs")
        if solved.x is None:
            raise RoutingError(f"the hedged linear program has no solution: {solved.message}")
        splits = self.start.copy()
        splits[self._columns] = solved.x[: len(self._columns)]
        return float(solved.fun), splits, np.asarray(solved.x[self._rows.ratios])

    def _pairs(self) -> int:
        return int(self._pair[-1]) + 1 if len(self._pair) else 0

    def _with_moves(
        self, limits: Any, right: Floats, cost: Floats, lower: Floats
    ) -> tuple[Any, Floats, Floats, Floats]:
        paths, others = len(self._columns), limits.shape[1] - len(self._columns)
        moves = sparse.hstack(
            [sparse.eye(paths), sparse.csr_matrix((paths, others)), sparse.diags(np.full(paths, -1.0))]
        )
        padded = sparse.hstack([limits, sparse.csr_matrix((limits.shape[0], paths))])
        return (
            sparse.vstack([padded, moves]).tocsr(),
            np.append(right, self.start[self._columns]),
            np.append(cost, self._churn * self._share[self._columns]),
            np.append(lower, np.zeros(paths)),
        )


class _Rows:
    """Where the variables lie: paths, a ratio per scenario, and for the tail its threshold and each excess over it."""

    def __init__(self, paths: int, scenarios: int, tail: bool) -> None:
        self.paths, self.scenarios, self.tail = paths, scenarios, tail
        self.ratios = slice(paths, paths + scenarios)
        self.size = paths + scenarios + (1 + scenarios if tail else 0)

    def cost(self, given: Scenarios, risk: Risk) -> tuple[Floats, Floats]:
        cost, lower = np.zeros(self.size), np.zeros(self.size)
        lower[self.ratios] = given.floor
        cost[self.ratios] = (1 - risk.tail_weight) * given.weight
        if self.tail:
            lower[self.ratios.stop] = given.floor
            cost[self.ratios.stop] = risk.tail_weight
            cost[self.ratios.stop + 1 :] = risk.tail_weight / (1 - risk.tail_level) * given.weight
        return cost, lower

    def limits(self, loads: Any, scenario: Ints, base: Floats) -> tuple[Any, Floats]:
        rows = np.arange(len(scenario))
        ratio = sparse.csr_matrix((-np.ones(len(rows)), (rows, scenario)), shape=(len(rows), self.size - self.paths))
        limits = sparse.hstack([loads, ratio])
        if not self.tail:
            return limits.tocsr(), -base
        each = sparse.eye(self.scenarios)
        excess = sparse.hstack(
            [sparse.csr_matrix((self.scenarios, self.paths)), each, np.full((self.scenarios, 1), -1.0), -each]
        )
        return sparse.vstack([limits, excess]).tocsr(), np.append(-base, np.zeros(self.scenarios))


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

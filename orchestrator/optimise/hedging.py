"""Chooses splits that are good over many possible matrices instead of best for one: the hedged linear program."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import sparse

from orchestrator.optimise.model import MIDDLE, ONWARDS, UNLIMITED, USUAL, LinearProgram, Term, sums_of
from orchestrator.optimise.paths import Floats, Ints, RoutingError, Tunnels, tidy
from orchestrator.optimise.scenarios import Risk, Scenarios

# A link that carries next to nothing of a scenario never becomes its worst.
NOTHING = 1e-6
# What a solver calls the least cost may be so much above it.
TOLERANCE = 1e-7
# Cuts are added until the program's bound is so near to what its splits really cost, or so often.
GAP = 1e-3
MOST_ROUNDS = 25
# The first rows: links that are so near to the worst of their scenario.
NEAR = 0.97
CUTS_A_ROUND = 2


class _HedgedProgram:
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
        self._paths = np.flatnonzero(chosen[tunnels.pair_of])
        kept = np.where(chosen[tunnels.pair_of], 0.0, start)
        self._base = tunnels.utilisation(kept, given.demand) / given.best[:, None]
        self._usage = tunnels.usage[:, self._paths].tocsr()
        self._shared = given.demand[:, tunnels.pair_of[self._paths]] / given.best[:, None]
        self._cuts = np.zeros(self._base.shape, dtype=bool)
        mean = given.weight @ given.demand
        # Half by traffic, half by pair: a pair that says little must not move at will.
        self._share = (mean / mean.sum() + 1 / len(tunnels.pairs))[tunnels.pair_of] / 2
        # Nothing is in force yet: the middle of all best splits fails less often on what comes than a corner of them.
        self._manner = ONWARDS if risk.churn else MIDDLE if given.floor else USUAL
        self._held = start[self._paths]
        self._used = np.flatnonzero(self._held > 0)
        program = self._program = LinearProgram()
        self._more = program.add_variables(
            risk.churn * self._share[self._paths], 0.0, np.maximum(1.0 - self._held, 0.0)
        )
        self._less = program.add_variables(np.zeros(len(self._used)), 0.0, self._held[self._used])
        self._ratios = program.add_variables((1 - risk.tail_weight) * given.weight, given.floor)
        if risk.tail_weight:
            self._add_tail()
        pair = np.searchsorted(np.flatnonzero(chosen), tunnels.pair_of[self._paths])
        balance = [Term(self._more, sums_of(pair)), Term(self._less, -sums_of(pair[self._used], groups=len(free)))]
        program.add_rows(0.0, 0.0, balance)

    def moved(self, splits: Floats) -> float:
        """The price of moving from the start to `splits`."""
        return self.risk.churn * float(self._share @ np.maximum(splits - self.start, 0.0))

    def add_cuts(self, loads: Floats, ceiling: Floats, most: int) -> None:
        """Adds rows for the `most` worst links of each scenario that are above its ceiling (loads S x L)."""
        over = loads - ceiling[:, None]
        over[self._cuts] = -np.inf
        most = min(most, loads.shape[1])
        worst = np.argpartition(-over, most - 1, axis=1)[:, :most]
        new = np.zeros_like(self._cuts)
        np.put_along_axis(new, worst, True, axis=1)
        new &= (over > NOTHING) & (loads > NOTHING)
        self._cuts |= new
        scenario, link = np.nonzero(new)
        shares = self._usage[link].multiply(self._shared[scenario]).tocsc()
        above = [
            Term(self._more, shares),
            Term(self._less, -shares[:, self._used]),
            Term(self._ratios, -sums_of(scenario, groups=len(self.given.best)).T),
        ]
        self._program.add_rows(-UNLIMITED, -self._base[scenario, link] - shares @ self._held, above)

    def solve(self) -> "_Relaxed":
        """The splits that are best as far as the rows so far know."""
        solved = self._program.solve(manner=self._manner) or self._program.solve()
        if solved is None:
            raise RoutingError("the hedged linear program has no solution")
        splits = self.start.copy()
        splits[self._paths] += solved.values[self._more]
        splits[self._paths[self._used]] -= solved.values[self._less]
        return _Relaxed(solved.cost - TOLERANCE, splits, solved.values[self._ratios])

    def _add_tail(self) -> None:
        given, risk, program = self.given, self.risk, self._program
        threshold = program.add_variables(np.full(1, risk.tail_weight), given.floor)
        excess = program.add_variables(risk.tail_weight / (1 - risk.tail_level) * given.weight)
        each = sparse.eye_array(len(given.weight))
        terms = [Term(self._ratios, each), Term(threshold, -np.ones((len(given.weight), 1))), Term(excess, -each)]
        program.add_rows(-UNLIMITED, 0.0, terms)


class _Relaxed(NamedTuple):
    """The bound, the splits of all paths and the ratio that each scenario is believed to have."""

    bound: float
    splits: Floats
    ratios: Floats


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
    # The price of moving is for live splits; what is no more than a starting point is left for free.
    priced = risk if current is not None else replace(risk, churn=0.0)
    program = _HedgedProgram(tunnels, given, priced, start, np.arange(len(tunnels.pairs)) if free is None else free)
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
        program.add_cuts(loads, ratios * NEAR if ceiling is None else ceiling, CUTS_A_ROUND)
        bound, splits, ceiling = program.solve()
        splits = tidy(tunnels, splits)
    return Hedge(best.splits, best.risk, bound, best.rounds, best.ratios)

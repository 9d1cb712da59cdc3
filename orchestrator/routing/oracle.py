"""Finds the best that any split could have done with one matrix known in full: the measure for all others."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from orchestrator.routing.paths import Floats, RoutingError, Tunnels


@dataclass(frozen=True, slots=True)
class Optimum:
    """The least maximum link utilisation of a matrix, and splits that reach it (one of several, perhaps)."""

    mlu: float
    splits: Floats


def optimum(tunnels: Tunnels, demand: Floats) -> Optimum:
    """Minimises u subject to load_e(w, d) <= u capacity_e and sum_k w_pk = 1: a linear program, solved by HiGHS.

    `demand` has N values. A matrix without traffic has the optimum 0, with everything on the first paths.
    """
    scale = float(tunnels.mlu(tunnels.equal(), demand)[0])
    if scale <= 0:
        return Optimum(0.0, tunnels.shortest())
    # In units of what an equal split reaches: the solver's tolerances are absolute.
    loads = tunnels.usage @ sparse.diags(demand[tunnels.pair_of] / scale)
    paths, pairs = len(tunnels.paths), len(tunnels.pairs)
    limits = sparse.hstack([loads, np.full((len(tunnels.links), 1), -1.0)]).tocsr()
    sums = sparse.csr_matrix((np.ones(paths), (tunnels.pair_of, np.arange(paths))), shape=(pairs, paths + 1))
    cost = np.append(np.zeros(paths), 1.0)
    solved = linprog(cost, limits, np.zeros(len(tunnels.links)), sums, np.ones(pairs), (0, None), method="highs")
    if solved.x is None:
        raise RoutingError(f"the linear program of a matrix has no solution: {solved.message}")
    splits = tidy(tunnels, solved.x[:paths])
    return Optimum(float(tunnels.mlu(splits, demand)[0]), splits)


def tidy(tunnels: Tunnels, splits: Floats) -> Floats:
    """Splits without the solver's dust: at least 0, and adding up to 1 for each pair."""
    splits = np.where(splits < 1e-9, 0.0, splits)
    return np.asarray(splits / np.bincount(tunnels.pair_of, splits)[tunnels.pair_of])

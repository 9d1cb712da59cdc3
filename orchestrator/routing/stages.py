"""Finds splits to pass through where the straight way from old to new splits is blocked by full links."""

from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from orchestrator.routing.oracle import tidy
from orchestrator.routing.paths import Floats, Ints, Tunnels

MOST_STAGES = 4
MARGIN = 1e-7


def stages(tunnels: Tunnels, ends: tuple[Floats, Floats], demand: Floats, ceiling: Floats, pairs: Ints) -> list[Floats]:
    """Splits from the first end to the second such that between neighbours the shifts of `pairs` may come in any order.

    That holds when every path at its larger share of the two, all together, fits below each link's ceiling: with a
    slack of s on each link 1 / s - 1 stages between are enough (Hong et al., SIGCOMM 2013). Empty when 4 are not.
    """
    for between in range(1, MOST_STAGES + 1):
        found = _through(_Part(tunnels, ends, demand, pairs), ceiling, between)
        if found:
            return [*found, ends[1]]
    return []


class _Part:
    """The pairs that are on their way, and what all others put on the links."""

    def __init__(self, tunnels: Tunnels, ends: tuple[Floats, Floats], demand: Floats, pairs: Ints) -> None:
        self.tunnels, self.ends = tunnels, ends
        moving = np.zeros(len(tunnels.pairs), dtype=bool)
        moving[pairs] = True
        self.paths = np.flatnonzero(moving[tunnels.pair_of])
        self.pair = np.searchsorted(np.flatnonzero(moving), tunnels.pair_of[self.paths])
        still = np.where(moving[tunnels.pair_of], 0.0, ends[0])
        self.base = tunnels.utilisation(still, demand)
        traffic = demand[tunnels.pair_of[self.paths]]
        self.loads = (tunnels.usage[:, self.paths] @ sparse.diags(traffic)).tocsr()


def _through(part: _Part, ceiling: Floats, between: int) -> list[Floats]:
    # Variables: splits of each stage between, then for each of the between + 1 crossings the larger of its two ends.
    size, crossings = len(part.paths), between + 1
    above, right = _larger(part, between)
    fits = sparse.hstack(
        [sparse.csr_matrix((crossings * len(ceiling), between * size)), sparse.block_diag([part.loads] * crossings)]
    )
    room = np.tile(ceiling - MARGIN - part.base, crossings)
    sums = sparse.csr_matrix((np.ones(size), (part.pair, np.arange(size))))
    equal = sparse.hstack(
        [sparse.block_diag([sums] * between), sparse.csr_matrix((between * sums.shape[0], crossings * size))]
    )
    solved = linprog(
        np.zeros((between + crossings) * size),
        sparse.vstack([above, fits]).tocsr(),
        np.concatenate([right, room]),
        equal.tocsr(),
        np.ones(between * sums.shape[0]),
        (0, 1),
        method="highs",
    )
    if solved.x is None:
        return []
    return [_whole(part, solved.x[stage * size : (stage + 1) * size]) for stage in range(between)]


def _larger(part: _Part, between: int) -> tuple[Any, Floats]:
    size, crossings = len(part.paths), between + 1
    rows, right = [], []
    for crossing in range(crossings):
        for stage in (crossing - 1, crossing):
            row: list[Any] = [sparse.csr_matrix((size, size)) for _ in range(between + crossings)]
            row[between + crossing] = -sparse.eye(size)
            inside = 0 <= stage < between
            if inside:
                row[stage] = sparse.eye(size)
            end = part.ends[0 if stage < 0 else 1][part.paths]
            rows.append(sparse.hstack(row))
            right.append(np.zeros(size) if inside else -end)
    return sparse.vstack(rows), np.concatenate(right)


def _whole(part: _Part, shares: Floats) -> Floats:
    splits = part.ends[0].copy()
    splits[part.paths] = shares
    return tidy(part.tunnels, splits)

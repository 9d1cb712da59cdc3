"""How to share a service's new communications out so that the tightest place keeps most: a small linear program."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from orchestrator.optimise.placement import Floats

TIGHT = 1e-7


@dataclass(frozen=True, slots=True)
class Rows:
    """Places that the shares load: load = base + per_share @ shares, in units of each place's capacity.

    `base`: places; `per_share`: places x destinations.
    """

    base: Floats
    per_share: Floats

    def headroom(self, shares: Floats) -> Floats:
        """What each place has left of its capacity (1 = all of it; below 0 it is short)."""
        return np.asarray(1.0 - self.base - self.per_share @ shares, dtype=np.float64)


def best_shares(rows: Rows, least: float) -> Floats:
    """The shares (destinations, summing to 1, none below `least`) with the largest smallest headroom.

    Among those, the one whose second smallest is largest, and so on (max-min fairness, Bertsekas & Gallager, Data
    Networks, 1992, section 6.5.2): a place that no choice can help does not decide about the others.
    """
    count = rows.per_share.shape[1]
    left = np.ones(len(rows.base), dtype=bool)
    floors = np.full(len(rows.base), -np.inf)
    shares = np.full(count, 1.0 / count)
    while left.any():
        found = _round(rows, left, floors, least)
        if found is None:
            return shares
        shares, margin, tight = found
        floors[tight] = margin - TIGHT
        left &= ~tight
    return shares


def _round(rows: Rows, left: np.ndarray, floors: Floats, least: float) -> tuple[Floats, float, np.ndarray] | None:
    """One program: the largest margin of the places that are `left`, with the floors of the others kept."""
    count = rows.per_share.shape[1]
    fixed = np.isfinite(floors)
    upper = np.vstack(
        [
            np.column_stack([rows.per_share[left], np.ones(left.sum())]),
            np.column_stack([rows.per_share[fixed], np.zeros(fixed.sum())]),
        ]
    )
    limits = np.concatenate([1.0 - rows.base[left], 1.0 - rows.base[fixed] - floors[fixed]])
    goal = np.zeros(count + 1)
    goal[-1] = -1.0
    total = np.append(np.ones(count), 0.0)[None, :]
    bounds = [(least, 1.0)] * count + [(None, None)]
    found = linprog(goal, upper, limits, total, [1.0], bounds, method="highs")
    if found.status != 0:
        return None
    tight = np.zeros(len(rows.base), dtype=bool)
    tight[np.flatnonzero(left)] = found.ineqlin.marginals[: left.sum()] < -TIGHT
    return found.x[:-1], float(found.x[-1]), tight if tight.any() else left.copy()


def smallest(headrooms: Sequence[float] | Floats) -> float:
    """The least headroom; all of it where there is no place at all."""
    return float(min(headrooms, default=1.0))

"""How to share a service's new communications out so that the tightest place keeps most: a small linear program."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.optimise.model import UNLIMITED, LinearProgram, Term
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


def headroom_bound(rows: Rows, least: float) -> float:
    """No shares leave the tightest place more than this: it costs no program to know.

    By weak duality: any weights of places give a bound. Tried are each place alone, and those that are loaded through
    one destination only, in proportion to how little a share adds there: the answer, where there is nothing else.
    """
    room, per_share, count = 1.0 - rows.base, rows.per_share, rows.per_share.shape[1]
    if count * least >= 1.0 or not len(room):
        return float("inf")
    weights = np.eye(len(room))
    alone = (per_share > 0).sum(axis=1) == 1
    # Of each destination's own places the one that has least.
    found = (np.flatnonzero(alone & (column > 0)) for column in per_share.T)
    if own := [int(places[np.argmin(room[places])]) for places in found if len(places)]:
        together = np.zeros(len(room))
        together[own] = 1.0 / per_share[own].sum(axis=1)
        weights = np.vstack([weights, together / together.sum()])
    loads = weights @ per_share
    most = weights @ room - least * loads.sum(axis=1) - (1.0 - count * least) * loads.min(axis=1)
    return float(most.min())


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
    program, room = LinearProgram(), 1.0 - rows.base
    shares = program.add_variables(np.zeros(rows.per_share.shape[1]), least, 1.0)
    margin = program.add_variables(-np.ones(1), -UNLIMITED)
    open_rows = program.add_rows(
        -UNLIMITED, room[left], [Term(shares, rows.per_share[left]), Term(margin, np.ones((left.sum(), 1)))]
    )
    fixed = np.isfinite(floors)
    program.add_rows(-UNLIMITED, room[fixed] - floors[fixed], [Term(shares, rows.per_share[fixed])])
    program.add_rows(1.0, 1.0, [Term(shares, np.ones((1, len(shares))))])
    found = program.solve()
    if found is None:
        return None
    tight = np.zeros(len(rows.base), dtype=bool)
    tight[np.flatnonzero(left)] = found.prices[open_rows] < -TIGHT
    return found.values[shares], float(found.values[margin[0]]), tight if tight.any() else left.copy()


def fair_shares(wanted: Sequence[float], room: float) -> list[float]:
    """Max-min fair shares of `room`: nobody gets more than is wanted, or could get more but from one who has less.

    All in one unit, e.g. bytes/s. Progressive filling (Bertsekas & Gallager, Data Networks, 1992, section 6.5.2) for
    one place: the least wants first, each of those left an equal part of what is left. They take at most `room`.
    """
    shares, left = [0.0] * len(wanted), max(0.0, room)
    for rank, place in enumerate(sorted(range(len(wanted)), key=lambda one: wanted[one])):
        shares[place] = min(max(0.0, wanted[place]), left / (len(wanted) - rank))
        left -= shares[place]
    return shares

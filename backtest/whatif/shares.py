"""Who gets how much where several want the same: max-min fair shares, for links and for hosts' cores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtest.whatif.records import Flags, Floats

Places = NDArray[np.int64]
# Rates are bytes/s or cores: what is less than this share of a capacity is rounding.
ROUNDING = 1e-9


def sum_by(places: Places, amounts: Floats, count: int) -> Floats:
    """Amounts summed by place, for places 0 to `count` - 1."""
    return np.bincount(places, weights=amounts, minlength=count).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Crossings:
    """Which flow crosses which link: two arrays of equal length, sorted by flow."""

    flows: Places
    links: Places

    @classmethod
    def of(cls, ways: Sequence[Sequence[int]]) -> "Crossings":
        """Of the ways of flows 0, 1, ... as numbers of links."""
        flows = [number for number, way in enumerate(ways) for _ in way]
        return cls(np.array(flows, dtype=np.int64), np.array([one for way in ways for one in way], dtype=np.int64))

    def load(self, rates: Floats, links: int) -> Floats:
        """What each link carries when flows have these rates."""
        return sum_by(self.links, rates[self.flows], links)

    def on(self, links: Flags) -> "Crossings":
        """Those of some links only."""
        kept = links[self.links]
        return Crossings(self.flows[kept], self.links[kept])

    def tightest(self, links: Floats, flows: int) -> Floats:
        """For each flow the least value of the links that it crosses, inf where it crosses none."""
        least = np.full(flows, np.inf)
        np.minimum.at(least, self.flows, links[self.links])
        return least


def max_min_shares(demands: Floats, crossings: Crossings, capacities: Floats, floors: Floats | None = None) -> Floats:
    """Rates of flows: none above its demand, no link above its capacity, nobody can get more but from a poorer one.

    Progressive filling (Bertsekas and Gallager, Data Networks, 1992, 6.5.2), several bottlenecks at a time. What
    `floors` (at most the demands, and feasible together) guarantee comes first, and what is left is shared equally.
    """
    if floors is not None and floors.any():
        left = np.maximum(0.0, capacities - crossings.load(floors, len(capacities)))
        return floors + max_min_shares(demands - floors, crossings, left)
    rates = demands.astype(np.float64)
    short = crossings.load(rates, len(capacities)) > capacities * (1.0 + ROUNDING)
    # Links that can carry all that is asked of them bind nobody.
    contended = crossings.on(short)
    open_flows = np.zeros(len(rates), dtype=bool)
    open_flows[contended.flows] = True
    left = np.where(short, capacities, np.inf)
    while len(contended.flows):
        counts = np.bincount(contended.links, minlength=len(left))
        fair = np.where(counts > 0, np.maximum(left, 0.0) / np.maximum(counts, 1), np.inf)
        share = contended.tightest(fair, len(rates))
        settled = open_flows & (rates <= share)
        if not settled.any():
            # A link is a bottleneck where none of its flows is held back more elsewhere.
            least = np.full(len(left), np.inf)
            np.minimum.at(least, contended.links, share[contended.flows])
            bottleneck = least >= fair * (1.0 - ROUNDING)
            settled[contended.flows[bottleneck[contended.links]]] = True
            rates = np.where(settled, share, rates)
        done = settled[contended.flows]
        left -= np.bincount(contended.links[done], weights=rates[contended.flows[done]], minlength=len(left))
        open_flows &= ~settled
        contended = Crossings(contended.flows[~done], contended.links[~done])
    return rates

"""What links will carry: forecasts of their pairs and forecasts of the links themselves, reconciled.

Peaks of pairs do not coincide, and no pair explains traffic outside virtual IPs: the sum itself knows both. Its mean is
the least-squares combination of both forecasts, each weighted by its variance (WLS of a hierarchy of two levels:
Wickramasuriya, Athanasopoulos and Hyndman, Optimal forecast reconciliation for hierarchical and grouped time series
through trace minimization, 2019). What the highest second adds to the mean is taken from the sum's own forecast: errors
of both are those of the same future, so a variance for independent ones would be too small by far.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cpdb import BytesPerS, Quantity, Subject, SubjectKind
from orchestrator.demand import Demand, KnownRates, Sought, foretold_rates
from orchestrator.demand_table import RateColumns
from orchestrator.foreseen import Bools, Floats, Foreseen
from orchestrator.onset import PEAK, Reading
from orchestrator.pair_table import LinkKey
from orchestrator.world import LinkState, World

# From this share of its capacity on a link shows what it could carry, not what was asked of it.
HELD_SHARE = 0.85


class SumForecast(NamedTuple):
    """By number of the sum: its mean, and what the highest second may add to that."""

    usual: Floats
    excess: Floats

    @property
    def upper(self) -> Floats:
        """The upper end."""
        return self.usual + self.excess


class Sums(NamedTuple):
    """Reconciled sums: the mean, the upper end, and how much of the mean's correction is nobody's part."""

    usual: Floats
    upper: Floats
    beside: Floats


def reconcile(parts: SumForecast, whole: SumForecast, unexplained: Floats, held: Bools) -> Sums:
    """Sums of parts with the forecasts of the sums themselves.

    Excesses stand for standard deviations. Of what is `unexplained` (a share of what is measured of the sum) nobody has
    a forecast but the sum: it counts as uncertain as that share of it. What was `held` back may add, never take away.
    """
    known, own = (1.0 - unexplained) * parts.excess**2, unexplained * whole.excess**2
    both = known + whole.excess**2
    weight = np.divide(known + own, both, out=unexplained.copy(), where=both > 0)
    usual = parts.usual + weight * (whole.usual - parts.usual)
    upper = usual + whole.excess
    usual = np.where(held, np.maximum(usual, parts.usual), usual)
    upper = np.where(held, np.maximum(upper, parts.upper), upper)
    share = np.divide(own, known + own, out=unexplained.copy(), where=known + own > 0)
    return Sums(usual, upper, share * (usual - parts.usual))


class Correction(NamedTuple):
    """What the forecast of a link itself adds to what is known of its parts, in bytes/s: below 0 it takes away.

    `pairs` is about the pairs' upper end together, which was `of`; `beside` about traffic that is no pair's.
    """

    pairs: BytesPerS
    beside: BytesPerS
    of: BytesPerS

    def within(self, bytes_per_s: BytesPerS) -> BytesPerS:
        """For pairs that ask for so much together: who has left the link takes its part of the correction along."""
        return self.pairs * min(1.0, bytes_per_s / self.of) if self.of > 0 else self.pairs


NO_CORRECTION = Correction(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class LinkSums:
    """The links of which something is forecast, and the forecasts."""

    links: Sequence[LinkState]
    foreseen: Foreseen

    @classmethod
    def of(cls, world: World) -> "LinkSums":
        """Those of a world."""
        said = ((link, world.network.sums.get(Subject(SubjectKind.LINK, *key))) for key, link in world.links.items())
        known = [(link, forecasts) for link, forecasts in said if forecasts]
        return cls([link for link, _ in known], Foreseen([forecasts for _, forecasts in known]))


def link_corrections(demand: Demand, horizon_s: int, reading: Reading = PEAK) -> Mapping[LinkKey, Correction]:
    """By link of which a trusted forecast within `horizon_s` says anything; kept."""
    key = horizon_s, reading
    found: Mapping[LinkKey, Correction] | None = demand.corrections.get(key)
    if found is None:
        found = demand.corrections[key] = _corrections(demand, LinkSums.of(demand.world), horizon_s, reading)
    return found


def _corrections(demand: Demand, known: LinkSums, horizon_s: int, reading: Reading) -> Mapping[LinkKey, Correction]:
    if not known.links or not horizon_s:
        return {}
    groups, carried = demand.world.table.on_link, np.array([link.bytes_per_s for link in known.links])
    places = np.array([groups.places.get(link.key, -1) for link in known.links], dtype=np.int64)
    asked = demand.table(horizon_s, reading).of_groups(groups).bytes.at(places)
    beside = np.maximum(0.0, carried - asked.measured)
    parts = SumForecast(asked.usual + beside, asked.together() - asked.usual)
    told = _foretold(demand, known.foreseen, carried, horizon_s, reading)
    whole = SumForecast(told.typical, np.maximum(0.0, told.need - told.typical))
    unexplained = np.divide(beside, carried, out=np.zeros(len(carried)), where=carried > 0)
    sums = reconcile(parts, whole, unexplained, _held(demand.world, known.links, told.need))
    pairs = sums.upper - parts.upper - sums.beside
    rows = zip(pairs.tolist(), sums.beside.tolist(), asked.together().tolist(), strict=True)
    speaks = zip(known.links, rows, (told.far_s > 0).tolist(), strict=True)
    return {link.key: Correction(*row) for link, row, says in speaks if says}


def _foretold(demand: Demand, foreseen: Foreseen, carried: Floats, horizon_s: int, reading: Reading) -> RateColumns:
    """What is forecast of links that carry so much now."""
    unknown = np.full(len(carried), np.nan)
    known = KnownRates(carried, carried, np.full(len(carried), np.inf), unknown)
    passed = np.zeros(len(carried), dtype=np.bool_)
    return foretold_rates(demand, Sought(foreseen, horizon_s, Quantity.BYTES_PEAK), known, reading, passed)


def _held(world: World, links: Sequence[LinkState], upper: Floats) -> Bools:
    """Which links are, or by their own forecast were, so full that they show what fits, or carry who is limited."""
    limited = {limit.pair for one in world.wanted.reservations.values() for limit in one.limits}
    slowed = {key for pair in limited if pair in world.pairs for key in world.pairs[pair].links}
    fullest = np.array([HELD_SHARE * (link.capacity_bytes_per_s or np.inf) for link in links])
    full = np.array([link.bytes_per_s for link in links]) >= fullest
    lossy = np.array([link.drop_share > 0 or link.key in slowed for link in links], dtype=np.bool_)
    found: Bools = full | (upper >= fullest) | lossy
    return found

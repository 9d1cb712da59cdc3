"""What machines need beside their communications, together with these: both may rise at once."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cpdb import Quantity
from orchestrator.demand import Demand, KnownRates, Sought, foretold_rates
from orchestrator.demand_table import RateColumns, RateSums
from orchestrator.foreseen import Bools, Floats, Foreseen, Ints
from orchestrator.onset import PEAK, Reading

# In the place of a relation's number: the machine's own forecast is of all that it does.
ALONE = -1


@dataclass(frozen=True, slots=True, eq=False)
class OwnForecasts:
    """What is forecast of machines by number, beside what they use and may use, in cores.

    `alone`: of whom communications are not taken off, as no row names the machine that serves them.
    """

    foreseen: Foreseen
    used: Floats
    limits: Floats
    alone: Bools


@dataclass(frozen=True, slots=True, eq=False)
class OwnNeeds:
    """By number of the machine: cores needed in all (-inf where nothing is foreseen), in the mean, by which relation,
    and of that what is needed beside communications (`own_cores`) by a forecast within `far_s`.
    """

    cores: Floats
    usual: Floats
    relation: Ints
    own_cores: Floats
    far_s: Ints

    @classmethod
    def nothing(cls, count: int) -> "OwnNeeds":
        """Nobody has any."""
        none = np.zeros(count, dtype=np.int64)
        return cls(np.full(count, -np.inf), np.zeros(count), none + ALONE, np.zeros(count), none)

    def take(self, which: Bools, other: "OwnNeeds") -> None:
        """Counts these needs where they are more than what is known already."""
        more = which & (other.far_s > 0) & (other.cores > self.cores)
        for known, new in ((self.cores, other.cores), (self.usual, other.usual), (self.own_cores, other.own_cores)):
            known[more] = new[more]
        self.relation[more], self.far_s[more] = other.relation[more], other.far_s[more]


@dataclass(frozen=True, slots=True, eq=False)
class OwnWindow:
    """For which horizon machines' own needs are asked, and what counts of their forecasts."""

    known: OwnForecasts
    horizon_s: int
    reading: Reading

    def rates(self, demand: Demand, explained: Floats) -> RateColumns:
        """What is foreseen where so much of what is used now is explained by communications, in cores."""
        known, passed = self.known, np.zeros(len(self.known.used), dtype=np.bool_)
        now = np.maximum(0.0, known.used - explained)
        measured = KnownRates(now, now, np.full(len(now), np.inf), np.full(len(now), np.nan))
        # A machine that does what it always does is given no margin: on a host with many of them it would add up.
        reading = Reading(level=demand.config.demand.level) if self.reading == PEAK else self.reading
        sought = Sought(known.foreseen, self.horizon_s, Quantity.CPU_PEAK)
        found = foretold_rates(demand, sought, measured, reading, passed)
        column = known.foreseen.column(self.horizon_s, Quantity.CPU_PEAK) if passed.any() else None
        if column is not None and (column.at(demand.config.demand.level)[passed] > known.limits[passed]).any():
            demand.doubt_own()
        return found


class Slopes(NamedTuple):
    """Cores for one more of what is asked, by machine (NaN: of whom it is not), of the relation of this number."""

    number: int
    cores: Floats


def add_own(found: OwnNeeds, demand: Demand, window: OwnWindow, slopes: Slopes, asked: RateSums) -> None:
    """Means add and independent excesses in squares: of requests by one relation's `slopes`, and of what is beside."""
    number, slope = slopes
    own = window.rates(demand, slope * asked.measured)
    excess = np.hypot(slope * np.sqrt(asked.squares), np.maximum(0.0, own.need - own.typical))
    usual = slope * asked.usual + np.minimum(own.typical, own.need)
    cores = np.maximum(usual + excess, slope * asked.measured + own.measured)
    found.take(~np.isnan(slope), OwnNeeds(cores, usual, np.full(len(slope), number), own.need, own.far_s))

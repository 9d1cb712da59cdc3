"""What pairs need as arrays by number of the pair, and what groups of them need together; one pair's is a row."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from cpdb import Forecast, Pair, Quantity
from orchestrator.foreseen import Bools, Floats, Ints
from orchestrator.pair_table import PairGroups, PairState


@dataclass(frozen=True, slots=True)
class Rate:
    """One quantity of one pair (bytes/s or connections/s).

    `need` is what it must be able to get, `typical` its mean, `chance` the excess of a peak second that says nothing.
    """

    measured: float
    typical: float
    need: float
    chance: float
    forecast: Forecast | None = None


@dataclass(frozen=True, slots=True)
class PairDemand:
    """What a pair needs within `horizon_s` seconds (0: now)."""

    pair: Pair
    horizon_s: int
    bytes: Rate
    connections: Rate

    def rate_of(self, feature: str) -> Rate:
        """The rate that a learnt relation is about."""
        return self.connections if feature == "connections_per_s" else self.bytes


@dataclass(frozen=True, slots=True, eq=False)
class RateColumns:
    """One quantity of all pairs, as in `Rate`; `far_s` is the horizon of the forecast behind it, 0 for none."""

    measured: Floats
    typical: Floats
    need: Floats
    chance: Floats
    far_s: Ints

    def sums(self, groups: PairGroups[Any]) -> "RateSums":
        """Of the pairs of each group."""
        excess = np.maximum(0.0, self.need - self.typical - self.chance)
        usual = np.minimum(self.typical, self.need)
        return RateSums(groups.sums(usual), groups.sums(excess**2), groups.sums(self.measured))


@dataclass(frozen=True, slots=True, eq=False)
class RateSums:
    """Sums over pairs by group: what is usual, the squares of what may exceed it, and what is measured."""

    usual: Floats
    squares: Floats
    measured: Floats

    def together(self) -> Floats:
        """What the pairs of each group need at the same time, as `together`."""
        return np.maximum(self.usual + np.sqrt(self.squares), self.measured)

    def at(self, places: Ints) -> "RateSums":
        """Of these groups; -1 is one without pairs."""
        return RateSums(*(np.append(one, 0.0)[places] for one in (self.usual, self.squares, self.measured)))

    def add(self, place: int, share: float, other: "RateSums", at: int) -> None:
        """Adds a share of each pair of another group."""
        self.usual[place] += share * other.usual[at]
        self.squares[place] += share**2 * other.squares[at]
        self.measured[place] += share * other.measured[at]


class Together(NamedTuple):
    """What some pairs ask for together: bytes/s and connections/s, and of bytes what is measured, and the most.

    `need` is the sum of their needs, `at_most` that of what each needs, usually sends or sends at most.
    """

    bytes_per_s: float
    connections_per_s: float
    measured: float
    need: float
    at_most: float

    def rate_of(self, feature: str) -> float:
        """The rate that a learnt relation is about."""
        return self.connections_per_s if feature == "connections_per_s" else self.bytes_per_s


NOBODY = Together(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class GroupDemand:
    """What the pairs of each group ask for together, by number of the group.

    `leaders` are the numbers of the pairs that need most bytes; `sums` are as in `Together`.
    """

    bytes: RateSums
    connections: RateSums
    leaders: Ints
    sums: tuple[Floats, ...]

    @classmethod
    def of(cls, table: "DemandTable", groups: PairGroups[Any]) -> "GroupDemand":
        """The groups of a table's pairs."""
        sent, opened, rates = table.bytes.sums(groups), table.connections.sums(groups), table.bytes
        most = np.max([rates.need, rates.typical, rates.measured, table.usual_bytes_per_s], axis=0)
        sums = sent.together(), opened.together(), sent.measured, groups.sums(rates.need), groups.sums(most)
        return cls(sent, opened, groups.leaders(rates.need), sums)

    def at(self, place: int | None) -> Together:
        """One group, or one without pairs."""
        return NOBODY if place is None else Together(*(one.item(place) for one in self.sums))


@dataclass(frozen=True, slots=True, eq=False)
class DemandTable:
    """What all pairs need within one horizon, by number.

    `asked`: whose need in bytes stands on the forecast of its connections; `usual_bytes_per_s` is measured for long.
    """

    horizon_s: int
    bytes: RateColumns
    connections: RateColumns
    asked: Bools
    usual_bytes_per_s: Floats
    _views: dict[int, PairDemand] = field(default_factory=dict, init=False)
    _groups: dict[PairGroups[Any], GroupDemand] = field(default_factory=dict, init=False)

    def of_groups(self, groups: PairGroups[Any]) -> GroupDemand:
        """What groups of pairs ask for; kept. Raises ValueError when they are groups of other pairs."""
        found = self._groups.get(groups)
        if found is None:
            if groups.count != len(self.asked):
                raise ValueError(f"groups of {groups.count} pairs, and a demand of {len(self.asked)}")
            found = self._groups[groups] = GroupDemand.of(self, groups)
        return found

    def view(self, number: int, state: PairState) -> PairDemand:
        """The demand of one pair."""
        found = self._views.get(number)
        if found is None:
            connections = _row(self.connections, number, state, Quantity.CONNECTIONS_PEAK)
            sent = _row(self.bytes, number, state, Quantity.BYTES_PEAK)
            if self.asked[number]:
                sent = replace(sent, forecast=connections.forecast)
            found = self._views[number] = PairDemand(state.pair, self.horizon_s, sent, connections)
        return found


def scaled_demand(one: PairDemand, share: float) -> PairDemand:
    """A share of what a pair asks for."""
    if share == 1.0:
        return one
    return replace(one, bytes=_scaled(one.bytes, share), connections=_scaled(one.connections, share))


def _scaled(rate: Rate, share: float) -> Rate:
    return replace(
        rate,
        measured=share * rate.measured,
        typical=share * rate.typical,
        need=share * rate.need,
        chance=share * rate.chance,
    )


def _row(rates: RateColumns, number: int, state: PairState, peak: Quantity) -> Rate:
    far_s = rates.far_s.item(number)
    return Rate(
        rates.measured.item(number),
        rates.typical.item(number),
        rates.need.item(number),
        rates.chance.item(number),
        state.forecasts.get((far_s, peak)) if far_s else None,
    )


def together(rates: Iterable[Rate]) -> float:
    """What pairs need at the same time: means add, independent excesses in squares; never below what is measured."""
    items = list(rates)
    excess = sqrt(sum(one**2 for one in _excesses(items)))
    # A mean over the last while still remembers a surge that has ended: it may not count for more than the need.
    usual = sum(min(one.typical, one.need) for one in items)
    return max(usual + excess, sum(one.measured for one in items))


def _excesses(items: Iterable[Rate]) -> Iterator[float]:
    for one in items:
        yield max(0.0, one.need - one.typical - one.chance)

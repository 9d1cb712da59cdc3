"""The pairs of a world, numbered once: who goes where and over what, and what is known of them as arrays by number."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Generic, TypeVar

import numpy as np

from cpdb import Forecast, Pair, Quantity
from orchestrator.foreseen import Floats, Foreseen, Ints

LinkKey = tuple[str, str]
Ways = Callable[[str, str], tuple[LinkKey, ...]]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class ConnectionSize:
    """What a pair's connection carries in bytes.

    `known_per_s`: up to so many connections/s all that the pair sends comes with them, and soon; 0 where it does not.
    """

    bytes: float
    known_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PairState:
    """One pair now. Rates: `bytes_per_s`, `connections_per_s` over the last seconds; `typical_*` over a longer while.

    `newest_*` are those of the newest sample alone, None where it is not known. `links` are the directed links on the
    way to the destination, in order.
    """

    pair: Pair
    priority: int
    destination: str | None
    links: tuple[LinkKey, ...]
    bytes_per_s: float
    connections_per_s: float
    typical_bytes_per_s: float
    typical_connections_per_s: float
    connection: ConnectionSize | None = None
    forecasts: Mapping[tuple[int, Quantity], Forecast] = field(default_factory=dict)
    newest_bytes_per_s: float | None = None
    newest_connections_per_s: float | None = None

    @property
    def bytes_per_connection(self) -> float | None:
        """None where it is not known."""
        return None if self.connection is None else self.connection.bytes

    @property
    def known_connections_per_s(self) -> float:
        """Up to how many connections/s what it sends is what they ask for."""
        return 0.0 if self.connection is None else self.connection.known_per_s


@dataclass(frozen=True, slots=True, eq=False)
class PairGroups(Generic[Key]):
    """Pairs in groups, e.g. those of a link: entry e says that pair number `pair[e]` is in group number `group[e]`.

    The pairs of each group stand in the order of their names; `places` are the groups' numbers, `count` is that of all
    pairs, in a group or not.
    """

    places: Mapping[Key, int]
    pair: Ints
    group: Ints
    members: Mapping[Key, list[int]]
    count: int

    @classmethod
    def of(cls, entries: Iterable[tuple[Key, int]], count: int) -> "PairGroups[Key]":
        """Of (group, number of a pair) by the names of the pairs; `count` pairs in all."""
        members: dict[Key, list[int]] = {}
        for key, number in entries:
            members.setdefault(key, []).append(number)
        pair = np.array([number for own in members.values() for number in own], dtype=np.int64)
        group = np.repeat(np.arange(len(members)), [len(own) for own in members.values()])
        return cls({key: place for place, key in enumerate(members)}, pair, group, members, count)

    def sums(self, values: Floats) -> Floats:
        """By group, of values by pair."""
        found: Floats = np.bincount(self.group, values[self.pair], len(self.places)).astype(np.float64, copy=False)
        return found

    def leaders(self, values: Floats) -> Ints:
        """By group the number of the pair with the largest value; the first of equals."""
        if not len(self.pair):
            return np.zeros(0, dtype=np.int64)
        own = values[self.pair]
        starts = np.flatnonzero(np.diff(self.group, prepend=-1))
        largest = np.flatnonzero(own == np.maximum.reduceat(own, starts)[self.group])[::-1]
        found = np.zeros(len(self.places), dtype=np.int64)
        found[self.group[largest]] = self.pair[largest]  # of several the one written last stands
        return found


KEPT = frozenset(
    {"pairs", "numbers", "by_name", "of_service", "on_link", "on_way", "of_service_on_link", "_to_machine"}
)


class PairTable:
    """What is the same for all who look at the pairs of one world; everything is made when it is first asked for."""

    def __init__(self, pairs: Mapping[Pair, PairState], before: "PairTable | None" = None) -> None:
        """`before`: the table of an earlier world, of which stays what follows from who is there and goes where."""
        self.states = list(pairs.values())
        self._pairs = pairs
        self._columns: dict[str, Floats] = {}
        self._to_machine: dict[frozenset[str], PairGroups[str]] = {}
        self._ways_to: dict[tuple[str, str], PairGroups[LinkKey]] = {}
        if before is not None and self.pairs == before.pairs and all(map(_goes_alike, self.states, before.states)):
            self.__dict__.update({name: known for name, known in before.__dict__.items() if name in KEPT})

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """By number."""
        return tuple(self._pairs)

    @cached_property
    def numbers(self) -> Mapping[Pair, int]:
        """Of each pair."""
        return {pair: number for number, pair in enumerate(self._pairs)}

    @cached_property
    def by_name(self) -> list[int]:
        """Numbers in the order of the pairs' names."""
        names = [f"{pair.source}->{pair.virtual_ip}" for pair in self._pairs]
        return sorted(range(len(names)), key=names.__getitem__)

    @cached_property
    def of_service(self) -> PairGroups[str]:
        """By virtual IP."""
        entries = ((self.states[number].pair.virtual_ip, number) for number in self.by_name)
        return PairGroups.of(entries, len(self.states))

    @cached_property
    def on_link(self) -> PairGroups[LinkKey]:
        """By link on their ways."""
        entries = ((key, number) for number in self.by_name for key in self.states[number].links)
        return PairGroups.of(entries, len(self.states))

    @cached_property
    def on_way(self) -> PairGroups[tuple[LinkKey, ...]]:
        """By all links on their ways."""
        return PairGroups.of(((self.states[number].links, number) for number in self.by_name), len(self.states))

    @cached_property
    def of_service_on_link(self) -> PairGroups[tuple[str, LinkKey]]:
        """By virtual IP and link."""
        known = ((number, self.states[number]) for number in self.by_name)
        entries = (((one.pair.virtual_ip, key), number) for number, one in known for key in one.links)
        return PairGroups.of(entries, len(self.states))

    def to_machine(self, without: frozenset[str] = frozenset()) -> PairGroups[str]:
        """By destination, "" where it is not known; without the pairs of some virtual IPs."""
        found = self._to_machine.get(without)
        if found is None:
            states = ((self.states[number], number) for number in self.by_name)
            entries = ((one.destination or "", number) for one, number in states if one.pair.virtual_ip not in without)
            found = self._to_machine[without] = PairGroups.of(entries, len(self.states))
        return found

    def ways_to(self, virtual_ip: str, end: str, ways: Ways) -> PairGroups[LinkKey]:
        """The pairs of a virtual IP by link, if all of them went to one end."""
        found = self._ways_to.get((virtual_ip, end))
        if found is None:
            own = self.of_service.members.get(virtual_ip, ())
            entries = ((key, number) for number in own for key in ways(self.pairs[number].source, end))
            found = self._ways_to[virtual_ip, end] = PairGroups.of(entries, len(self.states))
        return found

    @cached_property
    def foreseen(self) -> Foreseen:
        """What is forecast of them."""
        return Foreseen([one.forecasts for one in self.states])

    def column(self, name: str, missing: float = 0.0) -> Floats:
        """One of the numbers that are known of each, by number; `missing` where it is not known."""
        found = self._columns.get(name)
        if found is None:
            values = list(map(attrgetter(name), self.states))
            found = self._columns[name] = np.array(
                [missing if one is None else one for one in values], dtype=np.float64
            )
        return found


def _goes_alike(one: PairState, other: PairState) -> bool:
    return one.destination == other.destination and one.links == other.links

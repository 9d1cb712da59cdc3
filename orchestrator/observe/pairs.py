"""What is known of each pair: whom it talks to, how much lately, and what is foreseen of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import numpy as np

from cpdb import (
    NO_MODEL,
    Forecast,
    ForecastBatch,
    Pair,
    Quantity,
    Seconds,
    Subject,
    SubjectKind,
    Trust,
    nearest_level,
)
from orchestrator.observe.window import Floats, Listed, Traffic, sum_by


class Rates(NamedTuple):
    """By number of the pair, 0 where nothing is known."""

    bytes_per_s: Floats
    connections_per_s: Floats


def seen_pairs(traffic: Traffic, listed: Listed) -> list[int]:
    """Numbers of the pairs that were listed, in the order in which they first were."""
    first = np.full(len(traffic.names.pairs), len(traffic.batch))
    np.minimum.at(first, listed.pair, listed.row)
    order = np.argsort(first, kind="stable")
    found: list[int] = order[first[order] < len(traffic.batch)].tolist()
    return found


def destinations_of(traffic: Traffic) -> list[int]:
    """By number of the pair: the number of the destination that was named last, -1 for none."""
    found = np.full(len(traffic.names.pairs), -1)
    named = traffic.destination >= 0
    found[traffic.pair[named]] = traffic.destination[named]  # of several the one written last stands
    destinations: list[int] = found.tolist()
    return destinations


def mean_rates(traffic: Traffic, listed: Listed, since: Seconds) -> Rates:
    """Means over what each pair's observers covered after `since`; time without a word is unknown, not silence.

    A complete batch covers every pair that its observer listed before in this traffic, another one those that it lists.
    """
    pairs, first = len(traffic.names.pairs), int(np.searchsorted(traffic.t, since, side="right"))
    late = traffic.batch >= first
    covered_s = _silence_included(traffic, listed, first)
    partial = late & ~traffic.complete[traffic.batch]
    if partial.any():
        # A pair with two destinations in a batch was covered once.
        once = np.unique(traffic.batch[partial] * pairs + traffic.pair[partial])
        covered_s += sum_by(once % pairs, traffic.interval_s[once // pairs], pairs)
    sums = (sum_by(traffic.pair[late], one[late], pairs) for one in (traffic.bytes, traffic.connections))
    return Rates(*(np.divide(one, covered_s, out=np.zeros(pairs), where=covered_s > 0) for one in sums))


def _silence_included(traffic: Traffic, listed: Listed, first: int) -> Floats:
    """Seconds by pair that complete batches from number `first` on say something about."""
    observers, batches = len(traffic.names.observers), len(traffic.t)
    intervals = np.zeros((observers, batches + 1))
    told = np.flatnonzero(traffic.complete)
    intervals[traffic.observer[told], told] = traffic.interval_s[told]
    onward = intervals[:, ::-1].cumsum(axis=1)[:, ::-1]
    seconds = onward[listed.observer, np.maximum(listed.batch, first)]
    return sum_by(listed.pair, seconds, len(traffic.names.pairs))


Cell = tuple[int, Quantity]
# Less than a packet in some seconds is nothing that anybody would have to be ready for.
LEAST_BYTES_PER_S = 64.0


@dataclass(frozen=True, slots=True, eq=False)
class IssuedForecasts:
    """One issue of forecasts of pairs, from which each pair's are made when they are asked for."""

    batch: ForecastBatch
    places: Mapping[Pair, int]
    cells: Mapping[Cell, int]
    values: "memoryview[float]"
    _trust: dict[tuple[int, Quantity], Trust] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, batch: ForecastBatch, places: Mapping[Pair, int]) -> "IssuedForecasts":
        """`places` are those of the pairs among the batch's subjects."""
        cells = {key: number for number, key in enumerate(product(batch.horizons_s, batch.quantities))}
        return cls(batch, places, cells, memoryview(batch.quantiles).cast("f"))

    def made(self, pair: Pair, place: int, key: Cell) -> Forecast | None:
        """One of them, None where nothing is said."""
        number = self.cells.get(key)
        if number is None:
            return None
        batch, wide = self.batch, len(self.batch.levels)
        cell = place * len(self.cells) + number
        model = batch.chosen[cell]
        known = zip(batch.levels, self.values[cell * wide : (cell + 1) * wide].tolist(), strict=True)
        said = {level: value for level, value in known if value == value} if model != NO_MODEL else {}
        if not said:
            return None
        return Forecast(pair, batch.issued_at, *key, batch.models[model], said, None, self._trusted(place, key[1]))

    def _trusted(self, place: int, quantity: Quantity) -> Trust:
        found = self._trust.get((place, quantity))
        if found is None:
            found = self._trust[place, quantity] = self.batch.trust_at(place, quantity)
        return found


def expected_pairs(issued: IssuedForecasts, level: float) -> list[Pair]:
    """Pairs of which a trusted forecast says that they will send anything, however long they have been silent.

    A forecast's quantile counts the chance of silence in: it is above 0 where a pair talks with more than 1 - `level`.
    """
    batch = issued.batch
    if not batch.subjects or not batch.trusts.horizon_s or Quantity.BYTES_PEAK not in batch.quantities:
        return []
    quantity, at = batch.quantities.index(Quantity.BYTES_PEAK), nearest_level(batch.levels, level)
    peaks = np.nan_to_num(np.asarray(batch.array())[:, :, quantity, at])
    far = np.frombuffer(batch.trusts.horizon_s, dtype="<u2").reshape(len(batch.subjects), -1)[:, 0]
    told = np.where(np.array(batch.horizons_s) <= far[:, None], peaks, 0.0).max(axis=1) >= LEAST_BYTES_PER_S
    subjects = (batch.subjects[place] for place in np.flatnonzero(told).tolist())
    return [Pair(one.a, one.b) for one in subjects if one.kind is SubjectKind.PAIR]


def forecasts_of(pair: Pair, issues: Sequence[IssuedForecasts]) -> Mapping[Cell, Forecast]:
    """What the issues of all tiers say of a pair; empty where that is nothing."""
    known = tuple((one, place) for one in issues if (place := one.places.get(pair)) is not None)
    return PairForecasts(pair, known) if known else {}


class PairForecasts(Mapping[Cell, Forecast]):
    """A pair's forecasts by horizon and quantity, each made when it is first asked for."""

    __slots__ = ("_issues", "_made", "_pair")

    def __init__(self, pair: Pair, issues: Sequence[tuple[IssuedForecasts, int]]) -> None:
        """`issues`: each with the pair's place in it."""
        self._pair, self._issues = pair, issues
        self._made: dict[Cell, Forecast | None] = {}

    def get(self, key: Cell, default: Forecast | None = None) -> Forecast | None:  # type: ignore[override]
        """The forecast, or `default` where nothing is said."""
        if key not in self._made:
            found = (one.made(self._pair, place, key) for one, place in self._issues)
            self._made[key] = next((one for one in found if one is not None), None)
        return self._made[key] or default

    def __getitem__(self, key: Cell) -> Forecast:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[Cell]:
        return (key for one, _ in self._issues for key in one.cells if self.get(key) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(slots=True)
class PairPlaces:
    """Where pairs are in a list of subjects; found again only when the list is another one."""

    _subjects: tuple[Subject, ...] = ()
    _places: dict[Pair, int] = field(default_factory=dict)

    def of(self, subjects: tuple[Subject, ...]) -> Mapping[Pair, int]:
        """By pair."""
        if subjects is not self._subjects:
            known = enumerate(subjects)
            self._places = {Pair(one.a, one.b): place for place, one in known if one.kind is SubjectKind.PAIR}
            self._subjects = subjects
        return self._places


@dataclass(slots=True)
class TierIssue:
    """The newest issue of one tier that was read, and when."""

    read_at: Seconds | None = None
    issued: IssuedForecasts | None = None
    expected: list[Pair] = field(default_factory=list)
    _places: PairPlaces = field(default_factory=PairPlaces)

    def take(self, batch: ForecastBatch | None, now: Seconds, level: float) -> None:
        """What was read at `now`; `level` is that of the quantile that counts as the need."""
        self.read_at = now
        self.issued = None if batch is None else IssuedForecasts.of(batch, self._places.of(batch.subjects))
        self.expected = expected_pairs(self.issued, level) if self.issued else []

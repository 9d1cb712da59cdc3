"""Forecasts of a world's pairs as columns by number of the pair: read from whole issues, told one by one when asked."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cpdb import NO_MODEL, Forecast, ForecastBatch, Pair, Quantity, Trust

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Cell = tuple[int, Quantity]


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

    def quantiles(self, places: Ints, key: Cell) -> Floats:
        """Those of one horizon and quantity at these places, one row each; NaN where nothing is said."""
        cells = places * len(self.cells) + self.cells[key]
        values = np.asarray(self.values).reshape(-1, len(self.batch.levels))[cells].astype(np.float64)
        values[np.frombuffer(self.batch.chosen, dtype=np.uint8)[cells] == NO_MODEL] = np.nan
        return values

    def trusted_s(self, places: Ints, quantity: Quantity) -> Ints:
        """How far ahead forecasts of a quantity are trusted at these places, in seconds."""
        batch = self.batch
        if not batch.trusts.horizon_s:
            return np.zeros(len(places), dtype=np.int64)
        known = np.frombuffer(batch.trusts.horizon_s, dtype="<u2").astype(np.int64).reshape(len(batch.subjects), -1)
        found: Ints = known[places, batch.quantities.index(quantity) // 2 if known.shape[1] > 1 else 0]
        return found


NO_FORECASTS: Mapping[Cell, Forecast] = {}


def forecasts_of(pair: Pair, issues: Sequence[IssuedForecasts]) -> Mapping[Cell, Forecast]:
    """What the issues of all tiers say of a pair; empty where that is nothing."""
    known = tuple((one, place) for one in issues if (place := one.places.get(pair)) is not None) if issues else ()
    return PairForecasts(pair, known) if known else NO_FORECASTS


class PairForecasts(Mapping[Cell, Forecast]):
    """A pair's forecasts by horizon and quantity, each made when it is first asked for."""

    __slots__ = ("_made", "_pair", "issues")

    def __init__(self, pair: Pair, issues: Sequence[tuple[IssuedForecasts, int]]) -> None:
        """`issues`: each with the pair's place in it."""
        self._pair, self.issues = pair, issues
        self._made: dict[Cell, Forecast | None] = {}

    def get(self, key: Cell, default: Forecast | None = None) -> Forecast | None:  # type: ignore[override]
        """The forecast, or `default` where nothing is said."""
        if key not in self._made:
            found = (one.made(self._pair, place, key) for one, place in self.issues)
            self._made[key] = next((one for one in found if one is not None), None)
        return self._made[key] or default

    def __getitem__(self, key: Cell) -> Forecast:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[Cell]:
        return (key for one, _ in self.issues for key in one.cells if self.get(key) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class ForecastColumn:
    """Forecasts of one quantity within one horizon by number of the pair; of whom nothing is `said` is NaN.

    `values` are at `levels`, which ascend; `odd` are rows that say something at other levels than these.
    """

    horizon_s: int
    quantity: Quantity
    levels: Floats
    values: Floats
    said: Bools
    trusted: Bools
    issued_at: Floats
    odd: Mapping[int, Forecast]

    def rows(self, numbers: Ints) -> "ForecastColumn":
        """These alone."""
        places = {number: place for place, number in enumerate(numbers.tolist())} if self.odd else {}
        return replace(
            self,
            values=self.values[numbers],
            said=self.said[numbers],
            trusted=self.trusted[numbers],
            issued_at=self.issued_at[numbers],
            odd={places[number]: one for number, one in self.odd.items() if number in places},
        )

    def at(self, level: float | Floats) -> Floats:
        """The values at one level, or at one for each row: as `Forecast.at`."""
        empty = not len(self.levels)
        found = np.full(len(self.said), np.nan) if empty else self._plain(np.clip(level, *self.levels[[0, -1]]))
        asked = np.broadcast_to(level, len(self.said))
        for row, one in self.odd.items():
            found[row] = one.at(float(asked[row]))
        return found

    def _plain(self, level: Floats) -> Floats:
        """Linear between the known levels."""
        high = np.searchsorted(self.levels, level)
        low = np.maximum(0, high - 1)
        below, above = self.levels[low], self.levels[high]
        every = np.arange(len(self.values))
        first, last = self.values[every, low], self.values[every, high]
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = np.where(level == above, last, first + (level - below) / (above - below) * (last - first))
        return found


class Foreseen:
    """What is forecast of some pairs, which are known by their numbers."""

    def __init__(self, forecasts: Sequence[Mapping[Cell, Forecast]]) -> None:
        self._forecasts = forecasts
        # Whether `PairForecasts` are empty would be told by making all of them; they never are.
        said = [(number, one) for number, one in enumerate(forecasts) if type(one) is PairForecasts or one]
        self._told = {number: one for number, one in said if not isinstance(one, PairForecasts)}
        self._columns: dict[Cell, ForecastColumn | None] = {}
        rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        ranks: dict[int, tuple[int, IssuedForecasts]] = {}
        for number, one in said:
            if not isinstance(one, PairForecasts):
                continue
            for rank, (issue, place) in enumerate(one.issues):
                rows[id(issue)].append((number, place))
                ranks[id(issue)] = max(ranks.get(id(issue), (0, issue))[0], rank), issue
        # Of several issues that say the same of a pair the first counts.
        known = sorted(ranks.values(), key=lambda one: one[0])
        self._issues = [(issue, *np.array(rows[id(issue)], dtype=np.int64).T) for _, issue in known]

    def column(self, horizon_s: int, quantity: Quantity) -> ForecastColumn | None:
        """What is said of one quantity within one horizon, None where that is nothing."""
        key = horizon_s, quantity
        if key not in self._columns:
            self._columns[key] = self._made(key)
        return self._columns[key]

    def _made(self, key: Cell) -> ForecastColumn | None:
        known = [one for one in self._issues if key in one[0].cells]
        odd = {number: found for number, one in self._told.items() if (found := one.get(key)) is not None}
        if not known and not odd:
            return None
        levels, count = known[0][0].batch.levels if known else (), len(self._forecasts)
        column = ForecastColumn(
            *key,
            levels=np.array(levels),
            values=np.full((count, len(levels)), np.nan),
            said=np.zeros(count, dtype=np.bool_),
            trusted=np.zeros(count, dtype=np.bool_),
            issued_at=np.zeros(count),
            odd=odd,
        )
        for number, one in odd.items():
            column.said[number], column.trusted[number], column.issued_at[number] = True, one.trusted, one.issued_at
        for issue, numbers, places in known:
            new = ~column.said[numbers]
            odd.update((one, self._forecasts[one][key]) for one in _filled(column, issue, numbers[new], places[new]))
        return column


def _filled(column: ForecastColumn, issue: IssuedForecasts, numbers: Ints, places: Ints) -> list[int]:
    """Writes into a column what an issue says of these pairs; those are returned that do not fit into it."""
    key = column.horizon_s, column.quantity
    values = issue.quantiles(places, key)
    known = ~np.isnan(values)
    column.said[numbers] = said = known.any(axis=1)
    column.trusted[numbers] = (column.horizon_s > 0) & (column.horizon_s <= issue.trusted_s(places, column.quantity))
    column.issued_at[numbers] = issue.batch.issued_at
    whole = known.all(axis=1) & (issue.batch.levels == tuple(column.levels.tolist()))
    column.values[numbers[whole]] = values[whole]
    left: list[int] = numbers[said & ~whole].tolist()
    return left

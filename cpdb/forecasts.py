"""Forecasts and their scores: one by one, and in bulk as packed arrays, one row a cycle for any number of pairs."""

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise, product
from math import inf, isnan, nan, prod
from typing import Any, NamedTuple

from cpdb.model import Pair, Quantity, Seconds

FLOAT32, UINT32, UINT16, UINT8 = 4, 4, 2, 1
NO_MODEL = 255  # in `chosen`: nothing is said
FAST = "fast"


@dataclass(frozen=True, slots=True)
class Trust:
    """How far ahead a subject's forecasts of one tier have held, and what speaks for or against the next horizon.

    `error` (twice the mean pinball loss) and `width` (from the 0.1 to the 0.9 quantile) are in units of what was
    measured, of the first horizon beyond `horizon_s`, or of the longest where all are trusted; None: too few scores.
    """

    horizon_s: int = 0
    error: float | None = None
    width: float | None = None
    error_allowed: float = nan
    width_allowed: float = nan

    def reaches(self, horizon_s: int) -> bool:
        """Whether a forecast so far ahead is trusted."""
        return 0 < horizon_s <= self.horizon_s

    def describe(self) -> str:
        """For people, e.g. 'trusted 15 s ahead: error 0.41 of 0.25 allowed beyond'."""
        far = f"trusted {self.horizon_s} s ahead" if self.horizon_s else "not trusted yet"
        return f"{far}: {self.numbers()}"

    def doubt(self) -> str:
        """Why no more is trusted, for people, e.g. 'not trusted beyond 15 s: error 0.41 of 0.25 allowed'."""
        far = f"not trusted beyond {self.horizon_s} s" if self.horizon_s else "not trusted"
        return f"{far}: {self.numbers()}"

    def numbers(self) -> str:
        """What speaks for or against the next horizon, for people, e.g. 'error 0.41 of 0.25 allowed'."""
        if self.error is None or self.width is None:
            return "too few scores"
        if self.error <= self.error_allowed < inf and self.width > self.width_allowed:
            return f"width {self.width:.2f} of {self.width_allowed:g} allowed"
        return f"error {self.error:.2f} of {self.error_allowed:g} allowed"


UNTRUSTED = Trust()


@dataclass(frozen=True, slots=True)
class Forecast:
    """Quantiles of a quantity of one pair (of a link: its ends, a machine: its name) after `issued_at`; none cross."""

    pair: Pair
    issued_at: Seconds
    horizon_s: int
    quantity: Quantity
    model: str
    quantiles: Mapping[float, float]
    id: int | None = None
    trust: Trust = UNTRUSTED

    @property
    def trusted(self) -> bool:
        """Whether forecasts so far ahead have held."""
        return self.trust.reaches(self.horizon_s)

    def at(self, level: float) -> float:
        """The value at `level`, linear between known levels and flat outside them."""
        said = self.quantiles.get(level)
        if said is not None:
            return said
        known = sorted(self.quantiles)
        if level <= known[0]:
            return self.quantiles[known[0]]
        for low, high in pairwise(known):
            if level <= high:
                share = (level - low) / (high - low)
                return self.quantiles[low] + share * (self.quantiles[high] - self.quantiles[low])
        return self.quantiles[known[-1]]


@dataclass(frozen=True, slots=True)
class Score:
    """How one model's forecast did: mean pinball loss over its levels, and whether the 0.9 quantile held."""

    pair: Pair
    issued_at: Seconds
    scored_at: Seconds
    horizon_s: int
    quantity: Quantity
    model: str
    actual: float
    pinball: float
    covered_q90: bool


class SubjectKind(StrEnum):
    """What a forecast may be about."""

    PAIR = "pair"
    VIRTUAL_IP = "virtual_ip"
    DESTINATION = "destination"
    LINK = "link"
    HOST = "host"
    VM = "vm"
    BESIDE = "beside"  # what a machine does beside what its communications explain


class Subject(NamedTuple):
    """What one row of a bulk forecast is about. Pair: source, virtual IP; link: from, to; else a name."""

    kind: SubjectKind
    a: str
    b: str = ""


def nearest_level(levels: Sequence[float], level: float) -> int:
    """Position of the level nearest to `level`; the first of equals."""
    return min(range(len(levels)), key=lambda place: abs(levels[place] - level))


class SubjectForecast(NamedTuple):
    """One quantity of one subject within `horizon_s`: the heaviest model, and quantiles (level -> value)."""

    subject: Subject
    horizon_s: int
    quantity: Quantity
    model: str
    quantiles: Mapping[float, float]

    def at(self, level: float) -> float:
        """The value at the known level nearest to `level`."""
        known = tuple(self.quantiles)
        return self.quantiles[known[nearest_level(known, level)]]


@dataclass(frozen=True, slots=True)
class TrustArrays:
    """How far ahead an issue's subjects are trusted, for each of its channels: a peak and its mean.

    `horizon_s`: uint16, subjects x channels, 0 = nothing is trusted (yet); or b"".
    `doubts`: float32, subjects x channels x 2: error and width as in `Trust`, NaN = too few scores; or b"".
    `allowed` bounds both, () = not known.
    """

    horizon_s: bytes = b""
    doubts: bytes = b""
    allowed: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ForecastBatch:
    """One issue of forecasts for all subjects of a tier ("fast" or "slow"). Arrays are little endian, C order.

    `chosen`: uint8, subjects x horizons x quantities: position in `models`, NO_MODEL = none.
    `quantiles`: float32, subjects x horizons x quantities x levels, NaN = nothing said.
    `activity`: float32, subjects x horizons: probability to be active within the horizon, NaN = unknown; or b"".
    Raises ValueError when an array has not its shape's size.
    """

    issued_at: Seconds
    tier: str
    subjects: tuple[Subject, ...]
    horizons_s: tuple[int, ...]
    quantities: tuple[Quantity, ...]
    levels: tuple[float, ...]
    models: tuple[str, ...]
    chosen: bytes
    quantiles: bytes
    activity: bytes = b""
    trusts: TrustArrays = TrustArrays()
    # Made when somebody first asks for a subject by its name
    _places: dict[Subject, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cells = prod(self.shape[:-1])
        _sized("chosen", self.chosen, cells * UINT8)
        _sized("quantiles", self.quantiles, cells * len(self.levels) * FLOAT32)
        _sized("activity", self.activity or None, prod(self.shape[:2]) * FLOAT32)
        horizon_s, channels = self.trusts.horizon_s, len(self.subjects) * self.channels
        if len(horizon_s) != len(self.subjects) * UINT16:  # versions before 9 trusted all channels by the first
            _sized("horizon_s", horizon_s or None, channels * UINT16)
        _sized("doubts", self.trusts.doubts or None, channels * 2 * FLOAT32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Subjects, horizons, quantities, levels."""
        return len(self.subjects), len(self.horizons_s), len(self.quantities), len(self.levels)

    @property
    def channels(self) -> int:
        """Peaks with their means."""
        return -(-len(self.quantities) // 2)

    def array(self) -> memoryview:
        """The quantiles, subjects x horizons x quantities x levels: float32, not copied, NaN = nothing said."""
        return _opened(self.quantiles, "f", self.shape)

    def value(self, subject: Subject, horizon_s: int, quantity: Quantity, level: float) -> float | None:
        """The value at the known level nearest to `level`; None where nothing is said."""
        found = self.said(subject, horizon_s, quantity)
        return None if found is None else found.at(level)

    def said(self, subject: Subject, horizon_s: int, quantity: Quantity) -> SubjectForecast | None:
        """What is said about one quantity of one subject, None where that is nothing."""
        return next(self.rows((subject,), (horizon_s,), (quantity,)), None)

    def rows(
        self,
        subjects: Collection[Subject] | None = None,
        horizons_s: Collection[int] | None = None,
        quantities: Collection[Quantity] | None = None,
    ) -> Iterator[SubjectForecast]:
        """All that is said, or as far as it is about these; levels at which nothing is said are left out."""
        values, wide = _opened(self.quantiles, "f"), len(self.levels)
        cells = product(
            self._positions(subjects), _chosen(self.horizons_s, horizons_s), _chosen(self.quantities, quantities)
        )
        _, horizons, kinds, _ = self.shape
        for place, horizon, quantity in cells:
            cell = (place * horizons + horizon) * kinds + quantity
            model = self.chosen[cell]
            if model == NO_MODEL:
                continue
            known = zip(self.levels, values[cell * wide : (cell + 1) * wide].tolist(), strict=True)
            said = {level: value for level, value in known if not isnan(value)}
            if said:
                about = self.subjects[place], self.horizons_s[horizon], self.quantities[quantity]
                yield SubjectForecast(*about, self.models[model], said)

    def active(self, subject: Subject, horizon_s: int) -> float | None:
        """How probable it is that the subject is active within the horizon; None = unknown."""
        if not self.activity or horizon_s not in self.horizons_s:
            return None
        chances = _opened(self.activity, "f", self.shape[:2])
        chance = next((chances[place, self.horizons_s.index(horizon_s)] for place in self._positions((subject,))), nan)
        return None if isnan(chance) else float(chance)

    def trusted_s(self, subject: Subject) -> int:
        """The trusted horizon of the subject's first channel, 0 = nothing is trusted (yet)."""
        return self.trust(subject).horizon_s

    def trust(self, subject: Subject, quantity: Quantity | None = None) -> Trust:
        """How far the subject's forecasts of a quantity (else of the first) are trusted, and why no farther."""
        place = next(iter(self._positions((subject,))), None)
        return UNTRUSTED if place is None else self.trust_at(place, quantity)

    def trust_at(self, place: int, quantity: Quantity | None = None) -> Trust:
        """The same of the subject at a place."""
        if not self.trusts.horizon_s:
            return UNTRUSTED
        horizons = _opened(self.trusts.horizon_s, "H")
        cell = place * self.channels + (0 if quantity is None else self.quantities.index(quantity) // 2)
        if not self.trusts.doubts:
            return Trust(int(horizons[place if len(horizons) == len(self.subjects) else cell]))
        numbers = _opened(self.trusts.doubts, "f")
        error, width = (None if isnan(one) else float(one) for one in (numbers[2 * cell], numbers[2 * cell + 1]))
        return Trust(int(horizons[cell]), error, width, *self.trusts.allowed)

    def _positions(self, subjects: Collection[Subject] | None) -> Iterable[int]:
        if subjects is None:
            return range(len(self.subjects))
        if not self._places:
            self._places.update((subject, place) for place, subject in enumerate(self.subjects))
        return [self._places[subject] for subject in subjects if subject in self._places]


@dataclass(frozen=True, slots=True)
class ModelScoreRow:
    """How one model did on one subject: means over `count` forecasts."""

    subject: Subject
    model: str
    horizon_s: int
    quantity: Quantity
    pinball: float
    covered: float
    count: int


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """How each model did lately on each subject: subjects x models x horizons x quantities, little endian, C order.

    `pinball`: float32, mean pinball loss; `covered`: float32, share of actuals below the 0.9 quantile;
    `count`: uint32, forecasts behind the means. Raises ValueError when an array has not its shape's size.
    """

    scored_at: Seconds
    subjects: tuple[Subject, ...]
    models: tuple[str, ...]
    horizons_s: tuple[int, ...]
    quantities: tuple[Quantity, ...]
    pinball: bytes
    covered: bytes
    count: bytes

    def __post_init__(self) -> None:
        cells = prod(self.shape)
        for name, size in (("pinball", FLOAT32), ("covered", FLOAT32), ("count", UINT32)):
            _sized(name, getattr(self, name), cells * size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Subjects, models, horizons, quantities."""
        return len(self.subjects), len(self.models), len(self.horizons_s), len(self.quantities)

    def rows(self, subjects: Collection[Subject] | None = None) -> Iterator[ModelScoreRow]:
        """What was scored, of all subjects or of these; cells without any forecast behind them are left out."""
        parts = zip((self.pinball, self.covered, self.count), "ffI", strict=True)
        pinball, covered, count = (_opened(part, form, self.shape) for part, form in parts)
        places = [place for place, subject in enumerate(self.subjects) if subjects is None or subject in subjects]
        for place, model, horizon, quantity in product(places, *map(range, self.shape[1:])):
            cell = place, model, horizon, quantity
            if count[cell]:
                about = self.models[model], self.horizons_s[horizon], self.quantities[quantity]
                yield ModelScoreRow(self.subjects[place], *about, pinball[cell], covered[cell], count[cell])


@dataclass(frozen=True, slots=True)
class HorizonMove:
    """The adaptive horizon of a subject was moved, and why."""

    t: Seconds
    subject: Subject
    from_s: int
    to_s: int
    reason: str


def _sized(name: str, item: bytes | None, size: int) -> None:
    if item is not None and len(item) != size:
        raise ValueError(f"{name}: {len(item)} bytes where the shape needs {size}")


def _opened(packed: bytes, form: str, shape: Sequence[int] = ()) -> memoryview:
    """The packed array, flat where no shape is given or nothing is in it."""
    return memoryview(packed).cast(form, shape) if shape and packed else memoryview(packed).cast(form)  # type: ignore[call-overload,no-any-return]


def _chosen(known: Sequence[Any], wanted: Collection[Any] | None) -> list[int]:
    return [place for place, item in enumerate(known) if wanted is None or item in wanted]


def forecasts_of(batch: ForecastBatch, number: int | None = None) -> Iterator[Forecast]:
    """Each pair's forecasts for which a model was chosen."""
    for subject in batch.subjects:
        if subject.kind is SubjectKind.PAIR:
            pair, trusts = Pair(subject.a, subject.b), {one: batch.trust(subject, one) for one in batch.quantities}
            for row in batch.rows((subject,)):
                about = pair, batch.issued_at, row.horizon_s, row.quantity
                yield Forecast(*about, row.model, row.quantiles, number, trusts[row.quantity])


def batches_of(rows: Iterable[Forecast]) -> list[ForecastBatch]:
    """One bulk forecast for each moment of issue."""
    by_moment: dict[float, list[Forecast]] = {}
    for row in rows:
        by_moment.setdefault(row.issued_at, []).append(row)
    return [_batch(issued_at, own) for issued_at, own in by_moment.items()]


def _batch(issued_at: float, rows: list[Forecast]) -> ForecastBatch:
    pairs = list(dict.fromkeys(row.pair for row in rows))
    horizons = sorted({row.horizon_s for row in rows})
    quantities = [one for one in Quantity if any(row.quantity is one for row in rows)]
    levels = sorted({level for row in rows for level in row.quantiles})
    models = list(dict.fromkeys(row.model for row in rows))
    by_cell = {(row.pair, row.horizon_s, row.quantity): row for row in rows}
    told = {(row.pair, row.quantity): row.trust for row in rows}
    trusts = [told.get(cell, UNTRUSTED) for cell in product(pairs, quantities[::2])]
    far = array("H", (one.horizon_s for one in trusts))
    doubts = array("f", (nan if number is None else number for one in trusts for number in (one.error, one.width)))
    some, chosen, values = rows[0].trust, bytearray(), array("f")
    allowed = () if isnan(some.error_allowed) else (some.error_allowed, some.width_allowed)
    for cell in product(pairs, horizons, quantities):
        row = by_cell.get(cell)
        chosen.append(NO_MODEL if row is None else models.index(row.model))
        values.extend(row.quantiles.get(level, nan) if row else nan for level in levels)
    return ForecastBatch(
        issued_at=issued_at,
        tier=FAST,
        subjects=tuple(Subject(SubjectKind.PAIR, pair.source, pair.virtual_ip) for pair in pairs),
        horizons_s=tuple(horizons),
        quantities=tuple(quantities),
        levels=tuple(levels),
        models=tuple(models),
        chosen=bytes(chosen),
        quantiles=values.tobytes(),
        trusts=TrustArrays(far.tobytes(), doubts.tobytes(), allowed),
    )

"""Forecasts and their scores: one by one, and in bulk as packed arrays, one row a cycle for any number of pairs."""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise, product
from math import prod
from typing import NamedTuple

from cpdb.model import Pair, Quantity, Seconds

FLOAT32, UINT32, UINT16, UINT8 = 4, 4, 2, 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """Quantiles of one quantity of one pair over the window after `issued_at`; levels ascend, values never cross."""

    pair: Pair
    issued_at: Seconds
    horizon_s: int
    quantity: Quantity
    model: str
    quantiles: Mapping[float, float]
    id: int | None = None

    def at(self, level: float) -> float:
        """The value at `level`, linear between known levels and flat outside them."""
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


class Subject(NamedTuple):
    """What one row of a bulk forecast is about. Pair: source, virtual IP; link: from, to; else a name."""

    kind: SubjectKind
    a: str
    b: str = ""


@dataclass(frozen=True, slots=True)
class ForecastBatch:
    """One issue of forecasts for all subjects of a lane ("fast" or "slow"). Arrays are little endian, C order.

    `chosen`: uint8, subjects x horizons x quantities: position in `models`, 255 = none.
    `values`: float32, subjects x horizons x quantities x levels, NaN = nothing said.
    `talks`: float32, subjects x horizons: probability of talking at all within the horizon, NaN = unknown; or b"".
    `horizon_s`: uint16, subjects: the adaptive horizon in force, 0 = unknown; or b"".
    Raises ValueError when an array has not its shape's size.
    """

    issued_at: Seconds
    lane: str
    subjects: tuple[Subject, ...]
    horizons_s: tuple[int, ...]
    quantities: tuple[Quantity, ...]
    levels: tuple[float, ...]
    models: tuple[str, ...]
    chosen: bytes
    values: bytes
    talks: bytes = b""
    horizon_s: bytes = b""

    def __post_init__(self) -> None:
        count, horizons = len(self.subjects), len(self.horizons_s)
        cells = prod((count, horizons, len(self.quantities)))
        _sized("chosen", self.chosen, cells * UINT8)
        _sized("values", self.values, cells * len(self.levels) * FLOAT32)
        _sized("talks", self.talks or None, count * horizons * FLOAT32)
        _sized("horizon_s", self.horizon_s or None, count * UINT16)


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
        cells = prod(map(len, (self.subjects, self.models, self.horizons_s, self.quantities)))
        for name, item, size in (
            ("pinball", self.pinball, FLOAT32),
            ("covered", self.covered, FLOAT32),
            ("count", self.count, UINT32),
        ):
            _sized(name, item, cells * size)


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


NOTHING_SAID = 255
FAST = "fast"


def forecasts_of(batch: ForecastBatch, number: int | None = None) -> Iterator[Forecast]:
    """Each pair's forecasts for which a model was chosen; levels at which nothing was said are left out."""
    values = array("f", batch.values)
    wide = len(batch.levels)
    cells = product(batch.subjects, batch.horizons_s, batch.quantities)
    for at, (subject, horizon_s, quantity) in enumerate(cells):
        chosen = batch.chosen[at]
        if chosen == NOTHING_SAID or subject.kind is not SubjectKind.PAIR:
            continue
        fan = zip(batch.levels, values[at * wide : (at + 1) * wide], strict=True)
        quantiles = {level: value for level, value in fan if not math.isnan(value)}
        if quantiles:
            pair = Pair(subject.a, subject.b)
            yield Forecast(pair, batch.issued_at, horizon_s, quantity, batch.models[chosen], quantiles, number)


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
    chosen, values = bytearray(), array("f")
    for cell in product(pairs, horizons, quantities):
        row = by_cell.get(cell)
        chosen.append(NOTHING_SAID if row is None else models.index(row.model))
        values.extend(row.quantiles.get(level, math.nan) if row else math.nan for level in levels)
    return ForecastBatch(
        issued_at=issued_at,
        lane=FAST,
        subjects=tuple(Subject(SubjectKind.PAIR, pair.source, pair.virtual_ip) for pair in pairs),
        horizons_s=tuple(horizons),
        quantities=tuple(quantities),
        levels=tuple(levels),
        models=tuple(models),
        chosen=bytes(chosen),
        values=values.tobytes(),
    )

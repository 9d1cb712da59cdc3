"""Between single forecasts and bulk ones: for whoever wants a pair as a record, not a hundred thousand as arrays."""

import math
from array import array
from collections.abc import Iterable, Iterator
from itertools import product

from cpdb.fans import Forecast, ForecastBatch, Subject, SubjectKind
from cpdb.records import Pair, Quantity

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

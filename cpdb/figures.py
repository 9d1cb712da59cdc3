"""How large the memory is, and how large it will become at the present rate."""

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select, text

from cpdb import rollup
from cpdb.bulk_schema import PATTERN_TABLES, batches
from cpdb.engine import reported
from cpdb.records import Seconds
from cpdb.retention import COARSE_S, DAY_S, FINE_S, Policy

RECENT_S = 300.0
# Measured: a row of a roll-up table with its share of the key, in bytes.
ROW_BYTES = {"sqlite": 33.0, "postgresql": 110.0}
# A batch's row beside its columns: key, times, writer, index entries.
BATCH_BYTES = 160.0


@dataclass(frozen=True, slots=True)
class Tier:
    """One resolution of memory: its step, for how long it is kept, since when there is something, and rows a step."""

    step_s: int
    keep_s: Seconds
    since: Seconds | None
    until: Seconds | None
    rows_per_step: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Bytes on disk now (`free_bytes` of them unused), a row's bytes, and both as they will be at this rate."""

    engine: str
    bytes: int
    free_bytes: int
    waiting_batches: int
    rows_per_s: float
    bytes_per_row: float
    tiers: tuple[Tier, ...]
    bytes_after_a_day: float
    bytes_in_the_end: float


def figures(engine: Engine, now: Seconds, policy: Policy) -> Figures:
    """Reads the figures; a few quick queries at any size. Raises StoreError."""
    with reported(engine, "reading figures"), engine.connect() as connection:
        size, free = _size(connection)
        tiers = (_seconds(connection, now, policy), *(_tier(connection, step, policy) for step in (FINE_S, COARSE_S)))
        rows_per_s, row_bytes = tiers[0].rows_per_step, _bytes_per_row(connection, now)
        waiting = rollup.count_waiting(connection)
    rolled = ROW_BYTES[engine.dialect.name]

    def after(seconds: float) -> float:
        # Before the first roll-up: at least whoever speaks in a second speaks in ten.
        kept = [min(seconds, tier.keep_s) / tier.step_s * (tier.rows_per_step or rows_per_s) for tier in tiers]
        return kept[0] * row_bytes + sum(kept[1:]) * rolled

    return Figures(
        engine.dialect.name,
        size,
        free,
        waiting,
        rows_per_s,
        row_bytes,
        tiers,
        after(DAY_S),
        after(max(tier.keep_s for tier in tiers)),
    )


def _size(connection: Connection) -> tuple[int, int]:
    if connection.dialect.name == "postgresql":
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()), 0
    page, count, free = (
        int(connection.execute(text(f"PRAGMA {name}")).scalar_one())
        for name in ("page_size", "page_count", "freelist_count")
    )
    return page * count, page * free


def _seconds(connection: Connection, now: Seconds, policy: Policy) -> Tier:
    first, last = connection.execute(select(func.min(batches.c.t), func.max(batches.c.t))).one()
    recent = select(func.sum(batches.c.talks), func.min(batches.c.t)).where(
        batches.c.t > now - RECENT_S, batches.c.t <= now
    )
    rows, since = connection.execute(recent).one()
    return Tier(1, policy.second_s, first, last, (rows or 0) / max(now - since, 1.0) if since else 0.0)


def _bytes_per_row(connection: Connection, now: Seconds) -> float:
    recent = select(func.sum(func.length(batches.c.body)), func.count(), func.sum(batches.c.talks)).where(
        batches.c.t > now - RECENT_S, batches.c.t <= now
    )
    size, count, rows = connection.execute(recent).one()
    return float((size or 0) + BATCH_BYTES * count) / rows if rows else 0.0


def _tier(connection: Connection, step_s: int, policy: Policy) -> Tier:
    table = PATTERN_TABLES[step_s]
    first = connection.execute(select(func.min(table.c.t))).scalar()
    last = connection.execute(select(func.max(table.c.t))).scalar()
    keep_s = policy.ten_seconds_s if step_s == FINE_S else policy.minute_s
    rows = connection.execute(select(func.count()).where(table.c.t == last)).scalar() if last else 0
    return Tier(step_s, keep_s, first, last, float(rows or 0))

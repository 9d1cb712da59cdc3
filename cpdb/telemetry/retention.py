"""How long what is remembered: decides which small steps are due. Deciding only; the steps are taken elsewhere."""

import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from math import ceil

from sqlalchemy import ColumnElement, Connection, Engine, func, select, text

from cpdb.engine import reported
from cpdb.model import Seconds
from cpdb.schema import PATTERN_TABLES, batches, forecast_batches, pending

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
FINE_S, COARSE_S = 10, 60
# A bucket is rolled up this long after its end: by then the writer has flushed. What comes later is added to it.
FINE_LAG_S = 2.0
COARSE_LAG_S = 15.0
# Bounds what one transaction holds: some hundred thousand rows of sums at most.
BATCHES_A_STEP = 128


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long each kind of memory lasts, in seconds.

    Of forecasts older than `forecasts_s` one issue a minute of each tier is kept, and at most so many bytes of them.
    """

    second_s: Seconds = HOUR_S
    ten_seconds_s: Seconds = DAY_S
    minute_s: Seconds = 30 * DAY_S
    forecasts_s: Seconds = 120.0
    past_forecasts_s: Seconds = 2 * DAY_S
    past_forecasts_bytes: float = 1e9
    scores_s: Seconds = DAY_S
    journal_s: Seconds = 90 * DAY_S


@dataclass(frozen=True, slots=True)
class RollUp:
    """Adds batches to the rolled-up rows of the 10 s that end at `t`."""

    t: int
    batch_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RetentionResult:
    """What one call did: steps taken, batches rolled up, rows deleted, and whether steps are left for the next."""

    steps: int = 0
    rolled_up: int = 0
    deleted: int = 0
    left: bool = False

    def __add__(self, other: "RetentionResult") -> "RetentionResult":
        return RetentionResult(
            self.steps + other.steps,
            self.rolled_up + other.rolled_up,
            self.deleted + other.deleted,
            self.left or other.left,
        )


def bucket_end(t: Seconds, step_s: int) -> int:
    """End of the bucket (end - step_s, end] in which `t` falls."""
    return ceil(t / step_s) * step_s


def roll_ups(pending: Iterable[tuple[int, Seconds]], now: Seconds) -> Iterator[RollUp]:
    """WorkflowLog for batches (id, t) that wait and whose bucket is over, oldest first."""
    buckets: dict[int, list[int]] = defaultdict(list)
    for number, t in pending:
        end = bucket_end(t, FINE_S)
        if end + FINE_LAG_S <= now:
            buckets[end].append(number)
    for end in sorted(buckets):
        ids = sorted(buckets[end])
        for first in range(0, len(ids), BATCHES_A_STEP):
            yield RollUp(end, tuple(ids[first : first + BATCHES_A_STEP]))


def tiers(t: int, built_through: float, now: Seconds, policy: RetentionPolicy) -> Iterator[tuple[int, int]]:
    """(step, end of bucket) to which a batch in the 10 s ending at `t` is added.

    Minutes are built from the 10 s rows once; a batch that comes after that is added to the minute too. One that is
    older than the 10 s rows last is added to its minute only.
    """
    minute = bucket_end(t, COARSE_S)
    built = minute <= built_through
    if not built or t > now - policy.ten_seconds_s:
        yield FINE_S, t
    if built and minute > now - policy.minute_s:
        yield COARSE_S, minute


RECENT_S = 300.0
# Measured: a row of a roll-up table with its share of the key, in bytes.
ROW_BYTES = {"sqlite": 33.0, "postgresql": 110.0}
# A batch's row beside its columns: key, times, writer, index entries.
BATCH_BYTES = 160.0


@dataclass(frozen=True, slots=True)
class TierUsage:
    """One resolution of memory: its step, for how long it is kept, since when there is something, and rows a step."""

    step_s: int
    keep_s: Seconds
    since: Seconds | None
    until: Seconds | None
    rows_per_step: float


@dataclass(frozen=True, slots=True)
class StorageUsage:
    """Bytes on disk now (`free_bytes` of them unused), a row's bytes, and both as they will be at this rate.

    `forecast_bytes` are those of forecasts in `bytes_in_the_end`.
    """

    engine: str
    bytes: int
    free_bytes: int
    waiting_batches: int
    rows_per_s: float
    bytes_per_row: float
    tiers: tuple[TierUsage, ...]
    bytes_after_a_day: float
    bytes_in_the_end: float
    forecast_bytes: float


def read_usage(engine: Engine, now: Seconds, policy: RetentionPolicy) -> StorageUsage:
    """Reads them; a few quick queries at any size. Raises StoreError."""
    with reported(engine, "reading the size of the memory"), engine.connect() as connection:
        size, free = _size(connection)
        tiers = (_seconds(connection, now, policy), *(_tier(connection, step, policy) for step in (FINE_S, COARSE_S)))
        rows_per_s, row_bytes = tiers[0].rows_per_step, _bytes_per_row(connection, now)
        waiting = connection.execute(select(func.count()).select_from(pending)).scalar() or 0
        dense, minute = _forecast_bytes(connection, now, policy)
    rolled = ROW_BYTES[engine.dialect.name]

    def after(seconds: float) -> float:
        # Before the first roll-up: at least whoever speaks in a second speaks in ten.
        kept = [min(seconds, tier.keep_s) / tier.step_s * (tier.rows_per_step or rows_per_s) for tier in tiers]
        return kept[0] * row_bytes + sum(kept[1:]) * rolled + foreseen(seconds)

    def foreseen(seconds: float) -> float:
        past = min(seconds, policy.past_forecasts_s) / COARSE_S * minute
        return dense + min(past, policy.past_forecasts_bytes)

    longest_s = max(policy.past_forecasts_s, *(tier.keep_s for tier in tiers))
    return StorageUsage(
        engine.dialect.name,
        size,
        free,
        waiting,
        rows_per_s,
        row_bytes,
        tiers,
        after(DAY_S),
        after(longest_s),
        foreseen(longest_s),
    )


def issue_size() -> ColumnElement[int]:
    """Bytes of one issue of forecasts."""
    at = forecast_batches.c
    parts = (at.chosen, at.quantiles, at.activity, at.horizon_s, at.doubts)
    return reduce(operator.add, map(func.length, parts))


def _forecast_bytes(connection: Connection, now: Seconds, policy: RetentionPolicy) -> tuple[float, float]:
    """Of the issues that are all kept, in sum; and of one issue of each tier."""
    at, size = forecast_batches.c, issue_size()
    recent = (at.issued_at > now - max(policy.forecasts_s, RECENT_S)) & (at.issued_at <= now)
    means = connection.execute(select(func.avg(size)).where(recent).group_by(at.tier)).scalars()
    kept = at.issued_at.between(now - policy.forecasts_s, now)
    return float(connection.execute(select(func.sum(size)).where(kept)).scalar() or 0), float(sum(means))


def _size(connection: Connection) -> tuple[int, int]:
    if connection.dialect.name == "postgresql":
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()), 0
    page, count, free = (
        int(connection.execute(text(f"PRAGMA {name}")).scalar_one())
        for name in ("page_size", "page_count", "freelist_count")
    )
    return page * count, page * free


def _seconds(connection: Connection, now: Seconds, policy: RetentionPolicy) -> TierUsage:
    first, last = connection.execute(select(func.min(batches.c.t), func.max(batches.c.t))).one()
    recent = select(func.sum(batches.c.flow_keys), func.min(batches.c.t)).where(
        batches.c.t > now - RECENT_S, batches.c.t <= now
    )
    rows, since = connection.execute(recent).one()
    return TierUsage(1, policy.second_s, first, last, (rows or 0) / max(now - since, 1.0) if since else 0.0)


def _bytes_per_row(connection: Connection, now: Seconds) -> float:
    recent = select(func.sum(func.length(batches.c.body)), func.count(), func.sum(batches.c.flow_keys)).where(
        batches.c.t > now - RECENT_S, batches.c.t <= now
    )
    size, count, rows = connection.execute(recent).one()
    return float((size or 0) + BATCH_BYTES * count) / rows if rows else 0.0


def _tier(connection: Connection, step_s: int, policy: RetentionPolicy) -> TierUsage:
    table = PATTERN_TABLES[step_s]
    first = connection.execute(select(func.min(table.c.t))).scalar()
    last = connection.execute(select(func.max(table.c.t))).scalar()
    keep_s = policy.ten_seconds_s if step_s == FINE_S else policy.minute_s
    rows = connection.execute(select(func.count()).where(table.c.t == last)).scalar() if last else 0
    return TierUsage(step_s, keep_s, first, last, float(rows or 0))

"""Lets go of what is older than its time, in steps of a few thousand rows, so that no writer waits for long."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from sqlalchemy import Column, Connection, Engine, delete, exists, func, select, text, true, union, update
from sqlalchemy.exc import DBAPIError

from cpdb.engine import reported
from cpdb.model import Seconds
from cpdb.repository import insert_ignore
from cpdb.schema import (
    PATTERN_TABLES,
    actions,
    audits,
    batches,
    covered,
    forecast_batches,
    horizon_moves,
    past_reservations,
    pending,
    plans,
    progress,
    reservations,
    rosters,
    score_batches,
    scores,
    shortages,
)
from cpdb.telemetry import rollup
from cpdb.telemetry.retention import (
    COARSE_LAG_S,
    COARSE_S,
    DAY_S,
    FINE_S,
    HOUR_S,
    RetentionPolicy,
    RetentionResult,
    bucket_end,
    issue_size,
    roll_ups,
)
from cpdb.telemetry.rollup import built_through

BATCHES_A_STEP = 50
ROWS_A_STEP = 5_000
THINNED, FORECASTS_THINNED = "loads_thinned_through", "forecasts_thinned_through"
# One averaged row a minute takes the place of a minute's rows. Link counters add up, the others are means.
THIN = {
    "link_loads": """INSERT INTO link_loads (from_node, to_node, t, interval_s, bytes, packets, drops)
        SELECT from_node, to_node, :t, sum(interval_s), sum(bytes), sum(packets), sum(drops) FROM link_loads
        WHERE t > :since AND t <= :t GROUP BY from_node, to_node""",
    "host_loads": """INSERT INTO host_loads
        (host, t, cpu_cores_used, cpu_cores_capacity, memory_bytes_used, memory_bytes_capacity)
        SELECT host, :t, avg(cpu_cores_used), avg(cpu_cores_capacity), CAST(avg(memory_bytes_used) AS BIGINT),
        CAST(avg(memory_bytes_capacity) AS BIGINT) FROM host_loads WHERE t > :since AND t <= :t GROUP BY host""",
    "vm_loads": """INSERT INTO vm_loads (vm, host, t, state, cpu_cores_used, cpu_cores_limit, vcpus,
        memory_bytes_used, memory_bytes_limit, network_rx_bytes_per_s, network_tx_bytes_per_s,
        dirty_bytes_per_s)
        SELECT vm, host, :t, max(state), avg(cpu_cores_used), avg(cpu_cores_limit), max(vcpus),
        CAST(avg(memory_bytes_used) AS BIGINT), CAST(avg(memory_bytes_limit) AS BIGINT),
        avg(network_rx_bytes_per_s), avg(network_tx_bytes_per_s),
        avg(dirty_bytes_per_s)
        FROM vm_loads WHERE t > :since AND t <= :t GROUP BY vm, host""",
}


@dataclass(frozen=True, slots=True)
class ExpiryStep:
    """One small transaction, repeated as long as it deletes something."""

    name: str
    take: Callable[[Connection], int]


def steps(now: Seconds, policy: RetentionPolicy, widths: Mapping[str, int]) -> Iterator[ExpiryStep]:
    """Everything that may be due at `now`, in order.

    `widths`: of partitions by table. Those are dropped whole; what is deleted here lay in none, so it may be later.
    """
    fine, coarse = (PATTERN_TABLES[step].name for step in (FINE_S, COARSE_S))
    minute = (now - policy.second_s) // COARSE_S * COARSE_S
    second_t = now - policy.second_s - widths.get("batches", 0)
    fine_t = now - policy.ten_seconds_s - widths.get(fine, 0)
    coarse_t = now - policy.minute_s - widths.get(coarse, 0)
    yield ExpiryStep("batches", partial(_batches, before=second_t))
    yield ExpiryStep(fine, partial(_patterns, step_s=FINE_S, before=fine_t))
    yield ExpiryStep(coarse, partial(_patterns, step_s=COARSE_S, before=coarse_t))
    yield ExpiryStep("loads", lambda connection: _thin(connection, minute))
    yield ExpiryStep("past forecasts", partial(_thin_forecasts, now=now, policy=policy))
    for column, before in (
        (forecast_batches.c.issued_at, now - max(policy.forecasts_s, policy.past_forecasts_s)),
        (score_batches.c.scored_at, now - policy.scores_s),
        (scores.c.scored_at, now - policy.scores_s),
        (horizon_moves.c.t, now - policy.minute_s),
        (actions.c.issued_at, now - policy.journal_s),
        (shortages.c.began_at, now - policy.journal_s),
        (audits.c.t, now - policy.journal_s),
        (plans.c.created_at, now - policy.journal_s),
        (reservations.c.expires_at, now - policy.journal_s),
        (past_reservations.c.expires_at, now - policy.journal_s),
    ):
        yield ExpiryStep(column.table.name, partial(_rows, at=column, before=before))
    yield ExpiryStep("old loads", lambda connection: _old_loads(connection, now - policy.minute_s))
    yield ExpiryStep("rosters", _rosters)


def _batches(connection: Connection, before: Seconds) -> int:
    """What waits to be rolled up is never deleted."""
    waits = exists().where(pending.c.batch_id == batches.c.id)
    old = select(batches.c.id).where(batches.c.t <= before, ~waits).order_by(batches.c.t).limit(BATCHES_A_STEP)
    ids = list(connection.execute(old).scalars())
    return connection.execute(delete(batches).where(batches.c.id.in_(ids), batches.c.t <= before)).rowcount


def _patterns(connection: Connection, step_s: int, before: Seconds) -> int:
    """The oldest minute's rows; 10 s rows only after their minute was built."""
    table = PATTERN_TABLES[step_s]
    if step_s == FINE_S:
        before = min(before, built_through(connection))
    gone = 0
    for column, here in ((table.c.t, true()), (covered.c.t, covered.c.step_s == step_s)):
        oldest = connection.execute(select(func.min(column)).where(here)).scalar()
        end = None if oldest is None else bucket_end(oldest, COARSE_S)
        if end is not None and end <= before:
            gone += connection.execute(delete(column.table).where(column <= end, here)).rowcount
    return gone


def _thin(connection: Connection, through: Seconds) -> int:
    """Replaces the oldest minute of second by second loads by one row for each machine and link."""
    since = _taken(connection, THINNED)
    firsts = [
        connection.execute(text(f"SELECT min(t) FROM {name} WHERE t > :since"), {"since": since}).scalar()
        for name in THIN
    ]
    oldest = min((first for first in firsts if first is not None), default=None)
    t = None if oldest is None else bucket_end(oldest, COARSE_S)
    if t is None or t > through:
        return 0
    times, gone = {"since": t - COARSE_S, "t": t}, 0
    for name, statement in THIN.items():
        last = connection.execute(text(f"SELECT max(id) FROM {name}")).scalar() or 0
        connection.execute(text(statement), times)
        old = text(f"DELETE FROM {name} WHERE t > :since AND t <= :t AND id <= :last")
        gone += connection.execute(old, times | {"last": last}).rowcount
    connection.execute(update(progress).where(progress.c.name == THINNED).values(value=t))
    return max(gone, 1)


def _taken(connection: Connection, name: str) -> float:
    """A mark, taken before it is read, so that two processes do not thin the same minute."""
    insert_ignore(connection, progress, [{"name": name, "value": 0.0}])
    mark = progress.c.name == name
    connection.execute(update(progress).where(mark).values(value=progress.c.value))
    return float(connection.execute(select(progress.c.value).where(mark)).scalar_one())


def _thin_forecasts(connection: Connection, now: Seconds, policy: RetentionPolicy) -> int:
    """Keeps the last issue of each tier of the oldest minute with all its issues; the oldest go where all is full."""
    at, since = forecast_batches.c, _taken(connection, FORECASTS_THINNED)
    oldest = connection.execute(select(func.min(at.issued_at)).where(at.issued_at > since)).scalar()
    end = None if oldest is None else bucket_end(oldest, COARSE_S)
    if end is None or end > now - policy.forecasts_s:
        return 0
    minute = (at.issued_at > end - COARSE_S) & (at.issued_at <= end)
    last = select(func.max(at.id)).where(minute).group_by(at.tier)
    gone = connection.execute(delete(forecast_batches).where(minute, at.id.not_in(last))).rowcount
    newer = func.sum(issue_size()).over(order_by=(at.issued_at.desc(), at.id.desc()))
    sizes = select(at.id, newer.label("bytes")).where(at.issued_at <= end).subquery()
    beyond = select(sizes.c.id).where(sizes.c.bytes > policy.past_forecasts_bytes)
    gone += connection.execute(delete(forecast_batches).where(at.id.in_(beyond))).rowcount
    connection.execute(update(progress).where(progress.c.name == FORECASTS_THINNED).values(value=end))
    return max(gone, 1)


def _rows(connection: Connection, at: Column[Any], before: Seconds) -> int:
    table = at.table
    old = select(table.c.id).where(at < before).order_by(at).limit(ROWS_A_STEP)
    return connection.execute(delete(table).where(table.c.id.in_(old))).rowcount


def _old_loads(connection: Connection, before: Seconds) -> int:
    return sum(
        connection.execute(
            text(f"DELETE FROM {name} WHERE id IN (SELECT id FROM {name} WHERE t < :t ORDER BY t LIMIT {ROWS_A_STEP})"),
            {"t": before},
        ).rowcount
        for name in THIN
    )


def _rosters(connection: Connection) -> int:
    """Lists of subjects that nothing refers to; never the newest, so that no number is given twice."""
    used = union(select(forecast_batches.c.roster_id), select(score_batches.c.roster_id))
    newest = select(func.max(rosters.c.id)).scalar_subquery()
    return connection.execute(delete(rosters).where(rosters.c.id.not_in(used), rosters.c.id < newest)).rowcount


# Width of one partition in seconds; a dozen or two of each are alive at a time.
WIDTHS = {"batches": int(HOUR_S), "patterns_10s": int(6 * HOUR_S), "patterns_60s": int(2 * DAY_S)}
AHEAD = 2


def prepare(engine: Engine, now: Seconds, policy: RetentionPolicy) -> None:
    """Makes the next partitions and drops those that are wholly expired; does nothing on SQLite."""
    if engine.dialect.name != "postgresql":
        return
    keep = {"batches": policy.second_s, "patterns_10s": policy.ten_seconds_s, "patterns_60s": policy.minute_s}
    for table, width in WIDTHS.items():
        before = now - keep[table]
        with engine.begin() as connection:
            if is_hypertable(connection, table):
                _drop_chunks(connection, table, before)
                continue
        for start in range(int(now // width) * width, int(now) + AHEAD * width, width):
            _make(engine, table, start)
        with engine.begin() as connection:
            _drop(connection, table, before)


def has_timescale(connection: Connection) -> bool:
    """Whether the extension is installed in this database."""
    return connection.execute(text("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")).scalar() is not None


def is_hypertable(connection: Connection, table: str) -> bool:
    """Whether TimescaleDB keeps this table in chunks; only those with whole seconds can be."""
    if not has_timescale(connection):
        return False
    query = "SELECT 1 FROM timescaledb_information.hypertables WHERE hypertable_name = :table"
    return connection.execute(text(query), {"table": table}).scalar() is not None


def _make(engine: Engine, table: str, start: int) -> None:
    name = f"{table}_from_{start}"
    with engine.connect() as connection:
        if connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar() is not None:
            return
    # Rows of this range may lie in the default partition already: then they stay there and expire row by row.
    with suppress(DBAPIError), engine.begin() as connection:
        bounds = f"FROM ({start}) TO ({start + WIDTHS[table]})"
        connection.execute(text(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES {bounds}"))


def _drop(connection: Connection, table: str, before: Seconds) -> None:
    for name, start in _partitions(connection, table):
        end = start + WIDTHS[table]
        if end <= before and not _needed(connection, table, start, end):
            connection.execute(text(f"DROP TABLE {name}"))


def _partitions(connection: Connection, table: str) -> Iterator[tuple[str, int]]:
    query = text("SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
                 "WHERE i.inhparent = to_regclass(:table)")  # fmt: skip
    for name in connection.execute(query, {"table": table}).scalars():
        start = name.removeprefix(f"{table}_from_")
        if start.isdigit():
            yield name, int(start)


def _needed(connection: Connection, table: str, start: int, end: int) -> bool:
    """Whether something in it was not rolled up yet."""
    times = {"start": start, "end": end}
    if table == "batches":
        query = "SELECT 1 FROM pending WHERE t >= :start AND t < :end LIMIT 1"
    elif table == "patterns_10s":
        query = "SELECT 1 FROM progress WHERE name = 'minutes_built_through' AND value < :end"
    else:
        return False
    return connection.execute(text(query), times).scalar() is not None


def _drop_chunks(connection: Connection, table: str, before: Seconds) -> None:
    if not _needed(connection, table, 0, int(before)):
        connection.execute(
            text(f"SELECT drop_chunks('{table}', older_than => CAST(:t AS integer))"), {"t": int(before)}
        )


WAITING_AT_ONCE = 20_000
# SQLite gives free pages back to the disk only when they are many: soon they would be taken again.
FREE_SHARE = 0.2
FREE_PAGES_A_STEP = 2_000


class RetentionRunner:
    """The runner. Several may run at once: whatever one took, another finds taken."""

    def __init__(self, engine: Engine, clock: Callable[[], Seconds] = monotonic) -> None:
        """`clock` only measures the budget."""
        self._engine = engine
        self._clock = clock

    def retain(self, now: Seconds, policy: RetentionPolicy, budget_s: Seconds) -> RetentionResult:
        """Takes the steps due at `now`, for about `budget_s`; `left` tells that there are more. Raises StoreError."""
        end = self._clock() + budget_s
        with reported(self._engine, "making room"):
            prepare(self._engine, now, policy)
            done = self._roll_up(now, policy, end)
            if not done.left:
                done += self._forget(now, policy, end)
            if not done.left and self._engine.dialect.name == "sqlite":
                self._give_back()
        return done

    def _roll_up(self, now: Seconds, policy: RetentionPolicy, end: Seconds) -> RetentionResult:
        with self._engine.connect() as connection:
            pending = rollup.waiting(connection, WAITING_AT_ONCE)
        done = RetentionResult(left=len(pending) == WAITING_AT_ONCE)
        due = list(roll_ups(pending, now))
        for step in due:
            if self._clock() > end:
                return done + RetentionResult(left=True)
            with self._engine.begin() as connection:
                done += RetentionResult(steps=1, rolled_up=rollup.roll_up(connection, step, now, policy))
        through = int((now - COARSE_LAG_S) // COARSE_S) * COARSE_S
        if done.left:
            # Minutes of which batches wait must not be built yet.
            through = min(through, bucket_end(pending[-1][1], COARSE_S) - COARSE_S)
        return done + self._repeat(lambda connection: int(rollup.build_next_minute(connection, through)), end)

    def _repeat(self, take: Callable[[Connection], int], end: Seconds) -> RetentionResult:
        done = RetentionResult()
        while self._clock() <= end:
            with self._engine.begin() as connection:
                count = take(connection)
            if not count:
                return done
            done += RetentionResult(steps=1)
        return done + RetentionResult(left=True)

    def _forget(self, now: Seconds, policy: RetentionPolicy, end: Seconds) -> RetentionResult:
        done = RetentionResult()
        widths = {} if self._engine.dialect.name == "sqlite" else WIDTHS
        for step in steps(now, policy, widths):
            count = 1
            while count:
                if self._clock() > end:
                    return done + RetentionResult(left=True)
                with self._engine.begin() as connection:
                    count = step.take(connection)
                done += RetentionResult(steps=int(count > 0), deleted=count)
        return done

    def _give_back(self) -> None:
        with self._engine.connect() as connection:
            pages, free = (
                connection.execute(text(f"PRAGMA {name}")).scalar() or 0 for name in ("page_count", "freelist_count")
            )
            driver = connection.connection.driver_connection
            if free > max(FREE_PAGES_A_STEP, FREE_SHARE * pages) and driver is not None:
                connection.rollback()
                # It frees a page a step, and only a script is stepped to its end.
                driver.executescript(f"PRAGMA incremental_vacuum({FREE_PAGES_A_STEP})")

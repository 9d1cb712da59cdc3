"""Lets go of what is older than its time, in steps of a few thousand rows, so that no writer waits for long."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Column, Connection, delete, exists, func, select, text, true, union, update

from cpdb.bulk_schema import (
    PATTERN_TABLES,
    batches,
    covered,
    forecast_batches,
    horizon_moves,
    pending,
    progress,
    rosters,
    score_batches,
)
from cpdb.records import Seconds
from cpdb.retention import COARSE_S, FINE_S, Policy, bucket_end
from cpdb.rollup import built_through
from cpdb.schema import actions, plans, scores

BATCHES_A_STEP = 50
ROWS_A_STEP = 5_000
THINNED = "loads_thinned_through"
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
class Step:
    """One small transaction, repeated as long as it deletes something."""

    name: str
    take: Callable[[Connection], int]


def steps(now: Seconds, policy: Policy, widths: Mapping[str, int]) -> Iterator[Step]:
    """Everything that may be due at `now`, in order.

    `widths`: of partitions by table. Those are dropped whole; what is deleted here lay in none, so it may be later.
    """
    fine, coarse = (PATTERN_TABLES[step].name for step in (FINE_S, COARSE_S))
    minute = (now - policy.second_s) // COARSE_S * COARSE_S
    second_t = now - policy.second_s - widths.get("batches", 0)
    fine_t = now - policy.ten_seconds_s - widths.get(fine, 0)
    coarse_t = now - policy.minute_s - widths.get(coarse, 0)
    yield Step("batches", partial(_batches, before=second_t))
    yield Step(fine, partial(_patterns, step_s=FINE_S, before=fine_t))
    yield Step(coarse, partial(_patterns, step_s=COARSE_S, before=coarse_t))
    yield Step("loads", lambda one: _thin(one, minute))
    for column, before in (
        (forecast_batches.c.issued_at, now - policy.forecasts_s),
        (score_batches.c.scored_at, now - policy.scores_s),
        (scores.c.scored_at, now - policy.scores_s),
        (horizon_moves.c.t, now - policy.minute_s),
        (actions.c.issued_at, now - policy.journal_s),
        (plans.c.created_at, now - policy.journal_s),
    ):
        yield Step(column.table.name, partial(_rows, at=column, before=before))
    yield Step("old loads", lambda one: _old_loads(one, now - policy.minute_s))
    yield Step("rosters", _rosters)


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
    mark = progress.c.name == THINNED
    # Takes the mark first, so that two processes do not thin the same minute.
    connection.execute(update(progress).where(mark).values(value=progress.c.value))
    since = connection.execute(select(progress.c.value).where(mark)).scalar_one()
    firsts = [
        connection.execute(text(f"SELECT min(t) FROM {name} WHERE t > :since"), {"since": since}).scalar()
        for name in THIN
    ]
    oldest = min((one for one in firsts if one is not None), default=None)
    t = None if oldest is None else bucket_end(oldest, COARSE_S)
    if t is None or t > through:
        return 0
    times, gone = {"since": t - COARSE_S, "t": t}, 0
    for name, statement in THIN.items():
        last = connection.execute(text(f"SELECT max(id) FROM {name}")).scalar() or 0
        connection.execute(text(statement), times)
        old = text(f"DELETE FROM {name} WHERE t > :since AND t <= :t AND id <= :last")
        gone += connection.execute(old, times | {"last": last}).rowcount
    connection.execute(update(progress).where(mark).values(value=t))
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

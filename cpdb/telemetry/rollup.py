"""Rolls batches up into rows that people can read with SQL. Bytes are conserved, and silence is told from absence."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, func, select, text, true, update

from cpdb.model import Seconds
from cpdb.refusals import refusals_of
from cpdb.schema import PATTERN_TABLES, batches, covered, observations, pending, progress
from cpdb.telemetry.columns import IMPLAUSIBLE, Columns, unpack
from cpdb.telemetry.retention import COARSE_S, FINE_S, RetentionPolicy, RollUp, bucket_end, tiers

BUILT = "minutes_built_through"
COLUMNS = ("t", "flow_key_id", "covered_s", "bytes", "packets", "connections", "peak_bytes_per_s", "flags")
POSTGRES_TYPES = ("int", "int", "float8", "bigint", "bigint", "bigint", "bigint", "int")
Row = tuple[int, int, float, int, int, int, int, int]


# 288 petabytes in ten seconds; six of these and what comes late still have room in 63 bits.
MOST_SUM = 1 << 58


@dataclass(slots=True)
class _Sums:
    """What one observer's batches of one bucket add up to."""

    complete_s: float = 0.0
    flow_keys: dict[int, list[int]] = field(default_factory=dict)
    listed_s: dict[int, float] = field(default_factory=lambda: defaultdict(float))


def roll_up(connection: Connection, step: RollUp, now: Seconds, policy: RetentionPolicy) -> int:
    """Takes one step within the caller's transaction; returns how many batches were added.

    Only batches that still waited count: two processes that take the same step add nothing twice.
    """
    query = delete(pending).where(pending.c.batch_id.in_(step.batch_ids)).returning(pending.c.batch_id)
    ids = list(connection.execute(query).scalars())
    if not ids:
        return 0
    sums = _sums(connection, ids, step.t)
    for step_s, t in tiers(step.t, built_through(connection), now, policy):
        for observer, own in sums.items():
            _add(connection, step_s, t, observer, own)
    return len(ids)


def _sums(connection: Connection, ids: Sequence[int], t: int) -> dict[str, _Sums]:
    query = select(batches.c.id, batches.c.observer, batches.c.interval_s, batches.c.complete, batches.c.body)
    # The time says to PostgreSQL in which partition to look.
    query = query.where(batches.c.id.in_(ids), batches.c.t > t - FINE_S, batches.c.t <= t)
    sums: dict[str, _Sums] = defaultdict(_Sums)
    # One that is torn is lost; those beside it are not.
    rows_read = refusals_of(connection.engine).read_apart("batch", connection.execute(query), _unpacked)
    for observer, interval_s, complete, columns in rows_read:
        own = sums[observer]
        own.complete_s += interval_s if complete else 0.0
        flags = columns.flags if columns.flags is not None else bytes(len(columns.key_ids))
        rows = zip(columns.key_ids, columns.bytes, columns.packets, columns.connections, flags, strict=True)
        for flow_key, size, packets, connections, flag in rows:
            peak = round(size / interval_s) if interval_s > 0 else 0
            known = own.flow_keys.get(flow_key)
            if known is None:
                own.flow_keys[flow_key] = [size, packets, connections, peak, flag]
            else:
                known[0] += size
                known[1] += packets
                known[2] += connections
                known[3] = max(known[3], peak)
                known[4] |= flag
        if not complete:
            for flow_key in set(columns.key_ids):
                own.listed_s[flow_key] += interval_s
    for own in sums.values():
        _bound(own)
    return sums


def _bound(own: _Sums) -> None:
    """Sums that no line can bring are kept as the most that sums of sums have room for, and marked as implausible."""
    for known in own.flow_keys.values():
        if max(known[:4]) > MOST_SUM:
            known[:4] = [min(count, MOST_SUM) for count in known[:4]]
            known[4] |= IMPLAUSIBLE


def _unpacked(row: Sequence[Any]) -> tuple[str, float, bool, Columns]:
    _, observer, interval_s, complete, body = row
    return observer, interval_s, complete, unpack(bytes(body))


def _add(connection: Connection, step_s: int, t: int, observer: str, own: _Sums) -> None:
    before = _covered_before(connection, step_s, t, observer) if own.complete_s else 0.0
    if before:
        # Late: rows that are there already were silent, or spoke, this much longer.
        mine = select(observations.c.flow_key_id).where(observations.c.observer == observer)
        table = PATTERN_TABLES[step_s]
        longer = update(table).where(table.c.t == t, table.c.flow_key_id.in_(mine))
        connection.execute(longer.values(covered_s=table.c.covered_s + own.complete_s))
    if own.complete_s:
        _cover(connection, step_s, t, observer, own.complete_s)
    covered_s = before + own.complete_s
    rows: Iterator[Row] = (
        (t, flow_key, own.listed_s.get(flow_key, 0.0) or covered_s, *sums)  # type: ignore[misc]
        for flow_key, sums in sorted(own.flow_keys.items())
        # A row of zeros costs room and says no more than the observer's coverage; alone, it is the only proof.
        if sums[0] or sums[1] or sums[2] or flow_key in own.listed_s
    )
    upsert(connection, step_s, list(rows), sums_up=not own.complete_s)


def _covered_before(connection: Connection, step_s: int, t: int, observer: str) -> float:
    same = (covered.c.step_s == step_s) & (covered.c.t == t) & (covered.c.observer == observer)
    return connection.execute(select(covered.c.covered_s).where(same)).scalar() or 0.0


def _cover(connection: Connection, step_s: int, t: int, observer: str, seconds: float) -> None:
    connection.execute(
        text(
            "INSERT INTO covered (step_s, t, observer, covered_s) VALUES (:step_s, :t, :observer, :s) "
            "ON CONFLICT (step_s, t, observer) DO UPDATE SET covered_s = covered.covered_s + excluded.covered_s"
        ),
        {"step_s": step_s, "t": t, "observer": observer, "s": seconds},
    )


def upsert(connection: Connection, step_s: int, rows: Sequence[Row], sums_up: bool) -> None:
    """Adds rows to those that are there. `sums_up`: times without an observer's proof add up, others overlap."""
    if not rows:
        return
    name, postgres = PATTERN_TABLES[step_s].name, connection.dialect.name == "postgresql"
    larger = "greatest" if postgres else "max"
    joined = "{0}.covered_s + excluded.covered_s" if sums_up else f"{larger}({{0}}.covered_s, excluded.covered_s)"
    change = (
        f"covered_s = {joined.format(name)}, bytes = {name}.bytes + excluded.bytes, "
        f"packets = {name}.packets + excluded.packets, connections = {name}.connections + excluded.connections, "
        f"peak_bytes_per_s = {larger}({name}.peak_bytes_per_s, excluded.peak_bytes_per_s), "
        f"flags = {name}.flags | excluded.flags"
    )
    head = f"INSERT INTO {name} ({', '.join(COLUMNS)}) "
    tail = f" ON CONFLICT (t, flow_key_id) DO UPDATE SET {change}"
    if postgres:
        arrays = ", ".join(f"%s::{kind}[]" for kind in POSTGRES_TYPES)
        columns = tuple(list(column) for column in zip(*rows, strict=True))
        connection.exec_driver_sql(f"{head}SELECT * FROM unnest({arrays}){tail}", columns)
    else:
        connection.exec_driver_sql(f"{head}VALUES ({', '.join('?' * len(COLUMNS))}){tail}", list(rows))


def built_through(connection: Connection) -> float:
    """End of the last minute that was built; it does not move on before the caller's transaction ends."""
    query = select(progress.c.value).where(progress.c.name == BUILT).with_for_update(read=True)
    return float(connection.execute(query).scalar_one())


def build_next_minute(connection: Connection, through: int) -> bool:
    """Builds the oldest minute up to `through` that has 10 s rows and is not built, within the caller's transaction.

    False when there is none.
    """
    mark = progress.c.name == BUILT
    # Takes the mark first: no batch of these minutes can be added meanwhile to the 10 s rows only.
    connection.execute(update(progress).where(mark).values(value=progress.c.value))
    since = connection.execute(select(progress.c.value).where(mark)).scalar_one()
    table = PATTERN_TABLES[FINE_S]
    firsts = [
        connection.execute(select(func.min(at)).where(at > since, at <= through, here)).scalar()
        for at, here in ((table.c.t, true()), (covered.c.t, covered.c.step_s == FINE_S))
    ]
    known = [first for first in firsts if first is not None]
    if not known:
        return False
    t = bucket_end(min(known), COARSE_S)
    times = {"t": t, "since": t - COARSE_S, "fine": FINE_S, "coarse": COARSE_S}
    connection.execute(text(COVER_MINUTE), times)
    larger = "greatest" if connection.dialect.name == "postgresql" else "max"
    connection.execute(text(BUILD_MINUTE.format(larger=larger)), times)
    connection.execute(update(progress).where(mark).values(value=t))
    return True


COVER_MINUTE = """
INSERT INTO covered (step_s, t, observer, covered_s)
SELECT CAST(:coarse AS INTEGER), CAST(:t AS INTEGER), observer, sum(covered_s)
FROM covered WHERE step_s = :fine AND t > :since AND t <= :t GROUP BY observer
"""
# A flow key that spoke in one of six buckets was silent, not absent, in what its observer covered of the others.
BUILD_MINUTE = """
INSERT INTO patterns_60s (t, flow_key_id, covered_s, bytes, packets, connections, peak_bytes_per_s, flags)
SELECT CAST(:t AS INTEGER), p.flow_key_id, {larger}(sum(p.covered_s), coalesce(max(c.covered_s), 0)), sum(p.bytes),
       sum(p.packets), sum(p.connections), max(p.peak_bytes_per_s), max(p.flags)
FROM patterns_10s p
LEFT JOIN (SELECT o.flow_key_id AS flow_key_id, max(v.covered_s) AS covered_s FROM covered v
           JOIN observations o ON o.observer = v.observer
           WHERE v.step_s = :coarse AND v.t = :t GROUP BY o.flow_key_id) c ON c.flow_key_id = p.flow_key_id
WHERE p.t > :since AND p.t <= :t GROUP BY p.flow_key_id
"""


def waiting(connection: Connection, most: int) -> list[tuple[int, Seconds]]:
    """Batches (id, t) that wait to be rolled up, oldest first, at most so many."""
    query = select(pending.c.batch_id, pending.c.t).order_by(pending.c.t, pending.c.batch_id).limit(most)
    return [(number, t) for number, t in connection.execute(query)]

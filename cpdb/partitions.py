"""PostgreSQL's ranges of time: partitions made ahead and dropped at expiry, or TimescaleDB's chunks if it is there."""

from collections.abc import Iterator
from contextlib import suppress

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from cpdb.records import Seconds
from cpdb.retention import DAY_S, HOUR_S, Policy

# Width of one partition in seconds; a dozen or two of each are alive at a time.
WIDTHS = {"batches": int(HOUR_S), "patterns_10s": int(6 * HOUR_S), "patterns_60s": int(2 * DAY_S)}
AHEAD = 2


def prepare(engine: Engine, now: Seconds, policy: Policy) -> None:
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
        if end <= before and not _needed(connection, table, (start, end)):
            connection.execute(text(f"DROP TABLE {name}"))


def _partitions(connection: Connection, table: str) -> Iterator[tuple[str, int]]:
    query = text("SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
                 "WHERE i.inhparent = to_regclass(:table)")  # fmt: skip
    for name in connection.execute(query, {"table": table}).scalars():
        start = name.removeprefix(f"{table}_from_")
        if start.isdigit():
            yield name, int(start)


def _needed(connection: Connection, table: str, span: tuple[int, int]) -> bool:
    """Whether something in it was not rolled up yet."""
    times = {"start": span[0], "end": span[1]}
    if table == "batches":
        query = "SELECT 1 FROM pending WHERE t >= :start AND t < :end LIMIT 1"
    elif table == "patterns_10s":
        query = "SELECT 1 FROM progress WHERE name = 'minutes_built_through' AND value < :end"
    else:
        return False
    return connection.execute(text(query), times).scalar() is not None


def _drop_chunks(connection: Connection, table: str, before: Seconds) -> None:
    if not _needed(connection, table, (0, int(before))):
        connection.execute(
            text(f"SELECT drop_chunks('{table}', older_than => CAST(:t AS integer))"), {"t": int(before)}
        )

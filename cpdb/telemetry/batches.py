"""Writes batches of communications and reads them back: one row a batch, whatever the number of flow keys."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, func, insert, select, text
from sqlalchemy.dialects import sqlite

from cpdb.engine import reported
from cpdb.errors import StoreRefused
from cpdb.model import Communication, HostLoad, LinkLoad, Pair, Seconds, VmLoad
from cpdb.refusals import refusals_of
from cpdb.repository import Repository, insert_ignore, transaction
from cpdb.schema import batches, host_loads, link_loads, observations, pending, vm_loads
from cpdb.telemetry.columns import Batch, FlowKey, StoredBatch, pack, unpack
from cpdb.telemetry.names import Names
from cpdb.telemetry.retention import COARSE_S, bucket_end
from cpdb.telemetry.tenures import KeptCounts, admit_tenures

# Any number that nothing else in this database locks with.
ORDER_LOCK, LOADS_LOCK = 7_301, 7_302
ROWS = "rows"
# Of loads that are read in bulk so many are held as Python's numbers at once.
ROWS_AT_ONCE = 20_000
# Bytes, cores and seconds alike: what is not below is a counter that ran over, or a number gone wrong.
MOST_LOAD = 1e18
# One round trip. A reader goes on from the last number that it saw: a smaller one must not become visible after it, so
# the lock is taken before the number is.
POSTGRES_ADD = text(
    f"""
WITH added AS (
    INSERT INTO batches (observer, t, interval_s, flow_keys, complete, sampling, writer, seq, body)
    SELECT CAST(:observer AS varchar), CAST(:t AS float8), CAST(:interval_s AS float8), CAST(:flow_keys AS int),
           CAST(:complete AS boolean), CAST(:sampling AS int), CAST(:writer AS varchar), CAST(:seq AS bigint),
           CAST(:body AS bytea)
    FROM (SELECT pg_advisory_xact_lock({ORDER_LOCK})) AS in_order
    ON CONFLICT DO NOTHING RETURNING id, t
)
INSERT INTO pending (batch_id, t) SELECT id, t FROM added RETURNING batch_id
"""
)
SQLITE_ADD = sqlite.insert(batches).on_conflict_do_nothing().returning(batches.c.id)


class Batches:
    """One table of batches. Writing the same (writer, seq) again stores nothing."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names
        self._seen: dict[str, set[int]] = {}

    def add(self, items: Sequence[Batch], counts: Sequence[KeptCounts] = ()) -> int:
        """Appends batches in one transaction; returns how many were new. Raises StoreError.

        `counts` are the counters that these batches brought up to date. What was counted in a tenure that is over is
        left out: the next master of that switch counts it.
        """
        if not items:
            return 0
        with reported(self._engine, "writing communications"):
            rows = [self._row(item) for item in items]
            fresh = self._unseen(rows, items)
            with self._engine.begin() as connection:
                has_rows = {item.writer: False for item in items} | {one.writer: True for one in items if one.flow_keys}
                over = admit_tenures(connection, has_rows.items(), counts)
                rows = [(row, ids) for row, ids in rows if row["writer"] not in over]
                added = [number for row, _ in rows if (number := _insert(connection, row)) is not None]
                insert_ignore(connection, observations, fresh)
        for row in fresh:
            self._seen[str(row["observer"])].add(int(str(row["flow_key_id"])))
        return len(added)

    def _row(self, item: Batch) -> tuple[dict[str, object], set[int]]:
        ids = self._names.key_ids(item.flow_keys)
        try:
            body = pack(ids, (item.bytes, item.packets, item.connections), item.flags)
        except ValueError as error:
            raise StoreRefused(f"batch of {item.observer} at {item.t}: {error}; it was not written") from error
        row: dict[str, object] = {
            "observer": item.observer,
            "t": item.t,
            "interval_s": item.interval_s,
            "flow_keys": len(ids),
            "complete": item.complete,
            "sampling": item.sampling,
            "writer": item.writer or None,
            "seq": item.seq,
            "body": body,
        }
        return row, set(ids) if item.complete else set()

    def _unseen(
        self, rows: Sequence[tuple[dict[str, object], set[int]]], items: Sequence[Batch]
    ) -> list[dict[str, object]]:
        fresh: dict[tuple[str, int], dict[str, object]] = {}
        for (_, ids), item in zip(rows, items, strict=True):
            for number in ids - self._seen_by(item.observer) if ids else ():
                since = item.t - item.interval_s
                fresh.setdefault(
                    (item.observer, number), {"observer": item.observer, "flow_key_id": number, "since": since}
                )
        return list(fresh.values())

    def _seen_by(self, observer: str) -> set[int]:
        if observer not in self._seen:
            query = select(observations.c.flow_key_id).where(observations.c.observer == observer)
            with self._engine.connect() as connection:
                self._seen[observer] = set(connection.execute(query).scalars())
        return self._seen[observer]

    def read(self, after_id: int, since: Seconds, until: Seconds | None = None) -> list[StoredBatch]:
        """Batches with id > `after_id` and since < t <= until, in the order in which they were written."""
        query = select(
            batches.c.id,
            batches.c.observer,
            batches.c.t,
            batches.c.interval_s,
            batches.c.body,
            batches.c.sampling,
            batches.c.complete,
        ).where(batches.c.t > since)
        if after_id:
            query = query.where(batches.c.id > after_id)
        if until is not None:
            query = query.where(batches.c.t <= until)
        with reported(self._engine, "reading communications"), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        found = refusals_of(self._engine).read_apart("batch", rows, lambda row: _stored(*row))
        return sorted(found, key=lambda batch: batch.id)

    def newest(self) -> int:
        """The highest number that a batch has, 0 while there is none."""
        with reported(self._engine, "reading communications"), self._engine.connect() as connection:
            return int(connection.execute(select(func.coalesce(func.max(batches.c.id), 0))).scalar_one())

    def span(self) -> tuple[Seconds, Seconds] | None:
        """Time of the first and the last batch."""
        query = select(func.min(batches.c.t), func.max(batches.c.t))
        with reported(self._engine, "reading communications"), self._engine.connect() as connection:
            first, last = connection.execute(query).one()
        return None if first is None else (first, last)


def _insert(connection: Connection, row: dict[str, object]) -> int | None:
    if connection.dialect.name == "postgresql":
        return connection.execute(POSTGRES_ADD, row).scalar()
    number = connection.execute(SQLITE_ADD, row).scalar()
    if number is not None:
        connection.execute(insert(pending), {"batch_id": number, "t": row["t"]})
    return number


def _nonsense(row: LinkLoad | HostLoad | VmLoad) -> str | None:
    """Why nothing can be that large, that small, or no number: it would spoil every sum that it is part of."""
    names, values_of = AMOUNTS[type(row)]
    for name, value in zip(names, values_of(row), strict=True):
        if isinstance(value, (int, float)) and not 0 <= value < MOST_LOAD:
            return f"{name} is {value}, which nothing can be"
    return None


def _stored(number: int, observer: str, t: float, interval_s: float, *rest: object) -> StoredBatch:
    body, sampling, complete = rest
    columns = unpack(bytes(body))  # type: ignore[call-overload]
    return StoredBatch(number, observer, t, interval_s, *columns, sampling, bool(complete))  # type: ignore[arg-type]


def as_batches(rows: Iterable[Communication]) -> list[Batch]:
    """Rows as batches without proof of silence: one for each moment, interval and sampling."""
    groups: dict[tuple[float, float, int | None], list[Communication]] = defaultdict(list)
    for row in rows:
        groups[row.t, row.interval_s, row.sampling].append(row)
    return [
        Batch(
            ROWS,
            t,
            interval_s,
            [FlowKey(row.source, row.virtual_ip, row.destination) for row in own],
            array("q", [row.bytes for row in own]),
            array("q", [row.packets for row in own]),
            array("q", [row.new_connections for row in own]),
            array("B", [row.flags for row in own]),
            sampling,
        )
        for (t, interval_s, sampling), own in groups.items()
    ]


def as_rows(items: Sequence[StoredBatch], names: Names) -> list[Communication]:
    """Rows of batches, oldest first; a pair of whom a complete batch says nothing has a row of zeros before them.

    Zeros are for flow keys that the same observer listed earlier among `items`.
    """
    rows: list[Communication] = []
    quiet = _Quiet()
    for item in sorted(items, key=lambda batch: (batch.t, batch.id)):
        own = list(_rows(item, names))
        if item.complete:
            rows.extend(quiet.zeros(item, own))
        rows.extend(own)
    return rows


class _Quiet:
    """The last flow key of each pair that each observer listed."""

    def __init__(self) -> None:
        self._listed: dict[str, dict[Pair, str | None]] = defaultdict(dict)

    def zeros(self, item: StoredBatch, own: Sequence[Communication]) -> Iterator[Communication]:
        listed = self._listed[item.observer]
        said = {row.pair for row in own}
        for pair, destination in listed.items():
            if pair not in said:
                yield Communication(pair.source, pair.virtual_ip, destination, item.t, item.interval_s, 0, 0, 0)
        listed.update((row.pair, row.destination) for row in own)


def _rows(item: StoredBatch, names: Names) -> Iterator[Communication]:
    flags = item.flags if item.flags is not None else bytes(len(item.key_ids))
    columns = zip(item.key_ids, item.bytes, item.packets, item.connections, flags, strict=True)
    for number, size, packets, connections, flag in columns:
        flow_key = names.flow_key_of(number)
        yield Communication(*flow_key, item.t, item.interval_s, size, packets, connections, flag, item.sampling)


Load = TypeVar("Load", LinkLoad, HostLoad, VmLoad)
LOAD_TABLES: dict[type[Any], Table] = {LinkLoad: link_loads, HostLoad: host_loads, VmLoad: vm_loads}
_NUMBERS = {kind: tuple(item.name for item in fields(kind) if item.type is not str) for kind in LOAD_TABLES}
# The fields of each that are numbers, and how they are read
AMOUNTS = {kind: (names, attrgetter(*names)) for kind, names in _NUMBERS.items()}


class Facts:
    """Writer and reader of everything that was measured. Each `add` is one transaction."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names
        self._refusals = refusals_of(engine)
        self._batches = Batches(engine, names)
        self._loads: dict[type[Any], Repository[Any]] = {
            kind: Repository(engine, table, kind) for kind, table in LOAD_TABLES.items()
        }

    def add_batches(self, items: Sequence[Batch], counts: Sequence[KeptCounts] = ()) -> int:
        """Appends batches in one transaction, each (writer, seq) once; returns how many were new.

        With `counts`, the counters of their switches as of these batches; see `Batches.add`.
        """
        added: list[int] = []
        self._refusals.write_apart("batch", lambda some: added.append(self._batches.add(some, counts)), items)
        return sum(added)

    def batches(self, after_id: int, since: Seconds, until: Seconds | None = None) -> list[StoredBatch]:
        """Batches numbered above `after_id` with since < t <= until, in the order in which they were written."""
        return self._batches.read(after_id, since, until)

    def newest_batch(self) -> int:
        """The highest number that a batch has, 0 while there is none: who reads up to it reads what others do."""
        return self._batches.newest()

    def flow_keys(self) -> Mapping[int, FlowKey]:
        """Every flow key ever named, by its number, from 1 on. The same mapping each time: it only grows."""
        with reported(self._engine, "reading flow keys"):
            return self._names.flow_keys()

    def add_communications(self, rows: Sequence[Communication]) -> None:
        """Appends rows in one transaction; new nodes and virtual IPs are named on the way."""
        self._batches.add(as_batches(rows))

    def communications(self, since: Seconds, until: Seconds | None = None) -> list[Communication]:
        """Rows with since < t <= until, oldest first.

        A complete batch gives rows of zeros too, for the pairs that its observer listed before within this window.
        """
        return as_rows(self._batches.read(0, since, until), self._names)

    def add_loads(self, rows: Iterable[LinkLoad | HostLoad | VmLoad]) -> None:
        """Appends link, host and VM loads, mixed as they come, in one transaction."""
        self._refusals.write_apart("load of", self._add_loads, list(rows))

    def _add_loads(self, rows: Sequence[LinkLoad | HostLoad | VmLoad]) -> None:
        for row in rows:
            if (problem := _nonsense(row)) is not None:
                raise StoreRefused(problem)
        by_kind: dict[type[Any], list[Any]] = defaultdict(list)
        for row in rows:
            by_kind[type(row)].append(row)
        if by_kind:
            with transaction(self._engine, "writing loads") as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({LOADS_LOCK})"))
                for kind, own in by_kind.items():
                    self._loads[kind].add_all(own, connection)

    def loads(self, kind: type[Load], since: Seconds, until: Seconds | None = None) -> list[Load]:
        """Loads of one kind (LinkLoad, HostLoad or VmLoad) with since < t <= until, oldest first."""
        at = LOAD_TABLES[kind].c
        times = (at.t > since,) if until is None else (at.t > since, at.t <= until)
        return self._loads[kind].read(*times, order_by=[at.t, at.id])

    def vm_loads(self, vm: str, since: Seconds, until: Seconds) -> list[VmLoad]:
        """Loads of one machine with since < t <= until, oldest first."""
        at = LOAD_TABLES[VmLoad].c
        return self._loads[VmLoad].read(at.vm == vm, at.t > since, at.t <= until, order_by=[at.t, at.id])

    def loads_at(self, kind: type[Load], t: Seconds, recent_s: Seconds) -> list[Load]:
        """Loads of the last `recent_s` before `t`, oldest first; where only minutes are left, of the minute of `t`."""
        at = LOAD_TABLES[kind].c
        minute = [at.t == bucket_end(t, COARSE_S)]
        return self.loads(kind, t - recent_s, t) or self._loads[kind].read(*minute, order_by=[at.id])

    def load_parts(self, kind: type[Any], after_id: int, since: Seconds) -> Iterator[Sequence[Sequence[Any]]]:
        """Loads of one kind numbered above `after_id` with t > since, as rows of (number, *fields), part by part.

        In no order; what is numbered below the highest number so far does not come later. Raises StoreError.
        """
        table = LOAD_TABLES[kind]
        query = select(table.c.id, *(table.c[item.name] for item in fields(kind))).where(table.c.t > since)
        if after_id:
            query = query.where(table.c.id > after_id)
        with reported(self._engine, "reading loads"), self._engine.connect() as connection:
            yield from connection.execute(query).partitions(ROWS_AT_ONCE)

    def span(self) -> tuple[Seconds, Seconds] | None:
        """Time of the first and the last communication, or None when there is none."""
        return self._batches.span()

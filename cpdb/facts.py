"""What was measured: communications and loads, written in batches and read back by window of time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

from sqlalchemy import Engine, Table, delete, insert, select

from cpdb.batches import Batches, as_batches, as_rows
from cpdb.engine import reported
from cpdb.loads import HostLoad, LinkLoad, VmLoad
from cpdb.names import Names
from cpdb.patterns import Batch, StoredBatch, Talk
from cpdb.records import Communication, Seconds
from cpdb.schema import host_loads, link_loads, vm_loads

Load = TypeVar("Load", LinkLoad, HostLoad, VmLoad)
LOAD_TABLES: dict[type[Any], Table] = {LinkLoad: link_loads, HostLoad: host_loads, VmLoad: vm_loads}


class Facts:
    """Writer and reader of everything that was measured. Each `add` is one transaction."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names
        self._batches = Batches(engine, names)

    def add_batches(self, items: Sequence[Batch]) -> int:
        """Appends batches in one transaction, each (writer, seq) once; returns how many were new."""
        return self._batches.add(items)

    def batches(self, after_id: int, since: Seconds, until: Seconds | None = None) -> list[StoredBatch]:
        """Batches numbered above `after_id` with since < t <= until, in the order in which they were written."""
        return self._batches.read(after_id, since, until)

    def talks(self) -> Mapping[int, Talk]:
        """Every talk ever named, by its number; numbers ascend from 1. The same mapping each time: it only grows."""
        with reported(self._engine, "reading talks"):
            return self._names.talks()

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
        by_table: dict[Table, list[dict[str, Any]]] = {}
        for row in rows:
            by_table.setdefault(LOAD_TABLES[type(row)], []).append(asdict(row))
        if by_table:
            with reported(self._engine, "writing loads"), self._engine.begin() as connection:
                for table, values in by_table.items():
                    connection.execute(insert(table), values)

    def loads(self, kind: type[Load], since: Seconds, until: Seconds | None = None) -> list[Load]:
        """Loads of one kind (LinkLoad, HostLoad or VmLoad) with since < t <= until, oldest first."""
        table = LOAD_TABLES[kind]
        columns = [table.c[item.name] for item in fields(kind)]
        query = select(*columns).where(table.c.t > since).order_by(table.c.t, table.c.id)
        if until is not None:
            query = query.where(table.c.t <= until)
        with reported(self._engine, "reading loads"), self._engine.connect() as connection:
            return [kind(*row) for row in connection.execute(query)]

    def span(self) -> tuple[Seconds, Seconds] | None:
        """Time of the first and the last communication, or None when there is none."""
        return self._batches.span()

    def forget_before(self, t: Seconds) -> int:
        """Deletes measured rows older than `t`; returns how many."""
        with reported(self._engine, "deleting old rows"), self._engine.begin() as connection:
            gone = sum(
                connection.execute(delete(table).where(table.c.t < t)).rowcount for table in LOAD_TABLES.values()
            )
        return gone + self._batches.forget_before(t)

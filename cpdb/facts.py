"""What was measured: communications and loads, written in batches and read back by window of time."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

from sqlalchemy import Engine, Table, delete, func, insert, select

from cpdb.engine import reported
from cpdb.names import Names
from cpdb.records import Communication, HostLoad, LinkLoad, Seconds, VmLoad
from cpdb.schema import communications, host_loads, link_loads, nodes, virtual_ips, vm_loads

Load = TypeVar("Load", LinkLoad, HostLoad, VmLoad)
LOAD_TABLES: dict[type[Any], Table] = {LinkLoad: link_loads, HostLoad: host_loads, VmLoad: vm_loads}


class Facts:
    """Writer and reader of everything that was measured. Each `add` is one transaction."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names

    def add_communications(self, rows: Sequence[Communication]) -> None:
        """Appends rows in one transaction; new nodes and virtual IPs are named on the way."""
        if not rows:
            return
        with reported(self._engine, "writing communications"), self._engine.begin() as connection:
            node_ids = self._names.node_ids(connection, {row.source for row in rows})
            vip_ids = self._names.vip_ids(connection, {row.virtual_ip for row in rows})
            connection.execute(
                insert(communications),
                [
                    {
                        "source_id": node_ids[row.source],
                        "virtual_ip_id": vip_ids[row.virtual_ip],
                        "destination": row.destination,
                        "t": row.t,
                        "interval_s": row.interval_s,
                        "bytes": row.bytes,
                        "packets": row.packets,
                        "mean_packet_bytes": row.mean_packet_bytes,
                        "new_connections": row.new_connections,
                    }
                    for row in rows
                ],
            )

    def communications(self, since: Seconds, until: Seconds | None = None) -> list[Communication]:
        """Rows with since < t <= until, oldest first."""
        table = communications
        query = (
            select(
                nodes.c.name,
                virtual_ips.c.address,
                table.c.destination,
                table.c.t,
                table.c.interval_s,
                table.c.bytes,
                table.c.packets,
                table.c.new_connections,
            )
            .join(nodes, nodes.c.id == table.c.source_id)
            .join(virtual_ips, virtual_ips.c.id == table.c.virtual_ip_id)
            .where(table.c.t > since)
            .order_by(table.c.t, table.c.id)
        )
        if until is not None:
            query = query.where(table.c.t <= until)
        with reported(self._engine, "reading communications"), self._engine.connect() as connection:
            return [Communication(*row) for row in connection.execute(query)]

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
        query = select(func.min(communications.c.t), func.max(communications.c.t))
        with reported(self._engine, "reading communications"), self._engine.connect() as connection:
            first, last = connection.execute(query).one()
        return None if first is None else (first, last)

    def forget_before(self, t: Seconds) -> int:
        """Deletes measured rows older than `t`; returns how many."""
        with reported(self._engine, "deleting old rows"), self._engine.begin() as connection:
            return sum(
                connection.execute(delete(table).where(table.c.t < t)).rowcount
                for table in (communications, *LOAD_TABLES.values())
            )

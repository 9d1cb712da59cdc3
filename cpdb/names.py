"""Numbers for names: nodes and virtual IPs are stored once, rows refer to them by number."""

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from cpdb.records import NodeKind
from cpdb.schema import nodes, virtual_ips


def insert_ignore(connection: Connection, table: Table, rows: list[dict[str, object]]) -> None:
    """Inserts rows and passes over those that break a uniqueness rule: two processes may name the same thing."""
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


class Names:
    """Looks numbers up once and remembers them; unseen names are added. One instance per process and store."""

    def __init__(self) -> None:
        self._nodes: dict[str, int] = {}
        self._vips: dict[str, int] = {}

    def node_ids(self, connection: Connection, names: set[str]) -> dict[str, int]:
        """Number of each node name; unknown names become hosts."""
        missing = names - self._nodes.keys()
        if missing:
            fresh: list[dict[str, object]] = [{"name": name, "kind": NodeKind.HOST.value} for name in sorted(missing)]
            insert_ignore(connection, nodes, fresh)
            found = connection.execute(select(nodes.c.name, nodes.c.id).where(nodes.c.name.in_(missing)))
            self._nodes.update({row.name: row.id for row in found})
        return self._nodes

    def vip_ids(self, connection: Connection, addresses: set[str]) -> dict[str, int]:
        """Number of each virtual IP address; unknown addresses are kept as undeclared."""
        missing = addresses - self._vips.keys()
        if missing:
            fresh: list[dict[str, object]] = [
                {"address": address, "name": address, "priority": 0, "declared": False} for address in sorted(missing)
            ]
            insert_ignore(connection, virtual_ips, fresh)
            query = select(virtual_ips.c.address, virtual_ips.c.id).where(virtual_ips.c.address.in_(missing))
            self._vips.update({row.address: row.id for row in connection.execute(query)})
        return self._vips

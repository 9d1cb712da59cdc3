"""Numbers for names: nodes, virtual IPs and talks are stored once, rows refer to them by number.

Names are added in a transaction of their own, and remembered only after it: a number that a failed transaction took
back must never be used again.
"""

from array import array
from collections.abc import Collection, Iterable
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine, Select, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from cpdb.model import NodeKind
from cpdb.schema import nodes, talks, virtual_ips
from cpdb.telemetry.columns import Talk

TALK_QUERY = (
    select(talks.c.id, nodes.c.name, virtual_ips.c.address, talks.c.destination)
    .join(nodes, nodes.c.id == talks.c.source_id)
    .join(virtual_ips, virtual_ips.c.id == talks.c.virtual_ip_id)
)


def insert_ignore(connection: Connection, table: Table, rows: list[dict[str, object]]) -> None:
    """Inserts rows and passes over those that break a uniqueness rule: two processes may name the same thing."""
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


class Names:
    """Looks numbers up once and remembers them; unseen names are added. One instance per process and store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._nodes: dict[str, int] = {}
        self._vips: dict[str, int] = {}
        self._talks: dict[Talk, int] = {}
        self._by_number: dict[int, Talk] = {}

    def node_ids(self, names: Collection[str]) -> dict[str, int]:
        """Number of each node name; unknown names become hosts."""
        missing = set(names) - self._nodes.keys()
        fresh: list[dict[str, object]] = [{"name": name, "kind": NodeKind.HOST.value} for name in missing]
        return self._ids(self._nodes, nodes, "name", fresh)

    def vip_ids(self, addresses: Collection[str]) -> dict[str, int]:
        """Number of each virtual IP address; unknown addresses are kept as undeclared."""
        missing = set(addresses) - self._vips.keys()
        fresh: list[dict[str, object]] = [
            {"address": one, "name": one, "priority": 0, "declared": False} for one in missing
        ]
        return self._ids(self._vips, virtual_ips, "address", fresh)

    def _ids(self, known: dict[str, int], table: Table, key: str, fresh: list[dict[str, object]]) -> dict[str, int]:
        if fresh:
            with self._lock:
                with self._engine.begin() as connection:
                    insert_ignore(connection, table, sorted(fresh, key=lambda row: str(row[key])))
                    rows = connection.execute(select(table.c[key], table.c.id)).all()
                known.update((str(name), int(number)) for name, number in rows)
        return known

    def talk_ids(self, wanted: Iterable[Talk]) -> "array[int]":
        """Numbers of talks, in their order; unknown talks are added, with their node and virtual IP."""
        wanted = wanted if isinstance(wanted, (list, tuple)) else list(wanted)
        try:
            return array("I", map(self._talks.__getitem__, wanted))
        except KeyError:
            self._add_talks({talk for talk in wanted if talk not in self._talks})
            return array("I", map(self._talks.__getitem__, wanted))

    def _add_talks(self, missing: set[Talk]) -> None:
        sources = self.node_ids({talk.source for talk in missing})
        vips = self.vip_ids({talk.virtual_ip for talk in missing})
        fresh: list[dict[str, object]] = [
            {
                "source_id": sources[talk.source],
                "virtual_ip_id": vips[talk.virtual_ip],
                "destination": talk.destination or "",
            }
            for talk in sorted(missing, key=lambda talk: (talk.source, talk.virtual_ip, talk.destination or ""))
        ]
        with self._engine.begin() as connection:
            insert_ignore(connection, talks, fresh)
        self.talks()
        if missing - self._talks.keys():
            # A number may have been taken by an older transaction that ended only now.
            self._read_talks(TALK_QUERY)

    def talks(self) -> dict[int, Talk]:
        """All talks by number. The same dictionary each time; it only grows."""
        self._read_talks(TALK_QUERY.where(talks.c.id > max(self._by_number, default=0)))
        return self._by_number

    def _read_talks(self, query: Select[Any]) -> None:
        with self._lock, self._engine.connect() as connection:
            for number, source, address, destination in connection.execute(query.order_by(talks.c.id)):
                talk = Talk(source, address, destination or None)
                self._talks.setdefault(talk, number)
                self._by_number.setdefault(number, talk)

    def known_talk(self, number: int) -> Talk:
        """The talk with this number, read again when it is new."""
        found = self._by_number.get(number)
        if found is None:
            self._read_talks(TALK_QUERY)
            found = self._by_number[number]
        return found

"""Numbers for names: nodes, virtual IPs and flow keys are stored once, rows refer to them by number.

Names are added in a transaction of their own, and remembered only after it: a number that a failed transaction took
back must never be used again.
"""

from array import array
from collections.abc import Collection, Iterable
from threading import Lock
from typing import Any

from sqlalchemy import Engine, Select, Table, select

from cpdb.model import NodeKind
from cpdb.repository import insert_ignore
from cpdb.schema import flow_keys, nodes, virtual_ips
from cpdb.telemetry.columns import FlowKey

FLOW_KEY_QUERY = (
    select(flow_keys.c.id, nodes.c.name, virtual_ips.c.address, flow_keys.c.destination)
    .join(nodes, nodes.c.id == flow_keys.c.source_id)
    .join(virtual_ips, virtual_ips.c.id == flow_keys.c.virtual_ip_id)
)


class Names:
    """Looks numbers up once and remembers them; unseen names are added. One instance per process and store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._nodes: dict[str, int] = {}
        self._vips: dict[str, int] = {}
        self._flow_keys: dict[FlowKey, int] = {}
        self._by_number: dict[int, FlowKey] = {}

    def node_ids(self, names: Collection[str]) -> dict[str, int]:
        """Number of each node name; unknown names become hosts."""
        missing = set(names) - self._nodes.keys()
        fresh: list[dict[str, object]] = [{"name": name, "kind": NodeKind.HOST.value} for name in missing]
        return self._ids(self._nodes, nodes, "name", fresh)

    def vip_ids(self, addresses: Collection[str]) -> dict[str, int]:
        """Number of each virtual IP address; unknown addresses are kept as undeclared."""
        missing = set(addresses) - self._vips.keys()
        fresh: list[dict[str, object]] = [
            {"address": address, "name": address, "priority": 0, "declared": False} for address in missing
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

    def key_ids(self, wanted: Iterable[FlowKey]) -> "array[int]":
        """Numbers of flow keys, in their order; unknown flow keys are added, with their node and virtual IP."""
        wanted = wanted if isinstance(wanted, (list, tuple)) else list(wanted)
        try:
            return array("I", map(self._flow_keys.__getitem__, wanted))
        except KeyError:
            self._add_flow_keys({flow_key for flow_key in wanted if flow_key not in self._flow_keys})
            return array("I", map(self._flow_keys.__getitem__, wanted))

    def _add_flow_keys(self, missing: set[FlowKey]) -> None:
        sources = self.node_ids({flow_key.source for flow_key in missing})
        vips = self.vip_ids({flow_key.virtual_ip for flow_key in missing})
        fresh: list[dict[str, object]] = [
            {
                "source_id": sources[flow_key.source],
                "virtual_ip_id": vips[flow_key.virtual_ip],
                "destination": flow_key.destination or "",
            }
            for flow_key in sorted(
                missing, key=lambda flow_key: (flow_key.source, flow_key.virtual_ip, flow_key.destination or "")
            )
        ]
        with self._engine.begin() as connection:
            insert_ignore(connection, flow_keys, fresh)
        self.flow_keys()
        if missing - self._flow_keys.keys():
            # A number may have been taken by an older transaction that ended only now.
            self._read_flow_keys(FLOW_KEY_QUERY)

    def flow_keys(self) -> dict[int, FlowKey]:
        """All flow keys by number. The same dictionary each time; it only grows."""
        self._read_flow_keys(FLOW_KEY_QUERY.where(flow_keys.c.id > max(self._by_number, default=0)))
        return self._by_number

    def _read_flow_keys(self, query: Select[Any]) -> None:
        with self._lock, self._engine.connect() as connection:
            for number, source, address, destination in connection.execute(query.order_by(flow_keys.c.id)):
                flow_key = FlowKey(source, address, destination or None)
                self._flow_keys.setdefault(flow_key, number)
                self._by_number.setdefault(number, flow_key)

    def flow_key_of(self, number: int) -> FlowKey:
        """The flow key with this number, read again when it is new."""
        flow_key = self._by_number.get(number)
        if flow_key is None:
            self._read_flow_keys(FLOW_KEY_QUERY)
            flow_key = self._by_number[number]
        return flow_key

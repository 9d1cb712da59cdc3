"""What exists: nodes, links, virtual IPs and their alternative destinations."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from cpdb.engine import reported
from cpdb.model import Destination, Link, Node, NodeKind, Seconds, Standing, VirtualIp
from cpdb.schema import destination_changes, destinations, links, nodes, virtual_ips
from cpdb.state.wanted import next_generation
from cpdb.telemetry.names import Names


@dataclass(frozen=True, slots=True)
class DestinationChange:
    """One destination of a virtual IP as it is wanted now, whatever was declared of it."""

    virtual_ip: str
    name: str
    address: str
    mac: str
    weight: int
    standing: Standing
    owner: str
    reason: str
    changed_at: Seconds
    generation: int = 0


CHANGE_COLUMNS = [destination_changes.c[item.name] for item in fields(DestinationChange)]


def _same(virtual_ip: str, name: str) -> ColumnElement[bool]:
    return (destination_changes.c.virtual_ip == virtual_ip) & (destination_changes.c.name == name)


def effective(virtual_ips: Iterable[VirtualIp], changes: Sequence[DestinationChange]) -> list[VirtualIp]:
    """The declared virtual IPs with every change applied; changes of unknown virtual IPs are left out.

    Removed destinations are gone, new ones come after those declared.
    """
    return [replace(one, destinations=_changed(one, changes)) for one in virtual_ips]


def _changed(vip: VirtualIp, changes: Sequence[DestinationChange]) -> tuple[Destination, ...]:
    found = {one.name: one for one in vip.destinations}
    for change in changes:
        if change.virtual_ip == vip.address:
            place = (change.name, change.address, change.mac, change.weight, change.standing)
            found[change.name] = Destination(*place)
    return tuple(one for one in found.values() if one.standing is not Standing.REMOVED)


NODE_COLUMNS = [nodes.c[item.name] for item in fields(Node)]
DESTINATION_COLUMNS = [destinations.c[name] for name in ("name", "address", "mac", "weight")]
LINK_COLUMNS = [links.c[item.name] for item in fields(Link)]


class Inventory:
    """Declared by settings, confirmed and completed by the controller."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names

    def put_nodes(self, items: Iterable[Node]) -> None:
        """Adds or updates nodes by name; a field that is None leaves what is stored."""
        rows = {item.name: asdict(item) for item in items}
        with reported(self._engine, "writing nodes"):
            self._names.node_ids(rows)
        with reported(self._engine, "writing nodes"), self._engine.begin() as connection:
            for name, row in rows.items():
                known = {key: value for key, value in row.items() if value is not None and key != "name"}
                connection.execute(update(nodes).where(nodes.c.name == name).values(known))

    def nodes(self) -> list[Node]:
        """All nodes by name."""
        with reported(self._engine, "reading nodes"), self._engine.connect() as connection:
            rows = connection.execute(select(*NODE_COLUMNS).order_by(nodes.c.name))
            return [replace(Node(*row), kind=NodeKind(row.kind)) for row in rows]

    def put_links(self, items: Iterable[Link]) -> None:
        """Adds or updates links by their two ends, whichever is named first.

        A declared capacity stays when the same link is discovered without one.
        """
        with reported(self._engine, "writing links"), self._engine.begin() as connection:
            for item in items:
                self._put_link(connection, item if item.a <= item.b else _turned(item))

    def _put_link(self, connection: Connection, item: Link) -> None:
        same = (links.c.a == item.a) & (links.c.b == item.b)
        known = connection.execute(select(*LINK_COLUMNS).where(same)).first()
        if known is None:
            connection.execute(insert(links).values(asdict(item)))
            return
        merged = asdict(item) | {"declared": item.declared or known.declared}
        if known.declared and not item.declared:
            merged["capacity_bytes_per_s"] = known.capacity_bytes_per_s
        for port in ("a_port", "b_port"):
            merged[port] = merged[port] or getattr(known, port)
        connection.execute(update(links).where(same).values(merged))

    def links(self) -> list[Link]:
        """All links; `a` sorts before `b`."""
        with reported(self._engine, "reading links"), self._engine.connect() as connection:
            rows = connection.execute(select(*LINK_COLUMNS).order_by(links.c.a, links.c.b))
            return [Link(*row) for row in rows]

    def declare_virtual_ips(self, items: Sequence[VirtualIp]) -> None:
        """Makes the declared virtual IPs exactly these; ones no longer named become undeclared."""
        with reported(self._engine, "declaring virtual IPs"):
            ids = self._names.vip_ids({item.address for item in items})
        with reported(self._engine, "declaring virtual IPs"), self._engine.begin() as connection:
            connection.execute(update(virtual_ips).values(declared=False))
            connection.execute(delete(destinations))
            for item in items:
                number = ids[item.address]
                values: dict[str, Any] = {one: getattr(item, one) for one in ("name", "priority", "affinity", "probe")}
                values["declared"] = True
                connection.execute(update(virtual_ips).where(virtual_ips.c.id == number).values(values))
                for destination in item.destinations:
                    row = {one.name: getattr(destination, one.name) for one in DESTINATION_COLUMNS}
                    connection.execute(insert(destinations).values(row | {"virtual_ip_id": number}))

    def virtual_ips(self, declared_only: bool = False) -> list[VirtualIp]:
        """All virtual IPs by address, with their destinations in the order declared.

        As they are now, with what was changed at run time, unless `declared_only`.
        """
        found = self._declared()
        return found if declared_only else effective(found, self.changes())

    def _declared(self) -> list[VirtualIp]:
        with reported(self._engine, "reading virtual IPs"), self._engine.connect() as connection:
            behind: dict[int, list[Destination]] = {}
            query = select(destinations.c.virtual_ip_id, *DESTINATION_COLUMNS).order_by(destinations.c.id)
            for number, *rest in connection.execute(query):
                behind.setdefault(number, []).append(Destination(*rest))
            return [
                VirtualIp(
                    row.address, row.name, row.priority, tuple(behind.get(row.id, ())), row.declared,
                    row.affinity, row.probe,
                )
                for row in connection.execute(select(virtual_ips).order_by(virtual_ips.c.address))
            ]  # fmt: skip

    def put_change(self, item: DestinationChange) -> int:
        """Adds the change or replaces the one for the same destination; returns its generation."""
        row = {name.name: getattr(item, name.name) for name in fields(DestinationChange)}
        row["standing"] = item.standing.value
        with reported(self._engine, f"changing {item.name} of {item.virtual_ip}"), self._engine.begin() as connection:
            row["generation"] = next_generation(connection)
            connection.execute(delete(destination_changes).where(_same(item.virtual_ip, item.name)))
            connection.execute(insert(destination_changes).values(row))
            return int(row["generation"])

    def forget_change(self, virtual_ip: str, name: str) -> bool:
        """Withdraws a change, so that what was declared holds again; False when there was none."""
        with reported(self._engine, f"forgetting {name} of {virtual_ip}"), self._engine.begin() as connection:
            gone = connection.execute(delete(destination_changes).where(_same(virtual_ip, name))).rowcount > 0
            if gone:
                next_generation(connection)
            return gone

    def changes(self) -> list[DestinationChange]:
        """All changes, oldest first."""
        query = select(*CHANGE_COLUMNS).order_by(destination_changes.c.generation)
        with reported(self._engine, "reading changed destinations"), self._engine.connect() as connection:
            found = [DestinationChange(*row) for row in connection.execute(query)]
        return [replace(one, standing=Standing(one.standing)) for one in found]


def _turned(link: Link) -> Link:
    return replace(link, a=link.b, a_port=link.b_port, b=link.a, b_port=link.a_port)

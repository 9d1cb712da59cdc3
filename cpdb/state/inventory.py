"""What exists: nodes, links, virtual IPs and their alternative destinations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from cpdb.engine import reported
from cpdb.model import Destination, Link, Node, Seconds, Standing, VirtualIp
from cpdb.refusals import refusals_of
from cpdb.repository import Repository, codec_of, transaction
from cpdb.schema import destination_changes, destinations, links, nodes, virtual_ips
from cpdb.state.leases import Fence
from cpdb.state.wanted import WantedRepository
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


def effective(virtual_ips: Iterable[VirtualIp], changes: Sequence[DestinationChange]) -> list[VirtualIp]:
    """The declared virtual IPs with every change applied; changes of unknown virtual IPs are left out.

    Removed destinations are gone, new ones come after those declared.
    """
    own: dict[str, list[DestinationChange]] = {}
    for change in changes:
        own.setdefault(change.virtual_ip, []).append(change)
    return [
        replace(vip, destinations=_changed(vip, own[vip.address])) if vip.address in own else vip for vip in virtual_ips
    ]


def _changed(vip: VirtualIp, changes: Iterable[DestinationChange]) -> tuple[Destination, ...]:
    known = {destination.name: destination for destination in vip.destinations}
    for change in changes:
        place = (change.name, change.address, change.mac, change.weight, change.standing)
        known[change.name] = Destination(*place)
    return tuple(item for item in known.values() if item.standing is not Standing.REMOVED)


VIRTUAL_IP_COLUMNS = ("name", "priority", "affinity", "probe")
VIRTUAL_IP_ROW = [
    virtual_ips.c[name] for name in ("id", "address", "name", "priority", "declared", "affinity", "probe")
]
DESTINATION_COLUMNS = [destinations.c[name] for name in ("name", "address", "mac", "weight")]


class Inventory:
    """Declared by settings, confirmed and completed by the controller."""

    def __init__(self, engine: Engine, names: Names, fence: Fence = Fence()) -> None:
        self._engine = engine
        self._names = names
        self._refusals = refusals_of(engine)
        self._kept: tuple[list[Any], list[VirtualIp]] = [], []
        self._nodes = Repository(engine, nodes, Node)
        self._links = Repository(engine, links, Link)
        self._changes = WantedRepository(engine, destination_changes, DestinationChange, fence)

    def fenced(self, fence: Fence) -> "Inventory":
        """The same for one who acts in a tenure: once that is over, changing a destination raises StoreRefused."""
        return Inventory(self._engine, self._names, fence)

    def put_nodes(self, items: Iterable[Node]) -> None:
        """Adds or updates nodes by name; a field that is None leaves what is stored."""
        self._refusals.write_apart("node", self._put_nodes, list(items))

    def _put_nodes(self, items: Sequence[Node]) -> None:
        rows = {item.name: codec_of(Node).encode(item) for item in items}
        with reported(self._engine, "writing nodes"):
            self._names.node_ids(rows)
        with transaction(self._engine, "writing nodes") as connection:
            for name, row in rows.items():
                known = {key: value for key, value in row.items() if value is not None and key != "name"}
                self._nodes.change(known, nodes.c.name == name, within=connection)

    def nodes(self) -> list[Node]:
        """All nodes by name."""
        return self._nodes.read_again(order_by=[nodes.c.name])

    def put_links(self, items: Iterable[Link]) -> None:
        """Adds or updates links by their two ends, whichever is named first.

        A declared capacity stays when the same link is discovered without one.
        """
        self._refusals.write_apart("link", self._put_links, list(items))

    def _put_links(self, items: Sequence[Link]) -> None:
        with transaction(self._engine, "writing links") as connection:
            for item in items:
                self._put_link(connection, item if item.a <= item.b else _turned(item))

    def _put_link(self, connection: Connection, item: Link) -> None:
        same = (links.c.a == item.a) & (links.c.b == item.b)
        known = self._links.read_first(same, within=connection)
        if known is None:
            self._links.add(item, within=connection)
        else:
            self._links.amend(_completed(item, known), same, within=connection)

    def links(self) -> list[Link]:
        """All links; `a` sorts before `b`."""
        return self._links.read_again(order_by=[links.c.a, links.c.b])

    def declare_virtual_ips(self, items: Sequence[VirtualIp]) -> None:
        """Makes the declared virtual IPs exactly these; ones no longer named become undeclared."""
        with reported(self._engine, "declaring virtual IPs"):
            ids = self._names.vip_ids({item.address for item in items})
        with reported(self._engine, "declaring virtual IPs"), self._engine.begin() as connection:
            connection.execute(update(virtual_ips).values(declared=False))
            connection.execute(delete(destinations))
            for item in items:
                number = ids[item.address]
                values: dict[str, Any] = {key: getattr(item, key) for key in VIRTUAL_IP_COLUMNS}
                values["declared"] = True
                with self._refusals.aside(connection, f"virtual IP {item.name}"):
                    connection.execute(update(virtual_ips).where(virtual_ips.c.id == number).values(values))
                for destination in item.destinations:
                    row = {column.name: getattr(destination, column.name) for column in DESTINATION_COLUMNS}
                    with self._refusals.aside(connection, f"destination {destination.name} of {item.address}"):
                        connection.execute(insert(destinations).values(row | {"virtual_ip_id": number}))

    def virtual_ips(self, declared_only: bool = False) -> list[VirtualIp]:
        """All virtual IPs by address, with their destinations in the order declared.

        As they are now, with what was changed at run time, unless `declared_only`.
        """
        declared = self._declared()
        return declared if declared_only else effective(declared, self.changes())

    def _declared(self) -> list[VirtualIp]:
        behind = select(destinations.c.virtual_ip_id, *DESTINATION_COLUMNS).order_by(destinations.c.id)
        order = virtual_ips.c.address
        with reported(self._engine, "reading virtual IPs"), self._engine.connect() as connection:
            rows = [connection.execute(query).all() for query in (behind, select(*VIRTUAL_IP_ROW).order_by(order))]
        kept = self._kept
        if rows != kept[0]:
            kept = self._kept = rows, _virtual_ips(*rows)
        return [*kept[1]]

    def put_change(self, item: DestinationChange) -> int:
        """Adds the change or replaces the one for the same destination; returns its generation."""
        return self._changes.put([item])

    def forget_change(self, virtual_ip: str, name: str) -> bool:
        """Withdraws a change, so that what was declared holds again; False when there was none."""
        table = destination_changes
        return self._changes.withdraw(table.c.virtual_ip == virtual_ip, table.c.name == name)

    def changes(self) -> list[DestinationChange]:
        """All changes, oldest first."""
        return self._changes.read(order_by=[destination_changes.c.generation])


def _virtual_ips(behind: Iterable[Any], rows: Iterable[Any]) -> list[VirtualIp]:
    by_vip: dict[int, list[Destination]] = {}
    for number, *destination in behind:
        by_vip.setdefault(number, []).append(Destination(*destination))
    return [
        VirtualIp(address, name, priority, tuple(by_vip.get(number, ())), *rest)
        for number, address, name, priority, *rest in rows
    ]


def _turned(link: Link) -> Link:
    return replace(link, a=link.b, a_port=link.b_port, b=link.a, b_port=link.a_port)


def _completed(item: Link, known: Link) -> Link:
    """The newer word on a link, with what only the older one knew."""
    item = replace(item, a_port=item.a_port or known.a_port, b_port=item.b_port or known.b_port)
    if known.declared and not item.declared:
        return replace(item, capacity_bytes_per_s=known.capacity_bytes_per_s, declared=True)
    return item

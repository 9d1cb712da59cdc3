"""What people and the orchestrator add to the declared virtual IPs while the system runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from sqlalchemy import ColumnElement, Engine, delete, insert, select

from cpdb.change_schema import destination_changes
from cpdb.engine import reported
from cpdb.records import Destination, Seconds, Standing, VirtualIp
from cpdb.wanted import next_generation


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


COLUMNS = [destination_changes.c[item.name] for item in fields(DestinationChange)]


class Destinations:
    """Changes by (virtual IP, name); what no change names is as declared."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, item: DestinationChange) -> int:
        """Adds the change or replaces the one for the same destination; returns its generation."""
        row = {name.name: getattr(item, name.name) for name in fields(DestinationChange)}
        row["standing"] = item.standing.value
        with reported(self._engine, f"changing {item.name} of {item.virtual_ip}"), self._engine.begin() as connection:
            row["generation"] = next_generation(connection)
            connection.execute(delete(destination_changes).where(_same(item.virtual_ip, item.name)))
            connection.execute(insert(destination_changes).values(row))
            return int(row["generation"])

    def forget(self, virtual_ip: str, name: str) -> bool:
        """Withdraws a change, so that what was declared holds again; False when there was none."""
        with reported(self._engine, f"forgetting {name} of {virtual_ip}"), self._engine.begin() as connection:
            gone = connection.execute(delete(destination_changes).where(_same(virtual_ip, name))).rowcount > 0
            if gone:
                next_generation(connection)
            return gone

    def changes(self) -> list[DestinationChange]:
        """All changes, oldest first."""
        query = select(*COLUMNS).order_by(destination_changes.c.generation)
        with reported(self._engine, "reading changed destinations"), self._engine.connect() as connection:
            found = [DestinationChange(*row) for row in connection.execute(query)]
        return [replace(one, standing=Standing(one.standing)) for one in found]


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

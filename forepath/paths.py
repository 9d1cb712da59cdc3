"""Finds the path a pair's traffic takes: the same pure function as the controller's, fed from the database."""

from dataclasses import dataclass

from cpdb import SettingsError, Store, VirtualIP
from forepath.views import RECENT_S
from ryu_apps import Topology


@dataclass(frozen=True, slots=True)
class PathFinder:
    """A snapshot of the topology and the virtual IPs."""

    store: Store
    topology: Topology
    services: tuple[VirtualIP, ...]

    @classmethod
    def of(cls, store: Store) -> "PathFinder":
        """Reads nodes, links and virtual IPs once."""
        inventory = store.inventory
        return cls(store, Topology.of(inventory.nodes(), inventory.links()), tuple(inventory.virtual_ips()))

    def path(self, source: str, destination: str) -> tuple[str, ...]:
        """Names of the nodes from source to destination, both included; empty when there is no way.

        A virtual IP stands for its heaviest destination: a pair that has yet to speak has not been given one.
        """
        service = self._service(destination)
        if service is not None and service.destinations:
            destination = _heaviest(service)
        return self.topology.path(source, destination)

    def to_service(self, source: str, to: str, now: float) -> tuple[str, ...]:
        """The path to a virtual IP's chosen destination (or to a node). Raises SettingsError when there is none."""
        destination = self._destination(source, to, now)
        hops = self.path(source, destination)
        if not hops:
            known = ", ".join(node.name for node in self.store.inventory.nodes())
            raise SettingsError(f"no path from {source!r} to {destination!r}; nodes known: {known or 'none'}")
        return hops

    def _destination(self, source: str, to: str, now: float) -> str:
        service = self._service(to)
        if service is None or not service.destinations:
            return to
        spoke = [
            row.destination
            for row in self.store.facts.communications(now - RECENT_S, now)
            if row.destination and row.source == source and row.virtual_ip == service.address
        ]
        return spoke[-1] if spoke else _heaviest(service)

    def _service(self, name: str) -> VirtualIP | None:
        return next((one for one in self.services if name in (one.name, one.address)), None)


def _heaviest(service: VirtualIP) -> str:
    return max(service.destinations, key=lambda one: one.weight).name

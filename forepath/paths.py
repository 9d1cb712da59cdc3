"""Finds the path a pair's traffic takes, now or at a moment ahead, with the controller's own functions.

What may change until then: destination weights that are wanted already, and machines that are on their way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cpdb import OutcomeKind, SettingsError, Store, VirtualIp
from forepath.services import as_for_new, health_of
from ryu_apps import Lane, Routed, Topology, choose, lanes, weighted

# A pair keeps its destination while it speaks; after so much silence it is chosen anew (`idle_s` of the controller).
KEEPS_S = 60.0
# Nothing that is under way takes longer than this.
UNDER_WAY_S = 600.0


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the paths that traffic between two switches is split over, its share, and whether this pair takes it."""

    hops: tuple[str, ...]
    share: float
    tag: int
    taken: bool


@dataclass(frozen=True, slots=True)
class Way:
    """Names of the nodes from source to destination, both included, and why the traffic goes there.

    `split`: the paths to choose from; empty where traffic goes the shortest way.
    """

    hops: tuple[str, ...]
    because: tuple[str, ...]
    split: tuple[Choice, ...] = ()


def routed(store: Store, now: float) -> Routed:
    """Paths as they are now: the topology, and the splits in force on it."""
    nodes = store.inventory.nodes()
    topology = Topology.of(nodes, store.inventory.links())
    return Routed(topology, lanes(store.splits.all(), topology, now), {node.name: node.address for node in nodes})


@dataclass(frozen=True, slots=True)
class PathFinder:
    """A snapshot of the topology and the virtual IPs; `moved` names machines that will be on another host by then."""

    store: Store
    ways: Routed
    services: tuple[VirtualIp, ...]
    moved: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, now: float = 0.0, at_s: float = 0.0) -> "PathFinder":
        """Reads nodes, links, virtual IPs and what is under way once, as it will be `at_s` seconds after `now`."""
        inventory, wanted = store.inventory, store.wanted.weights()
        health = health_of(store)
        services = tuple(as_for_new(weighted(one, wanted), health) for one in inventory.virtual_ips())
        return cls(store, routed(store, now + at_s), services, _moved(store, now, now + at_s))

    @property
    def addresses(self) -> Mapping[str, str | None]:
        """Addresses of all nodes by name."""
        return self.ways.addresses

    def path(self, source: str, destination: str) -> tuple[str, ...]:
        """Names of the nodes from source to destination, both included; empty when there is no way.

        A virtual IP stands for the destination that the controller would choose for this source.
        """
        service = self._service(destination)
        chosen = destination if service is None else self._chosen(source, service)
        return self._to(source, chosen) if chosen else ()

    def to_service(self, source: str, to: str, now: float) -> Way:
        """The path to the destination of a pair (or to a node). Raises SettingsError when there is none."""
        destination, why = self._destination(source, to, now)
        hops = self._to(source, destination)
        if not hops:
            known = ", ".join(self.addresses)
            raise SettingsError(f"no path from {source!r} to {destination!r}; nodes known: {known or 'none'}")
        if destination in self.moved:
            why = (*why, f"{destination} is moving to {self.moved[destination]} and expected there by then")
        return Way(hops, why, self._split(hops))

    def _split(self, hops: tuple[str, ...]) -> tuple[Choice, ...]:
        ends = self.ways.ends(hops)
        own: tuple[Lane, ...] = self.ways.lanes.get(ends, ()) if ends else ()
        inside = tuple(node for node in hops if node in self.ways.topology.switches)
        return tuple(Choice(one.hops, one.ratio, one.tag, one.hops == inside) for one in own)

    def _to(self, source: str, destination: str) -> tuple[str, ...]:
        host = self.moved.get(destination)
        if host is None:
            return self.ways.path(source, destination)
        hops = self.ways.path(source, host)
        return (*hops, destination) if hops else ()

    def _destination(self, source: str, to: str, now: float) -> tuple[str, tuple[str, ...]]:
        service = self._service(to)
        if service is None:
            return to, ()
        by_connection = service.affinity == "connection"
        spoken = None if by_connection else self._spoken(source, service, now)
        if spoken is not None:
            return spoken, (f"{source} speaks with {spoken} and keeps it",)
        chosen = self._chosen(source, service)
        shares = ", ".join(f"{one.name} {one.weight}" for one in service.destinations)
        if chosen is None:
            raise SettingsError(f"{service.name}: no destination has a weight above 0 ({shares or 'none declared'})")
        if by_connection:
            return chosen, (f"each connection is placed by itself, by the weights ({shares}); most go to {chosen}",)
        return chosen, (f"{source} has been silent; by the weights ({shares}) it will be sent to {chosen}",)

    def _chosen(self, source: str, service: VirtualIp) -> str | None:
        if service.affinity == "connection":
            most = max(service.destinations, key=lambda one: (one.weight, one.name), default=None)
            return most.name if most and most.weight else None
        address = self.addresses.get(source) or source
        found = choose(address, service.address, service.destinations)
        return found.name if found else None

    def _spoken(self, source: str, service: VirtualIp, now: float) -> str | None:
        """The declared destination that the pair spoke with lately, None after long silence."""
        facts = self.store.facts
        own = {
            number: talk.destination
            for number, talk in facts.talks().items()
            if talk.source == source and talk.virtual_ip == service.address
        }
        declared = {one.name for one in service.destinations}
        for batch in sorted(facts.batches(0, now - KEEPS_S, now), key=lambda one: -one.t) if own else ():
            for number, packets in zip(batch.talk_ids, batch.packets, strict=True):
                destination = own.get(number) if packets else None
                if destination in declared:
                    return destination
        return None

    def _service(self, name: str) -> VirtualIp | None:
        return next((one for one in self.services if name in (one.name, one.address)), None)


def _moved(store: Store, now: float, then: float) -> dict[str, str]:
    """Machines that are being migrated and, by their lead time, will have arrived by `then`, with their new hosts."""
    return {
        one.target: str(one.body["to"])
        for one in reversed(store.journal.actions(since=now - UNDER_WAY_S))
        if one.kind == "migrate_vm" and one.outcome is OutcomeKind.PENDING and one.issued_at + one.lead_s <= then
    }

"""What others have written into the database, as one immutable record: names, links, virtual IPs, reservations."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cpdb import Link, MachineReport, Node, Reservation, Store, VirtualIp, WantedSplit, WantedWeights

Seconds = float


@dataclass(frozen=True, slots=True)
class Declared:
    """One reading of inventory and wanted state. Virtual IPs carry the weights that are wanted now."""

    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()
    virtual_ips: Mapping[str, VirtualIp] = field(default_factory=dict)
    reservations: tuple[Reservation, ...] = ()
    splits: tuple[WantedSplit, ...] = ()
    # Machines as their hypervisors told of them last
    machines: tuple[MachineReport, ...] = ()
    # As they were when `virtual_ips` was made of them
    weights: tuple[WantedWeights, ...] = ()
    # Of reservations and splits, None before they were read
    generation: int | None = None


def read_declared(store: Store, now: Seconds, before: Declared | None = None) -> Declared:
    """Reads everything the controller needs, entries only when they changed since `before`; raises StoreError."""
    names = replace(before or Declared(), nodes=tuple(store.inventory.nodes()), links=tuple(store.inventory.links()))
    return read_wanted(store, names, now)


def read_wanted(store: Store, before: Declared, now: Seconds) -> Declared:
    """Reads what is wanted, with the nodes and links of an earlier reading; raises StoreError."""
    # Before the rows: what is written meanwhile is read once more.
    generation = store.wanted.generation()
    weights = tuple(store.wanted.weights())
    wanted = {item.virtual_ip: item.weights for item in weights}
    virtual_ips = {
        one.address: one.with_weights(wanted.get(one.address, {}))
        for one in store.inventory.virtual_ips()
        if one.declared and one.destinations
    }
    machines = tuple(store.wanted.observed_of(MachineReport))
    if generation == before.generation:
        return replace(before, virtual_ips=virtual_ips, weights=weights, machines=machines)
    reservations, splits = tuple(store.wanted.reservations(now)), tuple(store.wanted.splits())
    found = replace(before, virtual_ips=virtual_ips, weights=weights, generation=generation, machines=machines)
    return replace(found, reservations=reservations, splits=splits)

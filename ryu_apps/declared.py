"""What others have written into the database, as one immutable picture: names, links, virtual IPs, wishes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cpdb import Link, Node, NodeKind, Reservation, Store, VirtualIp, WantedSplit, WantedWeights
from ryu_apps.rules import PortId

Seconds = float


@dataclass(frozen=True, slots=True)
class Declared:
    """One reading of inventory and wanted state. Virtual IPs carry the weights that are wanted now."""

    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()
    virtual_ips: Mapping[str, VirtualIp] = field(default_factory=dict)
    reservations: tuple[Reservation, ...] = ()
    splits: tuple[WantedSplit, ...] = ()
    # As they were when `virtual_ips` was made of them
    weights: tuple[WantedWeights, ...] = ()
    # Of reservations and splits, None before they were read
    generation: int | None = None


def read_declared(store: Store, now: Seconds, before: Declared | None = None) -> Declared:
    """Reads everything the controller needs, wishes only when they changed since `before`; raises StoreError."""
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
    if generation == before.generation:
        return replace(before, virtual_ips=virtual_ips, weights=weights)
    reservations, splits = tuple(store.wanted.reservations(now)), tuple(store.wanted.splits())
    found = replace(before, virtual_ips=virtual_ips, weights=weights, generation=generation)
    return replace(found, reservations=reservations, splits=splits)


class Directory:
    """Names of switches, ports and addresses. What nobody named is called by its number or address."""

    def __init__(self, declared: Declared) -> None:
        self._switches = {
            node.dpid: node.name for node in declared.nodes if node.kind is NodeKind.SWITCH and node.dpid is not None
        }
        self._dpids = {name: dpid for dpid, name in self._switches.items()}
        others = [node for node in declared.nodes if node.kind is not NodeKind.SWITCH]
        self._by_address = {node.address: node for node in others if node.address and node.name != node.address}
        self._by_mac = {node.mac: node for node in others if node.mac and node.name not in (node.mac, node.address)}
        self._by_name = {node.name: node for node in others}

    def switch(self, dpid: int) -> str:
        """Name of a switch."""
        return self._switches.get(dpid) or f"dpid:{dpid:016x}"

    def dpid(self, switch: str) -> int | None:
        """The inverse of `switch`; None for a name that is no switch's."""
        if switch in self._dpids:
            return self._dpids[switch]
        return int(switch[5:], 16) if switch.startswith("dpid:") else None

    def host(self, address: str | None, mac: str | None = None) -> str:
        """Name of the node with that address or MAC, else the address or MAC itself."""
        node = self._by_address.get(address or "") or self._by_mac.get(mac or "")
        return node.name if node else address or mac or "unknown"

    def kind(self, name: str) -> NodeKind:
        """What a named node is; HOST when nobody said."""
        node = self._by_name.get(name)
        return node.kind if node else NodeKind.HOST

    def address(self, name: str) -> str | None:
        """The declared address of a node."""
        node = self._by_name.get(name)
        return node.address if node else None

    def wiring(self, links: tuple[Link, ...]) -> tuple[dict[PortId, PortId], dict[PortId, str]]:
        """Declared links: switch port to switch port (both ways), and switch port to the machine behind it.

        Discovered links in the database are skipped: they are what this controller wrote itself.
        """
        between: dict[PortId, PortId] = {}
        machines: dict[PortId, str] = {}
        for link in links:
            if not link.declared:
                continue
            a, b = self._dpids.get(link.a), self._dpids.get(link.b)
            if a is not None and b is not None and link.a_port and link.b_port:
                between[PortId(a, link.a_port)] = PortId(b, link.b_port)
                between[PortId(b, link.b_port)] = PortId(a, link.a_port)
            elif a is not None and b is None and link.a_port:
                machines[PortId(a, link.a_port)] = link.b
            elif b is not None and a is None and link.b_port:
                machines[PortId(b, link.b_port)] = link.a
        return between, machines

"""The declared network by numbers: links in each direction, and ways over them as the controller sends them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from backtest.whatif.records import Flags, Floats, ReplayScene
from backtest.whatif.shares import Crossings, Places
from cpdb import Link, Node, NodeKind, Seconds, WantedSplit
from ryu_apps import Routed, Topology, find_split_paths

# Ends of links for which no port is declared get numbers that nobody has.
FIRST_FREE_PORT = 1 << 15


@dataclass(frozen=True, slots=True)
class FlowTable:
    """What goes where: of the pair `pairs[i]` the share `shares[i]`, to the machine `vms[i]`, over its crossings.

    `reached` is False where no way leads, or nobody is there to answer.
    """

    pairs: Places
    vms: Places
    shares: Floats
    reached: Flags
    crossings: Crossings


class Wiring:
    """Nodes and links of a scene. Directions of links are numbered: `names`, `capacities` (bytes/s), `switched`.

    `switched` says which leave a switch: what nobody counts is not measured.
    """

    def __init__(self, scene: ReplayScene) -> None:
        switches = {node.name for node in scene.nodes if node.kind is NodeKind.SWITCH}
        self.links = tuple(_with_ports(link, number, switches) for number, link in enumerate(scene.links))
        ends = [end for link in self.links for end in ((link.a, link.b), (link.b, link.a))]
        self.number_of = {end: number for number, end in enumerate(ends)}
        self.names = tuple(f"{a}>{b}" for a, b in ends)
        self.ends = tuple(ends)
        rates = [np.inf if link.capacity_bytes_per_s is None else link.capacity_bytes_per_s for link in self.links]
        self.capacities: Floats = np.repeat(np.array(rates, dtype=np.float64), 2)
        self.switched: Flags = np.array([a in switches for a, _ in ends], dtype=bool)
        self._nodes = {node.name: node for node in scene.nodes}
        self._place_of = dict(_places(self.links, switches))
        services = [one for vip in scene.virtual_ips for one in vip.destinations]
        self._addresses = {one.name: one for one in services}

    def nodes(self, host_of: Mapping[str, str], lost: Collection[str] = ()) -> list[Node]:
        """All nodes, machines where their hosts are plugged in, as far as that link is not lost."""
        machines = [self._machine(name, host, lost) for name, host in host_of.items()]
        return [*self._nodes.values(), *machines]

    def _machine(self, name: str, host: str, lost: Collection[str]) -> Node:
        node, known = self._nodes.get(name, Node(name, NodeKind.VM)), self._addresses.get(name)
        if known is not None and node.address is None:
            node = replace(node, address=known.address, mac=known.mac)
        place = self._place_of.get(host)
        if place is None or _is_lost(place, lost):
            return node
        return replace(node, attached_to=place.a, port=place.a_port)

    def routed(
        self, host_of: Mapping[str, str], lost: Collection[str], splits: Iterable[WantedSplit], now: Seconds
    ) -> Routed:
        """Paths as the controller would install them while the links `lost` (`a>b`, either way round) are down."""
        nodes = {node.name: node for node in self.nodes(host_of, lost)}
        topology = Topology.of(nodes.values(), self.links_now(lost))
        addresses = {name: node.address for name, node in nodes.items()}
        return Routed(topology, find_split_paths(splits, topology, now), addresses)

    def links_now(self, lost: Collection[str]) -> list[Link]:
        """All links, those that are lost marked as down."""
        return [replace(link, up=not _is_lost(link, lost)) for link in self.links]

    def hops(self, nodes: Iterable[str]) -> tuple[int, ...]:
        """Numbers of the declared links on a path; what lies inside a host is no link."""
        return tuple(self.number_of[hop] for hop in pairwise(nodes) if hop in self.number_of)

    def narrowest(self, nodes: Iterable[str]) -> float:
        """Capacity of the narrowest link on a path, bytes/s; inf where it crosses none."""
        return float(min((self.capacities[number] for number in self.hops(nodes)), default=np.inf))


def _is_lost(link: Link, lost: Collection[str]) -> bool:
    return f"{link.a}>{link.b}" in lost or f"{link.b}>{link.a}" in lost


def _with_ports(link: Link, number: int, switches: Collection[str]) -> Link:
    a_port, b_port = (
        port or (FIRST_FREE_PORT + 2 * number + end if name in switches else 0)
        for end, (name, port) in enumerate(((link.a, link.a_port), (link.b, link.b_port)))
    )
    return replace(link, a_port=a_port, b_port=b_port)


def _places(links: Iterable[Link], switches: Collection[str]) -> Iterable[tuple[str, Link]]:
    """Where each node that is no switch is plugged in: as a link whose `a` is that switch."""
    for link in links:
        if link.a in switches and link.b not in switches:
            yield link.b, link
        elif link.b in switches and link.a not in switches:
            yield link.a, Link(link.b, link.b_port, link.a, link.a_port, link.capacity_bytes_per_s)

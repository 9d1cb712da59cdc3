"""Paths through the network: one pure function for the controller that installs them and all who ask about them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from cpdb import Link, Node, NodeKind

# A switch without a controller still forwards, but its rules cannot be changed: used only where nothing else leads on.
DETOUR = 1000


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where a node that is no switch is plugged in. `via` is the machine in between, e.g. a VM's hypervisor."""

    switch: str
    port: int
    via: str | None = None


class Topology:
    """An immutable picture of switches, links and attached nodes, all by name."""

    def __init__(
        self, links: Iterable[Link], attached: Mapping[str, Attachment], avoid: frozenset[str] = frozenset()
    ) -> None:
        """`links` join switches (down ones are left out); `avoid` names switches to go round where possible."""
        from networkx import Graph  # only here: most commands look for no path

        self._attached = dict(attached)
        self._graph: Any = Graph()
        self._next_hops: dict[str, dict[str, str]] = {}
        self._spare_hops: dict[str, dict[str, str]] = {}
        for link in sorted(links, key=lambda one: (one.a, one.b, one.a_port, one.b_port)):
            if link.up and not self._graph.has_edge(link.a, link.b):
                cost = DETOUR if {link.a, link.b} & avoid else 1
                self._graph.add_edge(link.a, link.b, cost=cost, ports={link.a: link.a_port, link.b: link.b_port})
        self._graph.add_nodes_from(one.switch for one in self._attached.values())

    @classmethod
    def of(cls, nodes: Iterable[Node], links: Iterable[Link]) -> "Topology":
        """From the inventory's records: what a node's row says of its place comes before declared links."""
        nodes = list(nodes)
        switches = {node.name for node in nodes if node.kind is NodeKind.SWITCH}
        between, attached = [], {}
        for link in links:
            if link.a in switches and link.b in switches:
                between.append(link)
            elif link.a in switches and link.up:
                attached[link.b] = Attachment(link.a, link.a_port)
            elif link.b in switches and link.up:
                attached[link.a] = Attachment(link.b, link.b_port)
        behind = {(one.switch, one.port): name for name, one in attached.items() if one.port}
        for node in nodes:
            if node.attached_to in switches and node.port is not None:
                machine = behind.get((node.attached_to, node.port))
                via = machine if machine != node.name else None
                attached[node.name] = Attachment(node.attached_to, node.port, via)
        return cls(between, attached)

    @property
    def switches(self) -> frozenset[str]:
        """Names of all switches that have a link or a node."""
        return frozenset(self._graph.nodes)

    def next_hops(self, destination: str) -> Mapping[str, str]:
        """For each switch that can reach the switch `destination`: the next switch on the way.

        Each hop is strictly nearer, so following them never loops. Among equals the choice is a stable hash of
        (switch, destination, neighbour): it spreads destinations and moves few of them when a link comes or goes.
        """
        if destination not in self._next_hops:
            self._next_hops[destination] = self._tree(destination)
        return self._next_hops[destination]

    def _tree(self, destination: str) -> dict[str, str]:
        distance = self._distances(destination)
        return {
            switch: min(
                (
                    neighbour
                    for neighbour, edge in self._graph[switch].items()
                    if distance[neighbour] + edge["cost"] == far
                ),
                key=lambda neighbour: _rank(switch, destination, neighbour),
            )
            for switch, far in distance.items()
            if switch != destination
        }

    def spare_hops(self, destination: str) -> Mapping[str, str]:
        """For each switch that has one: the neighbour to which it may turn by itself when its next hop is cut off.

        All switches stand in one order of (distance to `destination`, rank), and a spare stands before the switch that
        turns to it, as every next hop does. So whatever fails, and whoever has turned, no packet ever comes back to
        where it was. Each is a loop-free alternate (RFC 5286); those that could loop when more fails are not used.
        """
        if destination not in self._spare_hops:
            self._spare_hops[destination] = self._spares(destination)
        return self._spare_hops[destination]

    def _spares(self, destination: str) -> dict[str, str]:
        hops, distance = self.next_hops(destination), self._distances(destination)
        place = {switch: (far, _rank(destination, switch)) for switch, far in distance.items()}
        found = {}
        for switch, first in hops.items():
            others = {
                neighbour: distance[neighbour] + edge["cost"]
                for neighbour, edge in self._graph[switch].items()
                if neighbour != first and place[neighbour] < place[switch]
            }
            if others:
                found[switch] = min(others, key=lambda one: (others[one], _rank(switch, destination, one)))
        return found

    def _distances(self, destination: str) -> dict[str, float]:
        if destination not in self._graph:
            return {}
        from networkx import single_source_dijkstra_path_length

        return dict(single_source_dijkstra_path_length(self._graph, destination, weight="cost"))

    def port(self, switch: str, neighbour: str) -> int:
        """Port of `switch` that leads to the neighbouring switch. KeyError when they are not joined."""
        return int(self._graph[switch][neighbour]["ports"][switch])

    def path(self, source: str, destination: str) -> tuple[str, ...]:
        """Names of all nodes from `source` to `destination`, both included; empty when there is no way.

        Either end may be a switch or an attached node; a machine in between (hypervisor) is on the path.
        """
        start, end = self._ways_in(source), self._ways_in(destination)
        if start is None or end is None:
            return ()
        head, first = start
        tail, last = end
        if head[1:] and head[1:] == tail[1:]:
            # Behind the same machine: its own bridge joins them, the network never sees it.
            return (source, head[1], destination)
        hops = self.next_hops(last)
        middle = [first]
        while middle[-1] != last:
            if middle[-1] not in hops:
                return ()
            middle.append(hops[middle[-1]])
        return (*head, *middle, *reversed(tail))

    def _ways_in(self, node: str) -> tuple[tuple[str, ...], str] | None:
        if node in self._graph:
            return (), node
        place = self._attached.get(node)
        if place is None:
            return None
        return ((node,) if place.via is None else (node, place.via)), place.switch


def _rank(*names: str) -> bytes:
    return blake2b("|".join(names).encode(), digest_size=8).digest()

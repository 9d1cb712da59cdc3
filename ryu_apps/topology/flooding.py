"""Where group frames go: along a spanning tree of the network, and out of every port that may have hosts behind it.

The switches carry them by themselves, so what circled would circle at their speed: no port is opened before every
switch has had time to close those that the last change has closed. A tree is kept as long as its links are up.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ryu_apps.rules import Kind, PortId, Rule, kind_of
from ryu_apps.topology.links import SETTLE_S
from ryu_apps.topology.state import TopologyState

Seconds = float

# Flow mods reach the switches within milliseconds; a tick later (0.5 s) the tree is whole again, less than 1 s in all.
CLOSING_S = 0.3
# A controller that starts goes on with the tree that switches hold; they come one after the other.
JOINING_S = 2.0

Ends = frozenset[PortId]


@dataclass(frozen=True, slots=True)
class FloodPorts:
    """The ports of one switch that group frames take: to other switches along the tree, and to hosts."""

    links: tuple[int, ...] = ()
    edges: tuple[int, ...] = ()


@dataclass(slots=True)
class FloodTree:
    """The tree in force; `revision` changes with the ports of any switch. `limit_kbit_s` is for each host port."""

    limit_kbit_s: int | None = None
    revision: int = 0
    _open: frozenset[Ends] = frozenset()
    _ports: dict[int, FloodPorts] = field(default_factory=dict)
    _made_from: int = -1
    _due: Seconds = float("-inf")
    _opens_at: Seconds = float("-inf")
    _joined: frozenset[int] = frozenset()
    # Ports that an earlier controller had opened
    _held: set[PortId] = field(default_factory=set)

    def ports(self, dpid: int) -> FloodPorts:
        """What group frames take at a switch."""
        return self._ports.get(dpid, FloodPorts())

    def adopt(self, dpid: int, rules: Iterable[Rule]) -> None:
        """Goes on with what a switch holds of an earlier controller's tree."""
        ports = (rule.match.in_port for rule in rules if kind_of(rule.cookie) is Kind.FLOOD)
        self._held |= {PortId(dpid, port) for port in ports if port is not None}
        self._made_from = -1

    def follow(self, topology: TopologyState, now: Seconds) -> None:
        """Follows what is known of links and ports; nothing is computed without news."""
        if topology.links_revision == self._made_from and now < self._due:
            return
        self._made_from = topology.links_revision
        up = {frozenset((a, b)) for a, b, is_up in topology.links.links() if is_up}
        if lost := self._open - up:
            self._opens_at = max(self._opens_at, now + CLOSING_S)
            self._held -= {at for ends in lost for at in ends}
        if topology.connected - self._joined:
            self._opens_at = max(self._opens_at, now + JOINING_S)
        self._joined = frozenset(topology.connected)
        kept = spanning_tree(self._open & up, (ends for ends in up if ends <= self._held))
        wanted = spanning_tree(kept, (ends for ends in up if {at.dpid for at in ends} <= self._joined))
        self._open = wanted if now >= self._opens_at else kept
        settling = [port.since + SETTLE_S for port in topology.links.ports.values() if port.since + SETTLE_S > now]
        opening = [] if wanted == self._open else [self._opens_at]
        self._due = min((*settling, *opening), default=float("inf"))
        self._set_ports(topology, now)

    def _set_ports(self, topology: TopologyState, now: Seconds) -> None:
        links: dict[int, list[int]] = {}
        edges: dict[int, list[int]] = {}
        for at in (at for ends in self._open for at in ends):
            links.setdefault(at.dpid, []).append(at.port)
        for at in topology.links.edges(now):
            edges.setdefault(at.dpid, []).append(at.port)
        ports = {
            dpid: FloodPorts(tuple(sorted(links.get(dpid, ()))), tuple(sorted(edges.get(dpid, ()))))
            for dpid in links.keys() | edges.keys()
        }
        self.revision += ports != self._ports
        self._ports = ports


def spanning_tree(kept: Iterable[Ends], links: Iterable[Ends]) -> frozenset[Ends]:
    """The links of a spanning forest that has all of `kept` (which has no loop itself); Kruskal 1956."""
    from networkx.utils import UnionFind  # only here: most commands need no tree

    joined = UnionFind()
    tree = set()
    for ends in (*kept, *sorted(links, key=sorted)):
        a, b = sorted(at.dpid for at in ends)
        if joined[a] != joined[b]:
            joined.union(a, b)
            tree.add(ends)
    return frozenset(tree)

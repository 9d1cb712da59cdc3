"""Networks of any shape for tests of split paths: switches joined at random, a client and a server on each."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import networkx as nx
from simulated import FIRST_METER, World, address, ip, mac

from cpdb import FIRST_TAG, Destination, HeavyPair, Link, Node, NodeKind, VirtualIp, WantedSplit
from ryu_apps.declared import Declared
from ryu_apps.effects import Change
from ryu_apps.fakes.fake_packets import Packet, Transport
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.network import Network
from ryu_apps.pipeline import desired
from ryu_apps.rules import PROTO_UDP, PortId
from ryu_apps.services.pairs import PairBudget, Pairs
from ryu_apps.shares import limits, share
from ryu_apps.status.alarms import AlarmLog
from ryu_apps.switch.reconcile import Holding, difference

SERVICE = "10.0.0.{}"


class RoutedWorld(World):
    """Switch n has client `c<n>` on port 91 and server `s<n>` behind the virtual IP 10.0.0.<100 + n> on port 92."""

    def __init__(self, graph: nx.Graph) -> None:
        self.graph = graph
        self.now, self.alive, self.asked, self.hops, self.trace = 1000.0, True, 0, 0, []
        self.alarms = AlarmLog()
        self.network, self.arrived = Network(Pairs(PairBudget(1000), 60.0, 900.0)), []
        self.places = {f"{kind}{n}": PortId(n + 1, 91 + (kind == "s")) for n in graph for kind in "cs"}
        ports = {n: {m: at for at, m in enumerate(sorted(graph[n]), 1)} for n in graph}
        self.wires = {
            PortId(a + 1, ports[a][b]): PortId(b + 1, ports[b][a]) for n in graph.edges for a, b in (n, n[::-1])
        }
        every = set(self.wires) | set(self.places.values())
        self.switches = {
            n + 1: FakeSwitch(n + 1, frozenset(at.port for at in every if at.dpid == n + 1)) for n in graph
        }

    def declared(self, splits: tuple[WantedSplit, ...] = ()) -> Declared:
        """The inventory, and these splits wanted."""
        nodes = [Node(f"w{n}", NodeKind.SWITCH, dpid=n + 1) for n in self.graph]
        nodes += [Node(name, NodeKind.CLIENT, address(name), mac(name)) for name in self.places]
        links = [
            Link(f"w{a.dpid - 1}", a.port, f"w{b.dpid - 1}", b.port, 1e6, declared=True)
            for a, b in self.wires.items()
            if a < b
        ]
        services = {
            SERVICE.format(100 + n): VirtualIp(
                SERVICE.format(100 + n), f"v{n}", 10, (Destination(f"s{n}", address(f"s{n}"), mac(f"s{n}"), 1),)
            )
            for n in self.graph
        }
        return Declared(tuple(nodes), tuple(links), services, splits=splits)

    def begin(self, splits: tuple[WantedSplit, ...] = ()) -> None:
        """The controller starts (again)."""
        self.start(self.declared(splits))

    def want(self, splits: tuple[WantedSplit, ...]) -> None:
        """Other splits are wanted; nothing is sent yet."""
        self.network.declare(self.declared(splits), self.now)

    def talk(self, client: int, server: int, port: int = 1) -> list[tuple[str, ...]]:
        """A packet from a port to the server's virtual IP and one back; the switches that each of them crossed.

        Fails when one of them does not arrive exactly once.
        """
        there = replace(
            ip(f"c{client}", f"s{server}"), eth_dst="f2:ea:00:00:00:00", ip_dst=SERVICE.format(100 + server)
        )
        there = replace(there, ip_proto=PROTO_UDP, transport=Transport(port, 80))
        back = ip(f"s{server}", f"c{client}", ip_proto=PROTO_UDP, transport=Transport(80, port))
        return [self.crossed(f"c{client}", there, f"s{server}"), self.crossed(f"s{server}", back, f"c{client}")]

    def crossed(self, sender: str, packet: Packet, receiver: str) -> tuple[str, ...]:
        """Switches that a packet crossed on its way."""
        got = self.send(sender, packet)
        assert [name for name, _ in got] == [receiver], (sender, receiver, self.trace, got)
        assert got[0][1].label is None, "a host got a tagged packet"
        return tuple(f"w{dpid - 1}" for dpid in self.trace)

    def changes(self) -> dict[int, list[Change]]:
        """What the controller would send to each switch now."""
        self.count_kept()
        self.network.routes.follow(self._holds, self.now)
        wanted, found = limits(self.network, self.now), {}
        for dpid, switch in self.switches.items():
            holding = Holding.read(switch.rules(self.now), switch.meters(), FIRST_METER, switch.groups())
            found[dpid] = difference(holding, desired(share(self.network, dpid, wanted), {}))
        return found

    def update(self, chance: Random, seconds: float, after_each: Callable[[], None]) -> Iterator[int]:
        """Time passes in half seconds; every round's changes reach the switches one by one in a random order."""
        for _ in range(int(seconds * 2)):
            waiting = {dpid: list(changes) for dpid, changes in self.changes().items() if changes}
            while waiting:
                dpid = chance.choice(sorted(waiting))
                assert self.switches[dpid].apply([waiting[dpid].pop(0)], self.now) == []
                waiting = {one: left for one, left in waiting.items() if left}
                after_each()
                yield dpid
            self.now += 0.5


def split(paths: dict[tuple[int, ...], float], first_tag: int = FIRST_TAG, **more: object) -> WantedSplit:
    """A wanted split over paths of switch numbers, all between the same two."""
    names = [tuple(f"w{n}" for n in path) for path in paths]
    tags = tuple(range(first_tag, first_tag + len(names)))
    whole = WantedSplit(names[0][0], names[0][-1], tuple(names), tuple(paths.values()), tags, "test", "", 0.0)
    return replace(whole, **more)


def random_splits(graph: nx.Graph, chance: Random, count: int, first_tag: int = FIRST_TAG) -> tuple[WantedSplit, ...]:
    """Splits over up to 3 simple paths between random switches, each path with a tag of its own."""
    ends = [(a, b) for a in graph for b in graph if a != b]
    found = []
    for a, b in chance.sample(ends, min(count, len(ends))):
        paths = list(nx.all_simple_paths(graph, a, b, cutoff=5))
        chosen = chance.sample(paths, min(3, len(paths)))
        weights = [chance.random() + 0.05 for _ in chosen]
        one = split({tuple(p): w / sum(weights) for p, w in zip(chosen, weights, strict=True)}, first_tag)
        # Half of the pairs are large enough to be divided.
        heavy = (HeavyPair(f"c{a}", f"s{b}", 1.0, one.ratios),) if chance.random() < 0.5 else ()
        found.append(replace(one, heavy=heavy))
        first_tag += len(chosen)
    return tuple(found)

"""Group frames reach everybody once on any network, and never circle, whatever fails and in whichever order."""

from collections import deque
from random import Random

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps.fakes.fake_packets import Packet
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.pipeline import FloodShare, Share, desired
from ryu_apps.rules import CONTROLLER, PortId
from ryu_apps.switch.reconcile import Holding, difference
from ryu_apps.topology.flooding import CLOSING_S, JOINING_S, FloodTree
from ryu_apps.topology.state import TopologyState

HOST_PORT = 99
HELLO = Packet("02:00:00:00:00:01", "33:33:00:00:00:fb", 0x86DD)


class Mesh:
    """Switches joined at random, a host at each; they take up what is wanted one by one, in any order."""

    def __init__(self, rng: Random, switches: int, more_links: int) -> None:
        graph = nx.gnm_random_graph(switches, switches + more_links, seed=rng.randrange(1 << 30))
        # Also where the switches are in several parts
        ports = dict.fromkeys(graph, 1)
        self.rng, self.now, self.wires = rng, 1000.0, dict[PortId, PortId]()
        for a, b in graph.edges:
            ends = PortId(a, ports[a]), PortId(b, ports[b])
            ports[a], ports[b] = ports[a] + 1, ports[b] + 1
            self.wires |= {ends[0]: ends[1], ends[1]: ends[0]}
        self.topology, self.tree = TopologyState(), FloodTree()
        self.switches = {}
        for dpid in graph:
            numbers = frozenset([HOST_PORT, *(at.port for at in self.wires if at.dpid == dpid)])
            self.switches[dpid] = FakeSwitch(dpid, numbers)
            self.topology.switch_up(dpid, dict.fromkeys(numbers, True), self.now)
        self.topology.links.declare(self.wires, [])
        self.topology._changed()

    def settle(self, check: bool = False) -> None:
        """What is wanted arrives at the switches, each at its own time; frames are on their way meanwhile."""
        self.tree.follow(self.topology, self.now)
        for dpid in self.rng.sample(sorted(self.switches), len(self.switches)):
            switch = self.switches[dpid]
            wanted = desired(Share(flood=FloodShare(self.tree.ports(dpid))), {})
            held = Holding.read(switch.rules(self.now), switch.meters(), 60_000, switch.groups())
            assert switch.apply(difference(held, wanted), self.now) == []
            if check:
                for start in self.switches:
                    counts = self.heard_by(start)
                    assert all(count == 1 for count in counts.values()), "a frame came twice"

    def restart(self) -> None:
        """Another controller: it knows the links and reads the switches one by one, in any order."""
        before = {dpid: self.tree.ports(dpid) for dpid in self.switches}
        self.tree = FloodTree()
        for dpid in self.rng.sample(sorted(self.switches), len(self.switches)):
            self.tree.follow(self.topology, self.now)
            self.tree.adopt(dpid, self.switches[dpid].rules(self.now))
        self.settle(check=True)
        self.now += JOINING_S
        self.settle(check=True)
        assert {dpid: self.tree.ports(dpid) for dpid in self.switches} == before

    def heard_by(self, start: int) -> dict[int, int]:
        """How often each other host gets what the host at `start` sends."""
        counts: dict[int, int] = {}
        queue, steps = deque([PortId(start, HOST_PORT)]), 0
        while queue:
            at, steps = queue.popleft(), steps + 1
            assert steps < 500, "a frame circles"
            for port, _ in self.switches[at.dpid].receive(HELLO, at.port, self.now):
                out = PortId(at.dpid, port)
                if port == HOST_PORT:
                    counts[at.dpid] = counts.get(at.dpid, 0) + 1
                elif port != CONTROLLER and out in self.wires and self.up(out):
                    queue.append(self.wires[out])
        return counts

    def up(self, at: PortId) -> bool:
        return all(end.port not in self.switches[end.dpid].down for end in (at, self.wires[at]))

    def set_link(self, at: PortId, up: bool) -> None:
        for end in (at, self.wires[at]):
            (self.switches[end.dpid].down.discard if up else self.switches[end.dpid].down.add)(end.port)
            self.topology.port_changed(end, up, self.now)

    def reached(self, start: int) -> set[int]:
        graph = nx.Graph((at.dpid, peer.dpid) for at, peer in self.wires.items() if self.up(at))
        graph.add_nodes_from(self.switches)
        return set(nx.node_connected_component(graph, start)) - {start}


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 7), st.integers(0, 6), st.integers(1, 4))
def test_everybody_is_reached_once_and_nothing_circles_while_links_fail_and_come_back(
    rng: Random, switches: int, more_links: int, failures: int
) -> None:
    mesh = Mesh(rng, switches, more_links)
    mesh.settle()
    mesh.now += JOINING_S
    mesh.settle(check=True)
    for _ in range(failures):
        if mesh.wires:
            at = rng.choice(sorted(mesh.wires))
            mesh.set_link(at, not mesh.up(at))
        mesh.settle(check=True)
        mesh.now += CLOSING_S
        mesh.settle(check=True)
        if rng.random() < 0.3:
            mesh.restart()
        for start in mesh.switches:
            assert mesh.heard_by(start) == dict.fromkeys(mesh.reached(start), 1)


def test_a_tree_stays_while_its_links_are_up() -> None:
    mesh = Mesh(Random(3), 6, 6)
    mesh.settle()
    mesh.now += JOINING_S
    mesh.settle()
    lost = next(at for at in sorted(mesh.wires) if at.port in mesh.tree.ports(at.dpid).links)
    mesh.set_link(lost, False)
    mesh.now += CLOSING_S
    mesh.settle()
    mesh.now += CLOSING_S
    mesh.settle()
    around, revision = mesh.tree.ports(lost.dpid), mesh.tree.revision
    mesh.set_link(lost, True)
    mesh.now += 2.0
    mesh.settle()
    assert mesh.tree.ports(lost.dpid) == around
    assert mesh.tree.revision == revision


def test_a_port_may_have_hosts_only_once_it_had_time_to_show_a_switch() -> None:
    mesh = Mesh(Random(1), 2, 0)
    mesh.settle()
    assert mesh.tree.ports(0).edges == ()
    mesh.now += 2.0
    mesh.settle()
    assert mesh.tree.ports(0).edges == (HOST_PORT,)

"""`python -m tools.bench.routing`: a fat-tree with heavy-tailed traffic in simulated time, with routing off and on.

The live strategy decides; its splits are taken over two seconds later. Loads are fluid: what a link gets beyond its
capacity is lost. No packet is sent, so nothing is said of their order.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from cpdb import Link, Node, NodeKind, Pair, WantedSplit
from orchestrator import LinkState, OrchestratorConfig, PairState, World
from orchestrator.actions import SetRoutes
from orchestrator.config import RouteSettings
from orchestrator.context import PlanningContext
from orchestrator.observe.matrices import matrix_of
from orchestrator.strategies.routes import Router
from orchestrator.world import Matrix, RoutedNetwork
from ryu_apps import Routed, Topology, find_split_paths

RATE = 125e6
STEP_S = 2.0
Hop = tuple[str, str]


def fat_tree(size: int) -> list[Hop]:
    """Links of a fat-tree of `size` ports a switch (Al-Fares et al., SIGCOMM 2008), hosts left out."""
    half = size // 2
    up = [(f"e{p}.{e}", f"a{p}.{a}") for p in range(size) for e in range(half) for a in range(half)]
    core = [(f"a{p}.{a}", f"c{a}.{c}") for p in range(size) for a in range(half) for c in range(half)]
    return up + core


@dataclass
class Pod:
    """One simulated network: `router` None leaves everything on the shortest way."""

    links: list[Hop]
    hosts: dict[str, str]
    router: Router | None
    settings: RouteSettings
    splits: dict[Hop, WantedSplit] = field(default_factory=dict)
    waiting: list[SetRoutes] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    lost: float = 0.0
    offered: float = 0.0
    congested: int = 0
    moves: int = 0
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        switches = sorted({name for hop in self.links for name in hop})
        nodes = [Node(name, NodeKind.SWITCH, dpid=n) for n, name in enumerate(switches, 1)]
        nodes += [
            Node(host, NodeKind.HOST, f"10.0.{n // 200}.{n % 200 + 1}", attached_to=at, port=100 + n)
            for n, (host, at) in enumerate(self.hosts.items())
        ]
        ports: dict[str, int] = {}
        links = []
        for a, b in self.links:
            ports[a], ports[b] = ports.get(a, 0) + 1, ports.get(b, 0) + 1
            links.append(Link(a, ports[a], b, ports[b], RATE, declared=True))
        self.topology = Topology.of(nodes, links)
        self.addresses = {node.name: node.address for node in nodes}
        self.capacity = {hop: RATE for a, b in self.links for hop in ((a, b), (b, a))}

    def step(self, now: float, rates: Mapping[Pair, float]) -> None:
        """One step: traffic flows as it is spread now, then the strategy looks."""
        for action in self.waiting:
            rows, gone = action.wanted("bench", "", now)
            self.splits |= {(row.from_switch, row.to_switch): row for row in rows}
            for one in gone:
                self.splits.pop(one, None)
            self.moves += len(action.changes)
        self.waiting = []
        ways = Routed(self.topology, find_split_paths(self.splits.values(), self.topology, now), self.addresses)
        loads, states = dict.fromkeys(self.capacity, 0.0), {}
        for pair, rate in rates.items():
            nodes = ways.path(pair.source, pair.virtual_ip)
            ends = ways.ends(nodes)
            spread = ways.spread(pair.source, pair.virtual_ip, ends) if ends else ()
            inner = tuple(pairwise(nodes))[1:-1]
            taken = [(tuple(pairwise(path.hops)), part) for path, part in spread]
            for hops, share in taken or [(inner, 1.0)]:
                for hop in hops:
                    loads[hop] += rate * share
            states[pair] = PairState(pair, 0, pair.virtual_ip, inner, rate, 0.0, rate, 0.0)
        over = sum(max(load - RATE, 0.0) for load in loads.values())
        self.lost += over * STEP_S
        self.offered += sum(rates.values()) * STEP_S
        self.congested += int(STEP_S) if over else 0
        if self.router is not None:
            self._decide(now, states, loads)

    def _decide(self, now: float, states: Mapping[Pair, PairState], loads: Mapping[Hop, float]) -> None:
        links = {hop: LinkState(hop, RATE, min(load, RATE)) for hop, load in loads.items()}
        world = World(now=now, age_s=1.0, pairs=dict(states), links=links)
        begin = time.process_time()
        self.matrices = [*self.matrices, matrix_of(world, self.capacity, self.splits)][-120:]
        fabric = RoutedNetwork(self.capacity, dict(self.splits), tuple(self.matrices))
        world = replace(world, network=replace(world.network, fabric=fabric))
        assert self.router is not None
        found = self.router.propose(PlanningContext.of(world, OrchestratorConfig(act=True, routing=self.settings)))
        self.cpu_s += time.process_time() - begin
        self.waiting = [one.action for one in found.steps if isinstance(one.action, SetRoutes)]


def traffic(hosts: list[str], load: float, seed: int) -> Iterator[dict[Pair, float]]:
    """Pairs whose rates are Pareto (shape 1.2) and last an exponential time of 60 s; `load`: of all hosts' links."""
    rng = np.random.default_rng(seed)
    ends = [(a, b) for a in hosts for b in hosts if a.split("-")[0] != b.split("-")[0]]
    chosen = [ends[n] for n in rng.choice(len(ends), 200, replace=False)]
    rates = rng.pareto(1.2, len(chosen)) + 1
    while True:
        renew = rng.random(len(chosen)) < STEP_S / 60
        rates = np.where(renew, rng.pareto(1.2, len(chosen)) + 1, rates)
        capped = np.minimum(rates / rates.sum(), 0.1)
        scaled = capped / capped.sum() * load * RATE * len(hosts) / 2
        noisy = np.minimum(scaled * rng.lognormal(0, 0.1, len(chosen)), 0.9 * RATE)
        yield {Pair(a, b): float(rate) for (a, b), rate in zip(chosen, noisy, strict=True)}


def main(words: list[str]) -> int:
    """Both networks over the same traffic."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.routing", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--load", type=float, default=0.4, help="of the links of half of all hosts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trigger", type=float, default=RouteSettings().trigger)
    options = parser.parse_args(words)
    for name, pod in replay(options.minutes, options.load, options.trigger, options.seed).items():
        print(
            f"routing {name}: {pod.congested} congested s, {pod.lost / pod.offered:.2%} lost,"
            f" {pod.moves} splits changed, {pod.cpu_s:.1f} CPU s deciding"
        )
    return 0


def replay(minutes: float, load: float, trigger: float, seed: int) -> dict[str, Pod]:
    """The network with routing off and on, after so many minutes of the same traffic."""
    links = fat_tree(4)
    hosts = {f"{edge}-h{n}": edge for edge in sorted({a for a, _ in links if a[0] == "e"}) for n in range(2)}
    settings = RouteSettings(enabled=True, trigger=trigger)
    routers = {"off": None, "on": Router(settings)}
    pods = {name: Pod(links, hosts, router, settings) for name, router in routers.items()}
    source = traffic(list(hosts), load, seed)
    for number in range(int(minutes * 60 / STEP_S)):
        rates = next(source)
        for pod in pods.values():
            pod.step(1000.0 + number * STEP_S, rates)
    return pods


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Deciding paths on a real network: seconds a decision when every pair of nodes talks, with and without a start."""

import importlib.resources
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from cpdb import ForepathError
from orchestrator.optimise import Hedged, Tunnels, auto, measured, optimum, shortest_paths, steps, tunnels
from tools.bench.figures import BenchTarget, Result

# Networks as operators have published them, of which those that have so many links a node offer a choice of paths.
GROUPS = ("topozoo", "backbone", "sndlib")
LINKS_A_NODE = 1.25
DECISIONS = 12
WARM_UP = 150
# The links' capacity is the same everywhere; traffic fills the best split's fullest link so far.
CAPACITY, FILLED = 10e9, 0.5
Floats = NDArray[np.float64]
FEW_PAIRS, FEW_LIMIT_S, LIMIT_S = 500, 0.1, 1.0


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """How large the network is, and how many pairs talk."""

    nodes: int = 100
    pairs: int = 10_000
    seed: int = 1


def network(size: NetworkSize) -> tuple[str, Tunnels]:
    """The smallest meshed network of so many nodes, cut to them from its busiest node on, and `pairs` random pairs.

    With more pairs than pairs of nodes, several pairs share their ends. Raises ForepathError when there is none.
    """
    name, graph = _published(size.nodes)
    hub = max(graph, key=graph.degree)
    near = itertools.chain([hub], (node for _, node in nx.bfs_edges(graph, hub)))
    graph = graph.subgraph(list(itertools.islice(near, size.nodes)))
    capacity = {hop: CAPACITY for a, b in graph.edges for hop in ((a, b), (b, a))}
    ends = list(itertools.permutations(graph, 2))
    rng = np.random.default_rng(size.seed)
    order = np.concatenate([rng.permutation(len(ends)) for _ in range(math.ceil(size.pairs / len(ends)))])[: size.pairs]
    chosen = [ends[place] for place in order]
    paths = shortest_paths(capacity, dict.fromkeys(chosen))
    once = tunnels({pair: paths[pair] for pair in dict.fromkeys(chosen)}, capacity)
    return name, _repeated(once, chosen, paths)


def _repeated(once: Tunnels, chosen: list[Any], paths: dict[Any, Any]) -> Tunnels:
    flat = tuple(path for pair in chosen for path in paths[pair])
    pair_of = np.repeat(np.arange(len(chosen)), [len(paths[pair]) for pair in chosen])
    return Tunnels(tuple(chosen), flat, pair_of, once.links, once.capacity)


def _published(nodes: int) -> tuple[str, Any]:
    try:
        import topohub
    except ImportError as error:
        raise ForepathError("the networks are in the package topohub; install forepath[bench]") from error
    found = []
    for group in GROUPS:
        for file in importlib.resources.files(topohub).joinpath("data", group).iterdir():
            key = f"{group}/{file.name.removesuffix('.json')}"
            if file.name.endswith(".json"):
                graph = _largest(json.loads(file.read_text(encoding="utf-8")))
                if len(graph) >= nodes and graph.number_of_edges() >= LINKS_A_NODE * len(graph):
                    found.append((len(graph), key, graph))
    if not found:
        raise ForepathError(f"--nodes {nodes}: no published network is so large; take fewer")
    _, key, graph = min(found, key=lambda one: one[:2])
    return key, graph


def _largest(topology: dict[str, Any]) -> Any:
    graph = nx.Graph()
    graph.add_nodes_from(node["id"] for node in topology["nodes"])
    graph.add_edges_from(
        (edge["source"], edge["target"]) for edge in topology["edges"] if edge["source"] != edge["target"]
    )
    return graph.subgraph(max(nx.connected_components(graph), key=len))


def traffic(net: Tunnels, rows: int, seed: int) -> Floats:
    """Matrices (rows x pairs): a gravity model with unequal nodes, unequal pairs, and much noise from row to row."""
    rng = np.random.default_rng(seed)
    weight = {node: rng.lognormal(0.0, 1.0) for node in sorted({str(node) for pair in net.pairs for node in pair})}
    base = np.array([weight[str(a)] * weight[str(b)] for a, b in net.pairs]) * rng.lognormal(0.0, 0.7, len(net.pairs))
    demand = base * rng.lognormal(0.0, 0.5, (rows, len(base)))
    return np.asarray(demand * FILLED / optimum(net, demand.mean(axis=0)).mlu)


@dataclass(slots=True)
class DecisionClock:
    """CPU seconds of each decision, of each matrix that is taken in, and of ordering each update's messages."""

    deciding: list[float] = field(default_factory=list)
    taking_in: list[float] = field(default_factory=list)
    ordering: list[float] = field(default_factory=list)
    left: int = 0


def measure(size: NetworkSize, say: Callable[[str], None]) -> Result:
    """CPU seconds of a renewal of all splits, from nothing and from those in force; and of ordering its messages."""
    say("finding paths")
    begin = time.process_time()
    name, net = network(size)
    paths_s = time.process_time() - begin
    say("making traffic")
    demand = traffic(net, WARM_UP + DECISIONS + 1, size.seed)
    strategy = auto(net)
    for number in range(WARM_UP):
        strategy.see(measured(net, number, demand[number]))
    clock = DecisionClock()
    splits = _decide(strategy, demand, clock, say)
    decision_s = statistics.median(clock.deciding[1:])
    figures = {
        "nodes": float(size.nodes),
        "links": float(len(net.links)),
        "pairs": float(len(net.pairs)),
        "paths": float(len(net.paths)),
        "finding_paths_once_cpu_s": paths_s,
        "scenarios": float(len(strategy.history.rows())),
        "first_decision_cpu_s": clock.deciding[0],
        "decision_cpu_s": decision_s,
        "slowest_later_decision_cpu_s": max(clock.deciding[1:]),
        "taking_in_a_matrix_cpu_s": statistics.median(clock.taking_in),
        "ordering_messages_cpu_s": statistics.median(clock.ordering),
        "pairs_left_where_they_were": float(clock.left),
        **_quality(net, splits, demand[-1]),
    }
    limit = FEW_LIMIT_S if len(net.pairs) <= FEW_PAIRS else LIMIT_S
    whole = decision_s + figures["taking_in_a_matrix_cpu_s"]
    return Result(figures, [BenchTarget(f"a decision on {name}, {len(net.pairs)} pairs, CPU s", whole, limit, "lower")])


def _decide(strategy: Hedged, demand: Floats, clock: DecisionClock, say: Callable[[str], None]) -> Floats:
    net, before = strategy.tunnels, strategy.tunnels.equal()
    for number in range(WARM_UP, WARM_UP + DECISIONS):
        say(f"decision {number - WARM_UP + 1} of {DECISIONS}")
        with _timed(clock.deciding):
            strategy.renew()
        splits = strategy.decide()
        with _timed(clock.ordering):
            update = steps(net, before, splits, demand[number - 1])
        clock.left += len(update.left)
        with _timed(clock.taking_in):
            strategy.see(measured(net, number, demand[number]))
        before = splits
    return before


def _quality(net: Tunnels, splits: Floats, demand: Floats) -> dict[str, float]:
    """How good the last decision is on a matrix that it did not see, next to splits that decide nothing."""
    best = optimum(net, demand).mlu
    ways = {"decided": splits, "equal_split": net.equal(), "shortest_paths": net.shortest()}
    return {f"mlu_over_best_{way}": float(net.mlu(shares, demand)[0]) / best for way, shares in ways.items()}


@contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    begin = time.process_time()
    yield
    into.append(time.process_time() - begin)

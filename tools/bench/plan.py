"""Deciding paths on a real network: seconds a decision when every pair of nodes talks, with and without a start."""

import contextlib
import importlib.resources
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from cpdb import (
    ForepathError,
    InstallStatus,
    LabError,
    Limit,
    Node,
    NodeKind,
    Pair,
    Reservation,
    ReservationReport,
    Store,
    open_store,
)
from forepath.demo.layout import ClientSpec, LabLayout
from orchestrator.optimise import Mixed, Tunnels, auto, measured, optimum, shortest_paths, steps, tunnels
from tools.bench.figures import BenchTarget, Result, found_on_stage, median, tell
from tools.lab.lab import Lab

WANTED_LIMIT_S = 0.15
CHANGES, RULES = 21, 1000
LEASE_S = 600.0
_PATIENCE_S = 60.0
_LOOK_S = 0.005
SOURCE, OTHER = "10.77.0.1", "10.77.0.2"
LAYOUT = LabLayout(
    clients=(
        ClientSpec("c1", SOURCE, "02:00:0a:4d:00:01", "leaf1", 11),
        ClientSpec("c2", OTHER, "02:00:0a:4d:00:02", "leaf1", 12),
    )
)


def measure_switch(changes: int = CHANGES, rules: int = RULES) -> Result:
    """Measures on a stage of its own, which needs root and Open vSwitch: LabError says what is missing."""
    return judge(found_on_stage("tools.bench.plan", [str(changes), str(rules)])["seconds"], rules)


def judge(seconds: list[float], rules: int) -> Result:
    """Figures and the target; the first change, which only adds, does not count."""
    later = sorted(seconds[1:])
    p95 = later[min(len(later) - 1, math.ceil(0.95 * len(later)) - 1)]
    figures = {
        "changed_rules": float(rules),
        "wanted_to_observed_median_s": median(later),
        "wanted_to_observed_p95_s": p95,
        "wanted_to_observed_slowest_s": later[-1],
    }
    return Result(
        figures, [BenchTarget(f"wanted row to observed, {rules} changed rules, p95 s", p95, WANTED_LIMIT_S, "lower")]
    )


# ---- on the stage


def _on_stage(folder: Path, changes: int, rules: int) -> list[float]:
    url = f"sqlite:///{folder / 'cpdb.db'}"
    store = open_store(url)
    store.inventory.put_nodes(Node(one.name, NodeKind.SWITCH, dpid=one.dpid) for one in LAYOUT.switches)
    store.inventory.put_nodes(Node(one.name, NodeKind.CLIENT, one.address, one.mac) for one in LAYOUT.clients)
    lab = Lab(LAYOUT, run_directory=folder / "run", vms=False)
    try:
        lab.start()
        with _controller(lab, url):
            _introduce(lab)
            seconds = [_change(store, number, rules) for number in range(changes)]
            _check(rules)
        return seconds
    finally:
        lab.stop()
        store.close()


@contextlib.contextmanager
def _controller(lab: Any, url: str) -> Iterator[None]:
    manager = Path(sys.executable).with_name("ryu-manager")
    argv = [str(manager), "ryu_apps.controller", "--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "6653"]
    process = lab.popen("controller", argv, {"FOREPATH_DATABASE_URL": url})
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=10)


def _introduce(lab: Any) -> None:
    # A source that has said nothing yet has no place, and no rules anywhere.
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        ping = ["ping", "-c", "1", "-W", "1", OTHER]
        process = lab.fabric.client_popen("c1", ping, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if process.wait(timeout=10) == 0:
            return
        time.sleep(0.3)
    raise LabError(f"the lab's clients did not reach each other within {_PATIENCE_S:g} s")


def _change(store: Store, number: int, rules: int) -> float:
    """Wants limits for other addresses than before; returns when the switch is known to have them, and no others."""
    # An even step of time would meet the controller's own rhythm always at the same point.
    time.sleep(0.7 + 0.137 * (number % 7))
    now = time.time()
    addresses = [f"10.{88 + number % 2}.{place >> 8}.{place & 255}" for place in range(rules)]
    limits = tuple(Limit(Pair(SOURCE, address), 1e5 + number) for address in addresses)
    wanted = Reservation("bench", Pair(OTHER, addresses[0]), 1e6, limits, "bench", "a measurement", now, now + LEASE_S)
    begin = time.monotonic()
    generation = store.wanted.reserve(wanted)
    while time.monotonic() - begin < _PATIENCE_S:
        told = [
            report
            for report in store.wanted.observed_of(ReservationReport)
            if report.key == "bench" and report.generation >= generation
        ]
        if told:
            if told[0].status is not InstallStatus.INSTALLED:
                raise LabError(f"the switch answered {told[0].status}: {told[0].detail}")
            return time.monotonic() - begin
        time.sleep(_LOOK_S)
    raise LabError(f"{rules} limits were not observed within {_PATIENCE_S:g} s")


def _check(rules: int) -> None:
    # Pairs are limited in table 1; meters elsewhere are those of ports.
    argv = ["ovs-ofctl", "-O", "OpenFlow13", "dump-flows", "leaf1", "table=1"]
    held = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    limited = sum("meter:" in line for line in held.splitlines())
    if limited != rules:
        raise LabError(f"the switch holds {limited} rules with a meter where {rules} are wanted")


def _look(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    changes, rules = words
    return {"seconds": _on_stage(folder, int(changes), int(rules))}


# Networks as operators have published them, of which those that have so many links a node offer a choice of paths.
GROUPS = ("topozoo", "backbone", "sndlib")
LINKS_A_NODE = 1.25
DECISIONS = 12
WARM_UP = 150
# The links' capacity is the same everywhere; traffic fills the best split's fullest link so far.
CAPACITY, FILLED = 10e9, 0.5
Floats = NDArray[np.float64]
FEW_PAIRS, FEW_LIMIT_S, LIMIT_S = 500, 0.2, 1.0


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


def _decide(strategy: Mixed, demand: Floats, clock: DecisionClock, say: Callable[[str], None]) -> Floats:
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


if __name__ == "__main__":
    sys.exit(tell("forepath bench plan", sys.argv[1:], _look))

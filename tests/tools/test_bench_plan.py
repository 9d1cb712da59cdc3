"""Deciding paths on a published network: at a size far too small to mean anything, but the same way."""

import json
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

pytest.importorskip("topohub")

from cpdb import ForepathError
from orchestrator.optimise import optimum
from tools.bench.plan import NetworkSize, judge, measure, network, traffic
from tools.route_page import section


def test_the_network_is_connected_and_every_pair_has_paths() -> None:
    name, net = network(NetworkSize(nodes=14, pairs=300, seed=3))
    graph = nx.DiGraph(net.links)
    assert "/" in name
    assert len(graph) == 14
    assert nx.is_strongly_connected(graph)
    # There are only 182 pairs of nodes: some share their ends.
    assert len(net.pairs) == 300
    assert len(set(net.pairs)) == 182
    assert net.count.min() >= 1
    assert all((path[0], path[-1]) == net.pairs[pair] for path, pair in zip(net.paths, net.pair_of, strict=True))


def test_traffic_fills_the_network_so_far() -> None:
    _, net = network(NetworkSize(nodes=10, pairs=40, seed=1))
    demand = traffic(net, 5, seed=1)
    assert demand.shape == (5, 40)
    assert optimum(net, demand.mean(axis=0)).mlu == pytest.approx(0.5)
    assert np.array_equal(demand, traffic(net, 5, seed=1))


def test_decisions_are_timed_and_judged() -> None:
    result = measure(NetworkSize(nodes=10, pairs=40, seed=1), lambda _: None)
    assert result.figures["decision_cpu_s"] > 0
    assert 1 - 1e-6 <= result.figures["mlu_over_best_decided"] <= result.figures["mlu_over_best_shortest_paths"]
    assert [target.limit for target in result.targets] == [0.2]


def test_a_network_that_nobody_published_is_refused() -> None:
    with pytest.raises(ForepathError, match="--nodes 100000"):
        network(NetworkSize(nodes=100_000, pairs=2))


def test_the_command_gives_one_document() -> None:
    program = "import sys; from forepath.cli import main; sys.argv = ['forepath', *sys.argv[1:]]; main()"
    words = ["bench", "plan", "--nodes", "8", "--pairs", "20", "--no-switch", "--json", "-"]
    told = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, timeout=200
    )
    assert json.loads(told.stdout)["figures"]["pairs"] == 20


def test_a_page_names_gates_and_sides() -> None:
    figures = {"mean": 1.12, "p50": 1.1, "p95": 1.3, "p99": 1.7, "max": 2.0, "share_above_2": 0.0, "churn": 0.0}
    figures |= {"touched": 0.0, "seconds_per_decision": 0.01}
    report = {"nodes": 4, "links": 12, "pairs": 12, "paths": 36, "snapshots": 10, "oracle_deviation": 1e-6}
    parts = {"all, tail 0.02": figures | {"mean": 1.119, "weight": 1.0}}
    text = section("meta_pod_db_1s", report | {"strategies": {"auto": figures}, "parts": parts})
    assert "mean <= 1.127 and p99 <= 1.65: **missed** (1.1200 and 1.700)" in text
    assert "mean <= 1.003 of the best part's: **met** (1.0009)" in text


def test_the_first_change_of_rules_does_not_count() -> None:
    result = judge([9.0, 0.1, 0.2, 0.3], 1000)
    assert result.figures["wanted_to_observed_median_s"] == 0.2
    assert result.figures["wanted_to_observed_p95_s"] == 0.3
    assert not result.targets[0].met


@pytest.mark.lab
def test_rules_are_changed_in_a_real_switch(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    subprocess.run([sys.executable, "-m", "tools.bench.plan", str(found), "3", "20"], check=True, timeout=120)
    told = json.loads(found.read_text())
    assert len(told["seconds"]) == 3, told
    assert all(0 < seconds < 30 for seconds in told["seconds"])

"""A simulated fat-tree: routing relieves links that are too full, and leaves alone what fits."""

import json
from dataclasses import asdict
from dataclasses import replace as with_fields
from pathlib import Path

import networkx as nx
import pytest

from tools.bench.numbered import TrafficPlan, destination, pair_rates, virtual_ip
from tools.bench.routed import RoutedScale, judge, tree
from tools.bench.routing import fat_tree, replay
from tools.route_page import main


def test_a_fat_tree_has_as_many_links_as_it_should() -> None:
    links = fat_tree(4)
    assert len(links) == len(set(links)) == 32
    assert len({name for hop in links for name in hop}) == 20


def test_full_links_are_relieved_and_nothing_moves_where_all_fits() -> None:
    off, on = replay(minutes=3, load=0.8, trigger=0.8, seed=1).values()
    assert on.lost < off.lost / 2 and on.congested < off.congested
    calm = replay(minutes=2, load=0.3, trigger=0.8, seed=1)["on"]
    assert calm.moves == 0


def test_half_a_fat_tree_joins_each_edge_switch_to_the_other_pod_over_four_cores() -> None:
    wires = tree(5.0).fabric_ports()
    assert len(wires) == len(set(wires)) == 16
    ports = [end for a, p, b, q in wires for end in ((a, p), (b, q))]
    assert len(ports) == len(set(ports)), "a port leads to one place"
    graph = nx.Graph((a, b) for a, _, b, _ in wires)
    assert len(list(nx.all_shortest_paths(graph, "e1", "e3"))) == 4


def test_sources_of_all_edges_see_the_same_traffic_and_talk_to_the_other_half() -> None:
    plan = TrafficPlan(edge=1, phase=0, seconds=1, seed=3, bytes_per_s=1e6, most=2e5)
    other = with_fields(plan, edge=3)
    one, same = next(pair_rates(plan)), next(pair_rates(other))
    assert one.tolist() == same.tolist() and len(one) == 48
    assert one.max() <= 2e5 and one.sum() == pytest.approx(1e6, rel=0.6)
    assert {destination(plan, n) for n in range(12)} == {virtual_ip(3), virtual_ip(4)}
    assert {destination(other, n) for n in range(12)} == {virtual_ip(1), virtual_ip(2)}


def test_the_comparison_is_judged_by_drops_losses_and_order() -> None:
    off = {"sent": 1000, "received": 900, "overtaken": 0, "congested_s": 60}
    met = judge({"off": off, "on": {**off, "received": 990, "congested_s": 6}})
    assert met.figures["on_lost_share"] == pytest.approx(0.01) and all(one.met for one in met.targets)
    worse = judge({"off": off, "on": {**off, "received": 800, "overtaken": 1, "congested_s": 90}})
    assert not any(one.met for one in worse.targets)


def test_the_page_keeps_the_recordings_and_has_the_newest_comparison_below(tmp_path: Path) -> None:
    page, file = tmp_path / "route.md", tmp_path / "found.json"
    page.write_text("# Routing\n\n## one\n\n| a |\n")
    way = {"sent": 1000, "received": 900, "overtaken": 3, "congested_s": 60, "seconds": 100, "actions_done": 2}
    way |= {"splits_changed": 4, "left_out": 5}
    for lost in (10, 20):
        found = judge({"off": way, "on": {**way, "received": 1000 - lost}})
        told = {"scale": asdict(RoutedScale()), "figures": found.figures}
        file.write_text(json.dumps(told | {"targets": [one.to_json() for one in found.targets]}))
        assert main([str(page), "--live", str(file)]) == 0
    text = page.read_text()
    assert text.startswith("# Routing\n\n## one\n\n| a |\n\n## On real switches\n")
    assert text.count("## On real switches") == 1 and "| on | 60 of 100 | 2.00% |" in text
    assert "at most 0: **missed**" in text

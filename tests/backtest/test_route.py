"""Routing replayed: every complete test row is scored, from earlier rows only, and what is written can be checked."""

import gzip
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from route_files import EDGES, PAIRS, TUNNELS, matrices, write

from backtest import RecordingError, RouteReplay, read_matrices, route, route_page, splits_document

FIGURES = {"mean", "p50", "p95", "p99", "share_above_2", "churn", "seconds_per_decision"}


def replay(folder: Path, demand: np.ndarray, **topology: Any) -> RouteReplay:
    net = {"pairs": PAIRS, "edges": EDGES, "tunnels": TUNNELS} | topology
    return route(read_matrices(*write(folder, demand, net)), 0.5, lambda *_: None)


def test_all_strategies_are_scored_on_all_test_rows(tmp_path: Path) -> None:
    outcome = replay(tmp_path, matrices())
    assert outcome.report["snapshots"] == 30
    assert set(outcome.report["strategies"]) == {"shortest", "equal", "last", "ewma", "forecast", "hedged", "auto"}
    for name, figures in outcome.report["strategies"].items():
        assert set(figures) >= FIGURES
        assert len(outcome.ratios[name]) == 30
        assert (outcome.ratios[name] >= 1 - 1e-6).all()
    best = min(outcome.report["strategies"].values(), key=lambda figures: figures["mean"])
    assert best["mean"] in (outcome.report["strategies"][name]["mean"] for name in ("hedged", "auto"))


def test_what_comes_later_changes_nothing_before(tmp_path: Path) -> None:
    demand = matrices()
    other = demand.copy()
    other[45:] = matrices(seed=7)[45:] * 5
    one, two = replay(tmp_path, demand), replay(tmp_path, other)
    before = [row for row in one.rows if row < 45]
    for name in one.ratios:
        assert one.ratios[name][: len(before)].tolist() == two.ratios[name][: len(before)].tolist()
    # The splits of row 45 itself were decided before it was seen.
    assert np.array_equal(one.splits[len(before)], two.splits[len(before)])
    assert not np.array_equal(one.ratios["last"], two.ratios["last"])


def test_the_row_itself_is_not_known_when_it_is_decided(tmp_path: Path) -> None:
    outcome = replay(tmp_path, matrices())
    assert outcome.report["strategies"]["last"]["mean"] > 1.02


def test_rows_with_blanks_are_neither_learnt_nor_scored(tmp_path: Path) -> None:
    demand = matrices()
    holes = demand.copy()
    holes[[5, 40, 41], [0, 1, 2]] = np.nan
    outcome = replay(tmp_path, holes)
    assert outcome.report["snapshots"] == 28
    assert {40, 41}.isdisjoint(outcome.rows)
    assert all(len(ratios) == 28 for ratios in outcome.ratios.values())
    # What the blank row held besides is of no matter.
    holes[40, 0] *= 1000
    again = replay(tmp_path, holes)
    assert {name: ratios.tolist() for name, ratios in again.ratios.items()} == {
        name: ratios.tolist() for name, ratios in outcome.ratios.items()
    }


def test_written_splits_give_the_ratios_that_are_reported(tmp_path: Path) -> None:
    table, net = write(tmp_path, matrices())
    given = read_matrices(table, net)
    outcome = route(given, 0.5, lambda *_: None)
    document = json.loads(json.dumps(splits_document(given, outcome)))
    assert document["tunnels"] == TUNNELS
    ratios = []
    for snapshot in document["snapshots"]:
        load = dict.fromkeys([(a, b) for a, b, _ in EDGES], 0.0)
        for key, demand in zip(TUNNELS, given.demand[snapshot["row"]], strict=True):
            assert sum(snapshot["splits"][key]) == pytest.approx(1.0)
            for path, share in zip(document["tunnels"][key], snapshot["splits"][key], strict=True):
                for hop in pairwise(path):
                    load[hop] += share * demand
        # On a triangle the best is found by trying.
        grid = np.linspace(0, 1, 21)
        mlu = max(load.values()) / 10.0
        best = min(_mlu(given.demand[snapshot["row"]], (a, b, c)) for a in grid for b in grid for c in grid)
        assert snapshot["ratio"] >= mlu / best - 1e-6
        assert snapshot["ratio"] <= mlu / best * 1.08
        ratios.append(snapshot["ratio"])
    assert np.mean(ratios) == pytest.approx(outcome.report["strategies"]["auto"]["mean"])


def _mlu(demand: np.ndarray, direct: tuple[float, float, float]) -> float:
    first, second, third = demand
    a, b, c = direct
    loads = [
        a * first + (1 - b) * second, b * second + (1 - a) * first + (1 - c) * third,
        c * third + (1 - b) * second, (1 - a) * first, (1 - c) * third,
    ]  # fmt: skip
    return max(loads) / 10.0


def test_silent_rows_are_as_good_as_can_be(tmp_path: Path) -> None:
    demand = matrices()
    demand[50] = 0.0
    outcome = replay(tmp_path, demand)
    assert all(ratios[outcome.rows.index(50)] == 1.0 for ratios in outcome.ratios.values())


def test_without_tunnels_the_shortest_paths_are_used(tmp_path: Path) -> None:
    outcome = replay(tmp_path, matrices(), tunnels=None)
    assert outcome.report["paths"] == 6


def test_names_of_nodes_may_be_text(tmp_path: Path) -> None:
    table, net = write(tmp_path, matrices(), {"edges": [[str(a), str(b), c] for a, b, c in EDGES], "tunnels": TUNNELS})
    assert len(read_matrices(table, net).tunnels.paths) == 6


def test_a_given_oracle_is_compared_and_is_no_pair(tmp_path: Path) -> None:
    table, net = write(tmp_path, matrices())
    plain = read_matrices(table, net)
    lines = table.read_text().splitlines()
    best = [float(plain.tunnels.mlu(plain.tunnels.equal(), row)[0]) for row in plain.demand]
    lines = [lines[0] + ",oracle_mlu", *(f"{line},{value}" for line, value in zip(lines[1:], best, strict=True))]
    with gzip.open(tmp_path / "m.csv.gz", "wt") as file:
        file.write("\n".join(lines))
    outcome = route(read_matrices(tmp_path / "m.csv.gz", net), 0.5, lambda *_: None)
    assert outcome.report["pairs"] == 3
    assert outcome.report["oracle_deviation"] > 0.01


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ({"edges": EDGES, "pairs": [*PAIRS, "2>0"], "tunnels": TUNNELS}, ["pairs: 2>0 has no column"]),
        ({"edges": EDGES[:2], "tunnels": TUNNELS}, ["0>2: node 2 has no edge", "1>2: node 2 has no edge"]),
        ({"edges": [*EDGES, [0, 1, 5], [2, 2, 1]], "tunnels": None}, ["0 > 1 is there twice", "from 2 to itself"]),
        ({"edges": [[0, 1, -3], *EDGES[1:]], "tunnels": None}, ["capacity -3"]),
        ({"edges": EDGES, "tunnels": {"0-1": [[0, 1]]}}, ["none for pair 0>2", "none for pair 1>2"]),
        (
            {"edges": EDGES, "tunnels": TUNNELS | {"0-1": [[0, 9, 1]], "1-2": [[1, 0]]}},
            ["0 > 9", "does not lead 1 > 2"],
        ),
        ({"edges": [[0, 1]], "tunnels": 3}, ["edges.0", "tunnels"]),
        ({}, ["edges"]),
        ({"edges": EDGES[:4], "tunnels": None, "x": 1}, []),
    ],
)
def test_every_problem_of_a_topology_is_named(tmp_path: Path, topology: dict[str, Any], said: list[str]) -> None:
    table, net = write(tmp_path, matrices(), topology)
    if not said:
        assert read_matrices(table, net).tunnels.pairs
        return
    with pytest.raises(RecordingError) as error:
        read_matrices(table, net)
    assert "\n" not in str(error.value)
    for part in (*said, "net.json"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("cell", "said"),
    [("x", ":5: column 0>1: 'x'"), ("-1", "line 5, 0>1: -1"), ("inf", "'inf'"), ("1,2", "has 5 cells")],
)
def test_wrong_cells_are_named(tmp_path: Path, cell: str, said: str) -> None:
    table, net = write(tmp_path, matrices())
    lines = table.read_text().splitlines()
    lines[4] = f"3,{cell},1,1"
    table.write_text("\n".join(lines))
    with pytest.raises(RecordingError, match=said):
        read_matrices(table, net)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    table, net = write(tmp_path, matrices())
    with pytest.raises(RecordingError, match=r"none\.json"):
        read_matrices(table, tmp_path / "none.json")
    with pytest.raises(RecordingError, match=r"none\.csv"):
        read_matrices(tmp_path / "none.csv", net)
    net.write_text("{")
    with pytest.raises(RecordingError, match="is no JSON"):
        read_matrices(table, net)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001])
def test_too_few_rows_are_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(RecordingError, match="--train-fraction"):
        route(read_matrices(*write(tmp_path, matrices())), fraction, lambda *_: None)


def test_the_page_stands_alone(tmp_path: Path) -> None:
    page = route_page(replay(tmp_path, matrices()))
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_command_writes_what_it_names(tmp_path: Path) -> None:
    table, net = write(tmp_path, matrices())
    out, splits, page = tmp_path / "out.json", tmp_path / "splits.json", tmp_path / "page.html"
    words = ["backtest", "route", str(table), "--topology", str(net), "--json", str(out)]
    words += ["--splits", str(splits), "--html", str(page)]
    program = "import sys; from forepath.cli import main; sys.argv = ['forepath', *sys.argv[1:]]; main()"
    subprocess.run([sys.executable, "-c", program, *words], check=True, timeout=120)
    report = json.loads(out.read_text())
    assert report["splits_file"] == str(splits)
    assert len(json.loads(splits.read_text())["snapshots"]) == report["snapshots"] == 15
    assert page.read_text().startswith("<!doctype html>")


def test_the_command_ends_in_one_line(tmp_path: Path) -> None:
    table, net = write(tmp_path, matrices(), {"edges": EDGES[:2], "tunnels": None})
    program = "import sys; from forepath.cli import main; sys.argv = ['forepath', *sys.argv[1:]]; main()"
    words = ["backtest", "route", str(table), "--topology", str(net)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "\n" not in done.stderr.strip()
    assert "node 2 has no edge" in done.stderr

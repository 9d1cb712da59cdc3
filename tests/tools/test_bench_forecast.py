"""The forecast bench measures a whole refresh, and says in one line what it lacks."""

import json
import sys

import pytest

from forepath.cli import main
from tools.bench import forecast_peers
from tools.bench.forecast_peers import SyntheticTraffic

SMALL = ["--pairs", "50", "--history", "70", "--warm-up", "2", "--models", "naive,ewma,seasonal_naive"]


def test_a_small_bench_gives_figures_and_judges_them(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["forepath", "bench", "forecast", *SMALL, "--no-peers", "--json", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = json.loads(out.read_text())
    assert 0 < said["figures"]["forepath_refresh_cpu_s"] < 60
    assert {one["name"] for one in said["targets"]} == {"refresh of all pairs, wall s", "peak memory, MiB"}


@pytest.mark.long
def test_with_workers_it_says_what_a_pair_costs_among_many(tmp_path, monkeypatch):
    out, words = tmp_path / "out.json", [*SMALL, "--workers", "2", "--json"]
    monkeypatch.setattr(sys, "argv", ["forepath", "bench", "forecast", *words, str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    figures = json.loads(out.read_text())["figures"]
    assert figures["shards"] == 1 and figures["cpu_ms_per_1000_pairs"] > 0


def test_without_its_peers_it_measures_forepath_and_names_the_command_that_installs_them(monkeypatch, tmp_path, capsys):
    out = tmp_path / "out.json"
    monkeypatch.setattr(forecast_peers, "PEERS", ("no_such_library",))
    monkeypatch.setattr(sys, "argv", ["forepath", "bench", "forecast", *SMALL, "--json", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert 0 < json.loads(out.read_text())["figures"]["forepath_refresh_cpu_s"] < 60
    said = " ".join(capsys.readouterr().err.split())
    assert "no_such_library: not installed; in a checkout: .venv/bin/pip install -e '.[bench]'" in said


def test_the_same_seed_makes_the_same_traffic_also_in_parts():
    whole = SyntheticTraffic(20, 3).seconds(30)
    parts = SyntheticTraffic(20, 3)
    assert (parts.seconds(10) == whole[:, :10]).all()
    assert (parts.seconds(20) == whole[:, 10:]).all()
    assert (whole != SyntheticTraffic(20, 4).seconds(30)).any()

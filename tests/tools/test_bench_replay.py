"""The bench of a replay runs at a size too small to mean anything; its shares are those of one run."""

import json
import sys

import pytest

from forepath.cli import main

SMALL = ["--pairs", "20", "--vms", "4", "--hosts", "2", "--seconds", "4"]


def test_a_small_bench_says_what_an_hour_costs_and_where(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["forepath", "bench", "replay", *SMALL, "--json", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = json.loads(out.read_text())
    figures = said["figures"]
    assert figures["cpu_s_an_hour"] == pytest.approx(3.6 * figures["cpu_ms_a_second"])
    shares = {name: share for name, share in figures.items() if name.endswith("_share")}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["orchestrator_share"] > 0.01 > shares["predictor_share"]
    assert len(said["targets"]) == 1

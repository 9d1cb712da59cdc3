"""The orchestrator's bench runs the whole cycle at a size too small to mean anything, and judges what it found."""

import json
import sys

import pytest

from forepath.cli import main
from tools.bench import orchestrate
from tools.bench.orchestrate import CycleCost, OrchestrateCosts, OrchestrateScale

SMALL = ["--pairs", "40", "--vms", "16", "--hosts", "4", "--history", "30"]


def test_a_small_bench_finds_hosts_that_run_short_and_judges_each_kind_of_cycle(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["forepath", "bench", "orchestrate", *SMALL, "--json", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = json.loads(out.read_text())
    assert said["figures"]["all_short_steps"] > said["figures"]["usual_steps"]
    assert len(said["targets"]) == 4


def test_the_first_cycle_has_a_limit_of_its_own():
    usual, slow = CycleCost(0.1, 0.1, 0, 0), CycleCost(1.0, 1.5, 3, 4)
    found = orchestrate.judge(OrchestrateCosts(CycleCost(5.0, 1.0, 0, 0), (usual,) * 3, (usual,), (slow,), 500.0))
    assert [one.met for one in found.targets] == [True, False, True, True]
    assert found.figures["slowest_cycle_cpu_s"] == 2.5


def test_every_machine_is_called_and_each_service_has_its_own_destinations():
    world = orchestrate.Neighbourhood(OrchestrateScale(pairs=400, vms=40, hosts=8), None)
    assert set(world.machine) == set(range(40))
    assert {(one.virtual_ip, int(vm) // 4) for one, vm in zip(world.talks, world.machine, strict=True)} == {
        (f"10.64.0.{n}", n) for n in range(10)
    }

"""What the bench of scenarios says of runs: which targets they meet, and what oscillates."""

from dataclasses import replace

import numpy as np
import pytest

from backtest.whatif import DoneAction, ObjectSeries, PolicyRun, ReplayPolicy
from orchestrator import OrchestratorConfig
from tools.bench.scenarios import ScenarioRun, family_rows, gain_shares, judge_runs, oscillates, run_scenario

COSTS = {"static": 100.0, "reactive": 50.0, "predictive": 20.0, "oracle": 18.0, "bound": 5.0}
GOOD = ScenarioRun("recurring_surge", 1, COSTS, 30 / 32, 12, 0, False, None)
CALM = ScenarioRun("calm", 1, dict.fromkeys(COSTS, 0.0), None, 0, 0, False, None)


def missed(*runs: ScenarioRun) -> set[str]:
    return {target.name for target in judge_runs(runs).targets if not target.met}


def test_runs_that_are_as_they_should_be_meet_all_targets() -> None:
    assert missed(GOOD, CALM, replace(GOOD, family="greedy_source", attacker_gain=0.9)) == set()


def test_what_is_worse_is_missed() -> None:
    worse = replace(GOOD, family="on_off", costs=COSTS | {"predictive": 52.0}, gain_share=-2 / 32)
    assert missed(GOOD, worse) == {"predictive / reactive, worst run", "gain share: on_off"}
    assert missed(replace(GOOD, costs=COSTS | {"predictive": 30.0}, gain_share=20 / 32)) == {
        "gain share: recurring_surge"
    }
    assert missed(GOOD, replace(CALM, actions=1)) == {"calm: actions"}
    assert missed(replace(GOOD, costs=COSTS | {"oracle": 21.0})) == {"oracle / predictive, worst run"}
    assert missed(replace(GOOD, costs=COSTS | {"bound": 19.0})) == {"bound / oracle, worst run"}
    assert missed(replace(GOOD, oscillates=True)) == {"runs that oscillate"}
    assert missed(replace(GOOD, attacker_gain=1.2)) == {"attacker over its fair share"}


def test_a_family_is_one_row() -> None:
    second = replace(GOOD, seed=2, costs=COSTS | {"reactive": 60.0}, gain_share=40 / 42)
    (row,) = family_rows([GOOD, second])
    assert row == ("recurring_surge", "100", "55", "20", "18", "5", "0.400", "0.95", "12", "0")
    assert gain_shares([CALM]) == {"calm": None}


def made(allowed: np.ndarray, times: list[int], where: np.ndarray | None = None) -> PolicyRun:
    column = allowed[:, None].astype(float)
    places = np.zeros_like(column, dtype=np.int32) if where is None else where[:, None].astype(np.int32)
    machine = ObjectSeries(("vm1",), column, column, column, places, ("hA", "hB"))
    nothing = ObjectSeries((), *np.zeros((3, len(allowed), 0)))
    none = np.zeros((len(allowed), 0))
    actions = tuple(DoneAction(float(t), "set_cpu_limit", "vm1", "") for t in times)
    return PolicyRun(ReplayPolicy.PREDICTIVE, machine, nothing, nothing, nothing, none, none, actions)


def test_what_turns_too_often_oscillates() -> None:
    config = OrchestratorConfig()
    beat = np.where(np.arange(200) // 5 % 2 == 0, 0.4, 0.9)
    changes = list(range(5, 200, 5))
    assert oscillates(made(beat, changes), config)
    slow = np.where(np.arange(200) // 20 % 2 == 0, 0.4, 0.9)
    assert not oscillates(made(slow, list(range(20, 200, 20))), config)
    rising = np.linspace(0.4, 4.0, 200)
    assert not oscillates(made(rising, changes), config)
    steady = np.full(200, 0.4)
    there_and_back = np.where((np.arange(200) > 50) & (np.arange(200) < 150), 1, 0)
    assert oscillates(made(steady, [], there_and_back), config)
    assert not oscillates(made(steady, [], np.where(np.arange(200) > 50, 1, 0)), config)


@pytest.mark.long
def test_calm_is_left_alone_for_real() -> None:
    run = run_scenario("calm", 3)
    assert run.actions == 0 and max(run.costs.values()) < 1e-6
    assert run.ratio == 1.0 and not run.oscillates and run.gain_share is None

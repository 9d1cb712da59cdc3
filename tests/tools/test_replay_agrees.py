"""The lab plays one schedule and the simulator the same: what was measured and what is simulated agree."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from backtest.whatif import ReplayPolicy
from forepath.demo.report import PolicyFigures
from forepath.demo.schedule import Phases
from forepath.demo.screen import Screen
from tools.lab.demo import RealTrial
from tools.lab.stage import on_stage

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(not on_stage(), reason="needs the lab's stage: python -m tools.lab.stage -- pytest -m vm"),
]
POLICIES = ("reactive", "static")
# The shortest period of the first twenty: a surge for each of two policies within a minute.
SEED = 17
# A live orchestrator looks up to a second later than a replayed one, and learns of it up to a second later.
SHARE, LEAST_S = 0.2, 3.0


def agree(name: str, measured: float, simulated: float, least: float) -> None:
    room = max(SHARE * max(measured, simulated), least)
    assert abs(measured - simulated) <= room, f"{name}: {measured:g} measured, {simulated:g} simulated"


def delivered(figures: PolicyFigures) -> float:
    return figures.delivered_bytes / figures.offered_bytes


@pytest.mark.timeout(300)
def test_the_lab_and_the_simulator_agree(tmp_path: Path) -> None:
    trial = RealTrial(SEED, "surge", tmp_path, Screen(Console(file=io.StringIO())), Phases(0, 1, POLICIES, 2.0))
    result = trial.run()
    replayed = trial.replay(result.price, [ReplayPolicy(name) for name in POLICIES])
    for name in POLICIES:
        real, made = result.policies[name], replayed.policies[name]
        agree(f"{name}, offered", real.offered_bytes, made.offered_bytes, 0.0)
        agree(f"{name}, delivered share", delivered(real), delivered(made), 0.0)
        agree(f"{name}, VM shortage", real.cpu.total_shortage_s, made.cpu.total_shortage_s, LEAST_S)
    for figures in (result.policies, replayed.policies):
        reactive, static = (figures[name] for name in POLICIES)
        assert delivered(reactive) > delivered(static)
        assert reactive.cpu.total_shortage_s < static.cpu.total_shortage_s

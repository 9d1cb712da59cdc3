"""The lab plays one schedule and the simulator the same: what was measured and what is simulated agree."""

import io
from math import inf
from pathlib import Path

import pytest
from rich.console import Console

from backtest.whatif import ReplayPolicy
from forepath.demo.cpu_need import Price
from forepath.demo.report import PolicyFigures
from forepath.demo.schedule import Phases
from forepath.demo.screen import Screen
from tools.lab.demo import RealTrial

pytestmark = pytest.mark.vm
POLICIES = ("reactive", "static")
# The shortest period of the first twenty: a surge for each of two policies within a minute.
SEED = 17
# A live orchestrator looks up to a second later than a replayed one, and learns of it up to a second later.
SHARE, LEAST_S = 0.2, 3.0


def agree(name: str, measured: float, simulated: tuple[float, float], least: float) -> None:
    """`simulated` with the nominal and with the learnt cost of a request: what it really costs lies between them."""
    low, high = sorted(simulated)
    apart = max(low - measured, measured - high, 0.0)
    room = max(SHARE * max(measured, high if high < inf else low), least)
    assert apart <= room, f"{name}: {measured:g} measured, {low:g} to {high:g} simulated"


def delivered(figures: PolicyFigures) -> float:
    return figures.delivered_bytes / figures.offered_bytes


@pytest.mark.timeout(300)
def test_the_lab_and_the_simulator_agree(tmp_path: Path) -> None:
    trial = RealTrial(SEED, "surge", tmp_path, Screen(Console(file=io.StringIO())), Phases(0, 1, POLICIES, 2.0))
    result = trial.run()
    # A minute of which much is held back tells little of what requests cost, or only that it is not less than nominal.
    known = result.price.measured
    nominal, learnt = (trial.replay(one, list(map(ReplayPolicy, POLICIES))) for one in (Price(), result.price))
    for name in POLICIES:
        real, made = result.policies[name], (nominal.policies[name], learnt.policies[name])
        agree(f"{name}, offered", real.offered_bytes, (made[0].offered_bytes, made[1].offered_bytes), 0.0)
        agree(f"{name}, delivered share", delivered(real), (delivered(made[0]), delivered(made[1]) * known), 0.0)
        shortages = made[0].cpu.total_shortage_s, made[1].cpu.total_shortage_s if known else inf
        agree(f"{name}, VM shortage", real.cpu.total_shortage_s, shortages, LEAST_S)
    for figures in (result.policies, learnt.policies):
        reactive, static = (figures[name] for name in POLICIES)
        assert delivered(reactive) > delivered(static)
        # What a slow machine's host does not have is short under either.
        assert reactive.cpu.total_shortage_s <= static.cpu.total_shortage_s

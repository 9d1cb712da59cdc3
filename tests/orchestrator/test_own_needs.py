"""What machines do beside their communications counts as far as its forecasts are trusted, and together with these."""

from dataclasses import replace

import pytest
from fake_world import fan
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, NOW, foreseen, machines, pair_state, vm, world

from cpdb import Pair, Quantity, Trust
from orchestrator import SetCpuLimit, World, plan
from orchestrator.context import PlanningContext, vm_need
from orchestrator.proposal import RefusalCode
from orchestrator.relations import CpuRelation

RELATION = CpuRelation("connections_per_s", 0.1, 0.02, 0.0, 40)
DOUBTED = Trust(0, 0.41, 0.9, 0.25, 1.5)
LONG = Trust(30, 0.1, 0.3, 0.25, 1.5)


def living(own: float, talk: float = 0.0, trust: Trust = LONG, used: float = 0.1) -> World:
    """One machine of half a core that serves one pair, `own` cores foreseen beside it and `talk` connections/s."""
    one = vm("shop1", "h1", used, 0.5, cpu_cores_max=0.9, relation=RELATION)
    cells = ((far, quantity) for far in (5, 15, 30) for quantity in (Quantity.CPU_PEAK, Quantity.CPU_MEAN))
    beside = {cell: fan(Pair("shop1", ""), NOW, *cell, own, trust=trust) for cell in cells}
    pair = pair_state("c1", "shop", 10, 0.0, destination="shop1")
    pairs = [foreseen(pair, dict.fromkeys((5, 15, 30), talk))] if talk else [pair]
    return world(pairs, **machines(replace(one, beside=beside)))


def need(start: World, horizon_s: int = 5) -> float:
    return vm_need(PlanningContext.of(start, CONFIG), start.vms["shop1"], horizon_s).cores


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 2.0), st.floats(0.5, 60.0), st.sampled_from([5, 15, 30]))
def test_both_needs_together_are_no_less_than_either_and_no_more_than_their_sum(
    own: float, talk: float, far: int
) -> None:
    both, apart = need(living(own, talk), far), (need(living(own), far), need(living(0.0, talk), far))
    assert both >= max(apart) - 1e-9
    assert both <= sum(apart) + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 2.0), st.floats(0.5, 60.0))
def test_what_is_not_trusted_or_not_ahead_changes_nothing(own: float, talk: float) -> None:
    assert need(living(own, talk, DOUBTED)) == need(living(0.0, talk, DOUBTED))
    assert need(living(own, talk), 0) == need(living(0.0, talk), 0)


def test_a_trusted_rise_is_met_ahead_and_a_doubted_one_refused_with_its_numbers() -> None:
    found = plan(PlanningContext.of(living(0.8), CONFIG))
    step = next(one for one in found.steps if isinstance(one.action, SetCpuLimit))
    assert step.action.after == pytest.approx(0.9)
    assert step.reason.forecast is not None
    assert (step.reason.forecast.pair, step.reason.forecast.quantity) == ("shop1", Quantity.CPU_PEAK)
    assert "for itself within" in step.why
    doubted = plan(PlanningContext.of(living(0.8, trust=DOUBTED), CONFIG))
    assert not any(isinstance(one.action, SetCpuLimit) for one in doubted.steps)
    refused = next(one for one in doubted.refusals if one.code is RefusalCode.NOT_TRUSTED)
    assert "error 0.41 of 0.25 allowed" in refused.why_not

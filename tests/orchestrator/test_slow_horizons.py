"""What takes minutes is decided on forecasts of minutes: no later than it needs, and not much earlier."""

import re
from dataclasses import replace

import pytest
from fake_world import TRUSTED, fan
from hypothesis import given
from hypothesis import strategies as st
from worlds import CONFIG, GIB, NOW, RELATION, machines, pair_state, vm, world

from cpdb import Quantity, Trust
from orchestrator import HostSpec, MemoryState, MigrateVm, OrchestratorConfig, PairState, Plan, World, plan, pre_copy
from orchestrator.act.libvirt.migration import overrun_s
from orchestrator.context import PlanningContext
from orchestrator.expected_short import host_short_cost
from orchestrator.foresight_settings import SLOW_SHARE, DemandSettings
from orchestrator.proposal import RefusalCode

SLOW = (60, 120, 300, 600, 1200, 3600, 7200)
CONFIG = CONFIG.tuned(demand={"slow_horizons_s": SLOW})
BYTES_PER_S = CONFIG.moves.bytes_per_s


def coming(state: PairState, in_s: float, trust: Trust = TRUSTED) -> PairState:
    """The pair with forecasts of a surge that begins so many seconds from now, and stays."""
    found = {}
    for horizon_s in CONFIG.demand.every_horizon_s:
        peak = 20.0 if horizon_s > in_s else 2.0
        mean = 2.0 + (20.0 - 2.0) * max(0.0, 1.0 - in_s / horizon_s)
        for quantity, value in ((Quantity.CONNECTIONS_PEAK, peak), (Quantity.CONNECTIONS_MEAN, mean)):
            found[horizon_s, quantity] = fan(state.pair, NOW, horizon_s, quantity, value, trust=trust)
    return replace(state, forecasts=found)


def crowded(gib: float, in_s: float, trust: Trust = TRUSTED, rate: float = 2.0) -> World:
    """A surge that h1 cannot carry beside its least important machine, which has so much memory to copy."""
    shop = vm("shop", "h1", 0.01 * rate + 0.03, 0.2, priority=10, cpu_cores_max=0.8, relation=RELATION)
    batch = vm("batch", "h1", 0.25, 0.25, movable=True)
    batch = replace(batch, memory=MemoryState(round(gib * GIB), dirty_bytes_per_s=0.0))
    large = tuple(HostSpec(name, "", "", 1.0, 512 * GIB) for name in ("h1", "h2"))
    talk = pair_state("c1", "shop", 10, rate, destination="shop", links=())
    own = machines(shop, batch, vm("steady", "h1", 0.35, 0.5, priority=10), hosts=large)
    return world([coming(talk, in_s, trust)], **own)


def planned(start: World, config: OrchestratorConfig = CONFIG) -> Plan:
    return plan(PlanningContext.of(start, config))


def moves(found: Plan) -> list[MigrateVm]:
    return [one.action for one in found.steps if isinstance(one.action, MigrateVm)]


@pytest.mark.parametrize("gib", [0.1, 0.5, 1, 4, 16, 64, 128])
def test_a_machine_of_any_size_leaves_in_time_and_not_much_earlier(gib: float) -> None:
    copy_s = gib * GIB / BYTES_PER_S
    ahead = (*range(7200, 600, -60), *range(600, 60, -15), *range(60, 0, -1))
    began = next(in_s for in_s in ahead if moves(planned(crowded(gib, in_s))))
    assert copy_s + 1.0 <= began <= max(30, CONFIG.demand.horizon_for(copy_s + 6) or 0)
    (move,) = moves(planned(crowded(gib, began)))
    assert move.expected_s == pytest.approx(pre_copy(gib * GIB, 0.0, BYTES_PER_S).total_s)
    # What breaks a copy off follows from its estimate, too.
    assert overrun_s(None, move.expected_s) == pytest.approx(max(15.0, 3 * move.expected_s))


def test_more_is_not_copied_than_being_short_would_cost() -> None:
    """An hour of 0.05 cores short costs 1600: less than 256 GiB at a gigabit, more than 128."""
    refused = [one for one in planned(crowded(256, 3000)).refusals if one.code is RefusalCode.DEARER]
    (found,) = [one.why_not for one in refused if one.about == "batch"]
    spares, costs = (float(part) for part in re.findall(r"\d+\.\d", found))
    assert spares < costs == pytest.approx(256 * GIB / BYTES_PER_S, rel=0.01)
    assert not moves(planned(crowded(256, 3000)))


def test_what_is_expected_to_be_short_follows_the_mean() -> None:
    """The same peaks: of a need that comes and stays, of seconds above a mean that does not change, and too late."""
    start = crowded(0.5, 20)
    ((pair, state),) = start.pairs.items()
    means = {key: fan(pair, NOW, *key, 2.0) for key in state.forecasts if key[1] is Quantity.CONNECTIONS_MEAN}
    noisy = start.changed(pairs={pair: replace(state, forecasts={**state.forecasts, **means})})
    comes, varies = (PlanningContext.of(one, CONFIG) for one in (start, noisy))
    assert host_short_cost("h1", varies, 6.0) < 0.01 * host_short_cost("h1", comes, 6.0)
    assert host_short_cost("h1", comes, 7000.0) < host_short_cost("h1", comes, 6.0)
    gone = comes.after(MigrateVm("batch", "h1", "h2"))
    assert host_short_cost("h1", gone, 6.0) < 0.01 * host_short_cost("h1", comes, 6.0)


def test_sixteen_gib_leave_a_host_whose_shortage_is_foreseen_five_minutes_ahead() -> None:
    (step,) = [one for one in planned(crowded(16, 290)).steps if isinstance(one.action, MigrateVm)]
    assert step.reason.forecast is not None
    assert (step.reason.forecast.horizon_s, step.needed_at) == (300, NOW + 300)
    assert 137 < step.lead_s < 150
    # An hour ahead it is known, and waits.
    early = planned(crowded(16, 3000))
    assert moves(early) == []
    late = planned(crowded(16, 100))
    assert moves(late) == []
    assert {one.code for one in late.refusals} & {RefusalCode.TOO_LATE}


def test_who_is_small_waits_and_nobody_larger_goes_instead() -> None:
    start = crowded(16, 290)
    small = replace(vm("small", "h1", 0.25, 0.25, movable=True), memory=MemoryState(GIB >> 3, dirty_bytes_per_s=0.0))
    less = replace(start.vms["steady"], cores_used=0.1)
    found = planned(replace(start, vms={**start.vms, "small": small, "steady": less}))
    assert moves(found) == []
    assert [one.code for one in found.refusals if one.about == "small"] == [RefusalCode.TOO_EARLY]


def test_minutes_that_are_not_trusted_move_nobody() -> None:
    found = planned(crowded(16, 290, Trust(120, 0.41, 0.9, 0.25, 1.5)))
    assert moves(found) == []
    (refusal,) = [one for one in found.refusals if one.code is RefusalCode.NOT_TRUSTED]
    assert refusal.why_not == "not trusted beyond 120 s: error 0.41 of 0.25 allowed"


def test_a_long_move_for_a_need_that_is_there_must_be_known_to_pay() -> None:
    """Short now: 34 s of copying may be in vain, unless forecasts are trusted that the need lasts."""
    assert moves(planned(crowded(4, 0.0, rate=20.0)))
    unsure = planned(crowded(4, 0.0, Trust(5, 0.41, 0.9, 0.25, 1.5), rate=20.0))
    assert moves(unsure) == []
    assert any("no trusted forecast says that the need lasts so long" in one.why_not for one in unsure.refusals)


@given(st.floats(0.1, 10_000))
def test_the_horizon_of_a_lead_time_leaves_time_for_it(lead_s: float) -> None:
    demand = DemandSettings(slow_horizons_s=SLOW)
    found = demand.horizon_for(lead_s)
    if found is None:
        assert lead_s > SLOW_SHARE * 7200
    else:
        assert lead_s <= (found if found in demand.horizons_s else SLOW_SHARE * found)


@given(st.sampled_from((5, 15, 30, *SLOW)))
def test_no_horizon_stands_for_one_that_is_much_shorter(horizon_s: int) -> None:
    instead = CONFIG.demand.instead_of[horizon_s]
    assert instead[0] == horizon_s
    assert max(instead) <= 4 * horizon_s

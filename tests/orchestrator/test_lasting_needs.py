"""A need that has passed before an action pays is not acted upon, whatever the action, and the reason is kept."""

from dataclasses import replace

import pytest
from fake_world import CONFIG as LOOP_CONFIG
from fake_world import SHOP, Simulation
from worlds import CONFIG, NOW, RELATION, foreseen, machines, pair_state, vm, world

from cpdb import Pair, Store
from orchestrator import OrchestratorConfig, Plan, ReserveBandwidth, SetCpuLimit, World, critical_level, plan
from orchestrator.context import PlanningContext
from orchestrator.lead_times import LeadGroup, LeadTimes

FLOOD = pair_state("c9", "backup", 0, 0.0, bytes_per_s=1_060_000.0, typical_bytes_per_s=1_060_000.0)
PEAKS = {5: 25.0, 15: 25.0, 30: 25.0}


def planned(start: World, config: OrchestratorConfig = CONFIG) -> Plan:
    return plan(PlanningContext.of(start, config))


def link_surge(share: float, rate: float = 2.0) -> World:
    """A surge over a link that is there for `share` of the longest window."""
    return world([foreseen(pair_state("c1", "shop", 10, rate), PEAKS, longest_share=share), FLOOD])


def cpu_surge(share: float) -> World:
    talk = pair_state("c1", "shop", 10, 2.0, destination="shop", links=())
    shop = vm("shop", "h1", 0.05, 0.2, priority=10, cpu_cores_max=0.8, relation=RELATION)
    return world([foreseen(talk, PEAKS, longest_share=share)], **machines(shop))


def kinds(found: Plan) -> set[str]:
    return {one.action.kind for one in found.steps}


@pytest.mark.parametrize(
    ("start", "kind", "name"),
    [(link_surge, ReserveBandwidth.kind, "a reservation"), (cpu_surge, SetCpuLimit.kind, "a resize")],
)
def test_a_brief_need_is_refused_with_its_reason_and_a_lasting_one_is_met(start, kind: str, name: str) -> None:
    assert kinds(planned(start(0.4))) == {kind}
    found = planned(start(0.05))
    assert found.steps == ()
    (refusal,) = [one for one in found.refusals if one.action is not None]
    assert refusal.action is not None
    assert refusal.action.kind == kind
    assert "too short: about 1.5 s of the need lie within 30 s" in refusal.why_not
    assert name in refusal.why_not


@pytest.mark.parametrize("start", [link_surge, cpu_surge])
def test_the_longer_it_takes_the_longer_a_need_must_last(start) -> None:
    slow = LeadTimes({LeadGroup("reserve_bandwidth"): 12.0, LeadGroup("set_cpu_limit"): 12.0})
    assert planned(replace(start(0.4), leads=slow)).steps == ()
    assert planned(replace(start(0.6), leads=slow)).steps != ()


def test_what_is_already_there_is_met_however_short_it_may_be() -> None:
    talk = foreseen(pair_state("c1", "shop", 10, 25.0), PEAKS, longest_share=0.05)
    (step,) = planned(world([talk, FLOOD])).steps
    assert step.needed_at == NOW


def test_a_reservation_that_stands_is_renewed_although_the_rest_of_the_need_is_brief(store: Store) -> None:
    sim = Simulation(store, surges=((60.0, 80.0),)).run(79)
    (held,) = store.wanted.reservations(sim.now)
    assert held.pair == Pair("c1", SHOP)
    assert held.expires_at >= sim.now + LOOP_CONFIG.bandwidth.lease_s / 2
    assert sum(one.renewed for one in sim.reports[-10:]) >= 2


def test_the_level_follows_from_what_being_short_costs() -> None:
    assert critical_level(9.0) == 0.9
    assert critical_level(1.0) == 0.5
    levels = [critical_level(ratio / 10) for ratio in range(1, 1000)]
    assert levels == sorted(levels)
    assert 0 < levels[0] < levels[-1] < 1


@pytest.mark.parametrize("ratio", [0.5, 3.0, 19.0])
def test_no_other_quantile_is_cheaper(ratio: float) -> None:
    """Needs of 1..1000 are equally likely: the cost of providing x, short at `ratio` and idle at 1, is least there."""

    def cost(x: int) -> float:
        return sum(ratio * max(0, need - x) + max(0, x - need) for need in range(1, 1001))

    best = round(critical_level(ratio) * 1000)
    assert cost(best) <= min(cost(best - 20), cost(best + 20))

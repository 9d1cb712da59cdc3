"""Nothing is planned on a horizon that is not trusted; where nothing is, the planner is exactly the reactive one."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from fake_world import CONFIG as LOOP_CONFIG
from fake_world import SHOP, START, TRUSTED, Simulation, declare, fan
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, RELATION, foreseen, machines, pair_state, vm, world, worlds

from cpdb import Communication, OutcomeKind, Pair, Quantity, Store, Trust
from orchestrator import Gatherer, OrchestratorConfig, Plan, ReserveBandwidth, World, explain, plan
from orchestrator.context import PlanningContext
from orchestrator.lead_times import LeadGroup, LeadTimes
from orchestrator.proposal import RefusalCode

NOTHING = Trust(0, 0.41, 0.9, 0.25, 1.5)
FLOOD = pair_state("c9", "backup", 0, 0.0, bytes_per_s=1_060_000.0, typical_bytes_per_s=1_060_000.0)
PEAKS = {5: 25.0, 15: 25.0, 30: 25.0}


def planned(start: World, config: OrchestratorConfig = CONFIG) -> Plan:
    return plan(PlanningContext.of(start, config))


def with_trust(start: World, trust: Callable[[str], Trust]) -> World:
    """The same world, where the forecasts of each pair (by its source) have been worth so much."""
    pairs = {}
    for pair, state in start.pairs.items():
        worth = trust(pair.source)
        fans = {key: replace(one, trust=worth) for key, one in state.forecasts.items()}
        pairs[pair] = replace(state, forecasts=fans)
    return replace(start, pairs=pairs)


def told(found: Plan) -> list[tuple[object, ...]]:
    return [(one.action, one.why, one.needed_at, one.lead_s, one.renewal, one.waits) for one in found.steps]


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_where_nothing_is_trusted_the_plan_is_the_reactive_one(start: World) -> None:
    found = planned(with_trust(start, lambda _source: NOTHING))
    reactive = planned(start, CONFIG.tuned(policy="reactive"))
    assert told(found) == told(reactive)
    assert [one for one in found.refusals if one.code is not RefusalCode.NOT_TRUSTED] == list(reactive.refusals)


@settings(max_examples=150, deadline=None)
@given(worlds(), st.lists(st.sampled_from([0, 5, 15, 30]), min_size=5, max_size=5))
def test_no_step_rests_on_a_horizon_beyond_the_trusted_one(start: World, trusted: list[int]) -> None:
    far = {f"c{number}": horizon_s for number, horizon_s in enumerate(trusted)}
    for step in planned(with_trust(start, lambda source: replace(NOTHING, horizon_s=far[source]))).steps:
        proof = step.reason.forecast
        if proof is not None:
            assert proof.trusted_s == far[proof.pair.split("->")[0]]
            assert proof.horizon_s <= proof.trusted_s


def surge(trust: Trust) -> World:
    return with_trust(world([foreseen(pair_state("c1", "shop", 10, 2.0), PEAKS), FLOOD]), lambda _source: trust)


def test_what_needs_more_trust_is_refused_with_its_numbers() -> None:
    found = planned(surge(NOTHING))
    assert found.steps == ()
    (refusal,) = found.refusals
    assert refusal.code is RefusalCode.NOT_TRUSTED
    assert refusal.why_not == "not trusted: error 0.41 of 0.25 allowed"
    assert isinstance(refusal.action, ReserveBandwidth)


def test_the_longer_an_action_takes_the_farther_forecasts_must_be_trusted() -> None:
    """A move takes up to 7 s, and the surge is seen within 15 s only."""
    talk = pair_state("c1", "shop", 10, 2.0, destination="shop", links=())
    shop = vm("shop", "h1", 0.05, 0.2, priority=10, cpu_cores_max=0.8, relation=RELATION)
    batch = vm("batch", "h1", 0.25, 0.25, movable=True)
    own = machines(shop, batch, vm("steady", "h1", 0.35, 0.5, priority=10))
    start = world([foreseen(talk, {5: 2.0, 15: 25.0})], **own)
    start = replace(start, leads=LeadTimes({LeadGroup("migrate_vm"): 6.0}))

    def found(trusted_s: int) -> Plan:
        return planned(with_trust(start, lambda _source: replace(NOTHING, horizon_s=trusted_s)))

    def kinds(trusted_s: int) -> set[str]:
        return {one.action.kind for one in found(trusted_s).steps}

    assert kinds(0) == kinds(5) == set()
    assert "migrate_vm" in kinds(15)
    (why,) = [one.why_not for one in found(5).refusals if one.code is RefusalCode.NOT_TRUSTED]
    assert why == "not trusted beyond 5 s: error 0.41 of 0.25 allowed"


@pytest.mark.parametrize(
    ("trust", "text"),
    [
        (Trust(), "not trusted: too few scores"),
        (Trust(15, 0.41, 0.9, 0.25, 1.5), "not trusted beyond 15 s: error 0.41 of 0.25 allowed"),
        (Trust(15, 0.2, 2.0, 0.25, 1.5), "not trusted beyond 15 s: width 2.00 of 1.5 allowed"),
    ],
)
def test_a_doubt_is_said_with_number_limit_and_reason(trust: Trust, text: str) -> None:
    assert trust.doubt() == text


def outcomes(store: Store) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in store.journal.actions():
        found.setdefault(one.outcome.value, []).append(one.sentence)
    return found


def test_the_loop_acts_on_trusted_forecasts_and_says_how_far_they_are(store: Store) -> None:
    Simulation(store, surges=((30.0, 40.0),)).run(36)
    first = next(one for one in reversed(store.journal.actions()) if one.kind == "reserve_bandwidth")
    assert first.outcome is OutcomeKind.DONE
    assert any("trusted 3600 s ahead: error 0.05 of 0.25 allowed" in line for line in explain(first))


def test_the_loop_waits_for_the_measured_need_where_forecasts_were_worth_nothing(store: Store) -> None:
    sim = Simulation(store, surges=((30.0, 40.0),), trust=NOTHING).run(29)
    assert set(outcomes(store)) == {"skipped"}
    assert set(outcomes(store)["skipped"]) == {"refused: not trusted: error 0.41 of 0.25 allowed"}
    sim.run(7)
    done = [one for one in store.journal.actions() if one.outcome is OutcomeKind.DONE]
    assert {one.kind for one in done} >= {"reserve_bandwidth", "set_cpu_limit"}
    assert all(one.reason["forecast"] is None for one in done)


@pytest.mark.parametrize(
    ("trust", "peak", "there"), [(TRUSTED, 50_000.0, True), (NOTHING, 50_000.0, False), (TRUSTED, 0.0, False)]
)
def test_a_silent_pair_that_is_expected_to_talk_is_planned_for(
    store: Store, trust: Trust, peak: float, there: bool
) -> None:
    """It has not been heard of at all; what its trusted forecast says of it is demanded, on its way."""
    declare(store)
    sleeper, now = Pair("c9", SHOP), START + 100.0
    store.facts.add_communications([Communication("c1", SHOP, "shop1", now, 1.0, 8_000, 6, 2)])
    store.forecasts.add_forecasts(
        [fan(sleeper, now, 5, one, peak, trust=trust) for one in (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN)]
    )
    found = Gatherer(store, LOOP_CONFIG, lambda source, end: (source, "leaf1", end)).world(now, (), LeadTimes())
    assert (sleeper in found.pairs) is there
    if there:
        assert (found.pairs[sleeper].destination, found.pairs[sleeper].links[0]) == ("shop1", ("c9", "leaf1"))
        need = PlanningContext.of(found, LOOP_CONFIG).demand.of(sleeper, 5).bytes.need
        assert need == pytest.approx(1.2 * 1.16 * peak, rel=0.02)
    reactive = Gatherer(store, LOOP_CONFIG.tuned(policy="reactive"), lambda source, end: (source, end))
    assert set(reactive.world(now, (), LeadTimes()).pairs) == {Pair("c1", SHOP)}

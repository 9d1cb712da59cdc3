"""A machine whose forecasts cost more than reacting follows what is measured, and comes back when they are cheaper."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import CONFIG as PLAIN
from worlds import NOW, RELATION, foreseen, machines, pair_state, vm, world

from cpdb import RuleReport, Store
from orchestrator import Plan, World, plan
from orchestrator.context import PlanningContext
from orchestrator.hedge import LEADS_S, MOST_S, Lead, LimitHedge, cores_needed, limit_cost
from orchestrator.proposal import RefusalCode, Step

CONFIG, UNIT = PLAIN.tuned(cpu={"hedge_s": 300.0}), 2.0
GAINS = st.lists(st.floats(-5.0, 5.0), max_size=200)
KEPT = st.sampled_from([1.0, 0.999, 0.9])


def followed(gains: Sequence[float], kept: float) -> list[Lead]:
    """The lead before each second of these gains, and after the last."""
    leads = [Lead()]
    for gain in gains:
        leads.append(leads[-1].after(gain, kept, UNIT))
    return leads


@given(GAINS, KEPT)
def test_it_turns_only_for_what_was_gained_or_lost_meanwhile(gains: list[float], kept: float) -> None:
    leads = followed(gains, kept)
    turns = sum(a.foresees != b.foresees for a, b in pairwise(leads))
    assert turns * LEADS_S * UNIT <= sum(map(abs, gains)) + 1e-6


@given(GAINS, KEPT)
def test_however_a_load_is_shaped_it_never_loses_more_than_a_bound_between_two_turns(
    gains: list[float], kept: float
) -> None:
    leads, lost, seconds = followed(gains, kept), 0.0, 0
    for lead, gain in zip(leads, gains, strict=False):
        lost, seconds = (lost - gain, seconds + 1) if lead.foresees else (0.0, 0)
        free = seconds * (1.0 - kept) * LEADS_S * UNIT  # so much is forgotten while it is behind
        assert lost <= (MOST_S + LEADS_S) * UNIT + 5.0 + free + 1e-6


def test_a_steady_loss_ends_after_one_lead_and_a_steady_gain_brings_it_back() -> None:
    leads = followed([-0.5] * 20 + [0.5] * 60, 1.0)
    counts = [one.foresees for one in leads]
    assert counts.index(False) == 5
    assert counts[20:].index(True) > 5
    assert counts[-1]


def test_costs_by_hand() -> None:
    assert limit_cost(1.0, 1.5, 0.4, 9.0) == pytest.approx(4.5)
    assert limit_cost(1.0, 0.1, 0.4, 9.0) == pytest.approx(0.6)
    assert limit_cost(0.4, 0.1, 0.4, 9.0) == 0.0


def test_who_was_held_back_needed_what_was_asked_of_it() -> None:
    shop = vm("shop", "h1", 0.4, 0.4, relation=RELATION)
    asked = pair_state("c1", "v", 10, 50.0, destination="shop", links=(), newest_connections_per_s=50.0)
    here = world([asked], **machines(shop))
    assert cores_needed(here, shop, 0.4) == pytest.approx(RELATION.base_cores + 50.0 * RELATION.slope)
    assert cores_needed(here, shop, 0.2) == 0.2


def second(at: float, told: float, asked: float) -> World:
    """A world in which a surge of so many connections/s is foreseen, and so many are there."""
    pair = pair_state("c1", "v", 10, asked, destination="shop", links=(), newest_connections_per_s=asked)
    pair = foreseen(pair, {5: told, 15: told, 30: told}, NOW + at, 1.0)
    shop = vm("shop", "h1", RELATION.cores(asked), 0.1, priority=10, cpu_cores_max=0.8, relation=RELATION)
    return replace(world([pair], **machines(shop)), now=NOW + at)


def decided(hedge: LimitHedge, here: World) -> Plan:
    """As the live cycle does it."""
    hedge.count(here, {"shop": here.vms["shop"].cores_used})
    context = PlanningContext.of(here, CONFIG, reacting=hedge.reacting)
    found = plan(context)
    hedge.advance(context)
    return found


def test_who_cries_wolf_is_not_followed_until_it_is_right_again(store: Store) -> None:
    hedge = LimitHedge(CONFIG, store)
    plans = [decided(hedge, second(at, 30.0, 2.0)) for at in range(12)]
    assert any(isinstance(one, Step) for one in plans[0].steps)
    assert plans[-1].steps == ()
    (refusal,) = (one for one in plans[-1].refusals if one.code is RefusalCode.HEDGED)
    assert refusal.about == "shop"
    assert "forecasts cost" in refusal.why_not
    hedge.tell(NOW + 12)
    (kept,) = store.wanted.observed_of(RuleReport)
    assert kept.key == "shop"
    # Somebody else who decides on the same database agrees.
    other = LimitHedge(CONFIG, store)
    assert decided(other, second(12, 30.0, 2.0)).steps == ()
    # A surge comes as it is foreseen: what is measured only follows it.
    for at in range(12, 120):
        decided(hedge, second(at, 30.0 if at % 20 > 9 else 2.0, 30.0 if at % 20 > 12 else 2.0))
    assert hedge.reacting == {}
    hedge.tell(NOW + 120)
    assert store.wanted.observed_of(RuleReport) == []


def test_turned_off_or_reacting_anyway_it_counts_nothing(store: Store) -> None:
    for config in (CONFIG.tuned(cpu={"hedge_s": 0}), CONFIG.tuned(policy="reactive")):
        hedge = LimitHedge(config, store)
        for at in range(12):
            decided(hedge, second(at, 30.0, 2.0))
        assert hedge.reacting == {}

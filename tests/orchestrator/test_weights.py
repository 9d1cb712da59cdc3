"""Weights follow predicted headroom: when they move, how far, and when they stay or go back."""

from dataclasses import replace

import numpy as np
import pytest
from fake_world import BACKUP, SEARCH, SHOP, START, Simulation
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, GIB, LINK, NOW, RELATION, changed, foreseen, machines, pair_state, vm, world

from cpdb import (
    ActionRecord,
    ActionTiming,
    Destination,
    DestinationHealth,
    HealthReport,
    HealthStatus,
    OutcomeKind,
    Standing,
    Store,
    VirtualIp,
)
from orchestrator import HostSpec, LinkState, SetWeights, World, apply, explain, guard, plan
from orchestrator.context import PlanningContext
from orchestrator.optimise import Rows, best_shares, headroom_bound
from orchestrator.proposal import Proposal
from orchestrator.strategies.weights import propose

SERVICE = VirtualIp(
    "shop",
    "shop",
    10,
    (
        Destination("a", "10.0.0.1", "52:54:00:00:00:01"),
        Destination("b", "10.0.0.2", "52:54:00:00:00:02"),
        Destination("spare", "10.0.0.3", "52:54:00:00:00:03", 0),
    ),
    affinity="connection",
)


def serving(rate: float, peak: float, vip: VirtualIp = SERVICE, **more) -> World:
    """Two sources of a service with two destinations: a may use 0.4 cores, b 0.8."""
    pairs = [
        replace(
            foreseen(pair_state(f"c{n}", "shop", 10, rate / 2, links=()), {5: peak / 2, 15: peak / 2}),
            destination=("a", "b")[n] if vip.affinity == "source" else None,
        )
        for n in range(2)
    ]
    small = vm("a", "h1", 0.01 + 0.01 * rate, 0.4, relation=RELATION)
    large = vm("b", "h2", 0.01 + 0.01 * rate, 0.8, relation=RELATION)
    return world(pairs, **({"virtual_ips": {"shop": vip}} | machines(small, large) | more))


def steps(start: World, config=CONFIG) -> list[SetWeights]:
    return [one.action for one in planned(start, config).steps if isinstance(one.action, SetWeights)]


def planned(start: World, config=CONFIG):
    return plan(PlanningContext.of(start, config))


def test_more_goes_to_the_destination_that_will_have_more_left() -> None:
    (action,) = steps(serving(10.0, 50.0))
    after = dict(action.after)
    assert after["b"] / (after["a"] + after["b"]) == pytest.approx(2 / 3, abs=0.07)
    assert sum(after.values()) == pytest.approx(200, abs=1)  # on the scale of what was declared
    assert set(after) == {"a", "b"}  # a spare that wakes up has its declared weight
    assert action.before == ()


def test_a_step_says_what_each_place_would_have_left() -> None:
    start = serving(10.0, 45.0)
    (step,) = [one for one in planned(start).steps if isinstance(one.action, SetWeights)]
    rooms = step.reason.to_json()["headrooms"]
    assert rooms["a"]["now"] < 0.15 < rooms["a"]["then"]
    assert "shop within 5 s: headroom a " in step.why
    assert step.reason.to_json()["promise"]["vms"] == ["a", "b"]
    assert step.reason.to_json()["forecast"]["model"] == "oracle"


def test_nothing_is_touched_while_all_have_enough_or_when_it_would_not_help() -> None:
    assert steps(serving(4.0, 8.0)) == []
    even = machines(vm("a", "h1", 0.3, 0.4, relation=RELATION), vm("b", "h2", 0.3, 0.4, relation=RELATION))
    found = planned(serving(10.0, 50.0, **even))
    assert not [one for one in found.steps if isinstance(one.action, SetWeights)]
    assert any("no split leaves" in one.why_not for one in found.refusals)
    assert steps(serving(10.0, 50.0), CONFIG.tuned(weights={"enabled": False})) == []


def test_planning_again_gives_nothing_and_what_was_declared_comes_back_in_calm() -> None:
    start = serving(10.0, 50.0)
    after = apply(start, steps(start)[0])
    assert steps(after) == []
    calm = changed(serving(3.0, 3.0), weights=after.wanted.weights)
    (back,) = steps(calm)
    assert (back.before, back.after) == (steps(start)[0].after, ())
    assert "as declared" in back.describe()
    assert steps(apply(calm, back)) == []
    nearly = changed(serving(8.0, 38.5), weights=after.wanted.weights)
    assert steps(nearly) == []


def test_what_was_declared_waits_where_a_surge_comes_before_weights_may_change_again() -> None:
    start = serving(10.0, 50.0)
    weights = apply(start, steps(start)[0]).wanted.weights
    pairs = [foreseen(one, {5: 1.5, 15: 25.0}) for one in serving(3.0, 3.0).pairs.values()]
    between = changed(serving(3.0, 3.0), weights=weights, pairs={one.pair: one for one in pairs})
    assert steps(between) == []
    assert steps(between, CONFIG.tuned(weights={"cooldown_s": 3.0})) != []


@pytest.mark.parametrize(
    "change",
    [
        {"standing": Standing.DRAINING},
        {"standing": Standing.JOINING},
        {"weight": 0},
    ],
)
def test_who_does_not_serve_or_is_on_stand_by_takes_no_part(change: dict) -> None:
    a, b, spare = SERVICE.destinations
    alone = replace(SERVICE, destinations=(a, replace(b, **change), spare))
    assert steps(serving(10.0, 50.0, alone)) == []


def test_a_destination_that_is_down_takes_no_part() -> None:
    word = HealthReport("shop", "b", DestinationHealth(HealthStatus.DOWN), "no answer", NOW)
    assert steps(serving(10.0, 50.0, observed=(word,))) == []


def test_the_way_counts_as_much_as_the_machine() -> None:
    roomy = machines(vm("a", "h1", 0.1, 4.0), vm("b", "h2", 0.1, 4.0), hosts=tuple(_host(n) for n in ("h1", "h2")))
    start = serving(10.0, 40.0, **roomy)
    wide = ("leaf", "h2")
    start = changed(
        start,
        links={LINK: LinkState(LINK, 700_000.0, 0.0), wide: LinkState(wide, 5_000_000.0, 0.0)},
        ways=lambda _source, end: (LINK,) if end == "h1" else (wide,),
    )
    (action,) = steps(start)
    after = dict(action.after)
    assert after["b"] > 5 * after["a"]


def _host(name: str) -> HostSpec:
    return HostSpec(name, "", "", 8.0, GIB)


def test_with_affinity_to_sources_those_who_speak_are_counted_where_they_are() -> None:
    pinned = replace(SERVICE, affinity="source")
    (action,) = steps(serving(10.0, 50.0, pinned))
    after = dict(action.after)
    assert after["b"] >= 10 * after["a"]


def test_changed_weights_rest_for_a_while() -> None:
    start = serving(10.0, 50.0)
    (step,) = [one for one in planned(start).steps if isinstance(one.action, SetWeights)]
    before = ActionRecord(
        "set_weights",
        "shop",
        step.action.to_json(),
        "",
        {},
        "predictive",
        NOW - 5,
        ActionTiming(NOW, 1.0, NOW - 4),
        OutcomeKind.DONE,
    )
    refused = guard(planned(start), PlanningContext.of(start, CONFIG), [before]).refused
    assert any("cooldown" in one.why_not for one in refused)
    later = replace(before, issued_at=NOW - CONFIG.weights.cooldown_s - 1)
    assert guard(planned(start), PlanningContext.of(start, CONFIG), [later]).refused == ()


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 6), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_best_shares_are_no_worse_than_any_others(count: int, places: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = Rows(rng.uniform(0, 1.2, places), rng.uniform(0, 1.5, (places, count)) * (rng.random((places, count)) < 0.6))
    best = best_shares(rows, 0.02)
    assert best.sum() == pytest.approx(1.0)
    assert best.min() >= 0.02 - 1e-6
    others = 0.02 + (1 - 0.02 * count) * rng.dirichlet(np.ones(count), 200)
    assert min(rows.headroom(best)) >= max(min(rows.headroom(one)) for one in others) - 1e-6


def test_a_place_that_nothing_can_help_does_not_decide_about_the_others() -> None:
    rows = Rows(np.array([1.5, 0.0, 0.0]), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]]))
    assert best_shares(rows, 0.02)[0] == pytest.approx(1 / 3, abs=0.01)


def test_without_alternatives_there_is_nothing_to_weigh() -> None:
    start = serving(10.0, 50.0, replace(SERVICE, destinations=SERVICE.destinations[:1]))
    assert propose(PlanningContext.of(start, CONFIG)) == Proposal()


def test_in_the_loop_weights_are_wanted_before_a_foreseen_surge_and_judged_after_it(store: Store) -> None:
    sim = Simulation(store, surges=((60.0, 75.0),), surge_per_s=30.0)
    vips = {one.address: one for one in store.inventory.virtual_ips()}
    both = (replace(vips[SHOP].destinations[0], weight=95), replace(vips[SEARCH].destinations[0], weight=5))
    shared = replace(vips[SHOP], destinations=both, affinity="connection")
    store.inventory.declare_virtual_ips([shared, vips[SEARCH], vips[BACKUP]])
    sim.run(95)
    rows = [one for one in store.journal.actions() if one.kind == "set_weights" and one.outcome is OutcomeKind.DONE]
    assert rows
    assert rows[-1].issued_at < START + 60
    assert len(rows) <= 3
    (wanted,) = store.wanted.weights()
    assert wanted.virtual_ip == SHOP
    assert rows[-1].verdict["sentence"]
    assert "headroom" in "\n".join(explain(rows[-1]))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10_000))
def test_no_split_leaves_more_than_the_bound_says(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    own = np.diag(rng.uniform(0.05, 0.6, count))
    shared = rng.uniform(0, 0.5, (int(rng.integers(0, 4)), count)) * rng.integers(0, 2, count)
    rows = Rows(rng.uniform(0.2, 1.1, count + len(shared)), np.vstack([own, shared]))
    best = float(rows.headroom(best_shares(rows, 0.02)).min())
    assert best <= headroom_bound(rows, 0.02) + 1e-6
    # Where each destination has a place of its own and nothing else, it is what the best split leaves, or little more.
    alone = Rows(rows.base[:count], own)
    answer = best_shares(alone, 0.0)
    if answer.min() > 1e-6:
        assert headroom_bound(alone, 0.0) == pytest.approx(float(alone.headroom(answer).min()), abs=1e-5)

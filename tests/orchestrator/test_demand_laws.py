"""What is demanded grows with level and margin, and never falls below what is measured."""

from dataclasses import replace

import pytest
from fake_world import fan
from hypothesis import given
from hypothesis import strategies as st
from worlds import CONFIG, LINK, NOW, foreseen, pair_state, world

from cpdb import Quantity
from orchestrator import PlanningContext, demands, together
from orchestrator.context import fits_link
from orchestrator.demand_table import Rate
from orchestrator.pair_table import ConnectionSize

RATES = st.floats(0, 40)


@given(RATES, RATES, st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(1, 3), st.floats(1, 3))
def test_demand_is_monotone_in_level_and_margin(rate, peak, level_a, level_b, margin_a, margin_b) -> None:
    state = foreseen(pair_state("c1", "v", 1, rate), {5: peak})
    low = CONFIG.tuned(demand={"level": min(level_a, level_b), "margin": min(margin_a, margin_b)})
    high = CONFIG.tuned(demand={"level": max(level_a, level_b), "margin": max(margin_a, margin_b)})
    less = demands(world([state]), low).of(state.pair, 5)
    more = demands(world([state]), high).of(state.pair, 5)
    assert less.bytes.need <= more.bytes.need
    assert less.connections.need <= more.connections.need


@given(RATES, RATES, st.floats(0, 20), st.sampled_from([0, 5, 15]))
def test_a_forecast_may_add_but_never_starve(rate, peak, age_s, horizon_s) -> None:
    state = foreseen(pair_state("c1", "v", 1, rate), {5: peak, 15: peak}, NOW - age_s)
    found = demands(world([state]), CONFIG).of(state.pair, horizon_s)
    assert found.bytes.need >= state.bytes_per_s
    assert found.connections.need >= state.connections_per_s


def test_connections_reveal_a_need_that_a_full_path_hides_in_bytes() -> None:
    starved = pair_state("c1", "v", 1, 20.0, bytes_per_s=100_000.0, typical_bytes_per_s=100_000.0)
    assert demands(world([starved]), CONFIG).of(starved.pair, 0).bytes.need == pytest.approx(600_000)


def test_a_stale_forecast_is_not_used() -> None:
    state = foreseen(pair_state("c1", "v", 1, 2.0), {5: 30.0}, NOW - CONFIG.demand.max_forecast_age_s - 1)
    found = demands(world([state]), CONFIG).of(state.pair, 5)
    assert found.connections.need == 2.0
    assert found.connections.forecast is None


def test_an_absurdly_wide_forecast_is_not_used() -> None:
    state = foreseen(pair_state("c1", "v", 1, 0.0), {5: 1.0})
    wide = fan(state.pair, NOW, 5, Quantity.CONNECTIONS_PEAK, 1.0)
    wide = replace(wide, quantiles={0.05: 0.0, 0.5: 1.0, 0.95: 1e6})
    state = replace(state, forecasts={**state.forecasts, (5, Quantity.CONNECTIONS_PEAK): wide})
    assert demands(world([state]), CONFIG).of(state.pair, 5).connections.need == 0.0


def test_no_pair_is_believed_to_send_more_than_its_narrowest_link() -> None:
    state = foreseen(pair_state("c1", "v", 1, 1.0), {5: 4_000.0})
    found = demands(world([state], capacity=600_000.0), CONFIG).of(state.pair, 5)
    assert found.bytes.need == pytest.approx(600_000.0)
    assert state.links == (LINK,)


def test_the_reactive_policy_knows_only_now() -> None:
    state = foreseen(pair_state("c1", "v", 1, 2.0), {5: 30.0})
    found = demands(world([state]), CONFIG.tuned(policy="reactive"))
    assert found.config.horizons_s == (0,)
    assert found.of(state.pair, 5).connections == found.of(state.pair, 0).connections
    assert found.of(state.pair, 0).connections.need == 2.0


@given(st.lists(st.tuples(RATES, RATES, RATES), min_size=1, max_size=6))
def test_together_lies_between_the_measured_sum_and_the_sum_of_all_needs(values) -> None:
    rates = [Rate(measured, typical, max(measured, typical, need), 0.0) for measured, typical, need in values]
    total = together(rates)
    assert total >= sum(one.measured for one in rates) - 1e-9
    assert total <= sum(one.need for one in rates) + 1e-6


@given(st.lists(st.tuples(RATES, RATES), min_size=1, max_size=4), st.floats(1, 4e6), st.sampled_from([0, 5]))
def test_what_is_said_to_fit_is_never_needed_beyond_the_trigger(rates, capacity, horizon_s) -> None:
    pairs = [foreseen(pair_state(f"c{n}", "v", n, rate), {5: peak}) for n, (rate, peak) in enumerate(rates)]
    context = PlanningContext.of(world(pairs, capacity=capacity), CONFIG)
    link = context.world.links[LINK]
    allowed = CONFIG.bandwidth.trigger * capacity
    assert not fits_link(context, link, horizon_s) or context.needed(LINK, horizon_s) <= allowed * (1 + 1e-9)
    # One pair alone needs what it needs: then both say the same.
    alone = PlanningContext.of(world(pairs[:1], capacity=capacity), CONFIG)
    link, need = alone.world.links[LINK], alone.demand.of(pairs[0].pair, horizon_s).bytes
    assert fits_link(alone, link, horizon_s) == (max(need.need, need.typical, need.measured) <= allowed)


def test_what_was_made_up_for_after_being_held_back_is_not_asked_for_again() -> None:
    state = foreseen(pair_state("c1", "v", 1, 2.0), {5: 20.0})
    caught_up = fan(state.pair, NOW, 5, Quantity.BYTES_PEAK, 1_200_000.0)
    state = replace(state, forecasts={**state.forecasts, (5, Quantity.BYTES_PEAK): caught_up})
    follows = replace(state, connection=ConnectionSize(30_000.0, known_per_s=30.0))
    either, own = (demands(world([one]), CONFIG).of(state.pair, 5).bytes for one in (state, follows))
    assert either.need > 1_200_000 and own.need == pytest.approx(20 * 30_000, rel=0.5)
    assert own.forecast is not None and own.forecast.quantity is Quantity.CONNECTIONS_PEAK
    never_so_many = replace(follows, connection=ConnectionSize(30_000.0, known_per_s=10.0))
    assert demands(world([never_so_many]), CONFIG).of(state.pair, 5).bytes.need == either.need
    sends_now = replace(follows, bytes_per_s=900_000.0)
    assert demands(world([sends_now]), CONFIG).of(state.pair, 5).bytes.need >= 900_000

"""What is worked out for all pairs at once is what each pair, machine, link and service would get by itself."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, LINK, worlds

from cpdb import NO_MODEL, Forecast, ForecastBatch, Pair, Quantity, Subject, SubjectKind, TrustArrays
from orchestrator import PlanningContext, World, together
from orchestrator.context import served_demands, vm_need
from orchestrator.foreseen import Foreseen, IssuedForecasts, forecasts_of
from orchestrator.onset import PEAK, Reading
from orchestrator.pair_table import PairState

LEVELS, FAR = (0.05, 0.5, 0.9), (5, 15)
QUANTITIES = (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN)
PAIRS = tuple(Pair(f"c{number}", "v") for number in range(3))
PLAIN = st.floats(0, 1e6, width=32)


@st.composite
def issues(draw: st.DrawFn, tier: str) -> IssuedForecasts:
    """Forecasts of some of the pairs, in any order; models that say nothing, and levels without a value."""
    own = draw(st.lists(st.sampled_from(PAIRS), unique=True, min_size=1))
    shape = len(own), len(FAR), len(QUANTITIES), len(LEVELS)
    count = int(np.prod(shape))
    values = np.sort(np.array(draw(st.lists(PLAIN, min_size=count, max_size=count)), "<f4").reshape(shape), axis=-1)
    gaps = draw(st.lists(st.integers(0, count - 1), max_size=6))
    values.reshape(-1)[gaps] = np.nan
    chosen = draw(st.lists(st.sampled_from([0, NO_MODEL]), min_size=count // 3, max_size=count // 3))
    trusted = draw(st.lists(st.sampled_from([0, 5, 15]), min_size=len(own), max_size=len(own)))
    batch = ForecastBatch(
        draw(st.floats(0, 10)), tier, tuple(Subject(SubjectKind.PAIR, one.source, one.virtual_ip) for one in own), FAR,
        QUANTITIES, LEVELS, ("m",), bytes(chosen), values.tobytes(),
        trusts=TrustArrays(np.array(trusted, "<u2").tobytes()),
    )  # fmt: skip
    return IssuedForecasts.of(batch, {pair: place for place, pair in enumerate(own)})


def by_hand(pair: Pair) -> dict[tuple[int, Quantity], Forecast]:
    return {(5, Quantity.BYTES_PEAK): Forecast(pair, 1.0, 5, Quantity.BYTES_PEAK, "m", {0.2: 1.0, 0.7: 3.0})}


@settings(max_examples=60)
@given(issues("fast"), issues("slow"), st.floats(0.01, 0.99), st.booleans())
def test_a_column_says_of_each_pair_what_its_own_forecast_says(fast, slow, level, told) -> None:
    known = [forecasts_of(pair, (fast, slow)) for pair in PAIRS] + [by_hand(PAIRS[0])] * told
    foreseen = Foreseen(known)
    for far, quantity in product(FAR, QUANTITIES):
        column = foreseen.column(far, quantity)
        own = [one.get((far, quantity)) for one in known]
        if column is None:
            assert own == [None] * len(own)
            continue
        assert column.said.tolist() == [one is not None for one in own]
        rows = np.flatnonzero(column.said)[::-1]
        for at in (level, np.full(len(rows), level), 0.5, 0.05):
            for number, value in zip(rows.tolist(), column.rows(rows).at(at).tolist(), strict=True):
                assert value == pytest.approx(own[number].at(float(np.max(at))), rel=1e-12)
                assert bool(column.trusted[number]) == own[number].trusted
                assert column.issued_at[number] == own[number].issued_at


def alone(world: World, state: PairState) -> PlanningContext:
    """The same world with one pair in it."""
    return PlanningContext.of(replace(world, pairs={state.pair: state}), CONFIG)


@settings(max_examples=40)
@given(
    worlds(), st.sampled_from([0, 5, 15]), st.sampled_from([PEAK, Reading(2.0), Reading(1.5, 0.5), Reading(None, 0.3)])
)
def test_many_at_once_are_what_each_would_be_by_itself(world, horizon_s, reading) -> None:
    context = PlanningContext.of(world, CONFIG)
    for state in world.pairs.values():
        found = context.demand.of(state.pair, horizon_s, reading)
        assert found == alone(world, state).demand.of(state.pair, horizon_s, reading)
    wants = context.demand.at(horizon_s, world.pairs_on(LINK))
    asked = context.asked_on(LINK, horizon_s)
    assert asked.bytes_per_s == pytest.approx(together(one.bytes for one in wants))
    assert asked.measured == pytest.approx(sum(one.bytes.measured for one in wants))
    for vm in world.vms.values():
        served, need = served_demands(context, vm, horizon_s, reading), vm_need(context, vm, horizon_s, reading)
        rates = {one.feature: together(item.rate_of(one.feature) for item in served) for one in vm.relations}
        related = [one.cores(rates[one.feature]) for one in vm.relations if served]
        assert need.cores == pytest.approx(max([vm.cores_used, *related]))
        assert need.leading == max(served, key=lambda one: one.bytes.need, default=None)

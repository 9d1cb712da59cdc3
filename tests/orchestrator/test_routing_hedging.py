"""Hedging: never worse than any other splits on its own scenarios, and kept in force as long as it serves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_nets import diamond, random_net, random_splits
from scipy.optimize import linprog

from orchestrator.optimise import (
    Habits,
    Hedged,
    History,
    MeasuredMatrix,
    Risk,
    Scenarios,
    Tunnels,
    auto,
    blended,
    hedge,
    history_for,
    measured,
    of_errors,
    of_quantiles,
    scenarios,
)


def possible(rng: np.random.Generator, net: Tunnels, rows: int = 12) -> Scenarios:
    demand = rng.exponential(1.0, len(net.pairs)) * rng.lognormal(0.0, 0.6, (rows, len(net.pairs)))
    return scenarios(demand, np.array([measured(net, 0, row).best for row in demand]))


def in_full(net: Tunnels, given: Scenarios) -> float:
    """The least mean ratio by one program with every row: the slow reference."""
    count, rows = len(net.paths), len(given.best)
    usage = net.usage.toarray()
    limits = np.zeros((rows * len(net.links), count + rows))
    for number, (demand, best) in enumerate(zip(given.demand, given.best, strict=True)):
        block = slice(number * len(net.links), (number + 1) * len(net.links))
        limits[block, :count] = usage * demand[net.pair_of] / best
        limits[block, count + number] = -1.0
    sums = np.zeros((len(net.pairs), count + rows))
    sums[net.pair_of, np.arange(count)] = 1.0
    cost = np.append(np.zeros(count), given.weight)
    return float(linprog(cost, limits, np.zeros(len(limits)), sums, np.ones(len(net.pairs)), (0, None)).fun)


def test_cutting_planes_reach_the_full_program() -> None:
    rng = np.random.default_rng(1)
    for _ in range(6):
        net = random_net(rng)
        given = possible(rng, net)
        found = hedge(net, given, Risk(tail_weight=0.0))
        assert found.risk == pytest.approx(in_full(net, given), rel=2e-3)
        assert found.bound <= found.risk + 1e-9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), tail=st.sampled_from([0.0, 0.2, 0.7]))
def test_no_splits_have_less_risk(seed: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    net = random_net(rng, nodes=6, pairs=6)
    given, risk = possible(rng, net), Risk(tail, 0.75)
    found = hedge(net, given, risk)
    assert found.risk == pytest.approx(risk.of(given.ratios(net, found.splits), given.weight))
    for _ in range(30):
        other = risk.of(given.ratios(net, random_splits(rng, net)), given.weight)
        assert found.risk <= other * 1.002


def test_risk_of_the_tail_is_the_mean_of_the_worst() -> None:
    ratios, weights = np.arange(1.0, 11.0), np.full(10, 0.1)
    assert Risk(1.0, 0.8).of(ratios, weights) == pytest.approx(9.5)
    assert Risk(0.5, 0.8).of(ratios, weights) == pytest.approx((9.5 + 5.5) / 2)


def test_a_heavier_tail_trades_the_mean_for_the_worst() -> None:
    rng = np.random.default_rng(4)
    net = random_net(rng)
    given = possible(rng, net, rows=40)
    mild, strict = (given.ratios(net, hedge(net, given, Risk(tail, 0.9)).splits) for tail in (0.0, 0.9))
    assert mild.mean() <= strict.mean() * 1.002
    assert np.sort(strict)[-4:].mean() <= np.sort(mild)[-4:].mean() * 1.002


def test_a_price_of_moving_keeps_splits_that_are_good_enough() -> None:
    rng = np.random.default_rng(5)
    net = random_net(rng)
    given = possible(rng, net)
    current = random_splits(rng, net)
    moved = [
        np.abs(hedge(net, given, Risk(churn=price), current).splits - current).sum() for price in (0.0, 0.3, 100.0)
    ]
    assert moved[1] < moved[0]
    assert moved[2] == pytest.approx(0.0, abs=1e-6)


def test_only_free_pairs_move() -> None:
    rng = np.random.default_rng(6)
    net = random_net(rng)
    current = random_splits(rng, net)
    found = hedge(net, possible(rng, net), Risk(churn=0.0), current, np.array([0, 3, 7]))
    held = ~np.isin(net.pair_of, [0, 3, 7])
    assert found.splits[held] == pytest.approx(current[held])
    assert np.abs(found.splits - current).sum() > 0.01


def test_history_keeps_an_even_choice_and_the_newest() -> None:
    history = History(most=10, recent=3)
    for number in range(100):
        history.add(MeasuredMatrix(number, np.ones(2), 1.0, np.ones(3)))
    numbers = [row.number for row in history.rows()]
    assert numbers[-3:] == [97, 98, 99]
    assert len(numbers) <= 13
    assert max(np.diff(numbers)) <= 16


def test_silence_is_no_scenario() -> None:
    history = History()
    history.add(measured(diamond(), 0, np.zeros(2)))
    assert history.scenarios() is None


def test_splits_are_renewed_when_the_world_is_not_what_it_was() -> None:
    net = diamond(upper=10.0, lower=5.0)
    alert, calm = Hedged(net, habits=Habits(every=1000)), Hedged(net, habits=Habits(every=1000, alert=False))
    assert alert.decide() == pytest.approx(net.shortest())
    # The way back fills half of a link: little traffic one way may then take any path.
    usual, other = np.array([0.1, 9.0]), np.array([15.0, 0.0])
    for strategy in (alert, calm):
        for number in range(5):
            strategy.see(measured(net, number, usual))
            strategy.decide()
        strategy.see(measured(net, 5, other))
        strategy.decide()
    assert (alert.solved, calm.solved) == (2, 1)
    before, after = (float(net.mlu(strategy.decide(), other)[0]) for strategy in (calm, alert))
    assert after < before


def test_whoever_would_hardly_move_stays() -> None:
    net, before = diamond(upper=10.0, lower=5.0), np.array([1.0, 0.0, 1.0])
    # A third of the first pair should take the longer way.
    for deadband, stays in ((0.5, True), (0.1, False)):
        strategy = Hedged(net, habits=Habits(every=1, deadband=deadband, deadband_cost=100.0))
        strategy.take(before)
        strategy.see(measured(net, 0, np.array([15.0, 0.1])))
        assert np.array_equal(strategy.decide(), before) == stays


def test_auto_is_hedged_and_adds_up() -> None:
    rng = np.random.default_rng(8)
    net = random_net(rng)
    strategy = auto(net)
    base = rng.exponential(1.0, len(net.pairs))
    ratios = []
    for number in range(80):
        row = measured(net, number, base * rng.lognormal(0, 0.4, len(base)))
        splits = strategy.decide()
        assert np.bincount(net.pair_of, splits) == pytest.approx(np.ones(len(net.pairs)))
        ratios.append(
            (float(net.mlu(splits, row.demand)[0]) / row.best, float(net.mlu(net.equal(), row.demand)[0]) / row.best)
        )
        strategy.see(row)
    hedged, equal = np.mean(ratios[20:], axis=0)
    assert hedged < equal
    assert strategy.solved < 30


def test_many_paths_mean_few_scenarios() -> None:
    assert history_for(diamond()).most == 2048
    rng = np.random.default_rng(9)
    assert history_for(random_net(rng, nodes=30, pairs=800)).most < 120


def test_quantile_levels_weigh_what_lies_between_them() -> None:
    rows, weight = of_quantiles({0.9: np.array([3.0]), 0.1: np.array([1.0]), 0.5: np.array([2.0])})
    assert rows[:, 0] == pytest.approx([1.0, 2.0, 3.0])
    assert weight == pytest.approx([0.3, 0.4, 0.3])


def test_forecasts_err_as_before() -> None:
    forecasts = np.array([[1.0, 2.0], [1.0, 0.0]])
    truths = np.array([[2.0, 1.0], [50.0, 5.0]])
    assert of_errors(np.array([10.0, 10.0]), truths, forecasts) == pytest.approx(np.array([[20.0, 5.0], [100.0, 10.0]]))


def test_foreseen_matrices_weigh_their_share() -> None:
    net = diamond()
    seen = scenarios(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([0.05, 0.1]))
    both = blended(net, seen, np.array([[4.0, 1.0], [0.0, 0.0]]), 0.25)
    assert both.weight == pytest.approx([0.375, 0.375, 0.25])
    assert both.best[-1] == pytest.approx(measured(net, 0, np.array([4.0, 1.0])).best)

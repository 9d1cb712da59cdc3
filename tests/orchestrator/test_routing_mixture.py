"""Splits that look back differently far, mixed: never worse than their weighted mean, and drawn to whoever is best."""

import numpy as np
import pytest
from routing_nets import random_net

from orchestrator.optimise import History, Learning, MeasuredMatrix, Mixed, Tunnels, auto, measured, mixed


def replay(net: Tunnels, demand: np.ndarray, strategy: Mixed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each matrix once all parts have decided: the ratio of the mixture, of each part, and the weights used."""
    ratios, parts, weights = [], [], []
    for number, row in enumerate(demand):
        splits, by = strategy.decide(), strategy.weights
        known = all(part.last is not None for part in strategy.parts)
        seen = measured(net, number, row)
        strategy.see(seen)
        if known:
            ratios.append(float(net.mlu(splits, row)[0]) / seen.best)
            parts.append([part.ratio for part in strategy.parts])
            weights.append(by)
    return np.array(ratios), np.array(parts), np.array(weights)


@pytest.fixture(scope="module")
def turned() -> tuple[Mixed, np.ndarray, np.ndarray, np.ndarray]:
    """Traffic that is steady for 40 matrices, and for 60 more about another mean."""
    rng = np.random.default_rng(3)
    net = random_net(rng, nodes=6, pairs=8)
    means = rng.exponential(1.0, (2, len(net.pairs))) ** 2
    noise = rng.lognormal(0.0, 0.05, (100, len(net.pairs)))
    strategy = mixed(net)
    strategy.learning = Learning(memory=0.9)
    return strategy, *replay(net, means[np.repeat([0, 1], [40, 60])] * noise, strategy)


def test_a_mixture_is_never_worse_than_the_weighted_mean_of_its_parts(turned: tuple) -> None:
    _, ratios, parts, weights = turned
    assert (ratios <= (weights * parts).sum(axis=1) + 1e-9).all()
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(weights)))


def test_after_a_turn_weight_goes_to_those_that_do_better_then(turned: tuple) -> None:
    strategy, ratios, parts, weights = turned
    late = parts[-50:].mean(axis=0)
    assert weights[-1] @ late < weights[:30].mean(axis=0) @ late
    assert weights[-1] @ late < late.mean()
    # Discounted regret as bounded: Freund and Schapire 1997, with a memory.
    learning = strategy.learning
    age = learning.memory ** np.arange(len(ratios))[::-1]
    spread = (parts.max(axis=1) - parts.min(axis=1)).max() / (1 - learning.tail_level)
    bound = np.log(len(strategy.parts)) / learning.rate + learning.rate * spread**2 / (8 * (1 - learning.memory))
    assert age @ (ratios - 1) <= (age @ (parts - 1)).min() + bound


def test_weights_are_exponential_in_what_was_lost_lately() -> None:
    rng = np.random.default_rng(5)
    net = random_net(rng, nodes=5, pairs=5)
    strategy = mixed(net)
    strategy.learning = Learning(rate=2.0, memory=0.5, tail_weight=0.0)
    demand = rng.exponential(1.0, (12, len(net.pairs)))
    lost = np.zeros(len(strategy.parts))
    for number, row in enumerate(demand):
        strategy.decide()
        moved = np.array([part.moved for part in strategy.parts])
        known = all(part.last is not None for part in strategy.parts)
        strategy.see(measured(net, number, row))
        if known:
            lost = 0.5 * lost + [part.ratio for part in strategy.parts] + strategy.risk.churn * moved
    expected = np.exp(-2.0 * lost)
    assert strategy.weights == pytest.approx(expected / expected.sum())


def test_the_tail_counts_beyond_what_was_usual() -> None:
    losses = Learning(tail_weight=0.1, tail_level=0.95).loss(np.array([1.0, 1.2, 1.5]), 1.2)
    assert losses == pytest.approx([0.9 + 0.12, 1.2, 1.35 + 0.12 + 2 * 0.3])


def test_parts_that_have_decided_nothing_begin_with_what_is_in_force() -> None:
    rng = np.random.default_rng(6)
    net = random_net(rng, nodes=5, pairs=5)
    strategy = auto(net)
    strategy.take(net.equal())
    assert strategy.decide() == pytest.approx(net.equal())
    for number in range(4):
        strategy.see(measured(net, number, rng.exponential(1.0, len(net.pairs))))
        strategy.decide()
    while any(part.overdue for part in strategy.parts):
        strategy.decide()
    before = strategy.decide()
    strategy.take(net.shortest())
    assert strategy.decide() == pytest.approx(before)


def test_a_window_forgets_and_is_thinned_evenly() -> None:
    for window, most, offset, kept in ((5, 10, 0, [15, 16, 17, 18, 19]), (9, 3, 1, [13, 16, 19])):
        history = History(most, 2, window, offset)
        for number in range(20):
            history.add(MeasuredMatrix(number, np.ones(2), 1.0, np.ones(3)))
        assert [row.number for row in history.rows()] == kept
        assert history.length == window


def test_where_optima_are_too_dear_there_is_one_part() -> None:
    many = 5001
    ends = tuple((0, node) for node in range(1, many + 1))
    net = Tunnels(ends, ends, np.arange(many), ends, np.ones(many))
    assert len(mixed(net).parts) == 1
    assert len(mixed(random_net(np.random.default_rng(8))).parts) == 9

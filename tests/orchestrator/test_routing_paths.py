"""Paths as matrices: loads, the best of a matrix, and refusals that name every problem."""

import numpy as np
import pytest
from routing_nets import diamond, random_net, random_splits

from orchestrator.optimise import RoutingError, optimum, shortest_paths, tunnels


def test_loads_are_those_counted_by_hand() -> None:
    net = diamond(upper=10.0, lower=5.0)
    loads = dict(zip(net.links, net.utilisation(np.array([0.75, 0.25, 1.0]), np.array([8.0, 2.0])), strict=True))
    assert loads == pytest.approx({(0, 1): 0.6, (1, 3): 0.6, (0, 2): 0.4, (2, 3): 0.4, (3, 1): 0.2, (1, 0): 0.2})


def test_many_matrices_are_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    net = random_net(rng)
    splits, demand = random_splits(rng, net), rng.exponential(1.0, (4, len(net.pairs)))
    assert net.mlu(splits, demand) == pytest.approx([net.utilisation(splits, row).max() for row in demand])


def test_optimum_of_two_ways_is_the_share_of_their_capacities() -> None:
    best = optimum(diamond(upper=10.0, lower=5.0), np.array([9.0, 0.0]))
    assert best.mlu == pytest.approx(0.6)
    assert best.splits[:2] == pytest.approx([2 / 3, 1 / 3])


def test_nothing_beats_the_optimum() -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        net = random_net(rng)
        demand = rng.exponential(1e9, len(net.pairs))
        best = optimum(net, demand)
        assert net.mlu(best.splits, demand)[0] == pytest.approx(best.mlu)
        assert all(net.mlu(random_splits(rng, net), demand)[0] >= best.mlu * (1 - 1e-7) for _ in range(20))
        assert np.bincount(net.pair_of, best.splits) == pytest.approx(np.ones(len(net.pairs)))


def test_optimum_does_not_depend_on_units() -> None:
    rng = np.random.default_rng(3)
    net = random_net(rng)
    large = tunnels(
        {pair: [net.paths[k] for k in np.flatnonzero(net.pair_of == n)] for n, pair in enumerate(net.pairs)},
        dict(zip(net.links, net.capacity * 1e9, strict=True)),
    )
    demand = rng.exponential(1.0, len(net.pairs))
    assert optimum(large, demand * 1e9).mlu == pytest.approx(optimum(net, demand).mlu, rel=1e-6)


def test_a_matrix_without_traffic_is_at_zero() -> None:
    assert optimum(diamond(), np.zeros(2)).mlu == 0.0


def test_shortest_paths_come_shortest_first_and_are_simple() -> None:
    capacity = {hop: 1.0 for a, b in [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)] for hop in ((a, b), (b, a))}
    found = shortest_paths(capacity, [(0, 2)], most=4)[0, 2]
    assert [len(path) for path in found] == [2, 3, 3]
    assert all(len(set(path)) == len(path) for path in found)


def test_unreachable_pairs_are_all_named() -> None:
    with pytest.raises(RoutingError, match=r"0 > 5.*1 > 0"):
        shortest_paths({(0, 1): 1.0}, [(0, 1), (0, 5), (1, 0)])


def test_every_wrong_path_is_named() -> None:
    with pytest.raises(RoutingError) as error:
        tunnels({(0, 2): [(0, 2), (0, 1)], (1, 0): []}, {(0, 1): 1.0, (1, 2): -1.0})
    for part in ("capacity -1", "0 > 2, which does not exist", "path 0 > 1 does not lead 0 > 2", "1 > 0 has no path"):
        assert part in str(error.value)

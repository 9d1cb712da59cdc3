"""Pairs are placed by what they carry: ratios are met, few pairs are cut, and nobody moves without need."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpdb import WantedSplit
from orchestrator.optimise import place_pairs
from orchestrator.strategies.route_net import Carried

PATHS = (("a", "b", "d"), ("a", "c", "d"), ("a", "e", "d"))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), paths=st.integers(2, 5), pairs=st.integers(1, 30))
def test_no_path_gets_more_than_its_ratio_and_few_pairs_are_cut(seed: int, paths: int, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    ratios, sizes = rng.dirichlet(np.ones(paths)), rng.dirichlet(np.full(pairs + 1, 0.5))[:-1]
    placed = place_pairs(ratios, sizes.tolist())
    assert all(own.sum() == pytest.approx(1.0) and (own >= 0).all() for own in placed)
    loads = sum((size * own for size, own in zip(sizes, placed, strict=True)), np.zeros(paths))
    # Each path may get a slack of 1 % for one pair that then need not be cut, and dust of the others.
    assert (loads <= ratios + 0.02 * paths).all()
    assert sum((own > 0).sum() - 1 for own in placed) <= 2 * (paths - 1)


def test_one_that_is_larger_than_any_share_is_cut_over_as_few_as_do() -> None:
    elephant, mouse = place_pairs(np.array([0.35, 0.35, 0.3]), [0.4, 0.25])
    assert sorted(elephant.tolist()) == pytest.approx([0.0, 0.125, 0.875])
    assert mouse.tolist().count(1.0) == 1


def test_whoever_still_fits_stays() -> None:
    before = [np.array([0.0, 1.0]), np.array([0.0, 1.0])]
    assert [own.tolist() for own in place_pairs(np.array([0.5, 0.5]), [0.3, 0.1], before)] == [[0, 1], [0, 1]]
    # With less room the larger one stays.
    assert [own.tolist() for own in place_pairs(np.array([0.7, 0.3]), [0.3, 0.1], before)] == [[0, 1], [1, 0]]


def test_loads_that_have_left_the_split_are_seen() -> None:
    own = Carried({("c1", "s"): 40.0, **{(f"d{n}", "s"): 0.6 for n in range(100)}})
    row = WantedSplit("a", "d", PATHS[:2], (0.5, 0.5), (3072, 3073), "test", "", 0.0)
    row = replace(row, heavy=own.placed(row.paths, row.ratios, None))
    assert [one.source for one in row.heavy] == ["c1"]
    assert own.deviation(row) == pytest.approx(0.0, abs=1e-9)
    grown = Carried({**own.rates, ("c1", "s"): 140.0})
    assert grown.deviation(row) > 0.2 * 200
    anew = replace(row, heavy=grown.placed(row.paths, row.ratios, row))
    assert grown.deviation(anew) == pytest.approx(0.0, abs=1e-6)
    assert sum(ratio > 0 for ratio in anew.heavy[0].ratios) == 2

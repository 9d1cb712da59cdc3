"""Fairness: a source that floods the training rows displaces nobody."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from predictor.data.view import bounded_rows, fair_sample


def test_a_flood_takes_no_more_than_its_share():
    sources = np.concatenate([np.zeros(100_000, dtype=int), np.repeat(np.arange(1, 10), 500)])
    chosen = fair_sample(sources, 2000, np.random.default_rng(1))
    counts = np.bincount(sources[chosen], minlength=10)
    assert len(chosen) == 2000
    assert counts.max() - counts.min() <= 1


def test_small_sources_keep_all_they_have():
    sources = np.array([0] * 1000 + [1] * 1000 + [2] * 7)
    counts = np.bincount(sources[fair_sample(sources, 107, np.random.default_rng(2))])
    assert counts.tolist() == [50, 50, 7]


@given(st.lists(st.integers(0, 6), max_size=200), st.integers(0, 250), st.integers(0, 5))
def test_as_many_as_there_are_and_max_min_fair(sources, rows, seed):
    sources = np.array(sources, dtype=int)
    chosen = fair_sample(sources, rows, np.random.default_rng(seed))
    assert len(chosen) == min(rows, len(sources)) == len(set(chosen.tolist()))
    had, has = np.bincount(sources, minlength=7), np.bincount(sources[chosen], minlength=7)
    cut = has < had
    if cut.any():
        assert has.max() <= has[cut].min() + 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.sampled_from([0.1, 0.25, 0.5]))
def test_no_source_has_more_than_its_share_where_there_are_enough(counts, share):
    sources = np.repeat(np.arange(len(counts)), counts)
    rows = bounded_rows(sources, share)
    has = np.bincount(sources[fair_sample(sources, rows, np.random.default_rng(1))])
    if len(counts) * share < 1:
        assert rows == len(sources)
        return
    assert has.max() <= share * has.sum() + 1e-9 and has.min() >= 1
    # No more is cut than has to be: with one more of everybody's somebody would have too much.
    more = np.minimum(counts, has.max() + 1)
    assert (has == counts).all() or more.max() > share * more.sum()

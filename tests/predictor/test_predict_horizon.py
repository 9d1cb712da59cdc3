"""Horizons: steady series reach the top, volatile ones fall, no flapping, and greater errors never reach farther."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from predictor.trust.horizon import NOTHING, HorizonEvidence, HorizonLadder, Rungs, Tolerance, climbed

RUNGS = 4
CELLS = (5, 15, 30, 60)
SHORT = Tolerance(patience=6, haste=3)


def told(errors):
    errors = np.asarray(errors, dtype=float)
    return HorizonEvidence(errors, np.zeros_like(errors))


def path(evidence, tolerance=SHORT):
    """Rung of each series after each cycle; errors are cycles x series x rungs."""
    rungs, seen = Rungs.fresh(evidence.shape[1], RUNGS), []
    for errors in evidence:
        rungs = climbed(rungs, told(errors), tolerance)
        seen.append(rungs.now)
    return np.stack(seen)


def lived(losses, cycles=200, seed=1):
    """A pair whose measured mean is 1 and whose losses are drawn around `losses` (one per rung)."""
    rng = np.random.default_rng(seed)
    horizons = HorizonLadder(CELLS)
    horizons.resize(1)
    moves = []
    for _ in range(cycles):
        for rung, loss in enumerate(losses):
            horizons.learn(rung, rng.gamma(20, loss / 20, 1), np.ones(1), np.full(1, 4 * loss))
        moves += horizons.climb()
    return horizons, moves


def test_a_steady_series_reaches_the_top_and_a_volatile_one_does_not():
    steady, _ = lived([0.04] * RUNGS)
    volatile, _ = lived([0.4] * RUNGS)
    assert steady.rungs.now.tolist() == [RUNGS - 1]
    assert volatile.rungs.now.tolist() == [NOTHING]


def test_only_as_far_as_it_is_good():
    horizons, moves = lived([0.03, 0.05, 0.3, 0.4])
    assert horizons.rungs.now.tolist() == [1]
    assert [(one.before, one.after) for one in moves] == [(NOTHING, 1)]
    assert "steady" in moves[0].reason and "0.1" in moves[0].reason
    error, width = horizons.doubts()[0]
    assert error == pytest.approx(0.6, rel=0.2) and width == pytest.approx(1.2, rel=0.2)


def test_a_series_that_turns_volatile_falls_and_says_why():
    horizons, _ = lived([0.04] * RUNGS)
    moves = []
    for _ in range(60):
        for rung in range(RUNGS):
            horizons.learn(rung, np.full(1, 0.5), np.ones(1), np.full(1, 2.0))
        moves += horizons.climb()
    assert moves[-1].after == NOTHING and all("out of tolerance" in one.reason for one in moves)
    assert horizons.rungs.now.tolist() == [NOTHING]


def test_nothing_is_in_force_before_there_are_scores():
    horizons = HorizonLadder(CELLS)
    horizons.resize(3)
    horizons.learn(0, np.array([0.1, np.nan, 0.1]), np.ones(3), np.ones(3))
    assert horizons.climb() == [] and (horizons.rungs.now == NOTHING).all()


errors = arrays(float, (40, 1, RUNGS), elements=st.floats(0, 2))


@settings(max_examples=60, deadline=None)
@given(errors, arrays(float, (40, 1, RUNGS), elements=st.floats(0, 1)))
def test_greater_errors_never_reach_farther(less, more):
    assert (path(less + more) <= path(less)).all()


@settings(max_examples=60, deadline=None)
@given(errors)
def test_a_rise_takes_patience_at_the_rung_that_is_reached(random):
    seen = path(random)[:, 0]
    for cycle in np.flatnonzero(np.diff(seen, prepend=NOTHING) > 0):
        best = random[max(0, cycle + 1 - SHORT.patience) : cycle + 1, 0, seen[cycle] :].min(axis=1)
        assert len(best) == SHORT.patience and (best <= SHORT.ease).all()


@settings(max_examples=60, deadline=None)
@given(errors)
def test_a_fall_comes_after_haste_and_not_before(random):
    seen = path(random)[:, 0]
    for cycle in np.flatnonzero(np.diff(seen) < 0) + 1:
        broken = random[max(0, cycle + 1 - SHORT.haste) : cycle + 1, 0, seen[cycle] + 1 :].min(axis=1)
        assert (broken > 1.0).all()


@settings(max_examples=60, deadline=None)
@given(arrays(float, (60, 1, RUNGS), elements=st.floats(0.801, 1.0)), st.integers(NOTHING, RUNGS - 1))
def test_between_the_two_bounds_nothing_moves(near, start):
    fresh = Rungs.fresh(1, RUNGS)
    rungs = Rungs(np.arange(RUNGS)[None] <= start, fresh.good, fresh.bad)
    for one in near:
        rungs = climbed(rungs, told(one), SHORT)
    assert rungs.now.tolist() == [start]


def test_width_counts_as_well_as_error():
    evidence = HorizonEvidence(np.full((2, RUNGS), 0.1), np.array([[0.1] * RUNGS, [0.1, 3.0, 3.0, 3.0]]))
    rungs = Rungs.fresh(2, RUNGS)
    for _ in range(60):
        rungs = climbed(rungs, evidence, SHORT)
    assert rungs.now.tolist() == [RUNGS - 1, 0]


def test_windows_that_are_almost_the_same_count_for_less():
    """Windows of 60 cells begin one after the other: five of them are no evidence yet, and are remembered longer."""
    horizons = HorizonLadder(CELLS)
    horizons.resize(1)
    for _ in range(9):
        for rung in range(RUNGS):
            horizons.learn(rung, np.full(1, 0.1), np.ones(1), np.full(1, 0.4))
    assert np.isnan(horizons.evidence().error[0]).tolist() == [False, False, False, True]


def test_what_was_learnt_goes_on_after_a_restart():
    horizons, _ = lived([0.03, 0.05, 0.3, 0.4])
    heir = HorizonLadder(CELLS)
    heir.restore(horizons.state())
    assert heir.rungs.now.tolist() == horizons.rungs.now.tolist()
    assert heir.evidence().error == pytest.approx(horizons.evidence().error)
    with pytest.raises(ValueError, match="ladder"):
        HorizonLadder((*CELLS, 90)).restore(horizons.state())

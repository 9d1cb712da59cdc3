"""Fans are finite, non-negative, never cross; quantiles agree with slow references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.models.quantiles import make_monotone, pinball_loss, sample_quantiles, weighted_quantiles, widened

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
anything = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=8, max_size=8)
samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(st.lists(anything, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_a_fan_is_lawful_or_absent(forecasts):
    result = make_monotone(np.array(forecasts, dtype=np.float64))
    absent = np.isnan(result).all(axis=-1)
    assert np.array_equal(absent, ~np.isfinite(np.array(forecasts)).all(axis=-1))
    present = result[~absent]
    assert np.isfinite(present).all()
    assert (present >= 0).all()
    assert (np.diff(present, axis=-1) >= 0).all()


@given(samples, st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_missing_samples_do_not_count(values, missing):
    padded = np.array(values + [np.nan] * missing)
    assert sample_quantiles(padded, LEVELS) == pytest.approx(np.quantile(values, LEVELS), rel=1e-9, abs=1e-6)


def test_no_samples_give_no_quantiles():
    assert np.isnan(sample_quantiles(np.full(4, np.nan), LEVELS)).all()


@given(samples, st.data())
@settings(max_examples=100, deadline=None)
def test_a_whole_weight_is_a_repeated_sample(values, data):
    times = data.draw(st.lists(st.integers(1, 4), min_size=len(values), max_size=len(values)))
    repeated = np.repeat(values, times)
    expected = np.quantile(repeated, LEVELS, method="inverted_cdf")
    assert weighted_quantiles(np.array(values), np.array(times, dtype=float), LEVELS) == pytest.approx(expected)


def test_a_wider_fan_holds_the_narrower_one():
    quantiles = make_monotone(np.sort(np.random.default_rng(1).uniform(10, 20, (6, 8)), axis=-1))
    wide = make_monotone(widened(quantiles, np.full(6, 2.0), LEVELS))
    assert (wide[:, -1] > quantiles[:, -1]).all()
    assert (wide[:, 0] < quantiles[:, 0]).all()
    assert np.allclose(wide[:, 3], quantiles[:, 3])
    assert np.allclose(widened(quantiles, np.ones(6), LEVELS), quantiles)


def test_pinball_is_least_at_the_true_quantiles():
    rng = np.random.default_rng(2)
    truth = rng.normal(100, 10, 4000)
    right = np.quantile(truth, LEVELS)
    losses = [pinball_loss(np.broadcast_to(right + shift, (4000, 8)), truth, LEVELS).mean() for shift in (-5, 0, 5)]
    assert losses[1] < losses[0] and losses[1] < losses[2]

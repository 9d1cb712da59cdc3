"""The measures give what their definitions give by hand, and leave out what is missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest import metrics
from backtest.metrics import Yardstick

NAN = np.nan
TRUTH = np.array([[1.0, 2.0, NAN], [10.0, 0.0, 30.0]])
GUESS = np.array([[2.0, 2.0, 99.0], [8.0, 1.0, 30.0]])


def test_wape_pools_all_known_values():
    assert metrics.wape(TRUTH, GUESS) == pytest.approx((1 + 0 + 2 + 1 + 0) / 43)
    assert np.isnan(metrics.wape(np.zeros((1, 3)), np.ones((1, 3))))


def test_scaled_errors_are_means_over_series_in_units_of_the_naive_error():
    unit = Yardstick.of(np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 9.0], [4.0, 4.0, 4.0]]))
    assert unit.absolute.tolist() == [1.5, 2.0, 0.0]
    truth, guess = np.vstack([TRUTH, [[4, 4, 4]]]), np.vstack([GUESS, [[9, 9, 9]]])
    assert metrics.mase(truth, guess, unit.absolute) == pytest.approx((0.5 / 1.5 + 1.0 / 2.0) / 2)
    squared = [np.sqrt(0.5 / 2.5), np.sqrt((4 + 1 + 0) / 3 / 8.0)]
    assert metrics.rmsse(truth, guess, unit.squared) == pytest.approx(np.mean(squared))


def test_a_point_forecast_as_the_median_has_a_wql_equal_to_its_wape():
    quantiles = GUESS[..., None]
    assert 2 * np.nansum(metrics.pinball(TRUTH, quantiles[..., 0], 0.5)) / np.nansum(TRUTH) == pytest.approx(
        metrics.wape(TRUTH, GUESS)
    )
    levels = (0.1, 0.5, 0.9)
    exact = np.repeat(TRUTH[..., None], 3, axis=-1)
    assert metrics.wql(TRUTH, exact, levels) == 0.0
    assert metrics.wql(TRUTH, exact + 1, levels) > 0


def test_coverage_counts_ties_and_leaves_mostly_silent_series_out():
    train = np.array([[0.0] * 19 + [5.0], [1.0] * 20])
    unit = Yardstick.of(train)
    assert unit.covered.tolist() == [False, True]
    truth = np.array([[7.0, 7.0], [1.0, 2.0]])
    assert metrics.coverage(truth, np.ones((2, 2)), unit.covered) == 0.5


def test_peaks_missed_and_false_alarms():
    truth = np.array([[1.0, 10.0, 20.0, 5.0]])
    upper = np.array([[9.0, 9.0, 17.0, 2.0]])
    peak = np.array([8.0])
    assert metrics.peak_miss(truth, upper, peak) == 0.5  # 9 is near enough to 10, 17 not to 20
    assert metrics.false_alarm(truth, upper, peak) == 0.5


def test_average_precision_takes_tied_scores_together():
    label = np.array([True, False, True, False])
    assert metrics.average_precision(label, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics.average_precision(label, np.zeros(4)) == 0.5
    assert np.isnan(metrics.average_precision(np.zeros(3, dtype=bool), np.arange(3.0)))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_average_precision_lies_between_the_base_rate_of_the_worst_case_and_one(pairs):
    label, score = (np.array(part) for part in zip(*pairs, strict=True))
    value = metrics.average_precision(label, score.astype(float))
    assert np.isnan(value) if not label.any() else 0 < value <= 1
    if label.any():
        assert metrics.average_precision(label, label.astype(float)) == pytest.approx(1.0)

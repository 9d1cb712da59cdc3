"""The simple methods are those of the textbooks, for single rows and for windows."""

import numpy as np
import pytest

from backtest.baselines import BASELINES, WINDOW_BASELINES, TargetRows, TrainingHistory, band, season_rows, truths

VALUES = np.arange(1.0, 41.0)[None] ** 1.5
PAST = TrainingHistory(VALUES, 30, 7)
ORIGINS = np.array([20, 25, 33])


def test_each_says_what_its_definition_says():
    row = TargetRows(3)
    y = VALUES[0]
    assert BASELINES["naive"](PAST, ORIGINS, row)[0].tolist() == y[ORIGINS].tolist()
    assert BASELINES["train_mean"](PAST, ORIGINS, row)[0] == pytest.approx([y[:30].mean()] * 3)
    assert BASELINES["seasonal_naive"](PAST, ORIGINS, row)[0] == pytest.approx(y[ORIGINS + 3 - 7])
    assert BASELINES["seasonal_naive"](PAST, ORIGINS, TargetRows(8))[0] == pytest.approx(y[ORIGINS + 8 - 14])
    weights = 0.8 ** np.arange(21)
    assert BASELINES["ewma"](PAST, ORIGINS, row)[0, 0] == pytest.approx((weights * y[20::-1]).sum() / weights.sum())
    window = TargetRows(1, 4)
    assert WINDOW_BASELINES["trailing_mean"](PAST, ORIGINS, window)[0] == pytest.approx(
        [y[o - 3 : o + 1].mean() for o in ORIGINS]
    )
    assert BASELINES["seasonal_naive"](PAST, ORIGINS, window)[0, 0] == pytest.approx(y[14:18].mean())


def test_truths_are_rows_or_means_and_unknown_where_a_row_is_missing_or_beyond_the_end():
    values = VALUES.copy()
    values[0, 24] = np.nan
    assert truths(values, ORIGINS, TargetRows(4))[0] == pytest.approx(
        [np.nan, values[0, 29], values[0, 37]], nan_ok=True
    )
    assert np.isnan(truths(values, np.array([22, 38]), TargetRows(1, 2))).tolist() == [[True, True]]


@pytest.mark.parametrize("name", WINDOW_BASELINES)
def test_no_simple_method_sees_the_future_and_gaps_do_no_harm(name):
    values = VALUES.copy()
    values[0, [5, 21]] = np.nan
    changed = values.copy()
    changed[0, 34:] = -1e9
    for window in (TargetRows(1), TargetRows(5), TargetRows(1, 5)):
        said = [WINDOW_BASELINES[name](TrainingHistory(one, 30, 7), ORIGINS, window) for one in (values, changed)]
        assert np.isfinite(said[0]).all()
        assert np.array_equal(*said)
        errors = [
            band(TrainingHistory(one, 30, 7), WINDOW_BASELINES[name], window, (0.1, 0.9)) for one in (values, changed)
        ]
        assert np.array_equal(*errors)


def test_a_season_is_a_day_where_a_day_fits():
    assert season_rows(900) == 96
    assert season_rows(300) == 288
    assert season_rows(1) == 60

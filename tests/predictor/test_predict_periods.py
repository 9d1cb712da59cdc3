"""Periods are found where traffic recurs, and not found in noise."""

import numpy as np
import pytest
from synthetic_traffic import Recipe, Traffic, make

from predictor.data.view import SeriesView
from predictor.models.seasonal import find_periods


def view_of(traffic: Traffic, cells: int | None = None) -> SeriesView:
    return SeriesView(np.stack([traffic.sizes, traffic.requests]).astype(np.float32)[..., :cells])


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("period_s", [(28.0, 34.0), (12.0, 18.0), (60.0, 90.0)])
def test_a_recurring_surge_has_its_period_found(seed, period_s):
    length = period_s[0] / 3
    traffic = make(seed, Recipe(pairs=8, surging=8, seconds=int(8 * period_s[1]), period_s=period_s, length_s=length))
    true = np.array([np.mean(np.diff(onsets)) for onsets in traffic.onsets])
    found = find_periods(view_of(traffic))
    assert np.mean(np.abs(found - true) < 0.04 * true) >= 0.8


def test_four_cycles_are_enough_most_times():
    traffic = make(5, Recipe(pairs=20, surging=20, seconds=135))
    true = np.array([np.mean(np.diff(onsets)) for onsets in traffic.onsets])
    assert np.mean(np.abs(find_periods(view_of(traffic)) - true) < 1.5) >= 0.75


@pytest.mark.parametrize("cells", [100, 200, 600])
def test_noise_has_no_period(cells):
    traffic = make(6, Recipe(pairs=60, surging=0, seconds=600))
    assert np.mean(~np.isnan(find_periods(view_of(traffic, cells)))) <= 0.1


def test_silence_constants_gaps_and_short_histories_have_no_period():
    rates = np.zeros((2, 3, 200), dtype=np.float32)
    rates[:, 1] = 7.0
    rates[:, 2] = np.nan
    assert np.isnan(find_periods(SeriesView(rates))).all()
    assert np.isnan(find_periods(SeriesView(rates[..., :5]))).all()


def test_a_gap_does_not_hide_the_period():
    traffic = make(7, Recipe(pairs=6, surging=6, seconds=300))
    view = view_of(traffic)
    view.rates[..., 120:160] = np.nan
    true = np.array([np.mean(np.diff(onsets)) for onsets in traffic.onsets])
    assert np.mean(np.abs(find_periods(view) - true) < 1.0) >= 0.8

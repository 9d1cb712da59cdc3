"""What single seconds need, read out of forecasts of a window's peak and mean."""

import random
from statistics import NormalDist, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpdb import Forecast, Pair, Quantity
from orchestrator.onset import RateBefore, WindowForecast, peak_level, read_second, rise_share

PAIR, WINDOW_S = Pair("c1", "shop"), 5
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
LEVEL = st.floats(0.5, 0.95)
RATE = st.floats(0.0, 1000.0)


def said(quantity: Quantity, values: list[float]) -> Forecast:
    return Forecast(PAIR, 0.0, WINDOW_S, quantity, "test", dict(zip(LEVELS, sorted(values), strict=True)))


def window(peaks: list[float], means: list[float]) -> WindowForecast:
    return WindowForecast(said(Quantity.BYTES_PEAK, peaks), said(Quantity.BYTES_MEAN, means))


def certain(peak: float, mean: float) -> WindowForecast:
    return window([peak] * len(LEVELS), [mean] * len(LEVELS))


@pytest.mark.parametrize("begins_in_s", [0, 1, 2, 3, 4])
def test_a_rise_is_provided_for_from_the_second_on_in_which_it_is_due(begins_in_s: int) -> None:
    base, top = 10.0, 100.0
    seconds = [base] * begins_in_s + [top] * (WINDOW_S - begins_in_s)
    fan = certain(max(seconds), fmean(seconds))
    for within_s in (0.5, 1.5, 2.5, 3.5):
        found = read_second(fan, RateBefore(base, base), 0.9, within_s)
        assert (found == pytest.approx(top)) == (begins_in_s <= within_s)
        assert found >= base


def test_the_start_is_provided_for_with_the_chance_that_being_short_is_worth() -> None:
    # A tenth says that it begins at once, the rest that it does not begin at all.
    fan = window([10.0, 10.0, 10.0, 10.0, 100.0], [10.0, 10.0, 10.0, 10.0, 100.0])
    assert read_second(fan, RateBefore(10.0, 10.0), 0.95, 1.0) > 90
    assert read_second(fan, RateBefore(10.0, 10.0), 0.5, 1.0) == 10.0


def test_within_a_surge_single_seconds_far_above_it_are_not_provided_for_all_the_time() -> None:
    # Most seconds need 100, about one in each window 160: what a backlog brings when it is let go.
    spiky = certain(160.0, 110.0)
    assert read_second(spiky, RateBefore(100.0, 20.0), 0.5, 2.5) == pytest.approx(110.0)
    # Before it begins nobody can tell them from it.
    assert read_second(spiky, RateBefore(20.0, 20.0), 0.5, 2.5) == pytest.approx(160.0)


@pytest.mark.parametrize("level", [0.5, 0.75, 0.9])
def test_of_a_steady_noisy_window_a_second_needs_its_own_quantile_and_not_that_of_the_peak(level: float) -> None:
    rng, mean, spread = random.Random(1), 100.0, 10.0
    windows = [[rng.gauss(mean, spread) for _ in range(WINDOW_S)] for _ in range(4000)]
    ranks = [int(one * len(windows)) for one in LEVELS]
    peaks, means = (sorted(map(one, windows)) for one in (max, fmean))
    fan = window([peaks[at] for at in ranks], [means[at] for at in ranks])
    # Shortly after it began: what is usual is still half of it.
    found = read_second(fan, RateBefore(mean, 0.5 * mean), level, 2.5)
    own = mean + NormalDist().inv_cdf(level) * spread
    assert own - 2 <= found <= own + 0.5 * spread
    assert found < fan[0].at(level) - 3


@given(RATE, RATE, RATE, RATE, LEVEL, st.floats(0.0, 10.0))
def test_it_is_never_below_what_is_measured_nor_above_what_may_come(
    now: float, usual: float, one: float, other: float, level: float, within_s: float
) -> None:
    mean, peak = sorted((one, other))
    found = read_second(certain(peak, mean), RateBefore(now, usual), level, within_s)
    assert now <= found <= max(now, peak) + 1e-6


@given(RATE, RATE, RATE)
def test_shares_are_shares(peak: float, mean: float, now: float) -> None:
    assert 0.0 <= rise_share(peak, mean, now) <= 1.0
    assert rise_share(now, mean, now) == 0.0


@given(st.floats(0.05, 0.95), st.floats(0.0, 60.0))
def test_the_highest_of_many_seconds_is_read_at_a_lower_level(level: float, seconds: float) -> None:
    assert 0.0 <= peak_level(level, seconds) <= level

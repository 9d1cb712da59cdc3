"""The panel conserves what it is given, invents nothing, and shows each cell as it is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpdb import Subject, SubjectKind
from predictor.data import panel as panel_module
from predictor.data.panel import IntervalAmounts, Panel
from predictor.data.view import SeriesView, Target, window_values

T0 = 5000.0
NOBODY = np.zeros(0, dtype=np.int64)


def subject(number: int) -> Subject:
    return Subject(SubjectKind.PAIR, f"c{number}", "10.9.0.1")


def panel_of(series: int, window_s: float, step_s: float = 1.0) -> Panel:
    panel = Panel(step_s, window_s, channels=2)
    for number in range(series):
        panel.row_of(subject(number))
    return panel


def said(t: float, size: int, interval_s: float = 1.0, row: int = 0) -> IntervalAmounts:
    return IntervalAmounts(np.array([row]), np.array([[size], [size // 1000]], dtype=np.float64), NOBODY, t, interval_s)


intervals = st.lists(
    st.tuples(st.floats(0.2, 7.0), st.integers(0, 10_000_000), st.floats(0.0, 3.0)), min_size=1, max_size=30
)


@given(intervals, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_bytes_are_conserved_in_whatever_order_rows_come(steps, random):
    rows, t = [], T0
    for interval_s, size, gap in steps:
        t += interval_s + gap
        rows.append(said(t, size, interval_s))
    total = np.sum([one.amounts[:, 0] for one in rows], axis=0)
    random.shuffle(rows)
    panel = panel_of(1, window_s=400)
    for one in rows:
        panel.put(one)
    held = panel.total(subject(0))
    assert held == pytest.approx(total, rel=1e-5, abs=1e-3)


@given(intervals)
@settings(max_examples=60, deadline=None)
def test_rates_lie_between_those_of_the_rows_and_gaps_stay_missing(steps):
    rows, t = [], T0
    for interval_s, size, gap in steps:
        t += interval_s + gap
        rows.append(said(t, size, interval_s))
    panel = panel_of(1, window_s=400)
    for one in rows:
        panel.put(one)
    rates = panel.window(int(T0), 400)[0, 0]
    highest = max(one.amounts[0, 0] / one.interval_s for one in rows)
    assert np.nanmax(rates, initial=0.0) <= highest * (1 + 2e-3) + 1e-3
    covered = np.zeros(400)
    for one in rows:
        for cell in range(400):
            covered[cell] += max(0.0, min(one.t, T0 + cell + 1) - max(one.t - one.interval_s, T0 + cell))
    assert np.isnan(rates[covered < 0.58]).all()
    assert not np.isnan(rates[covered > 0.62]).any()


def test_what_is_on_the_grid_comes_back_unchanged():
    rates = np.random.default_rng(3).integers(0, 10**6, (2, 4, 50)).astype(np.float64)
    panel = panel_of(4, window_s=100)
    for second in range(50):
        panel.put(IntervalAmounts(np.arange(4), rates[..., second], NOBODY, T0 + second + 1, 1.0))
    view = panel.view(T0 + 50)
    assert view is not None and view.lead == 0 and view.start == T0
    assert np.array_equal(view.rates, rates.astype(np.float32))


def test_two_destinations_in_one_interval_cover_its_time_once():
    panel = panel_of(1, window_s=50)
    panel.put(IntervalAmounts(np.array([0, 0]), np.array([[1000.0, 500.0], [1.0, 2.0]]), NOBODY, T0 + 1, 1.0))
    assert panel.window(int(T0), 1)[:, 0, 0].tolist() == [1500, 3]


def test_missing_is_not_zero_and_rows_may_come_late():
    panel = panel_of(1, window_s=50)
    for one in (said(T0 + 1, 700), said(T0 + 3, 900)):
        panel.put(one)
    assert np.isnan(panel.window(int(T0), 3)[0, 0, 1])
    panel.put(said(T0 + 2, 800))
    assert panel.window(int(T0), 3)[0, 0].tolist() == [700, 800, 900]


def test_known_silence_is_zero():
    panel = panel_of(2, window_s=50)
    panel.put(IntervalAmounts(np.array([0]), np.array([[5.0], [1.0]]), np.array([1]), T0 + 1, 1.0))
    assert panel.window(int(T0), 1)[0, :, 0].tolist() == [5, 0]


def test_the_window_moves_on_and_forgets():
    panel = panel_of(1, window_s=60)
    for second in range(500):
        panel.put(said(T0 + second + 1, second))
    view = panel.view(T0 + 500)
    assert view is not None
    assert view.rates[0, 0].tolist() == list(range(440, 500))
    panel.put(said(T0 + 10_000, 5))
    view = panel.view(T0 + 10_000)
    assert view is not None and view.cells == 1


def test_series_that_join_later_find_room_and_leave_others_alone(monkeypatch):
    monkeypatch.setattr(panel_module, "MAX_BYTES", 200_000)
    panel = panel_of(3, window_s=300)
    for second in range(250):
        panel.put(said(T0 + second + 1, second, row=2))
        panel.row_of(subject(second))
        panel.put(said(T0 + second + 1, 7, row=len(panel.subjects) - 1))
    view = panel.view(T0 + 250)
    assert view is not None and view.series == 250
    assert panel_module.MIN_CELLS <= view.cells < 150  # memory is bounded: the more series, the shorter the past
    assert view.rates[0, 2].tolist() == list(range(250 - view.cells, 250))
    assert view.rates[0, 249, -1] == 7


def test_intervals_without_duration_and_too_many_series_are_refused():
    panel = Panel(1.0, 50, channels=2, most=2)
    panel.put(said(T0, 5, interval_s=0.0))
    assert panel.refused == 1
    assert [panel.row_of(subject(number)) for number in (1, 2, 3, 1)] == [0, 1, -1, 0]


def test_what_is_to_come_begins_after_what_is_known():
    panel = panel_of(1, window_s=50)
    for one in (said(T0 + 1, 5), said(T0 + 2, 6)):
        panel.put(one)
    view = panel.view(T0 + 5)
    assert view is not None
    assert (view.cells, view.lead) == (2, 3)


rates_with_gaps = st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1e6)), min_size=1, max_size=40)


@given(rates_with_gaps, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_window_values_agree_with_a_slow_reference(values, length):
    peaks, means = (window_values(np.array([values]), length, peak)[0] for peak in (True, False))
    for begin in range(len(values)):
        window = np.array(values[begin : begin + length])
        known = window[~np.isnan(window)]
        if len(window) < length or len(known) < 0.8 * length:
            assert np.isnan([peaks[begin], means[begin]]).all()
        else:
            assert [peaks[begin], means[begin]] == pytest.approx([known.max(), known.mean()], rel=1e-5, abs=1e-2)


@given(st.integers(1, 60), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_an_earlier_view_is_the_same_whatever_came_later(cells, length):
    rates = np.random.default_rng(cells).uniform(0, 100, (2, 3, 60))
    target = Target(1, 0, length, peak=True)
    later = SeriesView(rates)
    later.target(target)
    assert np.array_equal(
        later.until(cells).target(target), SeriesView(rates[..., :cells]).target(target), equal_nan=True
    )


def test_a_part_of_a_part_knows_its_place_in_the_whole():
    rates = np.random.default_rng(1).uniform(0, 100, (2, 10, 20))
    view = SeriesView(rates, groups=np.arange(10))
    part = view.part(slice(2, 8)).part(np.array([1, 4]))
    assert np.array_equal(part.rows, [3, 6]) and np.array_equal(part.groups, [3, 6])
    assert part.population == 10
    assert np.array_equal(part.target(Target(0, 0, 3)), view.target(Target(0, 0, 3))[[3, 6]], equal_nan=True)

"""The panel conserves what it is given, invents nothing, and shows each cell as it is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_traffic import Recipe, make

from cpdb import Communication, Pair
from predictor.panel import Panel
from predictor.view import View, window_targets

T0 = 5000.0


def row(t: float, size: int, interval_s: float = 1.0, source: str = "c1", destination: str = "vm1") -> Communication:
    return Communication(source, "10.9.0.1", destination, t, interval_s, size, size // 100, size // 1000)


intervals = st.lists(
    st.tuples(st.floats(0.2, 7.0), st.integers(0, 10_000_000), st.floats(0.0, 3.0)), min_size=1, max_size=30
)


@given(intervals, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_bytes_are_conserved_in_whatever_order_rows_come(steps, random):
    rows, t = [], T0
    for interval_s, size, gap in steps:
        t += interval_s + gap
        rows.append(row(t, size, interval_s))
    total = sum(one.bytes for one in rows), sum(one.new_connections for one in rows)
    random.shuffle(rows)
    panel = Panel(step_s=1.0, window_s=400)
    for one in rows:
        panel.add([one])
    held = panel.total(Pair("c1", "10.9.0.1"))
    assert held == pytest.approx(total, rel=1e-5, abs=1e-3)


@given(intervals)
@settings(max_examples=60, deadline=None)
def test_rates_lie_between_those_of_the_rows_and_gaps_stay_missing(steps):
    rows, t = [], T0
    for interval_s, size, gap in steps:
        t += interval_s + gap
        rows.append(row(t, size, interval_s))
    panel = Panel(step_s=1.0, window_s=400)
    panel.add(rows)
    rates = panel.window(int(T0), 400)[0, 0]
    highest = max(one.bytes / one.interval_s for one in rows)
    assert np.nanmax(rates, initial=0.0) <= highest * (1 + 1e-5) + 1e-3
    covered = np.zeros(400)
    for one in rows:
        for cell in range(400):
            covered[cell] += max(0.0, min(one.t, T0 + cell + 1) - max(one.t - one.interval_s, T0 + cell))
    assert np.isnan(rates[covered < 0.59]).all()
    assert not np.isnan(rates[covered > 0.61]).any()


def test_rows_on_the_grid_come_back_unchanged():
    traffic = make(3, Recipe(pairs=4, seconds=50))
    panel = Panel(step_s=1.0, window_s=100)
    for second in range(50):
        panel.add(traffic.rows(second))
    view = panel.view(1_000_050.0)
    assert view is not None and view.lead == 0
    assert np.allclose(view.rates[0], traffic.sizes.astype(int), rtol=1e-6)
    assert np.allclose(view.rates[1], traffic.requests)


def test_two_destinations_in_one_interval_cover_its_time_once():
    panel = Panel(step_s=1.0, window_s=50)
    panel.add([row(T0 + 1, 1000, destination="vm1"), row(T0 + 1, 500, destination="vm2")])
    assert panel.window(int(T0), 1)[0, 0, 0] == 1500


def test_missing_is_not_zero_and_rows_may_come_late():
    panel = Panel(step_s=1.0, window_s=50)
    panel.add([row(T0 + 1, 700), row(T0 + 3, 900)])
    assert np.isnan(panel.window(int(T0), 3)[0, 0, 1])
    panel.add([row(T0 + 2, 800)])
    assert panel.window(int(T0), 3)[0, 0].tolist() == [700, 800, 900]


def test_the_window_moves_on_and_forgets():
    panel = Panel(step_s=1.0, window_s=60)
    for second in range(500):
        panel.add([row(T0 + second + 1, second)])
    view = panel.view(T0 + 500)
    assert view is not None
    assert view.rates[0, 0].tolist() == list(range(440, 500))
    panel.add([row(T0 + 10_000, 5)])
    view = panel.view(T0 + 10_000)
    assert view is not None and view.cells == 1


def test_rows_that_make_no_sense_and_too_many_pairs_are_refused_and_counted():
    panel = Panel(step_s=1.0, window_s=50, max_pairs=2)
    panel.add([row(T0, 5, interval_s=0.0), row(T0, -5)])
    panel.add([row(T0 + 1, 5, source=f"c{number}") for number in range(1, 5)])
    assert panel.refused == 4
    assert [pair.source for pair in panel.pairs] == ["c1", "c2"]


def test_what_is_to_come_begins_after_what_is_known():
    panel = Panel(step_s=1.0, window_s=50)
    panel.add([row(T0 + 1, 5), row(T0 + 2, 6)])
    view = panel.view(T0 + 5)
    assert view is not None
    assert (view.cells, view.lead) == (2, 3)


rates_with_gaps = st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1e6)), min_size=1, max_size=40)


@given(rates_with_gaps, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_window_targets_agree_with_a_slow_reference(values, horizon):
    rates = np.array([[values], [values]])
    targets = window_targets(rates, horizon)
    for begin in range(len(values)):
        window = np.array(values[begin : begin + horizon])
        known = window[~np.isnan(window)]
        if len(window) < horizon or len(known) < 0.8 * horizon:
            assert np.isnan(targets[:, 0, begin]).all()
        else:
            expected = [known.max(), known.mean()] * 2
            assert targets[:, 0, begin] == pytest.approx(expected, rel=1e-5, abs=1e-2)


@given(st.integers(1, 60), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_an_earlier_view_is_the_same_whatever_came_later(cells, horizon):
    rng = np.random.default_rng(cells)
    rates = rng.uniform(0, 100, (2, 3, 60))
    later = View(rates)
    later.targets(horizon)
    cut = later.until(cells)
    assert np.array_equal(cut.targets(horizon), View(rates[..., :cells]).targets(horizon), equal_nan=True)

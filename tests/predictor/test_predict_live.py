"""Thousands of series share a cycle's work fairly, and sharing it changes nothing that is said."""

import numpy as np
import pytest

from predictor import Forecaster, ForecasterOptions, SeriesView, build_models
from predictor.data.view import make_spec
from predictor.service import live
from predictor.service.live import LiveForecaster

NAMES = ("naive", "ewma", "train_mean", "seasonal_naive")
SPEC = make_spec((5, 15), 1, (0.1, 0.5, 0.9))
CELLS = 130


def traffic(series: int, cells: int = CELLS) -> np.ndarray:
    rng = np.random.default_rng(1)
    surge = (np.arange(cells) + np.arange(series)[:, None] * 3) % 20 < 6
    level = rng.lognormal(6, 1, (series, 1)) * np.where(surge & (np.arange(series)[:, None] % 2 == 0), 5.0, 1.0)
    return (level * rng.gamma(4.0, 0.25, (series, cells)))[None].astype(np.float32)


def run(rates: np.ndarray, begin: int, threads: int = 1) -> tuple[LiveForecaster, list[set[int]], list[set[int]]]:
    """Cycles from `begin` cells of history to the end; also whose turn it was and who was judged in each."""
    one = LiveForecaster(Forecaster(SPEC, build_models(NAMES, SPEC), ForecasterOptions(half_life=60)), threads)
    turns, judged = [], []
    for cells in range(begin, rates.shape[-1] + 1):
        view = one.update(SeriesView(rates[..., :cells], start=1000), oldest=40)
        turns.append(set(np.arange(view.series)[view.turn].tolist()))
        judged.append(set(one.forecast_series(view, np.ones(view.series, dtype=np.float32)).rows.tolist()))
    return one, turns, judged


def test_in_large_sets_each_series_has_its_turn_and_none_waits_for_long(monkeypatch):
    monkeypatch.setattr(live, "TURN", 10)
    _, turns, judged = run(traffic(95), CELLS - 24)
    assert max(len(turn) for turn in turns[12:]) <= 20
    assert max(len(one) for one in judged) <= 10
    assert set.union(*turns[:12]) == set(range(95))
    assert set.union(*judged[-10:]) == set(range(95))


def test_threads_and_chunks_say_the_same_as_one_thread(monkeypatch):
    monkeypatch.setattr(live, "CHUNK", 7)
    rates = traffic(60)
    alone, together = (run(rates, CELLS - 3, threads)[0].final.copy() for threads in (1, 3))
    assert np.array_equal(alone, together, equal_nan=True)
    monkeypatch.setattr(live, "CHUNK", 1000)
    assert run(rates, CELLS - 3)[0].final == pytest.approx(alone, rel=1e-4, nan_ok=True)


def test_silent_series_cost_nothing_between_their_turns(monkeypatch):
    monkeypatch.setattr(live, "TURN", 4)
    rates = traffic(60)
    rates[:, 20:] = 0.0
    one = LiveForecaster(Forecaster(SPEC, build_models(NAMES, SPEC), ForecasterOptions()), 1)
    asked: list[int] = []
    naive = one.forecaster.models["naive"]
    predict = naive.predict
    monkeypatch.setattr(naive, "predict", lambda view, origins: asked.append(view.series) or predict(view, origins))
    for cells in range(CELLS - 30, CELLS + 1):
        asked.clear()
        view = one.update(SeriesView(rates[..., :cells], start=1000), oldest=10**6)
        final = one.forecast_series(view, np.ones(60, dtype=np.float32)).final
    assert sum(asked) <= 20 + 4
    assert np.isfinite(final).all()
    assert (final[20:] == 0).all()


def test_a_costly_model_is_asked_where_it_promises_most_and_in_the_end_everywhere():
    one = live.CostlySchedule(np.array([live.MAX_ASKED, live.MAX_ASKED_SLOW]))
    rates = np.arange(1, 2001, dtype=np.float32)[None, :, None].repeat(40, axis=2)
    one.update(SeriesView(rates), np.arange(2000), np.array([[True] * 2000, [True] * 2000]))
    judged = np.arange(0, 2000, 2)
    asked = one.asked(1, judged, 0)
    assert set(range(2000 - live.MAX_ASKED_SLOW, 2000)) <= set(asked.tolist())  # the busiest
    assert len(asked) <= 2 * live.MAX_ASKED_SLOW
    everyone = set.union(*(set(one.asked(1, judged, number).tolist()) for number in range(4)))
    assert set(judged.tolist()) <= everyone

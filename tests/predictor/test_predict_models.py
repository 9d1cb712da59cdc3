"""Each model says something sensible on its own, and nothing that it could not have known."""

import pickle

import numpy as np
import pytest
from synthetic_traffic import Recipe, make

from predictor import PredictorConfig
from predictor.data.view import SeriesView, make_spec
from predictor.ensemble.weights import Contest, LossScoreboard
from predictor.models import BASELINES, build_models
from predictor.models.arima import MEMORY, path_weights, pi_weights
from predictor.models.pointwise import ewma
from predictor.models.quantiles import make_monotone
from predictor.models.seasonal import agreement
from predictor.service.live import replay_past

CONFIG = PredictorConfig()
SPEC = make_spec(CONFIG.horizons, 2, CONFIG.levels)


def view_of(seed: int, recipe: Recipe, lead: int = 0) -> SeriesView:
    traffic = make(seed, recipe)
    return SeriesView(np.stack([traffic.sizes, traffic.requests]).astype(np.float32), lead)


@pytest.mark.parametrize("name", CONFIG.models)
@pytest.mark.parametrize("lead", [0, 2])
def test_a_fitted_model_gives_lawful_fans_that_hold_the_truth_about_as_often_as_they_say(name, lead):
    whole = view_of(1, Recipe(pairs=12, surging=12 if name == "seasonal_naive" else 0, seconds=330), lead)
    past_view = SeriesView(whole.rates[..., :300], lead)
    model = build_models([name], SPEC)[name]
    model.fit(past_view)
    model = pickle.loads(pickle.dumps(model))
    model.update(past_view)
    quantiles = make_monotone(model.predict(past_view, past_view.last))[0]
    assert quantiles.shape == (12, 12, 8)
    assert np.isfinite(quantiles).mean() > 0.7
    quantiles = quantiles[:, 4:8]  # 15 s
    truth = np.stack([whole.target(target)[:, 300 + lead] for target in SPEC.targets[4:8]], axis=-1)
    known = ~np.isnan(quantiles[..., 0])
    assert np.mean(truth[known] <= quantiles[known][:, 6] * 1.3) >= 0.7
    assert np.mean(truth[known] >= quantiles[known][:, 0] * 0.7) >= 0.7


@pytest.mark.parametrize("name", CONFIG.models)
def test_a_pair_that_joins_after_the_fit_does_no_harm(name):
    view = view_of(2, Recipe(pairs=6, seconds=200))
    model = build_models([name], SPEC)[name]
    model.fit(SeriesView(view.rates[:, :4]))
    model.update(SeriesView(view.rates[:, :4]))
    model.update(view)
    assert model.predict(view, view.last).shape[1] == 6


@pytest.mark.parametrize("name", CONFIG.models)
def test_no_history_and_nothing_but_gaps_do_no_harm(name):
    for rates in (np.zeros((2, 1, 1)), np.full((2, 2, 90), np.nan), np.zeros((2, 2, 90))):
        model = build_models([name], SPEC)[name]
        view = SeriesView(rates.astype(np.float32))
        with np.errstate(all="raise"):
            model.fit(view)
            model.update(view)
            quantiles = make_monotone(model.predict(view, view.last))
        assert (np.isnan(quantiles) | (quantiles >= 0)).all()


@pytest.mark.parametrize("name", CONFIG.models)
def test_what_is_said_at_an_origin_does_not_depend_on_later_cells(name):
    view = view_of(3, Recipe(pairs=4, surging=4, seconds=200))
    model = build_models([name], SPEC)[name]
    model.fit(view.until(150))
    model.update(view.until(150))
    origins = np.arange(149, 200, 7)
    said = model.predict(view, origins)
    for cells in (150, 171, 199):
        corrupted = SeriesView(view.rates.copy())
        corrupted.rates[..., cells:] = 1e9
        before = origins < cells
        assert np.array_equal(said[before], model.predict(corrupted, origins)[before], equal_nan=True)


@pytest.mark.parametrize("name", [*BASELINES, "arima"])
def test_a_state_carried_on_says_the_same_as_a_fresh_look_at_the_past(name):
    view = view_of(5, Recipe(pairs=5, surging=2, seconds=160))
    view.rates[:, 1, 60:90] = np.nan
    carried, fresh = (build_models([name], SPEC)[name] for _ in range(2))
    for model in (carried, fresh):
        model.fit(view)
    for cells in range(100, 161):
        carried.update(view.until(cells))
    fresh.update(view)
    expected = fresh.points(view, np.array([158, 159]))[..., 1]
    assert carried.points(view, view.last)[..., 0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", CONFIG.models)
def test_a_part_of_the_series_is_told_the_same_as_the_whole(name):
    view = view_of(6, Recipe(pairs=6, surging=6, seconds=200))
    model = build_models([name], SPEC)[name]
    model.fit(view)
    model.update(view)
    rows = np.array([1, 4])
    part = model.predict(view.part(rows), view.last)
    assert part == pytest.approx(model.predict(view, view.last)[:, rows], rel=1e-4, nan_ok=True)


def test_cycles_before_a_change_of_phase_lose_their_say():
    cells = np.arange(240)
    moved = np.where(cells < 170, cells, cells + 16)
    series = np.where(moved % 32 < 10, 900.0, 100.0)[None]
    series[0, 100] = np.nan
    say = agreement(series, np.array([32.0]))[0]
    assert say[0] > 0.9
    assert say[2:6].max() < 0.3
    steady = np.where(cells % 32 < 10, 900.0, 100.0)[None]
    assert agreement(steady, np.array([32.0]))[0, :6].min() > 0.9


def test_ewma_leaves_gaps_out():
    values = np.array([np.nan, 4.0, np.nan, 8.0])
    result = ewma(values, 0.5)
    assert np.isnan(result[0])
    assert result[1:] == pytest.approx([4.0, 4.0, (8 + 4 * 0.25) / 1.25])


def test_pi_weights_are_those_of_the_textbook():
    assert pi_weights(np.array([0.7]), np.zeros(0), 0)[:3] == pytest.approx([0.7, 0, 0])
    # ARIMA(0, 1, 1) is exponential smoothing with alpha = 1 + theta
    smoothing = pi_weights(np.zeros(0), np.array([-0.6]), 1)
    assert smoothing[:4] == pytest.approx([0.4, 0.24, 0.144, 0.0864])


def test_a_path_of_an_autoregression_falls_off_geometrically():
    steps = path_weights(pi_weights(np.array([0.7]), np.zeros(0), 0), MEMORY + 5)
    assert steps[:, 0] == pytest.approx(0.7 ** np.arange(1, MEMORY + 6))
    assert np.abs(steps[:, 1:]).max() == pytest.approx(0.0)


def test_a_replay_prefers_the_seasonal_model_where_surges_recur():
    view = view_of(4, Recipe(pairs=4, surging=4, seconds=170))
    models = {name: model for name, model in build_models(CONFIG.models, SPEC).items() if model.replayable}
    for model in models.values():
        model.fit(view)
        model.update(view)
    scoreboard = LossScoreboard(Contest(tuple(models), SPEC.targets, BASELINES, "ewma"))
    scoreboard.resize(view.series)
    replay_past(models, view, SPEC, scoreboard)
    ratio = scoreboard.ratios()[tuple(models).index("seasonal_naive")]
    assert np.median(ratio[:, :4]) < 0.7

"""Each model says something sensible on its own, and nothing that it could not have known."""

import pickle

import numpy as np
import pytest
from synthetic_traffic import Recipe, make

from predictor import PredictorConfig
from predictor.choice import Ledger
from predictor.features import past, seasonal
from predictor.models import build
from predictor.models.arima import MEMORY, path_weights, pi_weights
from predictor.models.base import Ask
from predictor.models.ewma import ewma
from predictor.models.seasonal_naive import agreement
from predictor.quantiles import lawful
from predictor.replay import replay
from predictor.view import View

CONFIG = PredictorConfig()


def view_of(seed: int, recipe: Recipe, lead: int = 0) -> View:
    traffic = make(seed, recipe)
    return View(np.stack([traffic.sizes, traffic.requests]).astype(np.float32), lead)


@pytest.mark.parametrize("name", CONFIG.models)
@pytest.mark.parametrize("lead", [0, 2])
def test_a_fitted_model_gives_lawful_fans_that_hold_the_truth_about_as_often_as_they_say(name, lead):
    whole = view_of(1, Recipe(pairs=12, surging=12 if name == "seasonal_naive" else 0, seconds=330), lead)
    past_view = View(whole.rates[..., :300], lead)
    model = build(CONFIG)[name]
    model.fit(past_view)
    model = pickle.loads(pickle.dumps(model))
    model.update(past_view)
    fan = lawful(model.predict(past_view))
    assert fan.shape == (12, 3, 4, 8)
    assert np.isfinite(fan).mean() > 0.7
    truth = whole.targets(15)[:, :, 300 + lead].T
    known = ~np.isnan(fan[:, 1, :, 0])
    assert np.mean(truth[known] <= fan[:, 1][known][:, 6] * 1.3) >= 0.7
    assert np.mean(truth[known] >= fan[:, 1][known][:, 0] * 0.7) >= 0.7


@pytest.mark.parametrize("name", CONFIG.models)
def test_a_pair_that_joins_after_the_fit_does_no_harm(name):
    view = view_of(2, Recipe(pairs=6, seconds=200))
    model = build(CONFIG)[name]
    model.fit(View(view.rates[:, :4]))
    model.update(view)
    assert model.predict(view).shape[0] == 6


@pytest.mark.parametrize("name", CONFIG.models)
def test_no_history_and_nothing_but_gaps_do_no_harm(name):
    for rates in (np.zeros((2, 1, 1)), np.full((2, 2, 90), np.nan), np.zeros((2, 2, 90))):
        model = build(CONFIG)[name]
        view = View(rates.astype(np.float32))
        with np.errstate(all="raise"):
            model.fit(view)
            model.update(view)
            fan = lawful(model.predict(view))
        assert (np.isnan(fan) | (fan >= 0)).all()


@pytest.mark.parametrize("origin", [40, 99, 150])
def test_no_feature_sees_the_future(origin):
    view = view_of(3, Recipe(pairs=3, surging=2, seconds=200))
    corrupted = View(view.rates.copy())
    corrupted.rates[..., origin + 1 :] = 1e9
    periods, origins = np.array([31.0, 9.0, np.nan]), np.array([origin])
    before, after = past(view), past(corrupted)
    assert np.array_equal(before.features[:, :, origin], after.features[:, :, origin])
    assert np.array_equal(before.scale[:, :, origin], after.scale[:, :, origin])
    for horizon in (1, 5, 30):
        held = [seasonal(one, periods, origins, horizon) for one in (view, corrupted)]
        assert np.array_equal(*held, equal_nan=True)


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
    models = {name: model for name, model in build(CONFIG).items() if model.replayable}
    for model in models.values():
        model.fit(view)
    ledger = Ledger(tuple(models), CONFIG.horizons, "ewma", ("naive", "ewma", "train_mean"))
    ledger.resize(view.pairs)
    replay(models, view, Ask(CONFIG.horizons, CONFIG.levels), ledger)
    ratio = ledger.ratios()[tuple(models).index("seasonal_naive")]
    assert np.median(ratio[:, 0]) < 0.7

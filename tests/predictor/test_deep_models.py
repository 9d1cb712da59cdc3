"""The networks learn what there is to learn, say how sure they are, and keep within their budget."""

import io
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from deep_series import LEVELS, SPEC, alternating, error, returning, view_of

from predictor.data.view import ForecastSpec, SeriesView, Target
from predictor.models import build_models
from predictor.models.deep import DeepModel, Lstm, Transformer
from predictor.models.quantiles import pinball_loss
from predictor.service.workers import FitWorker

MODELS = (Lstm, Transformer)
TAUGHT = 320
STEPS = 120


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model.name)
def taught(request: pytest.FixtureRequest) -> DeepModel:
    """A network of each kind that has seen series swing between two levels."""
    model = request.param(SPEC, 1, STEPS)
    model.fit(view_of(alternating(1), TAUGHT))
    return model


def test_it_learns_a_swing_that_simple_guesses_miss(taught):
    view = view_of(alternating(2))
    origins = np.arange(200, 400)
    quantiles = taught.predict(view, origins)
    assert quantiles.shape == (200, 12, 3, 5)
    # The next cell is like the last, and most of what can be said beyond that is when a surge ends.
    for number, room in ((0, 1.1), (1, 0.8), (2, 0.85)):
        naive = np.repeat(view.rates[0][:, origins].T[..., None], 5, axis=-1)
        lost = [error(said, view, origins, SPEC.targets[number]) for said in (quantiles[:, :, number], naive)]
        assert lost[0] < room * lost[1]


def test_its_quantiles_are_ordered_finite_and_about_right(taught):
    view = view_of(alternating(3))
    origins = np.arange(200, 400)
    quantiles = taught.predict(view, origins)
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    for number, target in enumerate(SPEC.targets):
        truth = view.target(target)[:, view.begins(target, origins)].T
        assert 0.75 < (truth <= quantiles[:, :, number, -1]).mean() <= 1.0
        assert 0.0 <= (truth <= quantiles[:, :, number, 0]).mean() < 0.3


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_it_learns_to_return_to_the_mean(model):
    network = model(SPEC, 1, 60)
    network.fit(view_of(returning(1), TAUGHT))
    view, origins = view_of(returning(2)), np.arange(100, 400)
    truth = view.target(SPEC.targets[0])[:, view.begins(SPEC.targets[0], origins)].T
    mean = view.rates[0].mean(axis=-1)
    quantiles = network.predict(view, origins)[:, :, 0]
    last = view.rates[0][:, origins].T
    # Half way back is the best that anyone can say; 1.15 leaves room for what a short training misses.
    best = mean + 0.5 * (last - mean)
    lost = [float((np.abs(said - truth) / mean).mean()) for said in (quantiles[..., 2], best, last)]
    assert lost[0] < 1.15 * lost[1]
    assert lost[0] < 0.95 * lost[2]


def test_nothing_said_depends_on_the_future(taught):
    rates = alternating(4)
    corrupted = rates.copy()
    corrupted[..., 301:] = 1e9
    origins = np.arange(200, 301)
    forecasts = [taught.predict(view, origins) for view in (view_of(rates), view_of(corrupted), view_of(rates, 301))]
    assert np.isfinite(forecasts[0]).all()
    assert np.array_equal(forecasts[0], forecasts[1])
    assert np.array_equal(forecasts[0], forecasts[2])


def test_a_few_series_are_told_the_same_as_all_of_them(taught, monkeypatch):
    view, origins, few = view_of(alternating(5)), np.array([250, 251]), np.array([3, 7])
    whole = taught.predict(view, origins)
    assert taught.predict(view.take(few), origins) == pytest.approx(whole[:, few], rel=1e-3)
    monkeypatch.setattr("predictor.models.deep.AT_ONCE", 10)
    assert taught.predict(view, origins) == pytest.approx(whole, rel=1e-3)


def test_missing_cells_widen_what_it_says(taught):
    rates = alternating(5)
    gap = rates.copy()
    gap[..., 285:301] = np.nan
    here = np.array([300])
    forecasts = [taught.predict(view_of(one, 301), here)[0, :, 1] for one in (rates, gap)]
    widths = [(quantiles[:, -1] - quantiles[:, 0]) / rates[0].mean(axis=-1) for quantiles in forecasts]
    assert np.median(widths[1]) > 1.2 * np.median(widths[0])


def test_it_says_nothing_where_nothing_is_known_and_nothing_before_it_is_taught(taught):
    rates = alternating(6)
    rates[:, 0] = np.nan
    quantiles = taught.predict(view_of(rates), np.array([300]))
    assert np.isnan(quantiles[0, 0]).all()
    assert np.isfinite(quantiles[0, 1:]).all()
    fresh = type(taught)(SPEC, 1)
    fresh.fit(SeriesView(np.zeros((1, 2, 10), dtype=np.float32)))
    assert np.isnan(fresh.predict(view_of(rates), np.array([300]))).all()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_it_is_silent_when_simple_guesses_are_as_good(model):
    # A constant is forecast without fault by whoever says the same again.
    flat = np.repeat(np.linspace(1, 9, 6, dtype=np.float32)[None, :, None], 300, axis=-1)
    network = model(SPEC, 1, 15)
    network.fit(SeriesView(flat))
    assert not network.wins
    assert np.isnan(network.predict(SeriesView(flat), np.array([299]))).all()


def test_weights_survive_pickling_and_files(taught):
    view, origins = view_of(alternating(7)), np.array([250, 350])
    once, again = (pickle.loads(pickle.dumps(taught)) for _ in range(2))
    said = once.predict(view, origins)
    assert np.isfinite(said).all()
    assert np.array_equal(again.predict(view, origins), said)
    file = io.BytesIO()
    np.savez(file, **taught.state())
    file.seek(0)
    restored = type(taught)(SPEC, 2)
    with np.load(file, allow_pickle=False) as arrays:
        restored.restore(dict(arrays))
    assert np.array_equal(restored.predict(view, origins), said)


def test_weights_for_another_question_are_left_alone(taught):
    other = type(taught)(ForecastSpec(SPEC.targets[:1], LEVELS), 1, 15)
    other.restore(taught.state())
    view = view_of(alternating(8))
    assert np.isnan(other.predict(view, np.array([300]))).all()


def test_weights_of_an_older_make_are_left_alone(taught):
    view, now = view_of(alternating(8)), np.array([300])
    # As they were named when PyTorch trained them.
    torch = {"body.lstm.weight_ih_l0": np.ones((192, 5)), "mix.0.weight": np.ones((96, 86)), "wins": np.array([True])}
    old = type(taught)(SPEC, 1)
    old.restore(torch)
    assert np.isnan(old.predict(view, now)).all()
    old.restore(torch)
    old.wins = False
    old._steps = 1
    old.fit(view_of(alternating(8), TAUGHT))
    assert set(old.weights) == set(taught.weights)


def test_a_second_training_goes_on_from_the_first(taught):
    view = view_of(alternating(1), TAUGHT)
    warm, cold = (type(taught)(SPEC, 1, 20) for _ in range(2))
    warm.restore(taught.state())
    warm.fit(view)
    cold.fit(view)
    later, origins = view_of(alternating(9)), np.arange(200, 400)
    losses = []
    for model in (warm, cold):
        model.wins = True
        quantiles = model.predict(later, origins)[:, :, 0]
        truth = later.target(SPEC.targets[0])[:, later.begins(SPEC.targets[0], origins)].T
        losses.append(float((pinball_loss(quantiles, truth, LEVELS) / later.rates[0].mean(axis=-1)).mean()))
    assert losses[0] < 0.8 * losses[1]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_same_seed_gives_the_same_network(model):
    view = view_of(alternating(1), TAUGHT)
    networks = [model(SPEC, seed, 15) for seed in (1, 1, 2)]
    for network in networks:
        network.fit(view)
        network.wins = True
    same, again, other = (network.predict(view, np.array([300])) for network in networks)
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)


def test_a_training_ends_with_its_budget():
    network = Transformer(SPEC, 1, 1_000_000)
    network.fit_budget_s = 2.0
    Transformer(SPEC, 1, 1).fit(view_of(alternating(1), TAUGHT))  # what is loaded once is no part of it
    began = time.process_time()
    network.fit(view_of(alternating(1), TAUGHT))
    assert time.process_time() - began < 8.0
    assert network.weights is not None


def fitted_in_the_background(cpu_budget_s: float) -> Lstm:
    """Of more steps than the budget allows."""
    background = FitWorker(cpu_budget_s)
    try:
        assert background.submit([Lstm(SPEC, 1, 1_000_000)], view_of(alternating(1), TAUGHT))
        fitted, until = [], time.monotonic() + 250
        while not fitted and not background.failures and time.monotonic() < until:
            time.sleep(0.2)
            fitted = background.collect()
    finally:
        background.close()
    (network,) = fitted
    assert isinstance(network, Lstm)
    return network


def test_in_the_background_it_comes_back_before_its_process_is_ended():
    # On a busy machine a small budget may be up before it has learnt anything: it comes back all the same.
    networks = (fitted_in_the_background(budget_s) for budget_s in (8.0, 16.0, 32.0))
    trained = next(network for network in networks if network.wins)
    assert np.isfinite(trained.predict(view_of(alternating(2)), np.array([300]))).all()


def test_nobody_who_trains_no_network_loads_jax():
    code = """import sys, forepath.cli, forepath.commands.ryu_manager, orchestrator, predictor.models.deep, ryu_apps
print([name for name in ("jax", "optax", "predictor.models.deep.networks") if name in sys.modules])"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout.strip() == "[]"


def test_companions_help_where_they_lead():
    rng = np.random.default_rng(1)
    leading = rng.gamma(2.0, 1.0, (1, 10, 401)).astype(np.float32)
    rates = np.concatenate([100.0 * leading[..., :-1], leading[..., 1:]]).astype(np.float32)
    ask = ForecastSpec((Target(0, 0, 1),), LEVELS)
    network = Lstm(ask, 1, 80)
    network.fit(SeriesView(rates[..., :TAUGHT]))
    view, origins = SeriesView(rates), np.arange(320, 398)
    truth = view.target(ask.targets[0])[:, view.begins(ask.targets[0], origins)].T
    said = network.predict(view, origins)[:, :, 0, 2]
    assert np.abs(said - truth).mean() < 0.6 * np.abs(np.median(truth) - truth).mean()


def test_they_are_built_by_name():
    assert [model.name for model in build_models(("lstm", "transformer"), SPEC, 1).values()] == ["lstm", "transformer"]

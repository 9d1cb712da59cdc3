"""Walking over the past is honest: it sees no future, learns on the way, and is no worse than the best simple model."""

import numpy as np
import pytest

from predictor import Forecaster, ForecasterOptions, ForecastSpec, SeriesView, Target, build_models
from predictor.models.quantiles import pinball_loss

NAMES = ("naive", "ewma", "ewma_slow", "train_mean", "seasonal_naive", "arima")
SPEC = ForecastSpec((Target(0, 0, 1), Target(0, 5, 1), Target(0, 0, 5, peak=True)), (0.1, 0.5, 0.9))
SPLIT, CELLS = 300, 500


def mixed(seed: int = 1) -> SeriesView:
    """A wandering level, noise about a mean, an autoregression, and a wave with a period."""
    rng = np.random.default_rng(seed)
    walk = 1000 + np.cumsum(rng.normal(0, 20, CELLS))
    noise = rng.gamma(4.0, 50.0, CELLS)
    pull = np.zeros(CELLS)
    for cell in range(1, CELLS):
        pull[cell] = 0.8 * pull[cell - 1] + rng.normal(0, 30)
    wave = 300 + 200 * np.sin(np.arange(CELLS) * 2 * np.pi / 24) + rng.normal(0, 20, CELLS)
    return SeriesView(np.maximum(np.stack([walk, noise, 500 + pull, wave]), 0.0)[None].astype(np.float32))


def walked(view: SeriesView, origins: np.ndarray, block: int = 32) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    forecaster = Forecaster(SPEC, build_models(NAMES, SPEC), ForecasterOptions(block=block))
    forecaster.fit(view.until(SPLIT))
    blocks = list(forecaster.walk(view, origins))
    forecasts = {name: np.concatenate([block.forecasts[name] for block in blocks]) for name in NAMES}
    return np.concatenate([block.final for block in blocks]), forecasts


@pytest.mark.parametrize("cut", [SPLIT, 361, 450])
def test_nothing_said_depends_on_what_comes_later(cut):
    view = mixed()
    corrupted = SeriesView(view.rates.copy())
    corrupted.rates[..., cut:] = 1e7
    origins = np.arange(SPLIT - 6, CELLS - 6)
    before = origins < cut
    honest, spoilt = (walked(one, origins)[0][before] for one in (view, corrupted))
    assert before.any()
    assert np.array_equal(honest, spoilt)


def test_the_blend_is_hardly_worse_than_the_best_model_of_each_series():
    view = mixed()
    origins = np.arange(SPLIT, CELLS - 6)
    final, forecasts = walked(view, origins)
    truth = np.stack([view.truth(SPEC.targets, np.arange(3), origin) for origin in origins.tolist()])
    own = np.stack([pinball_loss(forecasts[name], truth, SPEC.levels).mean(axis=0) for name in NAMES])
    blend = pinball_loss(final, truth, SPEC.levels).mean(axis=0)
    assert (blend <= 1.1 * np.nanmin(own, axis=0)).all()
    assert blend.sum() <= 1.02 * np.nansum(np.nanmin(own, axis=0))
    covered = (truth <= final[..., 2]).mean(axis=(0, 1))
    assert (np.abs(covered - 0.9) < 0.07).all()


def test_a_walk_goes_on_where_cells_are_missing():
    view = mixed()
    view.rates[0, :2, 320:380] = np.nan
    final, _ = walked(view, np.arange(SPLIT, CELLS - 6))
    assert np.isfinite(final).all()
    assert (final >= 0).all() and (np.diff(final, axis=-1) >= 0).all()

"""A model from another package competes like any other, once an entry point names it."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from predictor import (
    Forecaster,
    ForecasterOptions,
    ForecastSpec,
    PredictorConfig,
    SeriesView,
    Target,
    build_models,
    known_models,
    models,
)

PLUG_IN = '''
import numpy as np

class Clock:
    """Knows that the signal is a square wave of period 20: the truth, in this test."""

    name, slow, replayable, costly = "clock", False, True, False

    def __init__(self, ask, seed=0):
        self.ask = ask
        self.fitted = 0

    def fit(self, view):
        self.fitted += 1

    def update(self, view):
        pass

    def predict(self, view, origins):
        quantiles = self.ask.empty(len(origins), view.series)
        for place, target in enumerate(self.ask.targets):
            cell = view.begins(target, origins)
            level = np.where(cell % 20 < 10, 900.0, 100.0)
            quantiles[:, :, place] = (level[:, None] + np.array([-10.0, 0.0, 10.0]))[:, None]
        return quantiles
'''
ENTRY_POINTS = "[forepath.models]\nclock = wall_clock:Clock\n"
METADATA = "Metadata-Version: 2.1\nName: wall-clock\nVersion: 1\n"


@pytest.fixture
def plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "wall_clock.py").write_text(PLUG_IN)
    about = tmp_path / "wall_clock-1.dist-info"
    about.mkdir()
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    (about / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    models._plugged_in.cache_clear()
    yield
    models._plugged_in.cache_clear()
    sys.modules.pop("wall_clock", None)


def signal(cells: int) -> SeriesView:
    rng = np.random.default_rng(1)
    level = np.where(np.arange(cells) % 20 < 10, 900.0, 100.0)
    return SeriesView((level + rng.normal(0, 10, (1, 3, cells))).astype(np.float32))


def test_a_plug_in_is_known_built_and_wins_where_it_is_right(plugged_in):
    assert "clock" in known_models()
    assert PredictorConfig(models=("ewma", "clock")).models == ("ewma", "clock")
    ask = ForecastSpec((Target(0, 2, 1),), (0.1, 0.5, 0.9))
    models = build_models(("naive", "ewma", "clock"), ask)
    forecaster = Forecaster(ask, models, ForecasterOptions(validate=0.3))
    view = signal(300)
    forecaster.fit(view.until(200))
    blocks = list(forecaster.walk(view, np.arange(200, 290)))
    weights = np.concatenate([block.weights for block in blocks])
    assert weights[-1, 2].min() > 0.9
    assert forecaster.models["clock"].fitted == 1


def test_a_name_that_nobody_knows_is_refused_with_those_that_are_known():
    ask = ForecastSpec((Target(0, 0, 1),), (0.5,))
    with pytest.raises(ValueError, match=r"oracle.*naive"):
        build_models(("oracle",), ask)
    with pytest.raises(ValueError, match="clock"):
        PredictorConfig(models=("ewma", "clock"))

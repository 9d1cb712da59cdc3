"""Finds models by name: those in the box, and those that other packages offer as entry points."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from predictor.models.base import Model
from predictor.view import Ask

GROUP = "forepath.models"
# Imported only when asked for: learning libraries take seconds to load. Called with (ask, seed).
IN_THE_BOX = {
    "naive": "predictor.models.naive:Naive",
    "ewma": "predictor.models.ewma:Ewma",
    "ewma_slow": "predictor.models.ewma:EwmaSlow",
    "train_mean": "predictor.models.train_mean:TrainMean",
    "seasonal_naive": "predictor.models.seasonal_naive:SeasonalNaive",
    "arima": "predictor.models.arima:Arima",
    "gradient_boosting": "predictor.models.gradient_boosting:GradientBoosting",
}
# Asked for by name only: they need the extra `deep` and, in the background, a good part of a core.
EXTRA = {
    "lstm": "predictor.models.lstm:Lstm",
    "transformer": "predictor.models.transformer:Transformer",
}
BASELINES = ("naive", "ewma", "ewma_slow", "train_mean")
REFERENCE = "ewma"

Maker = Callable[[Ask, int], Model]


@cache
def _plugged_in() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP)}


def known() -> tuple[str, ...]:
    """Names of all models that can be asked for."""
    ours = (*IN_THE_BOX, *EXTRA)
    return (*ours, *(name for name in _plugged_in() if name not in ours))


def maker(name: str) -> Maker:
    """What makes the model of this name; raises ValueError when there is none."""
    place = IN_THE_BOX.get(name) or EXTRA.get(name)
    if place:
        module, _, attribute = place.partition(":")
        found: Maker = getattr(import_module(module), attribute)
        return found
    if name in _plugged_in():
        loaded: Maker = _plugged_in()[name].load()
        return loaded
    raise ValueError(f"no model is named {name}; known are {', '.join(known())}")


def build(names: Sequence[str], ask: Ask, seed: int = 1) -> dict[str, Model]:
    """A fresh model for each name, in that order; raises ValueError for names that nobody knows."""
    return {name: maker(name)(ask, seed) for name in names}

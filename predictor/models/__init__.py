"""Says what a model has to offer, and finds models by name: those in the box, and those that other packages offer."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView

GROUP = "forepath.models"
# Imported only when asked for: learning libraries take seconds to load. Called with (spec, seed).
IN_THE_BOX = {
    "naive": "predictor.models.pointwise:Naive",
    "ewma": "predictor.models.pointwise:ExponentialAverage",
    "ewma_slow": "predictor.models.pointwise:SlowExponentialAverage",
    "train_mean": "predictor.models.pointwise:TrainMean",
    "seasonal_naive": "predictor.models.seasonal:SeasonalNaive",
    "arima": "predictor.models.arima:Arima",
    "gradient_boosting": "predictor.models.boosting:GradientBoosting",
}
# Asked for by name only: in the background they need a good part of a core.
EXTRA = {
    "lstm": "predictor.models.deep:Lstm",
    "transformer": "predictor.models.deep:Transformer",
}
BASELINES = ("naive", "ewma", "ewma_slow", "train_mean")
REFERENCE = "ewma"


class Model(Protocol):
    """A forecaster over all series at once. A view may show some of them only: see `SeriesView.rows`.

    `slow` fits run in another process on a copy, which then takes the place of the original, so a model must be
    picklable. `replayable` models may be judged on the past with what they know today, because they learn so
    little (a period, a band) that this flatters them hardly. A `costly` model is asked only about series for which
    it has earned a say or may do so; it may say about how many a cycle at most (`most_asked`).
    """

    name: ClassVar[str]
    slow: ClassVar[bool]
    replayable: ClassVar[bool]
    costly: ClassVar[bool]

    def fit(self, view: SeriesView) -> None:
        """Learns parameters from the whole view, which may show a sample of the series."""

    def update(self, view: SeriesView) -> None:
        """Takes note of new cells and of new series; called before each prediction with all series, cheap."""

    def predict(self, view: SeriesView, origins: Ints) -> Floats:
        """Origins x series x targets x levels (float32), NaN where the model has nothing to say.

        What is said at origin k (a cell of the view) may depend on cells <= k only; parameters are those of the last
        fit or update. Values may cross or be negative: the composition mends that.
        """


@runtime_checkable
class Adopting(Protocol):
    """A model that, fitted elsewhere, takes over what its predecessor knew about each series."""

    def adopt(self, old: Self) -> None:
        """Called once, when this model takes the place of `old`."""


@runtime_checkable
class Budgeted(Protocol):
    """A model whose fit plans with so much CPU time."""

    fit_budget_s: float


Maker = Callable[[ForecastSpec, int], Model]


@cache
def _plugged_in() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP)}


def known_models() -> tuple[str, ...]:
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
    raise ValueError(f"no model is named {name}; known are {', '.join(known_models())}")


def build_models(names: Sequence[str], spec: ForecastSpec, seed: int = 1) -> dict[str, Model]:
    """A fresh model for each name, in that order; raises ValueError for names that nobody knows."""
    return {name: maker(name)(spec, seed) for name in names}

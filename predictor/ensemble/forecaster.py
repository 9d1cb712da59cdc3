"""Forecasts from a view alone, without a database: the same composition of models serves live cycles and backtests."""

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from predictor.data.view import ALL, Floats, ForecastSpec, Ints, SeriesView
from predictor.ensemble.composition import Composition, Truth
from predictor.ensemble.weights import Contest
from predictor.models import BASELINES, REFERENCE, Adopting, Model
from predictor.models.quantiles import make_monotone


@dataclass(frozen=True, slots=True)
class ForecasterOptions:
    """How a forecaster learns; lengths are cells.

    `half_life` is how fast old scores fade. `validate` is the share of a fit's history, at its end and at most
    `validate_most` cells of it, on which models fitted before it are judged, so that weights and calibration are
    known from the start. In a walk models update every `block` origins and are fitted again every `refit_every`
    (0 = never).
    """

    half_life: float = 200.0
    validate: float = 0.15
    validate_most: int = 1000
    block: int = 64
    refit_every: int = 0


@dataclass(frozen=True, slots=True)
class ForecastBlock:
    """What was forecast at consecutive origins (cells of the view).

    `forecasts` by model and `final` are origins x series x targets x levels, `weights` origins x models x series x
    targets.
    """

    origins: Ints
    forecasts: Mapping[str, Floats]
    final: Floats
    weights: Floats


class Forecaster:
    """Models and their composition. One model, the reference, must be among them; baselines are always trusted."""

    def __init__(
        self, spec: ForecastSpec, models: Mapping[str, Model], options: ForecasterOptions = ForecasterOptions()
    ) -> None:
        self.spec = spec
        self.models = dict(models)
        self.options = options
        self.composition = Composition(self.contest(), spec.levels)

    def contest(self) -> Contest:
        """Who competes for what."""
        names = tuple(self.models)
        reference = REFERENCE if REFERENCE in names else names[0]
        return Contest(names, self.spec.targets, BASELINES, reference, self.options.half_life)

    def install(self, model: Model) -> None:
        """Puts a model that was fitted elsewhere in the place of its predecessor."""
        if isinstance(model, Adopting):
            model.adopt(self.models[model.name])  # type: ignore[arg-type]
        self.models[model.name] = model

    def fit(self, view: SeriesView) -> None:
        """Fits all models to the view; weights and calibration come from its end, forecast by models fitted earlier."""
        validated = min(round(self.options.validate * view.cells), self.options.validate_most)
        untaught = {name: copy.deepcopy(model) for name, model in self.models.items()}
        begin = view.cells - validated
        self.composition = Composition(self.contest(), self.spec.levels)
        if validated > view.lead + self.spec.reach:
            self._fit_models(view.until(begin))
            for _ in self.walk(view, np.arange(begin - 1, view.cells)):
                pass
            self.models = untaught
        self._fit_models(view)

    def _fit_models(self, view: SeriesView) -> None:
        for model in self.models.values():
            model.fit(view)
            model.update(view)

    def walk(self, view: SeriesView, origins: Ints) -> Iterator[ForecastBlock]:
        """Forecasts at consecutive origins and learns on the way, as a live system would, in blocks of `options.block`.

        Nothing leaks: models are updated with cells up to the first origin of a block only, say nothing at an origin
        that depends on later cells (see Model), and a truth reaches weights and calibration only at the first origin
        that is not before the last cell of its window.
        """
        walk = _Walk(self, view)
        for number in range(0, len(origins), self.options.block):
            part = np.asarray(origins[number : number + self.options.block], dtype=np.int64)
            if self.options.refit_every and number and number % self.options.refit_every < self.options.block:
                self._fit_models(view.until(int(part[0]) + 1))
            yield walk.block(part)


class _Walk:
    """The state of one walk: forecasts whose truth is not known yet."""

    def __init__(self, forecaster: Forecaster, view: SeriesView) -> None:
        self._forecaster = forecaster
        self._view = view
        self._reaches = sorted({target.reach for target in forecaster.spec.targets})
        self._waiting: deque[tuple[int, Floats, Floats]] = deque(maxlen=view.lead + self._reaches[-1] + 1)
        forecaster.composition.resize(view.series)

    def block(self, origins: Ints) -> ForecastBlock:
        """Forecasts of all models at once, then the blend origin by origin."""
        models = self._forecaster.models
        past = self._view.until(int(origins[0]) + 1)
        for model in models.values():
            model.update(past)
        seen = self._view.until(int(origins[-1]) + 1)
        forecasts = np.stack([make_monotone(model.predict(seen, origins)) for model in models.values()])
        final, weights = [], []
        for number, origin in enumerate(origins.tolist()):
            self._learn(origin)
            composition = self._forecaster.composition
            now = forecasts[:, number]
            able = ~np.isnan(now[..., 0])
            final.append(composition.blend(list(now))[0])
            weights.append(composition.scoreboard.weights(able))
            self._waiting.append((origin, now, final[-1]))
        return ForecastBlock(origins, dict(zip(models, forecasts, strict=True)), np.stack(final), np.stack(weights))

    def _learn(self, origin: int) -> None:
        targets = self._forecaster.spec.targets
        for reach in self._reaches:
            was = origin - self._view.lead - reach
            issued = next((waiting for waiting in self._waiting if waiting[0] == was), None)
            if issued is not None:
                which = np.flatnonzero([target.reach == reach for target in targets])
                actual = self._view.truth(targets, which, was)
                truth = Truth(actual, which, ALL, self._view.start + origin)
                self._forecaster.composition.learn(issued[1][:, :, which], issued[2][:, which], truth)

"""Gradient boosting by scikit-learn: one model per quantity and level learns from all pairs what precedes what."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtri

from predictor.features import WARM_UP, Past, past, seasonal
from predictor.models.base import Ask
from predictor.periods import find_periods
from predictor.quantiles import lawful
from predictor.view import CHANNEL_OF, QUANTITIES, Floats, Ints, View

FITTED = (0.1, 0.5, 0.9)
ROWS = 2500
FEWEST_ROWS = 300


class GradientBoosting:
    """Direct forecasts of all horizons; the horizon is a feature, and rates are in units of the pair's own mean.

    Three levels are fitted; the others follow on a normal scale between and beyond them.
    """

    name: ClassVar[str] = "gradient_boosting"
    slow: ClassVar[bool] = True
    replayable: ClassVar[bool] = False

    def __init__(self, ask: Ask, seed: int) -> None:
        self.ask = ask
        self._seed = seed
        self._trees: dict[tuple[int, float], Any] = {}
        self._periods: Floats = np.zeros(0)

    def fit(self, view: View) -> None:
        """Fits all trees on a sample of origins of all pairs."""
        scene = Scene(view, find_periods(view), past(view))
        rng = np.random.default_rng(self._seed)
        trees: dict[tuple[int, float], Any] = {}
        for quantity in range(len(QUANTITIES)):
            inputs, truths = _lesson(scene, self.ask, quantity)
            if len(truths) < FEWEST_ROWS:
                return
            chosen = rng.permutation(len(truths))[:ROWS]
            for level in FITTED:
                trees[quantity, level] = _boosted(inputs[chosen], truths[chosen], level, self._seed)
        self._trees, self._periods = trees, scene.periods

    def update(self, view: View) -> None:
        """Features are made when they are needed."""

    def predict(self, view: View) -> Floats:
        """See Model."""
        fan = self.ask.empty(view.pairs)
        if not self._trees or view.cells < WARM_UP:
            return fan
        periods = np.full(view.pairs, np.nan)
        periods[: len(self._periods)] = self._periods
        origin = np.array([view.cells - 1])
        scene = Scene(view, periods, past(view))
        for quantity in range(len(QUANTITIES)):
            scale = scene.described.scale[CHANNEL_OF[quantity], :, -1]
            inputs = np.concatenate([_inputs(scene, quantity, origin, horizon) for horizon in self.ask.horizons])
            fitted = np.stack([self._trees[quantity, level].predict(inputs) for level in FITTED], axis=-1)
            levels = _all_levels(fitted, self.ask.levels)
            shaped = levels.reshape(len(self.ask.horizons), view.pairs, -1).transpose(1, 0, 2)
            fan[:, :, quantity] = shaped * scale[:, None, None]
        return fan


@dataclass(frozen=True, slots=True)
class Scene:
    """A view with all that describes it, made once for all quantities and horizons."""

    view: View
    periods: Floats
    described: Past


def _inputs(scene: Scene, quantity: int, origins: Ints, horizon: int) -> Floats:
    """(pairs * origins) x features, pair by pair; see `features` for what they are."""
    channel = int(CHANNEL_OF[quantity])
    own = scene.described.features[channel][:, origins]
    scale = scene.described.scale[channel][:, origins]
    held = seasonal(scene.view, scene.periods, origins, horizon)[2 * channel : 2 * channel + 2]
    cycles = np.concatenate([held[0], held[1]], axis=-1) / scale[..., None]
    length = np.broadcast_to(scene.periods[:, None, None], (*scale.shape, 1))
    phase = own[..., -1:] / length
    ahead = np.full((*scale.shape, 1), float(horizon))
    everything = np.concatenate([own, cycles, phase, length, ahead], axis=-1).reshape(scale.size, -1)
    # No period, no earlier cycle: a value that nothing else has. (scikit-learn refuses columns that are all NaN.)
    inputs: Floats = np.nan_to_num(everything, nan=-1.0)
    return inputs


def _lesson(scene: Scene, ask: Ask, quantity: int) -> tuple[Floats, Floats]:
    """Inputs and truths, in units of the mean so far, of all origins whose window has ended."""
    view = scene.view
    inputs, truths = [], []
    for horizon in ask.horizons:
        origins = np.arange(WARM_UP, view.cells - view.lead - horizon)
        if not len(origins):
            continue
        truth = view.targets(horizon)[quantity][:, origins + 1 + view.lead]
        truth = truth / scene.described.scale[CHANNEL_OF[quantity]][:, origins]
        known = ~np.isnan(truth).reshape(-1)
        inputs.append(_inputs(scene, quantity, origins, horizon)[known])
        truths.append(truth.reshape(-1)[known])
    return (np.concatenate(inputs), np.concatenate(truths)) if inputs else (np.zeros((0, 0)), np.zeros(0))


def _boosted(inputs: Floats, truths: Floats, level: float, seed: int) -> Any:
    # Deferred: scikit-learn takes a second to import, and only the fitting process needs it at once.
    from sklearn.ensemble import HistGradientBoostingRegressor

    trees = HistGradientBoostingRegressor(
        loss="quantile",
        quantile=level,
        max_iter=40,
        learning_rate=0.12,
        max_leaf_nodes=8,
        min_samples_leaf=25,
        max_bins=64,
        early_stopping=False,
        random_state=seed,
    )
    return trees.fit(inputs, truths)


def _all_levels(fitted: Floats, levels: Sequence[float]) -> Floats:
    """Fitted levels to all levels, linear in the normal score; the outer pieces go on straight."""
    fitted = lawful(fitted)
    known, wanted = ndtri(np.array(FITTED)), ndtri(np.array(levels))
    pieces = list(pairwise(range(len(FITTED))))
    which = np.clip(np.searchsorted(known, wanted) - 1, 0, len(pieces) - 1)
    share = (wanted - known[which]) / (known[which + 1] - known[which])
    values: Floats = fitted[..., which] + share * (fitted[..., which + 1] - fitted[..., which])
    return values

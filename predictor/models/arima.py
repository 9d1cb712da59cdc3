"""ARIMA by statsmodels: parameters estimated now and then for a few pairs, state carried on every cycle for all."""

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import lfilter

from predictor.models.base import Ask, PointBand
from predictor.view import BYTES, CHANNELS, Floats, View, last_known

# (p, d, q); which one is used is decided by one-step errors on history that the candidates were not fitted to.
ORDERS = ((1, 0, 0), (2, 0, 0), (3, 0, 0), (1, 0, 1), (2, 0, 1), (0, 1, 1), (1, 1, 1))
MEMORY = 30
HISTORY = 300
SHORTEST = 60
SAMPLED = 2
# Estimates per fit bound its cost (about 15 ms each); the other pairs share the median of what was estimated.
ESTIMATES = 8


class Arima(PointBand):
    """Every ARIMA is, but for a remainder, a weighted sum of its last values: 30 weights per pair say it all.

    So new cells cost one product per pair and no filter has to be run again (Box and Jenkins' pi weights).
    """

    name: ClassVar[str] = "arima"
    slow: ClassVar[bool] = True
    replayable: ClassVar[bool] = False

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self.order: tuple[int, int, int] | None = None
        self._own: dict[tuple[int, int], Floats] = {}
        self._shared: dict[int, Floats] = {}
        self._next = 0

    def fit(self, view: View) -> None:
        """Chooses the order on a sample of pairs, then estimates a few pairs in turn."""
        self._band = None
        series = _standardised(view)
        lively = np.flatnonzero(series[BYTES].std(axis=-1) > 0)
        if view.cells < SHORTEST or not len(lively):
            return
        self.order = _choose_order([series[BYTES, pair] for pair in lively[:SAMPLED]]) or self.order
        if self.order is None:
            return
        for step in range(min(ESTIMATES, len(lively))):
            pair = int(lively[(self._next + step) % len(lively)])
            for channel in range(len(CHANNELS)):
                weights = _estimate(series[channel, pair], self.order)
                if weights is not None:
                    self._own[channel, pair] = weights
        self._next = (self._next + ESTIMATES) % len(lively)
        for channel in range(len(CHANNELS)):
            known = [weights for (of, _), weights in self._own.items() if of == channel]
            if known:
                self._shared[channel] = np.median(known, axis=0)

    def update(self, view: View) -> None:
        """See PointBand; nothing before the first fit."""
        if len(self._shared) == len(CHANNELS):
            super().update(view)

    def points(self, view: View, tail: int) -> Floats:
        """See PointBand: mean of the path foreseen over each window."""
        weights = self._window_weights(view)  # channels x pairs x horizons x MEMORY
        mean = np.nanmean(
            np.where(np.isnan(view.rates).all(-1, keepdims=True), 0.0, view.rates), axis=-1, keepdims=True
        )
        filled = last_known(view.rates)[..., -(tail + MEMORY) :] - mean
        padded = np.pad(np.nan_to_num(filled), ((0, 0), (0, 0), (MEMORY, 0)))
        past = sliding_window_view(padded, MEMORY, axis=-1)[:, :, -tail:, ::-1]
        guess: Floats = np.einsum("cptm,cphm->cpht", past, weights) + mean[:, :, None]
        return guess

    def _window_weights(self, view: View) -> Floats:
        pi = np.stack(
            [
                np.stack([self._own.get((channel, pair), self._shared[channel]) for pair in range(view.pairs)])
                for channel in range(len(CHANNELS))
            ]
        )
        steps = path_weights(pi, view.lead + self.ask.horizons[-1])
        windows = [steps[view.lead : view.lead + horizon].mean(axis=0) for horizon in self.ask.horizons]
        return np.stack(windows, axis=2)


def pi_weights(ar: Floats, ma: Floats, d: int) -> Floats:
    """Weights of the last MEMORY values in the next one: 1 - (1 - B)^d ar(B) / ma(B), newest first."""
    top = np.concatenate([[1.0], -np.asarray(ar)])
    for _ in range(d):
        top = np.convolve(top, [1.0, -1.0])
    impulse = np.zeros(MEMORY + 1)
    impulse[0] = 1.0
    expansion: Floats = lfilter(top, np.concatenate([[1.0], np.asarray(ma)]), impulse)
    return -expansion[1:]


def path_weights(pi: Floats, steps: int) -> Floats:
    """Weights of known values in each of the next steps: steps x (shape of pi); a step builds on those before it."""
    path = np.zeros((steps, *pi.shape))
    for step in range(steps):
        reach = min(step, MEMORY)
        path[step, ..., : MEMORY - reach] = pi[..., reach:] if step < MEMORY else 0.0
        for back in range(reach):
            path[step] += pi[..., back : back + 1] * path[step - 1 - back]
    return path


def _standardised(view: View) -> Floats:
    values = np.nan_to_num(last_known(view.rates)[..., -HISTORY:]).astype(np.float64)
    spread = values.std(axis=-1, keepdims=True)
    scaled: Floats = (values - values.mean(axis=-1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    return scaled


def _estimate(series: Floats, order: tuple[int, int, int]) -> Floats | None:
    # Deferred: statsmodels takes seconds to import, and only the fitting process needs it.
    from statsmodels.tsa.arima.model import ARIMA

    if not series.std():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Hannan-Rissanen needs no search, so its cost is known beforehand.
            result: Any = ARIMA(series, order=order, trend="n").fit(method="hannan_rissanen")
        except (ValueError, np.linalg.LinAlgError):
            return None
    weights = pi_weights(result.arparams, result.maparams, order[1])
    explodes = not np.isfinite(weights).all() or np.abs(weights).sum() > 4.0
    return None if explodes else weights


def _choose_order(sample: list[Floats]) -> tuple[int, int, int] | None:
    losses = {order: np.mean([_one_step_error(series, order) for series in sample]) for order in ORDERS}
    best = min(losses, key=lambda order: losses[order])
    return best if np.isfinite(losses[best]) else None


def _one_step_error(series: Floats, order: tuple[int, int, int]) -> float:
    split = 2 * len(series) // 3
    weights = _estimate(series[:split], order)
    if weights is None:
        return float("inf")
    guess = np.convolve(series, weights)[split - 1 : len(series) - 1]
    return float(np.mean((series[split:] - guess) ** 2))

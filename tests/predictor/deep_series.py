"""Makes up series for the tests of the networks, in which there is something to learn."""

import numpy as np

from predictor.data.view import Floats, ForecastSpec, SeriesView, Target

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
SPEC = ForecastSpec((Target(0, 0, 1), Target(0, 3, 1), Target(0, 0, 6, peak=True)), LEVELS)


def alternating(seed: int, series: int = 12, cells: int = 420) -> Floats:
    """Each series is high for 6 cells, then low for 6 or 14 as chance will have it, with noise: 1 x series x cells.

    So its falls can be forecast and half of its rises, but no earlier cycle tells when.
    """
    rng = np.random.default_rng(seed)
    high = np.zeros((series, cells), dtype=bool)
    for row in high:
        first = int(rng.integers(0, 12))
        while first < cells:
            row[first : first + 6] = True
            first += 6 + int(rng.choice([6, 14]))
    size = 10.0 ** rng.uniform(1, 6, (series, 1))
    rates = size * (1.0 + 2.0 * high + 0.1 * rng.standard_normal((series, cells)))
    return np.maximum(rates, 0.0)[None].astype(np.float32)


def returning(seed: int, series: int = 12, cells: int = 420) -> Floats:
    """Each series returns to its mean by half in each cell (an AR(1) of 0.5): 1 x series x cells."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(1, 6, (series, 1))
    shocks = rng.standard_normal((series, cells))
    swing = np.zeros((series, cells))
    for cell in range(1, cells):
        swing[:, cell] = 0.5 * swing[:, cell - 1] + 0.2 * shocks[:, cell]
    return np.maximum(size * (1.5 + swing), 0.0)[None].astype(np.float32)


def view_of(rates: Floats, cells: int | None = None) -> SeriesView:
    """A view of the first `cells` cells of one second each."""
    return SeriesView(rates[..., :cells])


def error(quantiles: Floats, view: SeriesView, origins: Floats, target: Target) -> float:
    """Mean absolute error of the medians (origins x series x levels) in units of each series' mean."""
    truth = view.target(target)[:, view.begins(target, origins)]
    size = view.rates[target.channel].mean(axis=-1, keepdims=True)
    return float(np.nanmean(np.abs(quantiles[..., LEVELS.index(0.5)].T - truth) / size))

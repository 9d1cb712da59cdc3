"""Makes quantiles out of samples, and keeps every quantile forecast finite, non-negative and free of crossings."""

from collections.abc import Sequence

import numpy as np

from cpdb import nearest_level
from predictor.data.view import Floats


def sample_quantiles(samples: Floats, levels: Sequence[float]) -> Floats:
    """Quantiles along the last axis, which becomes the axis of levels; NaN samples do not count.

    Linear between order statistics at (n - 1) * level (type 7 of Hyndman and Fan, 1996); NaN without samples.
    """
    ordered = np.sort(samples, axis=-1)
    count = (~np.isnan(ordered)).sum(axis=-1, keepdims=True)
    position = np.maximum(count - 1, 0) * np.asarray(levels)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    below = np.take_along_axis(ordered, low, axis=-1)
    above = np.take_along_axis(ordered, high, axis=-1)
    between: Floats = below + (above - below) * (position - low)
    return between


def weighted_quantiles(samples: Floats, weights: Floats, levels: Sequence[float]) -> Floats:
    """The smallest sample at which the weight so far reaches each level; last axis as in `sample_quantiles`."""
    known = ~np.isnan(samples)
    weights = np.where(known, np.broadcast_to(weights, samples.shape), 0.0)
    order = np.argsort(samples, axis=-1)  # NaN sorts last
    ordered = np.take_along_axis(samples, order, axis=-1)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=-1), axis=-1)
    needed = np.asarray(levels) * reached[..., -1:]
    index = (reached[..., None, :] < needed[..., :, None] - 1e-9).sum(axis=-1)
    last = np.maximum(known.sum(axis=-1, keepdims=True) - 1, 0)
    return np.take_along_axis(ordered, np.minimum(index, last), axis=-1)


def make_monotone(quantiles: Floats) -> Floats:
    """The same forecast clipped at 0, crossings undone; one with any value that is not finite becomes all NaN."""
    good = np.isfinite(quantiles).all(axis=-1, keepdims=True)
    everyone = bool(good.all())
    ordered: Floats = np.maximum(quantiles if everyone else np.where(good, quantiles, 0.0), 0.0)
    # Level by level is many times faster than accumulating along a short last axis.
    for level in range(1, quantiles.shape[-1]):
        np.maximum(ordered[..., level], ordered[..., level - 1], out=ordered[..., level])
    return ordered if everyone else np.where(good, ordered, np.nan)


def widened(quantiles: Floats, factor: Floats, levels: Sequence[float]) -> Floats:
    """Spreads each forecast about its median by `factor` (>= 1, broadcast over all but the last axis)."""
    middle = nearest_level(levels, 0.5)
    median = quantiles[..., middle : middle + 1]
    # A flat forecast would stay flat however old it is, so a part of the median counts as spread.
    floor = (np.asarray(levels) - levels[middle]) * 0.5 * median
    spread: Floats = median + (quantiles - median) * factor[..., None] + floor * (factor[..., None] - 1.0)
    return spread


def pinball_loss(quantiles: Floats, actual: Floats, levels: Sequence[float]) -> Floats:
    """Mean pinball loss over the levels (last axis of `quantiles`): mean of max(q (y - f), (q - 1) (y - f))."""
    miss = actual[..., None] - quantiles
    grid = np.asarray(levels)
    loss: Floats = np.maximum(grid * miss, (grid - 1.0) * miss).mean(axis=-1)
    return loss

"""Describes a pair's past at any moment to learning models, by numbers that never look beyond that moment."""

from dataclasses import dataclass

import numpy as np

from predictor.models.ewma import ewma
from predictor.models.seasonal_naive import gather
from predictor.view import Floats, Ints, View, last_known

LAGS = 6
SPANS = (5, 15, 60)
CYCLES = 3
BURST = 2.0
LONGEST_SILENCE = 300.0
# Until a pair has been seen for this many cells, its own scale is too young to be trusted.
WARM_UP = 15


@dataclass(frozen=True, slots=True)
class Past:
    """What does not depend on the window asked for: features (channels x pairs x cells x features) and scale."""

    features: Floats
    scale: Floats


def past(view: View) -> Past:
    """Features of every cell from that cell and those before it, in units of the pair's mean rate so far."""
    values = np.nan_to_num(last_known(view.rates)).astype(np.float64)
    cells = np.arange(1, view.cells + 1)
    mean = np.cumsum(values, axis=-1) / cells
    scale = np.where(mean > 0, mean, 1.0)
    columns = [_delayed(values, lag) for lag in range(LAGS)]
    for span in SPANS:
        columns += [_trailing_mean(values, span), _trailing_peak(values, span)]
    columns += [np.nan_to_num(ewma(view.rates, 0.2)), np.nan_to_num(ewma(view.rates, 0.05))]
    features = np.stack(columns, axis=-1) / scale[..., None]
    silence = _since_burst(values > BURST * scale)
    return Past(np.concatenate([features, silence[..., None]], axis=-1), scale)


def _delayed(values: Floats, cells: int) -> Floats:
    if not cells:
        return values
    first = np.repeat(values[..., :1], min(cells, values.shape[-1]), axis=-1)
    return np.concatenate([first, values[..., :-cells]], axis=-1)[..., : values.shape[-1]]


def _trailing_mean(values: Floats, span: int) -> Floats:
    total = np.cumsum(values, axis=-1)
    before = np.concatenate([np.zeros((*total.shape[:-1], span)), total], axis=-1)[..., : total.shape[-1]]
    mean: Floats = (total - before) / np.minimum(np.arange(1, total.shape[-1] + 1), span)
    return mean


def _trailing_peak(values: Floats, span: int) -> Floats:
    peak, width = values, 1
    while width < span:
        step = min(width, span - width)
        peak = np.maximum(peak, _delayed(peak, step))
        width += step
    return peak


def _since_burst(burst: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Floats:
    cells = np.arange(burst.shape[-1])
    last = np.maximum.accumulate(np.where(burst, cells, -LONGEST_SILENCE), axis=-1)
    return np.minimum(cells - last, LONGEST_SILENCE)


def seasonal(view: View, periods: Floats, origins: Ints, horizon: int) -> Floats:
    """What the same window of the last three cycles held: quantities x pairs x origins x cycles.

    A window that had not ended at the origin is NaN, as are pairs without a period.
    """
    length = np.nan_to_num(periods, nan=float(4 * view.cells))
    # Cycles too near to be over at the origin would all be NaN: begin with the first that is.
    skipped = np.ceil((horizon + view.lead) / length) - 1
    cycles = np.arange(1, CYCLES + 1)[None, :] + np.maximum(skipped, 0)[:, None]
    back = np.round(length[:, None] * cycles).astype(np.int64)
    begin = origins[None, :, None] + 1 + view.lead - back[:, None, :]
    over = begin + horizon - 1 <= origins[None, :, None]
    held = gather(view.targets(horizon), np.where(over, begin, -1))
    return np.asarray(held)

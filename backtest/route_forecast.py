"""Lets the live predictor foresee each test matrix, for routing that trusts one forecast."""

from collections.abc import Callable

import numpy as np

from backtest.route_reading import Floats
from predictor import Ask, Forecaster, Options, Target, View, build

# Models that cost next to nothing a series: here the forecast serves as a peer, and there may be thousands of pairs.
MODELS = ("naive", "ewma", "ewma_slow", "train_mean", "seasonal_naive")
LEVELS = (0.1, 0.5, 0.9)


def foreseen(times: Floats, demand: Floats, split: int, say: Callable[[str, int, int], None]) -> Floats:
    """The median of row t from rows before t, for each row from `split` on: (T - split) x N.

    `demand` is T x N with NaN where nothing is known. Where the forecaster has nothing to say, the last known value.
    """
    step_s = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    view = View(demand.T[None].astype(np.float32), 0, 0, max(step_s, 1e-3))
    ask = Ask((Target(0, 0, 1),), LEVELS)
    forecaster = Forecaster(ask, build(MODELS, ask, 1), Options())
    say("fitting", 0, 0)
    forecaster.fit(view.until(split))
    origins = np.arange(split - 1, len(demand) - 1)
    said = np.full((len(origins), demand.shape[1]), np.nan)
    for block in forecaster.walk(view, origins):
        said[block.origins - origins[0]] = block.final[:, :, 0, LEVELS.index(0.5)]
        say("foreseeing", int(block.origins[-1] - origins[0]) + 1, len(origins))
    return np.maximum(np.where(np.isnan(said), _last_known(demand)[origins], said), 0.0)


def _last_known(demand: Floats) -> Floats:
    known = ~np.isnan(demand)
    place = np.maximum.accumulate(np.where(known, np.arange(len(demand))[:, None], 0), axis=0)
    return np.nan_to_num(np.take_along_axis(demand, place, axis=0))

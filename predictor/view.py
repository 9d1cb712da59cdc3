"""Gives the models one immutable picture of the past: rates on a regular grid, and what each window of it held."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpdb import Quantity

Floats = NDArray[Any]
Ints = NDArray[np.int64]

CHANNELS = ("bytes", "connections")
BYTES, CONNECTIONS = range(len(CHANNELS))
# The order of the quantity axis everywhere in this room: peak and mean of each channel in turn.
QUANTITIES = (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN, Quantity.CONNECTIONS_PEAK, Quantity.CONNECTIONS_MEAN)
CHANNEL_OF = np.array([BYTES, BYTES, CONNECTIONS, CONNECTIONS])
# A window of which more than a fifth is missing has no truth to be compared with.
KNOWN_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class View:
    """Rates (channels x pairs x cells, per second, NaN = missing) up to the last cell that anyone knows.

    Windows to be forecast begin `lead` cells after that last cell (0 = at once): rows need time to arrive.
    """

    rates: Floats
    lead: int = 0
    _targets: dict[int, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return int(self.rates.shape[1])

    @property
    def cells(self) -> int:
        """Number of cells of history; the last one is the origin of all forecasts."""
        return int(self.rates.shape[2])

    def targets(self, horizon: int) -> Floats:
        """Quantities x pairs x cells: what the window of `horizon` cells that begins at each cell held.

        NaN where the window has not ended within this view or too much of it is missing.
        """
        if horizon not in self._targets:
            self._targets[horizon] = window_targets(self.rates, horizon)
        return self._targets[horizon]

    def until(self, cells: int) -> "View":
        """The same past as it was known when only the first `cells` cells were over."""
        known = {}
        for horizon, target in self._targets.items():
            known[horizon] = target[..., :cells].copy()
            known[horizon][..., max(0, cells - horizon + 1) :] = np.nan
        return View(self.rates[..., :cells], self.lead, known)

    def __reduce__(self) -> tuple[type["View"], tuple[Floats, int]]:
        # What can be computed again need not travel to another process.
        return View, (self.rates, self.lead)


def window_targets(rates: Floats, horizon: int) -> Floats:
    """Peak and mean per channel over each window of `horizon` cells: quantities x pairs x cells, see View.targets."""
    channels, pairs, cells = rates.shape
    result = np.full((2 * channels, pairs, cells), np.nan, dtype=np.float32)
    ends = cells - horizon + 1
    if ends <= 0:
        return result
    known = ~np.isnan(rates)
    count = _window_sums(known.astype(np.float32), horizon)
    enough = count >= KNOWN_SHARE * horizon
    filled = np.where(known, rates, 0.0)
    mean = _window_sums(filled, horizon) / np.maximum(count, 1)
    result[0::2, :, :ends] = np.where(enough, _window_peaks(filled, horizon), np.nan)
    result[1::2, :, :ends] = np.where(enough, mean, np.nan)
    return result


def _window_sums(values: Floats, width: int) -> Floats:
    total = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, dtype=np.float64, out=total[..., 1:])
    # Differences of sums may come out a hair below zero; rates cannot.
    sums: Floats = np.maximum(total[..., width:] - total[..., :-width], 0.0)
    return sums


def _window_peaks(values: Floats, width: int) -> Floats:
    # Doubling: the peak over 2n cells is the larger of two peaks over n, so width 30 costs 5 passes, not 30.
    span, peaks = 1, values
    while 2 * span <= width:
        peaks = np.maximum(peaks[..., :-span], peaks[..., span:])
        span *= 2
    rest = width - span
    return np.maximum(peaks[..., : peaks.shape[-1] - rest], peaks[..., rest:])


def last_known(rates: Floats) -> Floats:
    """Each cell's newest known value at or before it (same shape); NaN before the first."""
    known = ~np.isnan(rates)
    index = np.where(known, np.arange(rates.shape[-1]), 0)
    np.maximum.accumulate(index, axis=-1, out=index)
    return np.take_along_axis(rates, index, axis=-1)


def scales(view: View) -> Floats:
    """Channels x pairs: each pair's own mean rate over the view, never 0, to compare pairs of different size."""
    known = ~np.isnan(view.rates)
    total = np.where(known, view.rates, 0.0).sum(axis=-1, dtype=np.float64)
    mean = total / np.maximum(known.sum(axis=-1), 1)
    return np.where(mean > 0, mean, 1.0)

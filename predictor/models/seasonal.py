"""Finds out after how many cells a pair's traffic repeats itself, and says so only when chance explains it poorly."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView
from predictor.models.quantiles import weighted_quantiles

MIN_CYCLES = 3
MIN_PERIOD = 6
SMOOTH = 3
# Standard errors above which a lag is believed. The lag is the best of many, hence more than the usual two; the lag at
# twice the distance must agree as well, and the choice of models weeds out what still slips through.
SIGNIFICANT, CONFIRMED = 2.5, 1.6
# However long the history: weaker than this a period is real but of no use. AGAIN: at twice the lag, in its units.
WEAKEST = 0.3
AGAIN = 0.5
# A shorter lag that is nearly as good as the best one is the period itself, the best one its multiple.
NEARLY = 0.8


@dataclass(frozen=True, slots=True)
class Correlogram:
    """Autocorrelation and its standard error where there is no period, both pairs x lags."""

    values: Floats
    error: Floats


def correlogram(series: Floats) -> Correlogram:
    """Autocorrelation of series (pairs x cells, NaN = missing), each lag divided by how many cells overlap.

    The standard error is Bartlett's (1946) for a series that is correlated at short lags only:
    sqrt((1 + 2 * sum of squares up to the first zero) / n), n being how many cells overlap.
    """
    from scipy.fft import next_fast_len  # only here: it takes a third of a second to import

    known = ~np.isnan(series)
    root = np.sqrt(np.where(known, series, 0.0))  # bursts shall not count for more than their length
    mean = root.sum(axis=-1, keepdims=True) / np.maximum(known.sum(axis=-1, keepdims=True), 1)
    centred = _smooth(np.where(known, root - mean, 0.0))
    cells = series.shape[-1]
    size = next_fast_len(2 * cells)
    products = _autoproduct(centred, size)[:, :cells]
    overlap = _autoproduct(known.astype(np.float64), size)[:, :cells]
    covariance = products / np.maximum(overlap, 1.0)
    values = covariance / np.where(covariance[:, :1] > 1e-12, covariance[:, :1], np.inf)
    values[overlap < 0.25 * cells] = 0.0
    short = np.minimum.accumulate(values[:, 1:] > 0, axis=-1)
    spread = 1.0 + 2.0 * (np.square(values[:, 1:]) * short).sum(axis=-1)
    return Correlogram(values, np.sqrt(spread[:, None] / np.maximum(overlap, 1.0)))


def _autoproduct(values: Floats, size: int) -> Floats:
    spectrum = np.fft.rfft(values, size, axis=-1)
    product: Floats = np.fft.irfft(spectrum * spectrum.conj(), size, axis=-1)
    return product


def _smooth(values: Floats) -> Floats:
    padded = np.pad(values, ((0, 0), (SMOOTH // 2, SMOOTH // 2)))
    total = sum(padded[:, shift : shift + values.shape[-1]] for shift in range(SMOOTH))
    return np.asarray(total) / SMOOTH


def find_periods(view: SeriesView) -> Floats:
    """Period of each series in cells (fractional), NaN where none is significant. The first channel is asked first."""
    periods = np.full(view.series, np.nan)
    for rates in view.rates:
        silent = np.isnan(periods)
        if silent.any():
            periods[silent] = _channel_periods(rates[silent])
    return periods


def _channel_periods(series: Floats) -> Floats:
    found = np.full(len(series), np.nan)
    longest = series.shape[-1] // MIN_CYCLES
    if longest <= MIN_PERIOD:
        return found
    graph = correlogram(series)
    for pair in np.flatnonzero(graph.values[:, 0] > 0):
        found[pair] = _period(graph.values[pair], graph.error[pair], longest)
    return found


def _period(values: Floats, error: Floats, longest: int) -> float:
    # Before the first zero a series resembles itself because it is slow, not because it recurs.
    negative = np.flatnonzero(values[: longest + 1] <= 0)
    low = max(MIN_PERIOD, int(negative[0]) if len(negative) else longest + 1)
    lags = np.arange(low, longest + 1)
    if not len(lags):
        return float("nan")
    here = values[lags]
    needed = np.maximum(WEAKEST, SIGNIFICANT * error[lags])
    tops = lags[(here >= values[lags - 1]) & (here >= values[lags + 1]) & (here >= needed)]
    tops = np.array([lag for lag in tops if _recurs_twice(values, error, int(lag))], dtype=np.int64)
    if not len(tops):
        return float("nan")
    best = values[tops].max()
    return _refined(values, int(tops[values[tops] >= NEARLY * best][0]))


def _recurs_twice(values: Floats, error: Floats, lag: int) -> bool:
    reach = max(1, round(0.05 * lag))
    again = slice(2 * lag - reach, 2 * lag + reach + 1)
    return bool((values[again] >= np.maximum(CONFIRMED * error[again], AGAIN * values[lag])).any())


def _refined(values: Floats, lag: int) -> float:
    """Uses multiples of the lag as a longer ruler: an error of one cell at four cycles is a quarter per cycle."""
    period = _vertex(values, lag)
    for multiple in (2, 3, 4, 6, 8):
        at = round(multiple * period)
        if at + 2 >= len(values):
            break
        window = values[at - 2 : at + 3]
        if window.max() < 0.5 * values[lag]:
            break
        period = _vertex(values, at - 2 + int(np.argmax(window))) / multiple
    return period


def _vertex(values: Floats, lag: int) -> float:
    if not 0 < lag < len(values) - 1:
        return float(lag)
    left, middle, right = (float(value) for value in values[lag - 1 : lag + 2])
    bend = left - 2 * middle + right
    # Where the middle is no top, the parabola's own may be anywhere.
    return lag + (float(np.clip(0.5 * (left - right) / bend, -1.0, 1.0)) if bend < 0 else 0.0)


CYCLES = 8
# What recurs is rarely punctual: neighbours in phase are samples too, the nearer the weightier.
SHIFTS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
SHIFT_WEIGHTS = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
TOLERANCE = 0.06
FADING = 0.85
# Say of a cycle in which nothing was as it is now: little, but if all are like that they share it.
DOUBTFUL = 0.05
MAX_COMPARED = 120


class SeasonalNaive:
    """Quantiles of the windows at the same phase of up to 8 earlier cycles, recent cycles counting more."""

    name: ClassVar[str] = "seasonal_naive"
    slow: ClassVar[bool] = False
    replayable: ClassVar[bool] = True
    costly: ClassVar[bool] = True

    def __init__(self, spec: ForecastSpec, _seed: int = 0) -> None:
        self.spec = spec
        self.periods: Floats = np.zeros(0)

    def fit(self, view: SeriesView) -> None:
        """Looks for the period of each series in the view."""
        more = view.population - len(self.periods)
        self.periods = np.pad(self.periods, (0, max(0, more)), constant_values=np.nan)
        self.periods[view.rows] = find_periods(view)

    def update(self, view: SeriesView) -> None:
        """Looks again where it is a series' turn."""
        self.fit(view.due())

    def predict(self, view: SeriesView, origins: Ints) -> Floats:
        """See Model; NaN for series without a period or with fewer than two windows to look back at."""
        quantiles = self.spec.empty(len(origins), view.series)
        if len(self.periods) < view.population:
            return quantiles
        periods = self.periods[view.rows]
        who = np.flatnonzero(~np.isnan(periods))
        if len(who):
            sub = view if len(who) == view.series else view.part(who)
            for number, origin in enumerate(origins.tolist()):
                quantiles[number, who] = self._at(sub, periods[who], origin)
        return quantiles

    def _at(self, view: SeriesView, periods: Floats, origin: int) -> Floats:
        quantiles: Floats = self.spec.empty(1, view.series)[0]
        back = lookback(periods, TOLERANCE)
        alike = agreement(view.rates[0, :, : origin + 1], periods)
        weights = (FADING ** np.arange(CYCLES) * alike)[..., None] * SHIFT_WEIGHTS  # series x cycles x shifts
        flat = weights.reshape(view.series, -1)
        for number, target in enumerate(self.spec.targets):
            begin = view.begins(target, np.array([origin]))[0] - back
            begin = np.where(begin + target.length - 1 <= origin, begin, -1)
            samples = gather(view.target(target), begin)
            values = weighted_quantiles(samples.reshape(view.series, -1), flat, self.spec.levels)
            cycles = (~np.isnan(samples)).any(axis=-1).sum(axis=-1)
            quantiles[:, number] = np.where(cycles[:, None] < 2, np.nan, values)
        return quantiles

    def adopt(self, old: "SeasonalNaive") -> None:
        """Keeps the periods."""
        self.periods = old.periods


def agreement(series: Floats, periods: Floats) -> Floats:
    """How much the last cycle of series (pairs x cells) was like each earlier one: pairs x cycles, DOUBTFUL .. 1.

    The correlation of square roots. So, once a phase has moved, what was before the move loses its say within a cycle.
    """
    cells = series.shape[-1]
    reach = int(min(MAX_COMPARED, np.ceil(periods.max())))
    back = np.round(periods[:, None] * np.arange(CYCLES + 1)).astype(np.int64)
    index = cells - 1 - np.arange(reach)[None, None, :] - back[:, :, None]
    inside = (index >= 0) & (np.arange(reach) < periods[:, None, None])
    flat = np.where(inside, index, 0).reshape(len(series), -1)
    values = np.sqrt(np.take_along_axis(series, flat, axis=-1)).reshape(index.shape)
    shared = inside & ~np.isnan(values) & ~np.isnan(values[:, :1])
    return np.maximum(_correlation(values[:, :1], values, shared)[:, 1:], DOUBTFUL)


def _correlation(one: Floats, other: Floats, shared: Floats) -> Floats:
    count = np.maximum(shared.sum(axis=-1, keepdims=True), 1)
    centred = []
    for values in (np.broadcast_to(one, other.shape), other):
        known = np.where(shared, values, 0.0)
        centred.append(np.where(shared, known - known.sum(axis=-1, keepdims=True) / count, 0.0))
    spread = np.sqrt(np.square(centred[0]).sum(axis=-1) * np.square(centred[1]).sum(axis=-1))
    correlation: Floats = (centred[0] * centred[1]).sum(axis=-1) / np.where(spread > 0, spread, np.inf)
    return correlation


def lookback(periods: Floats, tolerance: float) -> Floats:
    """Cells to look back: pairs x cycles x shifts, whole numbers."""
    reach = np.maximum(1.0, tolerance * periods)[:, None, None] * SHIFTS
    cycles = periods[:, None, None] * np.arange(1, CYCLES + 1)[None, :, None]
    back: Floats = np.round(cycles).astype(np.int64) - np.round(reach).astype(np.int64)
    return back


def gather(targets: Floats, begin: Floats) -> Floats:
    """Targets (series x cells) of the windows that begin at `begin` (series x any shape); NaN where that is no cell."""
    inside = (begin >= 0) & (begin < targets.shape[-1])
    index = np.where(inside, begin, 0).reshape(len(begin), -1)
    values = np.take_along_axis(targets, index, axis=-1).reshape(begin.shape)
    return np.where(inside, values, np.nan)

"""Finds out after how many cells a pair's traffic repeats itself, and says so only when chance explains it poorly."""

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from predictor.view import Floats, View

MIN_CYCLES = 3
SHORTEST = 6
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
    spectrum = rfft(values, size, axis=-1)
    product: Floats = irfft(spectrum * spectrum.conj(), size, axis=-1)
    return product


def _smooth(values: Floats) -> Floats:
    padded = np.pad(values, ((0, 0), (SMOOTH // 2, SMOOTH // 2)))
    total = sum(padded[:, shift : shift + values.shape[-1]] for shift in range(SMOOTH))
    return np.asarray(total) / SMOOTH


def find_periods(view: View) -> Floats:
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
    if longest <= SHORTEST:
        return found
    graph = correlogram(series)
    for pair in np.flatnonzero(graph.values[:, 0] > 0):
        found[pair] = _period(graph.values[pair], graph.error[pair], longest)
    return found


def _period(values: Floats, error: Floats, longest: int) -> float:
    # Before the first zero a series resembles itself because it is slow, not because it recurs.
    negative = np.flatnonzero(values[: longest + 1] <= 0)
    low = max(SHORTEST, int(negative[0]) if len(negative) else longest + 1)
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

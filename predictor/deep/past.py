"""Looks up what any series held over any span before any moment, many at a time, never beyond that moment."""

from dataclasses import dataclass

import numpy as np

from predictor.view import Floats, Ints

# A series is told apart by so many other channels of its own at most.
COMPANIONS = 2


@dataclass(frozen=True, slots=True)
class Past:
    """Running sums of rows (rows x cells, NaN = missing), from which the mean over any span is two look-ups.

    `periods` is how many cells each row's cycle has, NaN without one; `companions` (rows x any) are the rows that
    tell of the same thing in other units, such as a pair's connections beside its bytes.
    """

    values: Floats
    totals: Floats
    squares: Floats
    counts: Floats
    periods: Floats
    companions: Ints

    @property
    def cells(self) -> int:
        """Number of cells of each row."""
        return int(self.values.shape[1])


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of cells, arrays of one shape. What comes after cell `seen` is not known yet."""

    rows: Ints
    first: Ints
    length: Ints
    seen: Ints


@dataclass(frozen=True, slots=True)
class Held:
    """What spans held: mean and deviation of the known cells (0 where none is known) and the share that is known."""

    mean: Floats
    deviation: Floats
    share: Floats


def past_of(rates: Floats, periods: Floats) -> Past:
    """Running sums of `rates` (channels x series x cells), channel by channel; `periods` by series."""
    channels, series, cells = rates.shape
    values = rates.reshape(channels * series, cells)
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    squares = np.square(filled, dtype=np.float64)
    rows = np.arange(channels * series)
    others = 1 + np.arange(min(channels - 1, COMPANIONS))
    return Past(
        values=values,
        totals=_running(filled),
        squares=_running(squares),
        counts=_running(known),
        periods=np.tile(periods, channels),
        companions=(rows[:, None] + series * others) % len(rows),
    )


def _running(values: Floats) -> Floats:
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, dtype=np.float64, out=sums[:, 1:])
    return sums


def held(past: Past, spans: Spans) -> Held:
    """Mean, deviation and known share of spans; what lies before the first cell or after the last is not known."""
    known = np.minimum(spans.seen + 1, past.cells)
    begin = np.clip(spans.first, 0, known)
    end = np.clip(spans.first + spans.length, begin, known)
    count = past.counts[spans.rows, end] - past.counts[spans.rows, begin]
    divisor = np.maximum(count, 1.0)
    mean = (past.totals[spans.rows, end] - past.totals[spans.rows, begin]) / divisor
    square = (past.squares[spans.rows, end] - past.squares[spans.rows, begin]) / divisor
    # Differences of sums may come out a hair below zero.
    return Held(mean, np.sqrt(np.maximum(square - mean * mean, 0.0)), count / spans.length)


def peaks(past: Past, spans: Spans, longest: int) -> Floats:
    """Highest known cell of spans none of which is longer than `longest`; 0 where none is known."""
    cells = spans.first[..., None] + np.arange(longest)
    known = np.minimum(spans.seen + 1, past.cells)[..., None]
    inside = (np.arange(longest) < spans.length[..., None]) & (cells >= 0) & (cells < known)
    values = past.values[spans.rows[..., None], np.where(inside, cells, 0)]
    highest: Floats = np.where(inside & ~np.isnan(values), values, 0.0).max(axis=-1)
    return highest

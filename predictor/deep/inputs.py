"""Turns a moment of a series into what the networks read: a few dozen steps of its past, and what simple models say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictor.deep.past import Past, Spans, held, peaks
from predictor.view import KNOWN_SHARE, Floats, Ints

# Steps from old to new: (how many, how many cells each). Near ones are fine, far ones coarse: 280 cells in 52 steps.
RESOLUTIONS = ((12, 16), (16, 4), (24, 1))
STEPS = sum(count for count, _ in RESOLUTIONS)
REACH = sum(count * width for count, width in RESOLUTIONS)
# A step says so much about the series itself, and so much about each companion.
OWN_FEATURES = 5
COMPANION_FEATURES = 2
# Spans (in cells) whose means are simple guesses at what comes, from long to short; the mean of the whole past and
# two guesses from earlier cycles come on top.
GUESSED_FROM = (REACH, 64, 16, 4, 1)
CYCLES = 5
GUESSES = len(GUESSED_FROM) + 3
STATICS = 6
# The unit of a series is its deviation plus this share of its mean, so that a constant series has one too.
STEADY = 0.05


@dataclass(frozen=True, slots=True)
class Shape:
    """A window asked for: `length` cells that begin `first` cells after the first cell after the origin."""

    first: int
    length: int
    peak: bool = False

    @property
    def reach(self) -> int:
        """Cells from the origin to the end of the window."""
        return self.first + self.length


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments to forecast from: row, origin and last cell that is known already (each n)."""

    rows: Ints
    cells: Ints
    seen: Ints


@dataclass(frozen=True, slots=True)
class Calendar:
    """Time of day of cell 0 and length of a cell, in days; `said` only where the past is long enough to learn it."""

    start: float = 0.0
    step: float = 0.0
    said: bool = False


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a network reads about n moments, in each series' own unit: a value v is (v - centre) / unit here.

    `steps` n x STEPS x features, `guesses` n x shapes x GUESSES, `statics` n x STATICS; `centre`, `unit` and
    `known` (is there anything to go by?) are of length n.
    """

    steps: Floats
    guesses: Floats
    statics: Floats
    centre: Floats
    unit: Floats
    known: Floats


def inputs_of(past: Past, moments: Moments, shapes: Sequence[Shape], calendar: Calendar) -> Inputs:
    """Inputs for each moment, from cells up to and including the moment's `seen` only."""
    long = held(past, _back(moments, REACH))
    ever = held(past, Spans(moments.rows, np.zeros_like(moments.cells), moments.cells + 1, moments.seen))
    centre = _recent(past, moments)
    unit = long.deviation + STEADY * np.maximum(long.mean, ever.mean)
    unit = np.where(unit > 0, unit, 1.0)
    raw = np.stack([_guesses(past, moments, shape, ever.mean) for shape in shapes], axis=1)
    return Inputs(
        steps=_steps(past, moments, (centre, unit)),
        guesses=((raw - centre[:, None, None]) / unit[:, None, None]).astype(np.float32),
        statics=_statics(moments, calendar, (long.mean / unit, ever.mean / unit, long.share)),
        centre=centre,
        unit=unit,
        known=ever.share > 0,
    )


def _back(moments: Moments, cells: int) -> Spans:
    return Spans(moments.rows, moments.cells - cells + 1, np.full_like(moments.cells, cells), moments.seen)


def _recent(past: Past, moments: Moments) -> Floats:
    """Mean of the last few known cells, of the last many where there are none: where the network's zero lies."""
    centre = held(past, _back(moments, REACH)).mean
    for span in (64, 16, 4):
        here = held(past, _back(moments, span))
        centre = np.where(here.share > 0, here.mean, centre)
    return centre


def _steps(past: Past, moments: Moments, normal: tuple[Floats, Floats]) -> Floats:
    widths = np.concatenate([np.full(count, width) for count, width in RESOLUTIONS])
    ends = REACH - np.cumsum(widths)  # cells between the step's end and the moment
    first = moments.cells[:, None] - ends - widths + 1
    seen, lengths = np.broadcast_arrays(moments.seen[:, None], widths, first)[:2]
    rows = np.broadcast_to(moments.rows[:, None], first.shape)
    here = held(past, Spans(rows, first, lengths, seen))
    back = np.round(_periods(past, moments)).astype(np.int64)
    before = held(past, Spans(rows, first - back[:, None], lengths, seen))
    centre, unit = (part[:, None] for part in normal)
    features = [
        _squashed((here.mean - centre) / unit) * (here.share > 0),
        np.minimum(here.deviation / unit, 5.0),
        here.share,
        _squashed((before.mean - centre) / unit) * (before.share > 0),
        before.share,
    ]
    for number in range(past.companions.shape[1]):
        others = past.companions[moments.rows, number]
        features += _companion(
            past, others, moments, Spans(np.broadcast_to(others[:, None], first.shape), first, lengths, seen)
        )
    return np.stack(features, axis=-1).astype(np.float32)


def _companion(past: Past, rows: Ints, moments: Moments, spans: Spans) -> list[Floats]:
    """A companion's steps in units of its own, and what share of them is known."""
    long = held(past, _back(Moments(rows, moments.cells, moments.seen), REACH))
    unit = long.deviation + STEADY * long.mean
    unit = np.where(unit > 0, unit, 1.0)
    here = held(past, spans)
    return [_squashed((here.mean - long.mean[:, None]) / unit[:, None]) * (here.share > 0), here.share]


def _periods(past: Past, moments: Moments) -> Floats:
    # Without a period the cycle before lies before all that is known.
    return np.nan_to_num(past.periods[moments.rows], nan=2.0 * past.cells)


def _squashed(values: Floats) -> Floats:
    # About the identity up to 2, the logarithm beyond: a burst of a thousand units is still a number.
    squashed: Floats = np.arcsinh(values)
    return squashed


def _guesses(past: Past, moments: Moments, shape: Shape, ever: Floats) -> Floats:
    """Simple guesses (n x GUESSES); one that knows nothing says what a simpler one says."""
    guesses = [ever]
    for span in GUESSED_FROM:
        here = held(past, _back(moments, span))
        guesses.append(np.where(here.share > 0, here.mean, guesses[-1]))
    earlier, known = _earlier_cycles(past, moments, shape)
    count = known.sum(axis=1)
    mean = np.where(known, earlier, 0.0).sum(axis=1) / np.maximum(count, 1)
    guesses.append(np.where(count > 0, mean, guesses[1]))
    guesses.append(np.where(known[:, 0], earlier[:, 0], guesses[-1]))
    return np.stack(guesses, axis=-1)


def _earlier_cycles(past: Past, moments: Moments, shape: Shape) -> tuple[Floats, Floats]:
    """What the same window held in the last cycles that were over at the moment (n x CYCLES), and if it is known."""
    period = _periods(past, moments)
    skipped = np.ceil(shape.reach / period) - 1
    back = np.round(period[:, None] * (np.arange(1, CYCLES + 1) + np.maximum(skipped, 0)[:, None])).astype(np.int64)
    # Rounding may let a window end a cell too late.
    first = np.minimum(moments.cells[:, None] + 1 + shape.first - back, moments.cells[:, None] - shape.length + 1)
    rows, seen = np.broadcast_arrays(moments.rows[:, None], moments.seen[:, None], first)[:2]
    spans = Spans(rows, first, np.full_like(first, shape.length), seen)
    window = held(past, spans)
    return (peaks(past, spans, shape.length) if shape.peak else window.mean), window.share >= 0.5


def _statics(moments: Moments, calendar: Calendar, described: tuple[Floats, ...]) -> Floats:
    """What does not change from step to step: how steady the series is, how much is known, the time of day."""
    said = 1.0 if calendar.said else 0.0
    day = 2 * np.pi * (calendar.start + calendar.step * moments.cells)
    clock = (said * np.sin(day), said * np.cos(day), np.full(len(day), said))
    steadiness = [np.minimum(part, 20.0) for part in described]
    return np.stack([*steadiness, *clock], axis=-1).astype(np.float32)


def truths_of(past: Past, moments: Moments, shapes: Sequence[Shape]) -> Floats:
    """What the windows after the moments came to (n x shapes); NaN where one is not over or too little is known."""
    columns = []
    for shape in shapes:
        length = np.full_like(moments.cells, shape.length)
        spans = Spans(moments.rows, moments.cells + 1 + shape.first, length, np.full_like(length, past.cells - 1))
        window = held(past, spans)
        value = peaks(past, spans, shape.length) if shape.peak else window.mean
        over = spans.first + shape.length <= past.cells
        columns.append(np.where(over & (window.share >= KNOWN_SHARE), value, np.nan))
    return np.stack(columns, axis=1)

"""Turns a moment of a series into what the networks read: a few dozen steps of its past, and what simple models say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictor.data.view import KNOWN_SHARE, Floats, Ints

# A series is told apart by so many other channels of its own at most.
COMPANIONS = 2


@dataclass(frozen=True, slots=True)
class PrefixSums:
    """Running sums of rows (rows x cells, NaN = missing), from which the mean over any span is two look-ups.

    `earlier` (2 x rows) is the sum and the number of known cells before the first: too far back to be looked at singly.
    `periods` is how many cells each row's cycle has, NaN without one; `companions` (rows x any) are the rows that
    tell of the same thing in other units, such as a pair's connections beside its bytes.
    """

    values: Floats
    totals: Floats
    squares: Floats
    counts: Floats
    periods: Floats
    companions: Ints
    earlier: Floats

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


class SpanStatistics:
    """What spans held: mean and deviation of the known cells (0 where none is known) and the share that is known.

    Cells before the first, after the last or after `seen` are not known.
    """

    def __init__(self, past: PrefixSums, spans: Spans) -> None:
        known = np.minimum(spans.seen + 1, past.cells)
        begin = np.clip(spans.first, 0, known)
        row = spans.rows * (past.cells + 1)
        self._past = past
        # One place in all rows together: looked up in half the time that row and cell take.
        self._begin, self._end = row + begin, row + np.clip(spans.first + spans.length, begin, known)
        count = self._between(past.counts)
        self._count = np.maximum(count, 1.0)
        self.share: Floats = count / spans.length
        self.mean: Floats = self._between(past.totals) / self._count

    @property
    def deviation(self) -> Floats:
        """Computed when it is asked for."""
        # Differences of sums may come out a hair below zero.
        square = self._between(self._past.squares) / self._count - self.mean * self.mean
        deviation: Floats = np.sqrt(np.maximum(square, 0.0))
        return deviation

    def _between(self, sums: Floats) -> Floats:
        flat = sums.reshape(-1)
        return np.asarray(flat.take(self._end) - flat.take(self._begin))


def prefix_sums(rates: Floats, periods: Floats, first: int = 0) -> PrefixSums:
    """Running sums of `rates` (channels x series x cells) from cell `first` on, which is cell 0 of the sums.

    Rows are ordered by channel; `periods` by series.
    """
    channels, series, cells = rates.shape
    rates = rates.reshape(channels * series, cells)
    before, values = rates[:, :first], rates[:, first:]
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    squares = np.square(filled, dtype=np.float64)
    rows = np.arange(channels * series)
    others = 1 + np.arange(min(channels - 1, COMPANIONS))
    return PrefixSums(
        values=values,
        totals=_running(filled),
        squares=_running(squares),
        counts=_running(known, np.int32),
        periods=np.tile(periods, channels),
        companions=(rows[:, None] + series * others) % len(rows),
        earlier=np.stack([np.nansum(before, axis=1), first - np.isnan(before).sum(axis=1)]),
    )


def _running(values: Floats, kind: type = np.float64) -> Floats:
    sums = np.zeros((values.shape[0], values.shape[1] + 1), dtype=kind)
    np.cumsum(values, axis=1, dtype=kind, out=sums[:, 1:])
    return sums


def peaks(past: PrefixSums, spans: Spans, longest: int) -> Floats:
    """Highest known cell of spans none of which is longer than `longest`; 0 where none is known."""
    known = np.minimum(spans.seen + 1, past.cells)
    longest = min(longest, past.cells)
    first = np.clip(spans.first, 0, past.cells - longest)
    begin, end = spans.first - first, np.minimum(spans.first + spans.length, known) - first
    cells = np.lib.stride_tricks.sliding_window_view(past.values, longest, axis=1)[spans.rows, first]
    offsets = np.arange(longest)
    inside = (offsets >= begin[..., None]) & (offsets < end[..., None])
    # fmax: what is missing is no peak.
    return np.asarray(np.fmax.reduce(np.where(inside, cells, 0.0), axis=-1, initial=0.0))


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
class WindowShape:
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


def network_inputs(past: PrefixSums, moments: Moments, shapes: Sequence[WindowShape], calendar: Calendar) -> Inputs:
    """Inputs for each moment, from cells up to and including the moment's `seen` only."""
    long = SpanStatistics(past, _back(moments, REACH))
    ever, told = _ever(past, moments)
    centre = _recent(past, moments)
    unit = long.deviation + STEADY * np.maximum(long.mean, ever)
    unit = np.where(unit > 0, unit, 1.0)
    raw = np.stack([_guesses(past, moments, shape, ever) for shape in shapes], axis=1)
    return Inputs(
        steps=_steps(past, moments, centre, unit),
        guesses=((raw - centre[:, None, None]) / unit[:, None, None]).astype(np.float32),
        statics=_statics(moments, calendar, (long.mean / unit, ever / unit, long.share)),
        centre=centre,
        unit=unit,
        known=told > 0,
    )


def _ever(past: PrefixSums, moments: Moments) -> tuple[Floats, Floats]:
    """Mean of all known cells up to each moment, and how many they are."""
    total, count = past.earlier[:, moments.rows]
    here = SpanStatistics(past, Spans(moments.rows, np.zeros_like(moments.cells), moments.cells + 1, moments.seen))
    found = here.share * (moments.cells + 1)
    mean: Floats = (total + here.mean * found) / np.maximum(count + found, 1.0)
    return mean, count + found


def _back(moments: Moments, cells: int) -> Spans:
    return Spans(moments.rows, moments.cells - cells + 1, np.full_like(moments.cells, cells), moments.seen)


def _recent(past: PrefixSums, moments: Moments) -> Floats:
    """Mean of the last few known cells, of the last many where there are none: where the network's zero lies."""
    centre = SpanStatistics(past, _back(moments, REACH)).mean
    for span in (64, 16, 4):
        here = SpanStatistics(past, _back(moments, span))
        centre = np.where(here.share > 0, here.mean, centre)
    return centre


def _steps(past: PrefixSums, moments: Moments, centre: Floats, unit: Floats) -> Floats:
    widths = np.concatenate([np.full(count, width) for count, width in RESOLUTIONS])
    ends = REACH - np.cumsum(widths)  # cells between the step's end and the moment
    first = moments.cells[:, None] - ends - widths + 1
    seen, lengths = np.broadcast_arrays(moments.seen[:, None], widths, first)[:2]
    rows = np.broadcast_to(moments.rows[:, None], first.shape)
    here = SpanStatistics(past, Spans(rows, first, lengths, seen))
    back = np.round(_periods(past, moments)).astype(np.int64)
    before = SpanStatistics(past, Spans(rows, first - back[:, None], lengths, seen))
    centre, unit = centre[:, None], unit[:, None]
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


def _companion(past: PrefixSums, rows: Ints, moments: Moments, spans: Spans) -> list[Floats]:
    """A companion's steps in units of its own, and what share of them is known."""
    long = SpanStatistics(past, _back(Moments(rows, moments.cells, moments.seen), REACH))
    unit = long.deviation + STEADY * long.mean
    unit = np.where(unit > 0, unit, 1.0)
    here = SpanStatistics(past, spans)
    return [_squashed((here.mean - long.mean[:, None]) / unit[:, None]) * (here.share > 0), here.share]


def _periods(past: PrefixSums, moments: Moments) -> Floats:
    periods = past.periods[moments.rows]
    # Without a period the cycle before lies before all that is known.
    return np.where(np.isnan(periods), 2.0 * past.cells, periods)


def _squashed(values: Floats) -> Floats:
    # About the identity up to 2, the logarithm beyond: a burst of a thousand units is still a number.
    return np.asarray(np.arcsinh(values))


def _guesses(past: PrefixSums, moments: Moments, shape: WindowShape, ever: Floats) -> Floats:
    """Simple guesses (n x GUESSES); one that knows nothing says what a simpler one says."""
    guesses = [ever]
    for span in GUESSED_FROM:
        here = SpanStatistics(past, _back(moments, span))
        guesses.append(np.where(here.share > 0, here.mean, guesses[-1]))
    earlier, known = _earlier_cycles(past, moments, shape)
    count = known.sum(axis=1)
    mean = np.where(known, earlier, 0.0).sum(axis=1) / np.maximum(count, 1)
    guesses.append(np.where(count > 0, mean, guesses[1]))
    guesses.append(np.where(known[:, 0], earlier[:, 0], guesses[-1]))
    return np.stack(guesses, axis=-1)


def _earlier_cycles(past: PrefixSums, moments: Moments, shape: WindowShape) -> tuple[Floats, Floats]:
    """What the same window held in the last cycles that were over at the moment (n x CYCLES), and if it is known."""
    period = _periods(past, moments)
    skipped = np.ceil(shape.reach / period) - 1
    back = np.round(period[:, None] * (np.arange(1, CYCLES + 1) + np.maximum(skipped, 0)[:, None])).astype(np.int64)
    # Rounding may let a window end a cell too late.
    first = np.minimum(moments.cells[:, None] + 1 + shape.first - back, moments.cells[:, None] - shape.length + 1)
    rows, seen = np.broadcast_arrays(moments.rows[:, None], moments.seen[:, None], first)[:2]
    spans = Spans(rows, first, np.full_like(first, shape.length), seen)
    window = SpanStatistics(past, spans)
    return (peaks(past, spans, shape.length) if shape.peak else window.mean), window.share >= 0.5


def _statics(moments: Moments, calendar: Calendar, described: tuple[Floats, ...]) -> Floats:
    """What does not change from step to step: how steady the series is, how much is known, the time of day."""
    said = 1.0 if calendar.said else 0.0
    day = 2 * np.pi * (calendar.start + calendar.step * moments.cells)
    clock = (said * np.sin(day), said * np.cos(day), np.full(len(day), said))
    steadiness = [np.minimum(part, 20.0) for part in described]
    return np.stack([*steadiness, *clock], axis=-1).astype(np.float32)


def window_truths(past: PrefixSums, moments: Moments, shapes: Sequence[WindowShape]) -> Floats:
    """What the windows after the moments came to (n x shapes); NaN where one is not over or too little is known."""
    columns = []
    for shape in shapes:
        length = np.full_like(moments.cells, shape.length)
        spans = Spans(moments.rows, moments.cells + 1 + shape.first, length, np.full_like(length, past.cells - 1))
        window = SpanStatistics(past, spans)
        value = peaks(past, spans, shape.length) if shape.peak else window.mean
        over = spans.first + shape.length <= past.cells
        columns.append(np.where(over & (window.share >= KNOWN_SHARE), value, np.nan))
    return np.stack(columns, axis=1)


# Before a series has been seen for so many cells there is nothing to learn from it.
WARM_UP = 24
# Share of moments with a gap before them, and the longest such gap in cells.
GAPS = 0.15
MAX_GAP = 40
# The newest part of the past is kept back to judge by.
KEPT_BACK = 0.15
# A series of twice the size counts 2 ** SIZE times as much, but none more than WEIGHTIEST times the mean.
SIZE = 0.5
WEIGHTIEST = 10.0


@dataclass(frozen=True, slots=True)
class NetworkTask:
    """All there is to learn from and what is asked, of which rows."""

    past: PrefixSums
    rows: Ints
    shapes: tuple[WindowShape, ...]
    levels: tuple[float, ...]
    calendar: Calendar

    @property
    def last(self) -> int:
        """The last origin of which at least one window is over."""
        return self.past.cells - 1 - min(shape.reach for shape in self.shapes)

    @property
    def split(self) -> int:
        """The first origin that is kept back."""
        return round(WARM_UP + (1.0 - KEPT_BACK) * (self.last - WARM_UP))

    @property
    def taught(self) -> int:
        """The first origin with a window that reaches into what is kept back."""
        return self.split - max(shape.reach for shape in self.shapes)

    @property
    def moments(self) -> int:
        """How many origins there are, over all series."""
        return len(self.rows) * (self.last - WARM_UP)

    @property
    def enough(self) -> bool:
        """Is there anything to learn from?"""
        return bool(len(self.rows) and self.taught - WARM_UP >= 2 * WARM_UP)


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Inputs with what came (n x shapes, in each series' unit, NaN = not known) and how much each counts (n)."""

    inputs: Inputs
    truths: Floats
    weights: Floats


def draw_batch(subject: NetworkTask, span: range, count: int, rng: np.random.Generator) -> TrainingBatch:
    """`count` moments whose origins lie in `span`, all series alike."""
    rows = rng.choice(subject.rows, count)
    cells = rng.integers(span.start, span.stop, count)
    hidden = np.where(rng.random(count) < GAPS, rng.integers(1, MAX_GAP + 1, count), 0)
    moments = Moments(rows, cells, cells - hidden)
    inputs = network_inputs(subject.past, moments, subject.shapes, subject.calendar)
    truths = window_truths(subject.past, moments, subject.shapes)
    truths[~inputs.known] = np.nan
    size = inputs.unit**SIZE
    return TrainingBatch(
        inputs,
        ((truths - inputs.centre[:, None]) / inputs.unit[:, None]).astype(np.float32),
        np.minimum(size / size.mean(), WEIGHTIEST).astype(np.float32),
    )


def simple_loss(lesson: TrainingBatch) -> float:
    """Mean absolute error of the best of the simple guesses, weighted as the network's is."""
    known = ~np.isnan(lesson.truths)
    error = np.abs(lesson.inputs.guesses - np.where(known, lesson.truths, 0.0)[..., None])
    weight = known * lesson.weights[:, None]
    total = (error * weight[..., None]).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-9)
    return float(total.min())

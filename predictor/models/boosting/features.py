"""Describes a series' past at any moment to learning models, by numbers that never look beyond that moment."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from predictor.data.view import Floats, Ints, SeriesView, Target, last_known
from predictor.models.pointwise import ewma

LAGS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11)
SPANS = (3, 6, 12, 30, 60)
ALPHAS = (0.5, 0.2, 0.05, 0.02)
CYCLES = 3
# Days, hours, minutes: so many earlier ones are looked back at. With fewer, habit cannot be told from chance.
CALENDAR_CYCLES = 7
CALENDAR_S = (60, 3600, 86_400, 604_800)
MIN_CELLS = 4
BURST = 2.0
# All that is told of a moment follows from so many cells before it, apart from earlier cycles.
REACH = 240
# Until a series has been seen for this many cells, its own scale is too young to be trusted.
WARM_UP = 15
# The scale of a series that has gone quiet does not fall below this share of its longer mean.
QUIET = 0.1


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """One channel at every cell from `first` on, all series x cells: gaps closed, a unit to measure by, figures."""

    first: int
    values: Floats
    scale: Floats
    figures: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class FeatureContext:
    """A view with all that describes it, each part made when first needed.

    `periods` are cells per own cycle of each series (NaN = none), `peers` are series x k places of series whose moves
    come before its own (-1 = none), `calendar` cells of minutes, hours and the like, `usual` the mean rate of all
    series per channel. Cells before `first` are not described.
    """

    view: SeriesView
    periods: Floats
    peers: Ints
    calendar: tuple[int, ...] = ()
    usual: tuple[float, ...] = ()
    first: int = 0
    _running: dict[int, ChannelFigures] = field(default_factory=dict, repr=False, compare=False)

    def running(self, channel: int) -> ChannelFigures:
        """See ChannelFigures; figures of a cell follow from the REACH cells before it."""
        if channel not in self._running:
            begin = max(0, self.first - REACH)
            self._running[channel] = run(self.view.rates[channel][:, begin:], begin)
        return self._running[channel]


def run(rates: Floats, first: int) -> ChannelFigures:
    """ChannelFigures figures of rates (series x cells, NaN = missing)."""
    values = np.nan_to_num(last_known(rates)).astype(np.float64)
    averages = [np.nan_to_num(ewma(rates, alpha)) for alpha in ALPHAS]
    mean = trailing_mean(values, REACH)
    scale = np.maximum(averages[2], QUIET * mean)
    scale = np.where(scale > 0, scale, 1.0)
    figures = [*averages, mean]
    for span in SPANS:
        figures.append(trailing_mean(values, span))
        if span > SPANS[0]:
            figures += [trailing_peak(values, span), -trailing_peak(-values, span)]
    figures += [_spread(values, 12), _spread(values, 60), trailing_mean(np.abs(values - delayed(values, 1)), 12)]
    return ChannelFigures(
        first, values.astype(np.float32), scale.astype(np.float32), tuple(f.astype(np.float32) for f in figures)
    )


def delayed(values: Floats, cells: int) -> Floats:
    """Values `cells` earlier; the first value before the beginning."""
    if not cells:
        return values
    first = np.repeat(values[..., :1], min(cells, values.shape[-1]), axis=-1)
    return np.concatenate([first, values[..., :-cells]], axis=-1)[..., : values.shape[-1]]


def trailing_mean(values: Floats, span: int) -> Floats:
    """Mean of the last `span` cells, or of those that there are."""
    total = np.cumsum(values, axis=-1)
    before = np.concatenate([np.zeros((*total.shape[:-1], span)), total], axis=-1)[..., : total.shape[-1]]
    mean: Floats = (total - before) / np.minimum(np.arange(1, total.shape[-1] + 1), span)
    return mean


def trailing_peak(values: Floats, span: int) -> Floats:
    """Largest of the last `span` cells."""
    peak, width = values, 1
    while width < span:
        step = min(width, span - width)
        peak = np.maximum(peak, delayed(peak, step))
        width += step
    return peak


def _spread(values: Floats, span: int) -> Floats:
    mean = trailing_mean(values, span)
    # Differences of large sums may come out a hair below zero.
    spread: Floats = np.sqrt(np.maximum(trailing_mean(np.square(values), span) - np.square(mean), 0.0))
    return spread


def _since_burst(running: ChannelFigures) -> Floats:
    cells = np.arange(running.values.shape[-1])
    burst = running.values > BURST * running.scale
    last = np.maximum.accumulate(np.where(burst, cells, -REACH), axis=-1)
    return np.minimum(cells - last, REACH)


class RowOrigins(NamedTuple):
    """Rows to describe: the series `who` of each (places in the view) and its origin `when` (cells)."""

    who: Ints
    when: Ints


def describe_rows(context: FeatureContext, rows: RowOrigins, target: Target) -> Floats:
    """Rows x features (float32, -1 = unknown), in units of each series' scale at the origin."""
    return complete_features(context, origin_features(context, rows, target.channel), rows, target)


def origin_features(context: FeatureContext, rows: RowOrigins, channel: int) -> Floats:
    """The part of the features that does not depend on the window asked for; features x rows."""
    who, when = rows
    running = context.running(channel)
    here = when - running.first
    scale = running.scale[who, here]
    columns = [running.values[who, np.maximum(here - lag, 0)] / scale for lag in LAGS]
    columns += [figure[who, here] / scale for figure in running.figures]
    columns += _own_phase(context, channel, who, here)
    columns += _company(context, who, when, channel)
    return np.array(columns, dtype=np.float32)


def complete_features(context: FeatureContext, at_origin: Floats, rows: RowOrigins, target: Target) -> Floats:
    """All features of a target, from those of the origin (features x rows): rows x features, -1 = unknown."""
    running = context.running(target.channel)
    scale = running.scale[rows.who, rows.when - running.first]
    cycles = [*_calendar(context, rows, target), *seasonal_features(context.view, context.periods, rows, target).T]
    columns = [column / scale for column in cycles] + _phases(context, target, rows.when)
    columns.append(np.full(len(rows.who), float(target.reach)))
    # A value that nothing else has: scikit-learn refuses columns in which all is NaN.
    inputs: Floats = np.nan_to_num(np.concatenate([at_origin, np.array(columns, dtype=np.float32)]).T, nan=-1.0)
    return inputs


def seasonal_features(view: SeriesView, periods: Floats, rows: RowOrigins, target: Target) -> Floats:
    """What the same window of the last three cycles of its own period held: rows x cycles.

    A window that had not ended at the origin is NaN, as are series without a period.
    """
    length = np.nan_to_num(periods, nan=float(4 * view.cells))[rows.who]
    # Cycles too near to be over at the origin would all be NaN: begin with the first that is.
    skipped = np.ceil((target.reach + view.lead) / length) - 1
    back = np.round(length[:, None] * (np.arange(1, CYCLES + 1) + np.maximum(skipped, 0)[:, None])).astype(np.int64)
    return _earlier_windows(view, rows, target, back)


def _earlier_windows(view: SeriesView, rows: RowOrigins, target: Target, back: Ints) -> Floats:
    """What the target held `back` cells (rows x cycles) before the window asked for: rows x cycles, NaN = not over."""
    begin = view.begins(target, rows.when)[:, None] - back
    over = (begin >= 0) & (begin + target.length - 1 <= rows.when[:, None])
    values = view.target(target)
    at = np.where(over, np.minimum(begin, values.shape[1] - 1), 0)
    return np.where(over, values[rows.who[:, None], at], np.nan)


def calendar_cells(view: SeriesView) -> tuple[int, ...]:
    """Cells of a minute, an hour, a day, a week: not too few, and held often enough by the history."""
    cells = [round(seconds / view.step_s) for seconds in CALENDAR_S]
    return tuple(cycle for cycle in cells if MIN_CELLS <= cycle <= view.cells // CALENDAR_CYCLES)


def _calendar(context: FeatureContext, rows: RowOrigins, target: Target) -> list[Floats]:
    """Of each kind of cycle: the last two at the target's phase and the mean of all; last and mean at the origin's."""
    view, now = context.view, Target(target.channel, 0, 1)
    columns: list[Floats] = []
    for cells in context.calendar:
        first = -(-(target.reach + view.lead) // cells)
        back = cells * (first + np.arange(CALENDAR_CYCLES))
        then = _earlier_windows(view, rows, target, np.broadcast_to(back, (len(rows.who), CALENDAR_CYCLES)))
        # The origin's own phase: a window of one cell that begins with the origin.
        back = cells * np.arange(1, CALENDAR_CYCLES + 1) + 1 + view.lead
        was = _earlier_windows(view, rows, now, np.broadcast_to(back, (len(rows.who), CALENDAR_CYCLES)))
        columns += [then[:, 0], then[:, 1], _known_mean(then), was[:, 0], _known_mean(was)]
    return columns


def _known_mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _phases(context: FeatureContext, target: Target, when: Ints) -> list[Floats]:
    cell = context.view.start + context.view.begins(target, when)
    return [(cell % cells) / cells for cells in context.calendar]


def _own_phase(context: FeatureContext, channel: int, who: Ints, here: Ints) -> list[Floats]:
    running = context.running(channel)
    since = _since_burst(running)[who, here]
    length = context.periods[who]
    level = running.figures[len(ALPHAS)]
    size = level[who, here] / (context.usual[channel] if context.usual else 1.0)
    share = running.scale[who, here] / np.where(level > 0, level, 1.0)[who, here]
    return [since, since / length, length, share, size]


def _company(context: FeatureContext, who: Ints, when: Ints, channel: int) -> list[Floats]:
    """How the series' other channels and its peers moved just now, each in its own units."""
    columns: list[Floats] = []
    for other in range(context.view.channels):
        if other != channel:
            columns += _moves(context.running(other), who, when)
    running = context.running(channel)
    for place in range(context.peers.shape[1]):
        peer = context.peers[who, place]
        columns += [np.where(peer >= 0, move, np.nan) for move in _moves(running, np.maximum(peer, 0), when)]
    return columns


def _moves(running: ChannelFigures, who: Ints, when: Ints) -> list[Floats]:
    here = when - running.first
    scale = running.scale[who, here]
    recent = (running.values[who, here], running.values[who, np.maximum(here - 1, 0)], running.figures[1][who, here])
    return [values / scale for values in recent]


def find_leaders(rates: Floats, count: int) -> Ints:
    """For each series those others whose distance from their average best predicts its next change: series x count.

    `rates` is series x cells. The lead-lag correlation is taken of what the series' own distance does not explain.
    """
    series = len(rates)
    peers = np.full((series, count), -1, dtype=np.int64)
    values = np.nan_to_num(last_known(rates)).astype(np.float64)
    if series < 2 or values.shape[1] < 2 * WARM_UP:
        return peers
    change = _standard(np.diff(values, axis=1)[:, WARM_UP:])
    distance = _standard((values - np.nan_to_num(ewma(rates, ALPHAS[1])))[:, WARM_UP:-1])
    own = (change * distance).mean(axis=1, keepdims=True)
    changes = np.abs((change - own * distance) @ distance.T)
    np.fill_diagonal(changes, -1.0)
    best = np.argsort(-changes, axis=1)[:, : min(count, series - 1)]
    peers[:, : best.shape[1]] = best
    return peers


def _standard(values: Floats) -> Floats:
    spread = values.std(axis=1, keepdims=True)
    scaled: Floats = (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    return scaled

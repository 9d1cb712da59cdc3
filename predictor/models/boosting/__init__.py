"""Gradient boosting by scikit-learn: trees that learn from all series together what precedes what."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView, Target, fair_sample
from predictor.models.boosting.features import (
    WARM_UP,
    FeatureContext,
    RowOrigins,
    calendar_cells,
    complete_features,
    describe_rows,
    find_leaders,
    origin_features,
)
from predictor.models.boosting.forests import (
    MIN_ROWS,
    SHARE,
    BoostingEffort,
    Forest,
    TrainingRows,
    grow_forest,
    interpolate_levels,
)
from predictor.models.seasonal import find_periods

# CPU seconds of a fit that nobody has given a budget.
LIVE_BUDGET_S = 1.2
# Beyond so many targets those of one channel share their trees, and how far ahead they reach is a feature.
MAX_DIRECT = 8
PEERS = 2
# Beyond so many series nobody looks for peers: it costs their square.
MAX_PEERED = 1000
# Loud series count for more, as the square root of their size, but never for more than this many average ones.
LOUDEST = 20.0
# The forecast is a change from the last value, unless a slower level is so much nearer to what comes.
MUCH_NEARER = 0.8


class GradientBoosting:
    """Direct forecasts of each target as a change from the present level, in units of the series' own recent size.

    Three levels are fitted; the others follow on a normal scale between and beyond them.
    """

    name: ClassVar[str] = "gradient_boosting"
    slow: ClassVar[bool] = True
    replayable: ClassVar[bool] = False
    costly: ClassVar[bool] = True

    def __init__(self, spec: ForecastSpec, seed: int = 0) -> None:
        self.spec = spec
        self.fit_budget_s = LIVE_BUDGET_S
        self._seed = seed
        self._forests: dict[Target, tuple[int, Forest]] = {}
        self._calendar: tuple[int, ...] = ()
        self._usual: tuple[float, ...] = ()
        self._whole: SeriesView | None = None
        self._periods: Floats = np.zeros(0)
        self._peers: Ints = np.zeros((0, PEERS), dtype=np.int64)

    def fit(self, view: SeriesView) -> None:
        """Fits all trees on a sample of origins; no series (or group of series) has more than its share of it."""
        peers = find_leaders(view.rates[0], PEERS) if view.series <= MAX_PEERED else _nobody(view.series)
        context = FeatureContext(view, find_periods(view), peers, calendar_cells(view), _usual(view))
        groups = _groups(self.spec)
        forests: dict[Target, tuple[int, Forest]] = {}
        for targets in groups:
            forest = _grow_group(context, targets, self.fit_budget_s / len(groups), self._seed)
            if forest is None:
                return
            forests |= dict.fromkeys(targets, forest)
        self._forests, self._calendar, self._usual = forests, context.calendar, context.usual
        self._peers = _among_all(view, peers)

    def update(self, view: SeriesView) -> None:
        """Looks for periods where it is a series' turn; features are made when they are needed."""
        self._whole = view
        more = view.population - len(self._periods)
        self._periods = np.pad(self._periods, (0, max(0, more)), constant_values=np.nan)
        sub = view.due()
        self._periods[sub.rows] = find_periods(sub)

    def predict(self, view: SeriesView, origins: Ints) -> Floats:
        """See Model."""
        quantiles = self.spec.empty(len(origins), view.series)
        if not self._forests or view.cells < WARM_UP:
            return quantiles
        seen, asked = self._with_peers(view)
        peers, first = self._peers_in(seen), int(origins[0])
        context = FeatureContext(seen, self._known_periods(seen), peers, self._calendar, self._usual, first)
        rows = RowOrigins(np.repeat(asked, len(origins)), np.tile(origins, view.series))
        at_origin = {channel: origin_features(context, rows, channel) for channel in set(self.spec.channels.tolist())}
        for number, target in enumerate(self.spec.targets):
            base, forest = self._forests[target]
            level, scale = _level(context, target, base, rows)
            changes = forest.predict_changes(complete_features(context, at_origin[target.channel], rows, target))
            values = interpolate_levels(level[:, None] + scale[:, None] * changes, self.spec.levels)
            quantiles[:, :, number] = values.reshape(view.series, len(origins), -1).transpose(1, 0, 2)
        return quantiles

    def _with_peers(self, view: SeriesView) -> tuple[SeriesView, Ints]:
        """A view that shows the peers of a part's series as well, and where in it those series are."""
        whole = self._whole
        known = whole is not None and (whole.series, whole.start, whole.cells) == (
            view.population,
            view.start,
            view.cells,
        )
        if view.series == view.population or whole is None or not known:
            return view, np.arange(view.series)
        asked = np.arange(view.population)[view.rows]
        peers = self._peers[asked[asked < len(self._peers)]]
        needed = np.union1d(asked, peers[peers >= 0])
        return whole.part(needed), np.searchsorted(needed, asked)

    def _known_periods(self, view: SeriesView) -> Floats:
        periods = np.full(view.population, np.nan)
        periods[: len(self._periods)] = self._periods[: view.population]
        known: Floats = periods[view.rows]
        return known

    def _peers_in(self, view: SeriesView) -> Ints:
        """Places within the view of the peers that it shows."""
        peers = _nobody(view.population)
        peers[: len(self._peers)] = self._peers[: view.population]
        place = np.full(view.population + 1, -1, dtype=np.int64)
        place[np.arange(view.population)[view.rows]] = np.arange(view.series)
        shown: Ints = place[peers[view.rows]]
        return shown

    def adopt(self, old: "GradientBoosting") -> None:
        """Keeps the periods of the predecessor."""
        self._whole = old._whole
        self._periods = old._periods

    def __getstate__(self) -> dict[str, object]:
        # What can be seen anew at the next update need not travel to another process.
        return {**self.__dict__, "_whole": None}


def _usual(view: SeriesView) -> tuple[float, ...]:
    means = np.nan_to_num(view.rates).mean(axis=(1, 2), dtype=np.float64)
    return tuple(float(mean) if mean > 0 else 1.0 for mean in means)


def _nobody(series: int) -> Ints:
    return np.full((series, PEERS), -1, dtype=np.int64)


def _among_all(view: SeriesView, peers: Ints) -> Ints:
    """Peers as places in the population, for all of it."""
    places = np.append(np.arange(view.population)[view.rows], -1)
    everyone = _nobody(view.population)
    everyone[places[:-1]] = places[peers]
    return everyone


def _groups(spec: ForecastSpec) -> list[tuple[Target, ...]]:
    """Targets that share trees."""
    if len(spec.targets) <= MAX_DIRECT:
        return [(target,) for target in spec.targets]
    kinds = sorted({(target.channel, target.peak, target.first > 0) for target in spec.targets})
    return [tuple(t for t in spec.targets if (t.channel, t.peak, t.first > 0) == kind) for kind in kinds]


def _grow_group(
    context: FeatureContext, targets: Sequence[Target], budget_s: float, seed: int
) -> tuple[int, Forest] | None:
    """Trees of one group of targets within so much CPU; None when there are too few rows to learn from."""
    rng = np.random.default_rng(seed)
    known = [_known_windows(context.view, target) for target in targets]
    effort = BoostingEffort.within(budget_s, sum(len(rows.who) for rows in known))
    share = round(effort.rows / SHARE / len(targets))
    lessons = [
        (target, _fair_rows(context.view, rows, share, rng)) for target, rows in zip(targets, known, strict=True)
    ]
    if sum(len(rows.who) for _, rows in lessons) < MIN_ROWS:
        return None
    level = _nearest_level(context, lessons)
    parts = [_training_rows(context, target, rows, level) for target, rows in lessons]
    inputs, truths, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    moments = context.view.cells - WARM_UP
    return level, grow_forest(TrainingRows(inputs, truths, weights, moments), effort, seed)


def _known_windows(view: SeriesView, target: Target) -> RowOrigins:
    """Series and origins of all windows whose truth is known."""
    origins = np.arange(WARM_UP, view.cells - view.lead - target.reach)
    if not len(origins):
        return RowOrigins(origins, origins)
    who, at = np.nonzero(~np.isnan(view.target(target)[:, view.begins(target, origins)]))
    return RowOrigins(who, origins[at])


def _fair_rows(view: SeriesView, rows: RowOrigins, most: int, rng: np.random.Generator) -> RowOrigins:
    if len(rows.who) <= most:
        return rows
    chosen = fair_sample(rows.who if view.groups is None else view.groups[rows.who], most, rng)
    return RowOrigins(rows.who[chosen], rows.when[chosen])


# What a forecast may be a change from: the last value, or one of the running figures (averages of 0.2, 0.05, the mean).
LAST, LEVELS = -1, (-1, 1, 2, 4)


def _level(context: FeatureContext, target: Target, level: int, rows: RowOrigins) -> tuple[Floats, Floats]:
    running = context.running(target.channel)
    here = rows.when - running.first
    values = running.values if level == LAST else running.figures[level]
    return values[rows.who, here], running.scale[rows.who, here]


def _nearest_level(context: FeatureContext, lessons: Sequence[tuple[Target, RowOrigins]]) -> int:
    """The level from which the truths are least far away, in sums of absolute distances."""
    far = [
        sum(
            float(np.abs(_truths(context, target, rows) - _level(context, target, level, rows)[0]).sum())
            for target, rows in lessons
        )
        for level in LEVELS
    ]
    best = int(np.argmin(far))
    return LEVELS[best] if far[best] < MUCH_NEARER * far[0] else LAST


def _truths(context: FeatureContext, target: Target, rows: RowOrigins) -> Floats:
    held: Floats = context.view.target(target)[rows.who, context.view.begins(target, rows.when)]
    return held


def _training_rows(
    context: FeatureContext, target: Target, rows: RowOrigins, level: int
) -> tuple[Floats, Floats, Floats]:
    """Inputs, truths as changes from the level in units of the scale, and weights."""
    base, scale = _level(context, target, level, rows)
    weights = np.sqrt(scale)
    usual = weights.mean() if len(weights) else 1.0
    truths = (_truths(context, target, rows) - base) / scale
    return describe_rows(context, rows, target), truths, np.minimum(weights / usual, LOUDEST)

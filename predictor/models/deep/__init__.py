"""A network as one of the models: trained in the background, silent unless it beats what is simpler."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import structlog

from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView, Target, fair_sample
from predictor.models.deep.inputs import (
    CYCLES,
    REACH,
    Calendar,
    Moments,
    NetworkTask,
    WindowShape,
    network_inputs,
    prefix_sums,
)
from predictor.models.seasonal import find_periods

log = structlog.get_logger(__name__)

STEPS = 2000
# More than this the background never spends, whatever its limit; a backtest has no other limit.
CPU_S = 90.0
# Series that one training looks at.
SERIES = 2000
# So many days make a daily cycle; without, each series' own period is looked for, again after RENEWED of its history.
DAYS = 2.0
DAY_S = 86400.0
RENEWED = 0.1
# Moments that are forecast at once: their sums fit into a processor's cache.
AT_ONCE = 1024


class DeepModel:
    """One network for all series and channels. A subclass says which."""

    name: ClassVar[str]
    kind: ClassVar[str]
    slow: ClassVar[bool] = True
    replayable: ClassVar[bool] = False
    costly: ClassVar[bool] = True
    most_asked: ClassVar[int] = 1000

    def __init__(self, spec: ForecastSpec, seed: int = 0, steps: int = STEPS) -> None:
        self.spec = spec
        self.fit_budget_s = CPU_S
        self._seed, self._steps = seed, steps
        self._shapes = tuple(sorted({_shape_of(target) for target in spec.targets}, key=_order))
        self._channels = np.unique(spec.channels)
        self.weights: dict[str, Floats] | None = None
        self.wins = False
        self._periods: Floats = np.zeros(0)
        self._found: Ints = np.zeros(0, dtype=np.int64)

    def fit(self, view: SeriesView) -> None:
        """Trains, from where the last training ended; says one line in the log about how it went."""
        # Deferred: JAX takes half a second and 80 MB, and only who trains or asks a network needs it.
        from predictor.models.deep.training import TrainingEffort, train_network

        subject, _ = self._subject(_sampled(view, self._seed))
        if not subject.enough:
            return
        effort = TrainingEffort(self._steps, self.fit_budget_s, self._seed).within_limit()
        trained = train_network(self.kind, subject, effort, self.weights)
        self.weights = trained.weights
        self.wins = trained.median_error < trained.simple_error
        log.info(
            "network trained", model=self.name, steps=trained.steps, cpu_s=round(trained.cpu_s, 1), wins=self.wins,
            error=round(trained.median_error, 4), simple_error=round(trained.simple_error, 4),
        )  # fmt: skip

    def update(self, view: SeriesView) -> None:
        """Nothing: all that is read is read when it asked for."""

    def predict(self, view: SeriesView, origins: Ints) -> Floats:
        """See Model; says nothing at all as long as it has not beaten the simple guesses in training."""
        quantiles = self.spec.empty(len(origins), view.series)
        if self.weights is None or not self.wins:
            return quantiles
        step = max(1, AT_ONCE // (len(origins) * view.channels))
        if step >= view.series:
            return self._predict_part(view, origins)
        # Series of like periods together: how far back a part is looked at follows from its longest.
        known = int(origins[0]) + 1
        order = np.arange(view.series) if _daily(view, known) else np.argsort(self._own_periods(view, known))
        for rows in np.array_split(order, -(-view.series // step)):
            quantiles[:, rows] = self._predict_part(view.part(rows), origins)
        return quantiles

    def _predict_part(self, view: SeriesView, origins: Ints) -> Floats:
        from predictor.models.deep.networks import Design, fitting_weights, query_network

        subject, first = self._subject(view, int(origins[0]))
        weights = self.weights or {}
        design = Design.of(self.kind, subject)
        if not fitting_weights(design, weights):
            log.info("weights belong to another question, silent until the next training", model=self.name)
            self.weights = None
            return self.spec.empty(len(origins), view.series)
        rows = np.repeat(subject.rows, len(origins))
        cells = np.tile(np.asarray(origins, dtype=np.int64) - first, len(subject.rows))
        inputs = network_inputs(subject.past, Moments(rows, cells, cells), subject.shapes, subject.calendar)
        said = query_network(design, weights, inputs).reshape(
            len(self._channels), view.series, len(origins), len(self._shapes), -1
        )
        places = [self._shapes.index(_shape_of(target)) for target in self.spec.targets]
        channels = np.searchsorted(self._channels, self.spec.channels)
        chosen: Floats = said[channels, :, :, places].transpose(2, 1, 0, 3)
        return chosen

    def _subject(self, view: SeriesView, origin: int | None = None) -> tuple[NetworkTask, int]:
        """What the view is to a network that is taught, or asked at `origin` and later, and the cell it begins with.

        Periods come from cells up to the origin only.
        """
        known = view.cells if origin is None else origin + 1
        step = view.step_s / DAY_S
        daily = _daily(view, known)
        periods = np.full(view.series, 1.0 / step) if daily else self._own_periods(view, known)
        shapes = tuple(replace(shape, first=shape.first + view.lead) for shape in self._shapes)
        first = 0 if origin is None else max(0, known - _farthest(periods, shapes))
        rows = (self._channels[:, None] * view.series + np.arange(view.series)).reshape(-1)
        calendar = Calendar((view.start + first) * step, step, daily)
        return NetworkTask(prefix_sums(view.rates, periods, first), rows, shapes, self.spec.levels, calendar), first

    def _own_periods(self, view: SeriesView, known: int) -> Floats:
        """Each series' own period, looked for anew once its history has moved on by RENEWED of its length."""
        more = view.population - len(self._periods)
        if more > 0:
            self._periods = np.pad(self._periods, (0, more), constant_values=np.nan)
            self._found = np.pad(self._found, (0, more), constant_values=-(10**12))
        places = np.arange(view.population)[view.rows]
        now = view.start + known
        age = now - self._found[places]
        # What was found later than now must not be used now.
        old = np.flatnonzero((age > RENEWED * known) | (age < 0))
        if len(old):
            self._periods[places[old]] = find_periods(SeriesView(view.rates[:, old, :known]))
            self._found[places[old]] = now
        return self._periods[places]

    def adopt(self, old: "DeepModel") -> None:
        """Keeps the periods of the predecessor."""
        self._periods, self._found = old._periods, old._found

    def state(self) -> dict[str, Floats]:
        """What was learnt, as arrays that survive a restart; empty before the first training."""
        if self.weights is None:
            return {}
        return {**self.weights, "wins": np.array([self.wins])}

    def restore(self, arrays: Mapping[str, Floats]) -> None:
        """Takes back what `state` gave. Weights of a network for another question say nothing."""
        weights = {name: np.asarray(value, dtype=np.float32) for name, value in arrays.items() if name != "wins"}
        if weights and "wins" in arrays:
            self.weights, self.wins = weights, bool(np.ravel(arrays["wins"])[0])

    def __getstate__(self) -> dict[str, object]:
        # Periods are the successor's to adopt.
        return {**self.__dict__, "_periods": np.zeros(0), "_found": np.zeros(0, dtype=np.int64)}


def _daily(view: SeriesView, known: int) -> bool:
    return known * view.step_s >= DAYS * DAY_S


def _farthest(periods: Floats, shapes: tuple[WindowShape, ...]) -> int:
    """Cells before an origin that are looked at singly: beyond, it is the mean of all that counts."""
    longest, reach = int(np.nan_to_num(periods).max(initial=0)) + 1, max(shape.reach for shape in shapes)
    return REACH + (CYCLES + 1) * longest + 2 * reach


def _shape_of(target: Target) -> WindowShape:
    return WindowShape(target.first, target.length, target.peak)


def _order(shape: WindowShape) -> tuple[int, int, bool]:
    return shape.reach, shape.length, shape.peak


def _sampled(view: SeriesView, seed: int) -> SeriesView:
    """At most SERIES series, no source having more of them than it must."""
    if view.series <= SERIES:
        return view
    groups = view.groups if view.groups is not None else np.arange(view.series)
    return view.part(fair_sample(groups, SERIES, np.random.default_rng(seed)))


class Lstm(DeepModel):
    """One LSTM layer of 48 units over 52 steps that grow coarser with distance; see `networks`."""

    name: ClassVar[str] = "lstm"
    kind: ClassVar[str] = "lstm"


class Transformer(DeepModel):
    """Two encoder layers over 13 patches of 4 steps that grow coarser with distance; see `networks`."""

    name: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "transformer"

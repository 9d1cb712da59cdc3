"""A network as one of the models: trained in the background, silent unless it beats what is simpler."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import structlog

from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView, Target, fair_sample
from predictor.models.deep.inputs import Calendar, Moments, NetworkTask, WindowShape, network_inputs, prefix_sums
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
# Moments that are forecast at once: bounds memory.
AT_ONCE = 8192


class DeepModel:
    """One network for all series and channels. A subclass says which.

    Raises ValueError (one line, how to mend it) where PyTorch is not installed.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    slow: ClassVar[bool] = True
    replayable: ClassVar[bool] = False
    costly: ClassVar[bool] = True

    def __init__(self, spec: ForecastSpec, seed: int = 0, steps: int = STEPS) -> None:
        if find_spec("torch") is None:
            raise ValueError(f"predictor.models: {self.name} needs PyTorch: install forepath[deep] or leave it out")
        self.spec = spec
        self.fit_budget_s = CPU_S
        self._seed, self._steps = seed, steps
        self._shapes = tuple(sorted({_shape_of(target) for target in spec.targets}, key=_order))
        self._channels = np.unique(spec.channels)
        self.weights: dict[str, Floats] | None = None
        self.wins = False
        self._network: Any = None
        self._periods: Floats = np.zeros(0)
        self._found: Ints = np.zeros(0, dtype=np.int64)

    def fit(self, view: SeriesView) -> None:
        """Trains, from where the last training ended; says one line in the log about how it went."""
        # Deferred: torch takes a second and 150 MB, and only who trains or asks a network needs it.
        from predictor.models.deep.training import TrainingEffort, train_network

        subject = self._subject(_sampled(view, self._seed))
        if not subject.enough:
            return
        effort = TrainingEffort(self._steps, self.fit_budget_s, self._seed).within_limit()
        trained = train_network(self.kind, subject, effort, self.weights)
        self.weights, self._network = trained.weights, None
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
        for first in range(0, view.series, step):
            part = view.part(slice(first, first + step)) if step < view.series else view
            quantiles[:, first : first + step] = self._predict_part(part, origins)
        return quantiles

    def _predict_part(self, view: SeriesView, origins: Ints) -> Floats:
        from predictor.models.deep.training import query_network, restore_network

        subject = self._subject(view, int(origins[0]) + 1)
        if self._network is None:
            self._network = restore_network(self.kind, subject, self.weights or {})
        if self._network is None:
            log.info("weights belong to another question, silent until the next training", model=self.name)
            self.weights = None
            return self.spec.empty(len(origins), view.series)
        rows = np.repeat(subject.rows, len(origins))
        cells = np.tile(np.asarray(origins, dtype=np.int64), len(subject.rows))
        inputs = network_inputs(subject.past, Moments(rows, cells, cells), subject.shapes, subject.calendar)
        said = query_network(self._network, inputs).reshape(
            len(self._channels), view.series, len(origins), len(self._shapes), -1
        )
        places = [self._shapes.index(_shape_of(target)) for target in self.spec.targets]
        channels = np.searchsorted(self._channels, self.spec.channels)
        chosen: Floats = said[channels, :, :, places].transpose(2, 1, 0, 3)
        return chosen

    def _subject(self, view: SeriesView, known: int | None = None) -> NetworkTask:
        """What the view is to a network; periods come from the first `known` cells (all, if None)."""
        known = view.cells if known is None else known
        calendar = Calendar(view.start * view.step_s / DAY_S, view.step_s / DAY_S, known * view.step_s >= DAYS * DAY_S)
        periods = np.full(view.series, 1.0 / calendar.step) if calendar.said else self._own_periods(view, known)
        rows = (self._channels[:, None] * view.series + np.arange(view.series)).reshape(-1)
        shapes = tuple(replace(shape, first=shape.first + view.lead) for shape in self._shapes)
        return NetworkTask(prefix_sums(view.rates, periods), rows, shapes, self.spec.levels, calendar)

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
            self.weights, self.wins, self._network = weights, bool(np.ravel(arrays["wins"])[0]), None

    def __getstate__(self) -> dict[str, object]:
        # The network is made again of its weights: what crosses processes is plain arrays.
        return {**self.__dict__, "_network": None, "_periods": np.zeros(0), "_found": np.zeros(0, dtype=np.int64)}


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
    """One LSTM layer of 48 units over 52 steps that grow coarser with distance; see `predictor.deep`."""

    name: ClassVar[str] = "lstm"
    kind: ClassVar[str] = "lstm"


class Transformer(DeepModel):
    """Two encoder layers over 13 patches of 4 steps that grow coarser with distance; see `predictor.deep`."""

    name: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "transformer"

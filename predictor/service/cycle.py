"""One cycle of forecasting: read what is new, judge what has ended, choose who speaks, forecast, write it down."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import structlog

from cpdb import NO_MODEL, BlendReport, ForecastBatch, HorizonMove, Score, ScoreBatch, Store
from predictor.config import PredictorConfig
from predictor.data.sources import FlowSeries, Source
from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView, make_spec
from predictor.ensemble.forecaster import Forecaster, ForecasterOptions
from predictor.ensemble.peers import EQUAL_CELLS, PEERS, PeerForecasts
from predictor.models import Model, build_models
from predictor.service.live import CycleForecast, LiveForecaster
from predictor.service.records import (
    FinalForecasts,
    ForecastLabels,
    IssuedForecast,
    JudgedForecast,
    PendingForecasts,
    forecast_batch,
    score_rows,
)
from predictor.service.state import StateKeeper
from predictor.service.workers import FitPool, FitSchedule
from predictor.trust.tracker import JudgedWindows, TrustTracker, score_shape

log = structlog.get_logger(__name__)

# Rows are always a little old; beyond this a forecast begins to widen, by sqrt(1 + age / WIDENING_S).
USUAL_AGE_S = 3.0
WIDENING_S = 10.0
WIDEST = 3.0
# With more series than this, scores are written rolled up only.
FEW = 100
# What is left of old scores when a series has drifted, at once and in each cycle for a while.
DRIFTED, CHANGED = 0.25, 0.98


@dataclass(frozen=True, slots=True)
class PredictorReport:
    """What one cycle did.

    `chosen` counts forecasts by model, `installed` names models whose background fit arrived, `drifted` counts series
    that were found to behave otherwise than before, since the start.
    """

    now: float
    rows: int = 0
    pairs: int = 0
    forecasts: int = 0
    scores: int = 0
    installed: tuple[str, ...] = ()
    failed_fits: int = 0
    chosen: Mapping[str, int] = field(default_factory=dict)
    drifted: int = 0


@dataclass(frozen=True, slots=True)
class TierTurn:
    """All that one cycle of a tier wants written down, of all its series or of those of one shard."""

    tier: str
    report: PredictorReport
    batch: ForecastBatch | None = None
    moves: tuple[HorizonMove, ...] = ()
    scores: tuple[Score, ...] = ()
    rolled_up: ScoreBatch | None = None
    blend: BlendReport | None = None

    def write(self, store: Store) -> None:
        """Raises StoreError."""
        store.forecasts.add_moves(self.moves)
        if self.rolled_up is not None:
            store.forecasts.add_score_batch(self.rolled_up)
        if self.blend is not None:
            store.wanted.observe([self.blend])
        if self.batch is not None:
            store.forecasts.add_batch(self.batch)
        store.forecasts.add_scores(self.scores)


class Predictor:
    """State from cycle to cycle: series, models, their records. Give it every moment once, in order.

    With `background` slow fits run in a process of their own (call `close` when done) or in the one that is given, else
    within the cycle.
    `source` is where series come from: communications of pairs, unless told otherwise. `more` makes models that compete
    beside those of the settings.
    """

    def __init__(
        self,
        config: PredictorConfig,
        background: bool | FitPool = True,
        source: Source | None = None,
        more: Sequence[Callable[[ForecastSpec], Model]] = (),
    ) -> None:
        self.config = config
        self.source = source or FlowSeries.of_pairs(config.step_s, config.history.window_s, config.limits.max_pairs)
        spec = make_spec(config.horizons, len(self.source.quantities) // 2, config.levels)
        models = build_models(config.models, spec, config.seed)
        models |= {model.name: model for model in (make(spec) for make in more)}
        self.names = ForecastLabels(config, self.source.subjects, self.source.quantities, (*models, PEERS))
        # Horizons shorter than this are not forecast: see predictor/trust/horizon.py.
        self.shortest_s = 0.0
        self.forecaster = Forecaster(
            spec, models, ForecasterOptions(half_life=config.history.half_life_s / config.step_s)
        )
        self.live = LiveForecaster(self.forecaster, config.limits.threads)
        self._pending = PendingForecasts(spec)
        shape = score_shape(tuple(models), config.horizons_s, self.source.quantities, config.tier)
        shape = replace(shape, own_rows=max(1, shape.own_rows // config.of_shards))
        self.tracker = TrustTracker(shape, config.horizons, config.levels)
        self._peers = PeerForecasts(spec, config.seed)
        self._keeper = StateKeeper(config.tier + config.shard_mark)
        self._begun = False
        self._fits = FitSchedule(config.limits, config.seed, background)

    @property
    def models(self) -> dict[str, Model]:
        """The models at work, by name."""
        return self.forecaster.models

    def cycle(self, store: Store, now: float) -> PredictorReport:
        """Forecasts every series with enough history from what the store holds up to `now` (Unix seconds).

        Writes forecasts and scores to the store. Raises StoreError when the store fails; the next cycle goes on.
        """
        issue = self.turn(store, now)
        issue.write(store)
        return issue.report

    def turn(self, store: Store, now: float) -> TierTurn:
        """As `cycle`, but writes nothing: that is left to the caller. Raises StoreError."""
        rows = self.follow(store, now)
        verdicts = list(self._judge(now))
        view = self.source.view(now)
        report = PredictorReport(now, rows, len(self.source.subjects))
        issue = TierTurn(self.config.tier, report)
        if view is not None:
            self.tracker.cells(view)
            issue = self._forecast_series(view, self._account(now, issue))
            self._keeper.keep(store, self, now)
        judged = verdicts if len(self.source.subjects) <= FEW // self.config.of_shards else []
        scores = [score for verdict in judged for score in score_rows(verdict, self.names, now)]
        drifted = self.tracker.drift.total
        report = replace(issue.report, scores=len(scores), failed_fits=self.failed_fits, drifted=drifted)
        return replace(issue, report=report, scores=tuple(scores))

    def follow(self, store: Store, now: float) -> int:
        """Reads what is new, at first also what was learnt before; returns how many rows. Raises StoreError."""
        if not self._begun:
            self._keeper.recall(store, self)
            self._begun = True
        return self.source.read(store, now)

    @property
    def final(self) -> Floats:
        """What was last forecast of every series: series x targets x levels, NaN = nothing."""
        return self.live.final

    @property
    def failed_fits(self) -> int:
        """How many background fits have failed so far."""
        return self._fits.failures

    def keep(self, store: Store, now: float) -> None:
        """Writes down all that was learnt, for the next start to go on with. Waits until it is written."""
        if self._begun:
            self._keeper.keep(store, self, now, wait=True)

    def close(self) -> None:
        """Ends the fitting process."""
        self._fits.close()

    def _judge(self, now: float) -> Iterator[JudgedForecast]:
        for issued, truth in self._pending.due(self.source, now):
            forecasts, final = issued.forecasts[:, :, truth.targets], issued.final[:, truth.targets]
            losses, final_loss = self.forecaster.composition.learn(forecasts, final, truth)
            yield JudgedForecast(issued, truth, losses, final_loss)
            verdicts = JudgedWindows(forecasts, final, losses, final_loss, truth.actual, truth.targets, issued.rows)
            self._drift(self.tracker.judged(verdicts))

    def _drift(self, now: Floats) -> None:
        """What has begun to behave otherwise is judged anew: old scores of its models hardly count any more."""
        if now.any():
            named = [str(self.source.subjects[place]) for place in np.flatnonzero(now)[:3].tolist()]
            log.info("drift", tier=self.config.tier, series=int(now.sum()), first=named)
            self._fits.hasten()
        self.forecaster.composition.scoreboard.forget(np.flatnonzero(now), DRIFTED)
        self.forecaster.composition.scoreboard.forget(np.flatnonzero(self.tracker.drift.changed & ~now), CHANGED)

    def _account(self, now: float, issue: TierTurn) -> TierTurn:
        """With what has changed in how far series are trusted, and now and then how good all was."""
        moves = tuple(self.tracker.moves(now, self.source.subjects))
        batch = self.tracker.scores(now, self.source.subjects)
        blend = None if batch is None else BlendReport(self.config.tier, self.shares(), now)
        return replace(issue, moves=moves, rolled_up=batch, blend=blend)

    def shares(self) -> dict[str, float]:
        """How much say each model had among the series of the last cycle that are to be judged: 1 in all."""
        issued = self._pending.newest
        shares = self.forecaster.composition.shares(issued.forecasts, issued.rows)
        return dict(zip(self.models, np.round(shares, 4).tolist(), strict=True))

    def _forecast_series(self, view: SeriesView, issue: TierTurn) -> TierTurn:
        report = issue.report
        installed = self._fits.collect()
        for model in installed:
            self.forecaster.install(model)
        self._fits.begin_when_due(self.models.values(), view, report.now)
        view = self.live.update(view, oldest=round(2 * self.config.history.min_s / self.config.step_s))
        age_s = (view.start + view.cells - 1 - self.live.seen.last + view.lead) * self.config.step_s
        factor = np.minimum(np.sqrt(1.0 + np.maximum(age_s - USUAL_AGE_S, 0.0) / WIDENING_S), WIDEST)
        forecast = self.live.forecast_series(view, factor.astype(np.float32))
        known_s = self.live.seen.known * self.config.step_s
        whole = ~np.isnan(forecast.final[..., 0]).any(axis=-1)
        final, young = self._peers.completed(forecast.final, view, self.live.seen.known, self.source.subjects)
        helped = np.zeros(len(final), dtype=bool)
        helped[young] = ~np.isnan(final[young, :, 0]).any(axis=-1)
        written = (helped | (whole & (known_s >= self.config.history.min_s))) & (
            age_s <= self.config.history.max_stale_s
        )
        by_peers = helped & (self.live.seen.known < EQUAL_CELLS)
        chosen_by = np.where(by_peers[:, None], np.uint8(len(self.models)), forecast.chosen)
        forecast = replace(forecast, final=final, chosen=chosen_by)
        self._pending.add(_issued(forecast, written, report.now, self.config.step_s))
        batch = self._batch(forecast, written, report.now)
        counts = np.bincount(forecast.chosen[written].ravel(), minlength=256)
        chosen = {name: int(count) for name, count in zip(self.names.models, counts, strict=False) if count}
        names = tuple(model.name for model in installed)
        report = replace(report, forecasts=sum(chosen.values()), installed=names, chosen=chosen)
        return replace(issue, report=report, batch=batch)

    def _batch(self, forecast: CycleForecast, written: Floats, now: float) -> ForecastBatch | None:
        """One batch: of a pair that nothing is forecast about, there is still the probability to be active."""
        active = self.tracker.activity.probabilities()
        places = np.flatnonzero(written | ~np.isnan(active[:, 0]))
        if not len(places):
            return None
        left_out = np.flatnonzero(~written)
        too_short = [horizon_s < self.shortest_s for horizon_s in self.config.horizons_s]
        refused = np.repeat(too_short, len(self.source.quantities))
        final, chosen = forecast.final, forecast.chosen
        if len(left_out) or refused.any():
            final, chosen = final.copy(), chosen.copy()
            final[left_out], chosen[left_out] = np.nan, NO_MODEL
            final[:, refused], chosen[:, refused] = np.nan, NO_MODEL
        tolerance, trusted = self.tracker.horizons.tolerance, self.tracker.trusted()
        bounds = tolerance.error, tolerance.width
        written_down = FinalForecasts(final, chosen, active, trusted, self.tracker.doubts(), bounds)
        return forecast_batch(now, written_down, places, self.names)


def _issued(forecast: CycleForecast, written: Floats, now: float, step_s: float) -> IssuedForecast:
    rows: Ints = forecast.rows
    final, chosen = forecast.final[rows], forecast.chosen[rows]
    return IssuedForecast(now, round(now / step_s), rows, forecast.forecasts, final, chosen, written[rows])

"""One cycle of foreseeing: read what is new, judge what has ended, choose who speaks, forecast, write it down."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import structlog

from cpdb import Score, Store
from predictor.config import PredictorConfig
from predictor.data.sources import Source, Talks
from predictor.data.view import Ask, Floats, Ints, View, fair_sample, windows
from predictor.ensemble.composition import NOBODY
from predictor.ensemble.forecaster import Forecaster, Options
from predictor.ensemble.peers import EQUAL_CELLS, PEERS, Crowds
from predictor.models import Model, build
from predictor.service.live import Foreseen, Live
from predictor.service.records import Extras, Issue, Issues, Names, Verdict, forecast_batch, score_rows
from predictor.service.state import Keeper
from predictor.service.workers import Background
from predictor.trust.tracker import Companion, Verdicts, shape_of

log = structlog.get_logger(__name__)

# Rows are always a little old; beyond this a fan begins to widen, by sqrt(1 + age / WIDENING_S).
USUAL_AGE_S = 3.0
WIDENING_S = 10.0
WIDEST = 3.0
# Slow fits begin with this much history, of at most so many series.
FIRST_FIT_CELLS = 60
FITTED_SERIES = 1000
# With more series than this, scores are written rolled up only.
FEW = 100
# What is left of old scores when a series has drifted, at once and in each cycle for a while.
DRIFTED, CHANGED = 0.25, 0.98
# Each cycle in which something drifts brings the next fit so much nearer, as a share of the time between fits.
SOONER = 0.5


@dataclass(frozen=True, slots=True)
class CycleReport:
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


class Predictor:
    """State from cycle to cycle: series, models, their records. Give it every moment once, in order.

    With `background` slow fits run in a process of their own (call `close` when done), else within the cycle.
    `source` is where series come from: communications of pairs, unless told otherwise. `more` makes models that compete
    beside those of the settings.
    """

    def __init__(
        self,
        config: PredictorConfig,
        background: bool = True,
        source: Source | None = None,
        more: Sequence[Callable[[Ask], Model]] = (),
    ) -> None:
        self.config = config
        self.source = source or Talks.of_pairs(config.step_s, config.window_s, config.limits.max_pairs)
        ask = windows(config.horizons, len(self.source.quantities) // 2, config.levels)
        models = build(config.models, ask, config.seed)
        models |= {model.name: model for model in (make(ask) for make in more)}
        self.names = Names(config, self.source.subjects, self.source.quantities, (*models, PEERS))
        # Horizons shorter than this are not forecast: see predictor/trust/horizon.py.
        self.shortest_s = 0.0
        self.forecaster = Forecaster(ask, models, Options(half_life=config.half_life_s / config.step_s))
        self.live = Live(self.forecaster, config.limits.threads)
        self._issues = Issues(ask)
        shape = shape_of(tuple(models), config.horizons_s, self.source.quantities, config.tier)
        self.companion = Companion(shape, config.horizons, config.levels)
        self._crowds = Crowds(ask, config.seed)
        self._keeper = Keeper(config.tier)
        self._begun = False
        self._background = Background(config.limits.fit_budget_s) if background else None
        self._fitted_at = -np.inf
        self._rng = np.random.default_rng(config.seed)

    @property
    def models(self) -> dict[str, Model]:
        """The models at work, by name."""
        return self.forecaster.models

    def cycle(self, store: Store, now: float) -> CycleReport:
        """Forecasts every series with enough history from what the store holds up to `now` (Unix seconds).

        Writes forecasts and scores to the store. Raises StoreError when the store fails; the next cycle goes on.
        """
        if not self._begun:
            self._keeper.recall(store, self)
            self._begun = True
        rows = self.source.read(store, now)
        verdicts = list(self._judge(now))
        view = self.source.view(now)
        report = CycleReport(now, rows, len(self.source.subjects), failed_fits=self.failed_fits)
        if view is not None:
            self.companion.cells(view)
            report = self._foresee(store, view, report)
            self._account(store, now)
            self._keeper.keep(store, self, now)
        scores = self._scores(verdicts, now)
        store.forecasts.add_scores(scores)
        return CycleReport(
            now, rows, report.pairs, report.forecasts, len(scores), report.installed, self.failed_fits, report.chosen,
            self.companion.drift.total,
        )  # fmt: skip

    @property
    def final(self) -> Floats:
        """What was last foreseen of every series: series x targets x levels, NaN = nothing."""
        return self.live.final

    @property
    def failed_fits(self) -> int:
        """How many background fits have failed so far."""
        return self._background.failures if self._background else 0

    def keep(self, store: Store, now: float) -> None:
        """Writes down all that was learnt, for the next start to go on with. Waits until it is written."""
        if self._begun:
            self._keeper.keep(store, self, now, wait=True)

    def close(self) -> None:
        """Ends the fitting process."""
        if self._background:
            self._background.close()

    def _judge(self, now: float) -> Iterator[Verdict]:
        for issue, truth in self._issues.due(self.source, now):
            fans, final = issue.fans[:, :, truth.targets], issue.final[:, truth.targets]
            losses, final_loss = self.forecaster.composition.learn(fans, final, truth)
            yield Verdict(issue, truth, losses, final_loss)
            verdicts = Verdicts(fans, final, losses, final_loss, truth.actual, truth.targets, issue.rows)
            self._drift(self.companion.judged(verdicts))

    def _drift(self, now: Floats) -> None:
        """What has begun to behave otherwise is judged anew: old scores of its models hardly count any more."""
        if now.any():
            named = [str(self.source.subjects[place]) for place in np.flatnonzero(now)[:3].tolist()]
            log.info("drift", tier=self.config.tier, series=int(now.sum()), first=named)
            # What was fitted to the old ways is fitted again sooner.
            self._fitted_at -= SOONER * self.config.limits.refit_every_s
        self.forecaster.composition.ledger.forget(np.flatnonzero(now), DRIFTED)
        self.forecaster.composition.ledger.forget(np.flatnonzero(self.companion.drift.changed & ~now), CHANGED)

    def _scores(self, verdicts: list[Verdict], now: float) -> list[Score]:
        if len(self.source.subjects) > FEW:
            return []
        return [score for verdict in verdicts for score in score_rows(verdict, self.names, now)]

    def _account(self, store: Store, now: float) -> None:
        """Writes down what has changed in how far series are trusted, and now and then how good all was."""
        store.forecasts.add_moves(self.companion.moves(now, self.source.subjects))
        batch = self.companion.scores(now, self.source.subjects)
        if batch is not None:
            store.forecasts.add_score_batch(batch)

    def _foresee(self, store: Store, view: View, report: CycleReport) -> CycleReport:
        installed = self._fit(view, report.now)
        view = self.live.update(view, oldest=round(2 * self.config.min_history_s / self.config.step_s))
        age_s = (view.start + view.cells - 1 - self.live.seen.last + view.lead) * self.config.step_s
        factor = np.minimum(np.sqrt(1.0 + np.maximum(age_s - USUAL_AGE_S, 0.0) / WIDENING_S), WIDEST)
        foreseen = self.live.foresee(view, factor.astype(np.float32))
        known_s = self.live.seen.known * self.config.step_s
        whole = ~np.isnan(foreseen.final[..., 0]).any(axis=-1)
        final, young = self._crowds.completed(foreseen.final, view, self.live.seen.known, self.source.subjects)
        helped = np.zeros(len(final), dtype=bool)
        helped[young] = ~np.isnan(final[young, :, 0]).any(axis=-1)
        spoken = (helped | (whole & (known_s >= self.config.min_history_s))) & (age_s <= self.config.max_stale_s)
        by_peers = helped & (self.live.seen.known < EQUAL_CELLS)
        chosen_by = np.where(by_peers[:, None], np.uint8(len(self.models)), foreseen.chosen)
        foreseen = replace(foreseen, final=final, chosen=chosen_by)
        self._issues.add(self._issue(foreseen, spoken, report.now))
        self._write(store, foreseen, spoken, report.now)
        counts = np.bincount(foreseen.chosen[spoken].ravel(), minlength=256)
        chosen = {name: int(count) for name, count in zip(self.names.models, counts, strict=False) if count}
        return CycleReport(
            report.now, pairs=report.pairs, forecasts=sum(chosen.values()), installed=installed, chosen=chosen
        )

    def _write(self, store: Store, foreseen: Foreseen, spoken: Floats, now: float) -> None:
        """One batch: of a pair that nothing is said about, there is still the probability that it talks."""
        said = self.companion.activity.probabilities()
        places = np.flatnonzero(spoken | ~np.isnan(said[:, 0]))
        if not len(places):
            return
        silent = np.flatnonzero(~spoken)
        refused = np.repeat([one < self.shortest_s for one in self.config.horizons_s], len(self.source.quantities))
        final, chosen = foreseen.final, foreseen.chosen
        if len(silent) or refused.any():
            final, chosen = final.copy(), chosen.copy()
            final[silent], chosen[silent] = np.nan, NOBODY
            final[:, refused], chosen[:, refused] = np.nan, NOBODY
        extras = Extras(said, self.companion.trusted())
        store.forecasts.add_batch(forecast_batch(now, (final, chosen), places, self.names, extras))

    def _issue(self, foreseen: Foreseen, spoken: Floats, now: float) -> Issue:
        rows: Ints = foreseen.rows
        start = round(now / self.config.step_s)
        final, chosen = foreseen.final[rows], foreseen.chosen[rows]
        return Issue(now, start, rows, foreseen.fans, final, chosen, spoken[rows])

    def _fit(self, view: View, now: float) -> tuple[str, ...]:
        fitted = self._background.collect() if self._background else []
        for model in fitted:
            self.forecaster.install(model)
        if (
            now - self._fitted_at >= self.config.limits.refit_every_s
            and view.cells >= FIRST_FIT_CELLS
            and self._refit(view)
        ):
            self._fitted_at = now
        return tuple(model.name for model in fitted)

    def _fitted_on(self, view: View) -> Ints:
        """A sample of series of which no source has more than it must, so that none can teach the others its ways."""
        groups = np.arange(view.series) if view.groups is None else view.groups
        return fair_sample(groups, min(view.series, FITTED_SERIES), self._rng)

    def _refit(self, view: View) -> bool:
        slow = [model for model in self.models.values() if model.slow]
        if not slow:
            return True
        sample = view.part(self._fitted_on(view))
        if self._background:
            return self._background.submit(slow, sample)
        for model in slow:
            model.fit(sample)
        return True

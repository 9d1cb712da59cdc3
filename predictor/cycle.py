"""One cycle of foreseeing: read what is new, judge what has ended, choose who speaks, forecast, write it down."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cpdb import Score, Store
from predictor.calibration import Calibration
from predictor.choice import Ledger
from predictor.config import PredictorConfig
from predictor.fits import Background
from predictor.issues import Issue, Issues
from predictor.models import BASELINES, REFERENCE, Ask, Model, build
from predictor.models.seasonal_naive import SeasonalNaive
from predictor.panel import Panel
from predictor.quantiles import lawful, widened
from predictor.reader import Reader
from predictor.records import Names, RollUp, forecast_rows, score_rows
from predictor.replay import replay
from predictor.view import BYTES, Floats, View

# Rows are always a little old; beyond this a fan begins to widen, by sqrt(1 + age / WIDENING_S).
USUAL_AGE_S = 3.0
WIDENING_S = 10.0
WIDEST = 3.0
# No half life is shorter than so many windows, or luck would choose.
FEWEST_WINDOWS = 4
# Slow fits begin with this much history.
FIRST_FIT_CELLS = 60


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What one cycle did. `chosen` counts forecasts by model; `installed` names models whose background fit arrived."""

    now: float
    rows: int = 0
    pairs: int = 0
    forecasts: int = 0
    scores: int = 0
    installed: tuple[str, ...] = ()
    failed_fits: int = 0
    chosen: Mapping[str, int] = field(default_factory=dict)


class Predictor:
    """State from cycle to cycle: panel, models, their records. Give it every moment once, in order.

    With `background` slow fits run in a process of their own (call `close` when done), else within the cycle.
    """

    def __init__(self, config: PredictorConfig, background: bool = True) -> None:
        self.config = config
        self._ask = Ask(config.horizons, config.levels)
        self._reader = Reader(config.window_s, config.late_s)
        self._panel = Panel(config.step_s, config.window_s, config.max_pairs)
        self.models: dict[str, Model] = build(config)
        self.ledger = self._fresh_ledger()
        self._calibration = Calibration(len(config.horizons), config.levels)
        self._issues = Issues(config.horizons, config.levels)
        self._names = Names(config, self._panel.pairs)
        self._rollup = RollUp(self._names)
        self._background = Background(config.fit_budget_s) if background else None
        self._fitted_at = -np.inf
        self._replayed: Floats = np.zeros(0)
        self._judged_at = -np.inf

    def cycle(self, store: Store, now: float) -> CycleReport:
        """Forecasts every pair with enough history from what the store holds up to `now` (Unix seconds).

        Writes forecasts and scores to the store. Raises StoreError when the store fails; the next cycle goes on.
        """
        rows = self._reader.read(store, now)
        self._panel.add(rows)
        scores = self._judge(now)
        view = self._panel.view(now)
        installed: tuple[str, ...] = ()
        issue = None
        if view is not None:
            installed = self._learn(view, now)
            issue = self._foresee(view, now)
            self._issues.add(issue)
        forecasts = forecast_rows(issue, self._names) if issue else []
        store.foresight.add_forecasts(forecasts)
        store.foresight.add_scores(scores)
        return CycleReport(
            now=now,
            rows=len(rows),
            pairs=len(self._panel.pairs),
            forecasts=len(forecasts),
            scores=len(scores),
            installed=installed,
            failed_fits=self._background.failures if self._background else 0,
            chosen=Counter(row.model for row in forecasts),
        )

    def close(self) -> None:
        """Ends the fitting process."""
        if self._background:
            self._background.close()

    def _fresh_ledger(self) -> Ledger:
        return Ledger(self.config.models, self.config.horizons, REFERENCE, BASELINES)

    def _judge(self, now: float) -> list[Score]:
        scores: list[Score] = []
        verdicts = list(self._issues.due(self._panel, now))
        if verdicts:
            elapsed = now - self._judged_at
            self._judged_at = now
            for number, horizon_s in enumerate(self.config.horizons_s):
                half_life_s = max(self.config.half_life_s, FEWEST_WINDOWS * horizon_s)
                self.ledger.fade(number, 0.5 ** (elapsed / half_life_s))
        for verdict in verdicts:
            self.ledger.add(verdict.horizon, verdict.losses)
            self._calibration.learn(verdict)
            self._rollup.add(verdict)
            scores.extend(score_rows(verdict, self._names, now))
        return scores + self._rollup.rows(now)

    def _learn(self, view: View, now: float) -> tuple[str, ...]:
        self.ledger.resize(view.pairs)
        self._calibration.resize(view.pairs)
        fitted = self._background.collect() if self._background else []
        for model in fitted:
            self.models[model.name] = model
        if now - self._fitted_at >= self.config.refit_every_s and view.cells >= FIRST_FIT_CELLS and self._refit(view):
            self._fitted_at = now
        for model in self.models.values():
            model.update(view)
        self._replay(view)
        return tuple(model.name for model in fitted)

    def _refit(self, view: View) -> bool:
        slow = [model for model in self.models.values() if model.slow]
        if self._background:
            return not slow or self._background.submit(slow, view)
        for model in slow:
            model.fit(view)
        return True

    def _replay(self, view: View) -> None:
        """Gives models a record from the past where a pair is new or a period has just been found."""
        rhythmic = self._rhythmic(view.pairs)
        before = np.pad(self._replayed, (0, view.pairs - len(self._replayed)), constant_values=-1.0)
        old_enough = (~np.isnan(view.rates[BYTES])).sum(axis=-1) * self.config.step_s >= 2 * self.config.min_history_s
        news = old_enough & (rhythmic > before)
        if not news.any():
            self._replayed = np.minimum(before, rhythmic)
            return
        record = self._fresh_ledger()
        record.resize(view.pairs)
        replay(self.models, view, self._ask, record)
        replayable = np.array([self.models[name].replayable for name in self.config.models])
        # A record earned in life outweighs a replay, unless it is shorter.
        longer = record.count.min(axis=(2, 3)) > self.ledger.count.min(axis=(2, 3))
        self.ledger.take_over(record, replayable[:, None] & news[None, :] & longer)
        self._replayed = np.where(news, rhythmic, np.minimum(before, rhythmic))

    def _rhythmic(self, pairs: int) -> Floats:
        seasonal = self.models.get(SeasonalNaive.name)
        if not isinstance(seasonal, SeasonalNaive):
            return np.zeros(pairs)
        return (~np.isnan(seasonal.periods)).astype(np.float64)

    def _foresee(self, view: View, now: float) -> Issue:
        fans = np.stack([lawful(model.predict(view)) for model in self.models.values()])
        able = ~np.isnan(fans).any(axis=-1)
        weights = self.ledger.weights(able)
        blend = (weights[..., None] * np.nan_to_num(fans)).sum(axis=0)
        picked = self._calibration.apply(np.where(able.any(axis=0)[..., None], blend, np.nan))
        chosen = weights.argmax(axis=0)
        age_s = self._ages(view)
        factor = np.minimum(np.sqrt(1.0 + np.maximum(age_s - USUAL_AGE_S, 0.0) / WIDENING_S), WIDEST)
        final = lawful(widened(picked, factor[:, None, None], self.config.levels))
        known_s = (~np.isnan(view.rates[BYTES])).sum(axis=-1) * self.config.step_s
        spoken = (known_s >= self.config.min_history_s) & (age_s <= self.config.max_stale_s)
        spoken &= ~np.isnan(final).any(axis=(1, 2, 3))
        start = self._panel.first_cell_after(now)
        return Issue(now, start, fans, final, chosen, spoken)

    def _ages(self, view: View) -> Floats:
        """Seconds between each pair's last known cell and the beginning of the windows; infinite when it has none."""
        known = ~np.isnan(view.rates[BYTES])
        since = np.argmax(known[:, ::-1], axis=-1) + view.lead
        return np.where(known.any(axis=-1), since * self.config.step_s, np.inf)

"""From the store alone: surges that recur are forecast, calm stays calm, gaps widen, nothing looks ahead."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_traffic import START, Recipe, Traffic, make

from cpdb import Forecast, Quantity, Score, Store, Subject, SubjectKind, open_store
from predictor import FlowSeries, Predictor, PredictorConfig, PredictorReport, summarise_scores

QUICK = PredictorConfig(models=("naive", "ewma", "train_mean", "seasonal_naive", "arima"))
SURGES = Recipe(pairs=6, surging=3, seconds=210)
CALM = Recipe(pairs=8, surging=0, seconds=180)

Key = tuple[str, int, int, Quantity]


@dataclass(frozen=True)
class Told:
    """What a predictor said about traffic: forecasts by (source, second, horizon, quantity)."""

    traffic: Traffic
    forecasts: Mapping[Key, Forecast]
    scores: list[Score]
    reports: list[PredictorReport]

    def at(self, pair: int, second: int, horizon: int, level: float, what: Quantity = Quantity.BYTES_PEAK) -> float:
        """A quantile issued `second` seconds after the start."""
        return self.forecasts[f"c{pair}", second, horizon, what].at(level)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = open_store(f"sqlite:///{tmp_path}/forecast_series.db")
    yield one
    one.close()


def tell(store: Store, traffic: Traffic, config: PredictorConfig, speaks: Callable[[int], bool] = bool) -> Told:
    """Plays traffic second by second; the controller writes only in seconds in which it `speaks`."""
    predictor = Predictor(config, background=False)
    reports = []
    for second in range(1, traffic.sizes.shape[1] + 1):
        if speaks(second):
            store.facts.add_communications(traffic.rows(second - 1))
        reports.append(predictor.cycle(store, START + second))
    predictor.close()
    said = store.forecasts.issued_between(0, START + 1e6)
    keyed = {(one.pair.source, round(one.issued_at - START), one.horizon_s, one.quantity): one for one in said}
    return Told(traffic, keyed, store.forecasts.scores(0), reports)


def surges(told: Told, after: int) -> Iterator[tuple[int, int, float]]:
    """Pair, second of onset and peak of each surge that had `after` before it and is over."""
    for pair, onsets in enumerate(told.traffic.onsets):
        for onset in onsets[after:]:
            begin = int(onset)
            if begin + 20 < told.traffic.sizes.shape[1]:
                yield pair, begin, float(told.traffic.sizes[pair, begin : begin + 11].max())


@pytest.mark.parametrize(("seed", "models"), [(1, PredictorConfig().models), (2, QUICK.models), (3, QUICK.models)])
def test_recurring_surges_and_their_ends_are_foreseen(store, seed, models):
    told = tell(store, make(seed, SURGES), QUICK.tuned(models=models))
    seen = list(surges(told, after=4))
    assert len(seen) >= 3
    for horizon in (5, 15, 30):
        # Issued when the first seconds of the surge are the last of the window; these are what can be forecast of it.
        hits = []
        for pair, begin, _ in seen:
            issued = begin + 3 - horizon
            truth = told.traffic.sizes[pair, issued : issued + horizon].max()
            hits.append(told.at(pair, issued, horizon, 0.9) >= 0.7 * truth)
        assert np.mean(hits) >= 0.8, f"{horizon} s ahead"
    over = [told.at(pair, begin + 13, 5, 0.9) <= 0.5 * peak for pair, begin, peak in seen]
    assert np.mean(over) >= 0.7
    assert all(told.at(pair, begin - 3, 5, 0.9) >= 0.5 * peak for pair, begin, peak in seen[:1])


def test_calm_stays_calm_and_no_baseline_is_much_better(store):
    told = tell(store, make(11, CALM), QUICK)
    for pair in range(CALM.pairs):
        typical = np.quantile(told.traffic.sizes[pair], 0.95)
        for second in range(60, CALM.seconds, 10):
            assert told.at(pair, second, 15, 0.95) <= 3 * typical
    rolled = summarise_scores(store.forecasts.score_batches(START + 90), None, "ewma")
    by_model = {name: [one.relative for one in rolled if one.model == name] for name in (*QUICK.models, "auto")}
    best = min(np.mean(by_model[name]) for name in ("naive", "ewma", "train_mean"))
    assert len(by_model["auto"]) == 3 * 6
    assert np.mean(by_model["auto"]) <= 1.1 * best


def test_every_fan_in_the_store_is_lawful_and_complete(store):
    told = tell(store, make(4, replace(SURGES, seconds=60)), QUICK)
    assert len(told.forecasts) == sum(report.forecasts for report in told.reports)
    assert told.reports[-1].forecasts == SURGES.pairs * 3 * 6
    for forecast in told.forecasts.values():
        values = [forecast.quantiles[level] for level in QUICK.levels]
        assert np.isfinite(values).all()
        assert min(values) >= 0
        assert values == sorted(values)
        assert forecast.model in (*QUICK.models, "peers")


def test_scores_are_given_once_when_the_window_has_ended(store):
    told = tell(store, make(4, replace(SURGES, seconds=60)), QUICK)
    own = [score for score in told.scores if not score.model.endswith("/mean")]
    keys = [(one.pair, one.issued_at, one.horizon_s, one.quantity) for one in own]
    assert len(keys) == len(set(keys)) > 0
    for score in own:
        assert score.scored_at >= score.issued_at + score.horizon_s
        begin = round(score.issued_at - START)
        if score.quantity is Quantity.CONNECTIONS_PEAK:
            window = told.traffic.requests[int(score.pair.source[1:]), begin : begin + score.horizon_s]
            assert score.actual == window.max()


def test_what_comes_after_now_changes_nothing(tmp_path):
    traffic = make(5, replace(SURGES, seconds=90))
    said = []
    for name, future in (("honest", 60), ("tempting", 90)):
        store = open_store(f"sqlite:///{tmp_path}/{name}.db")
        for second in range(future):
            store.facts.add_communications(traffic.rows(second))
        predictor = Predictor(QUICK, background=False)
        for now in range(55, 61):
            predictor.cycle(store, START + now)
        said.append([(one.pair, one.model, one.quantiles) for one in store.forecasts.latest(START + 60, 1)])
        store.close()
    assert said[0] == said[1] != []


def test_a_gap_widens_the_fan_instead_of_making_zeros(store):
    told = tell(store, make(6, replace(CALM, seconds=100)), QUICK, speaks=lambda second: second <= 80)

    def width(second: int) -> float:
        spread = [told.at(pair, second, 5, 0.95) - told.at(pair, second, 5, 0.05) for pair in range(CALM.pairs)]
        return float(np.mean(spread))

    assert width(100) > 1.2 * width(80)
    medians = [told.at(pair, 100, 15, 0.5, Quantity.BYTES_MEAN) for pair in range(CALM.pairs)]
    assert np.median(medians) > 0.3 * told.traffic.sizes[:, :80].mean()


def test_after_too_long_a_silence_nothing_is_said(store):
    config = QUICK.tuned(history={"max_stale_s": 10.0})
    told = tell(store, make(6, replace(CALM, seconds=60)), config, speaks=lambda second: second <= 40)
    assert told.reports[44].forecasts > 0
    assert told.reports[-1].forecasts == 0


def test_a_new_pair_waits_until_it_has_some_history(store):
    told = tell(store, make(7, replace(CALM, seconds=30)), QUICK)
    first = next(number for number, report in enumerate(told.reports, start=1) if report.forecasts)
    assert QUICK.history.min_s <= first <= QUICK.history.min_s + 3


def test_a_restart_foresees_from_what_the_store_remembers(store):
    traffic = make(8, replace(SURGES, pairs=3, seconds=190))
    for second in range(160):
        store.facts.add_communications(traffic.rows(second))
    fresh = Predictor(QUICK, background=False)
    chosen = fresh.cycle(store, START + 160).chosen
    assert chosen.get("seasonal_naive", 0) >= 0.3 * sum(chosen.values())


def test_rows_that_come_late_are_read_and_each_once(store):
    traffic = make(9, replace(CALM, seconds=40))
    source = FlowSeries.of_pairs(1.0, 900, 100)
    predictor = Predictor(QUICK, background=False, source=source)
    for second in range(1, 40):
        rows = traffic.rows(second - 1)
        store.facts.add_communications(rows if second % 3 else [])
        if second % 3 == 1 and second > 1:
            store.facts.add_communications(traffic.rows(second - 2))
        predictor.cycle(store, START + second)
    for pair in range(CALM.pairs):
        held = source.panel.total(Subject(SubjectKind.PAIR, f"c{pair}", f"10.9.0.{pair % 2 + 1}"))
        assert held[2] == traffic.requests[pair, :38].sum()


def test_an_empty_store_gives_no_forecasts(store):
    report = Predictor(QUICK, background=False).cycle(store, START)
    assert (report.rows, report.pairs, report.forecasts) == (0, 0, 0)

"""What must not teach does not: implausible counters, one source's flood; and what has changed is judged anew."""

from array import array
from pathlib import Path

import numpy as np
import pytest

from cpdb import IMPLAUSIBLE, Batch, Communication, FlowKey, Quantity, open_store
from predictor import Predictor, PredictorConfig, WorkLimits
from predictor.data.view import SeriesView
from predictor.service.workers import FitSchedule

START = 3_000_000.0
CONFIG = PredictorConfig(models=("naive", "ewma", "train_mean"))
FLOW_KEYS = [FlowKey(f"c{number}", "10.9.0.1", "vm1") for number in range(4)]


@pytest.fixture
def store(tmp_path: Path):
    one = open_store(f"sqlite:///{tmp_path}/honest.db")
    yield one
    one.close()


def batch(second, sizes, flags):
    return Batch(
        observer="switch/one",
        t=START + second,
        interval_s=1.0,
        flow_keys=FLOW_KEYS,
        bytes=array("q", sizes),
        packets=array("q", [size // 1000 for size in sizes]),
        connections=array("q", [2] * len(sizes)),
        flags=array("B", flags),
        complete=True,
    )


def test_what_the_controller_did_not_believe_is_neither_learnt_nor_a_silence(store):
    rng = np.random.default_rng(1)
    predictor = Predictor(CONFIG, background=False)
    for second in range(1, 81):
        odd = second % 4 == 0
        sizes = rng.integers(90_000, 110_000, 4).tolist()
        if odd:
            sizes[0] = 10**12
        store.facts.add_batches([batch(second, sizes, [IMPLAUSIBLE if odd else 0, 0, 0, 0])])
        predictor.cycle(store, START + second)
    view = predictor.source.view(START + 80)
    assert np.nanmax(view.rates[0]) < 120_000
    assert np.isnan(view.rates[0, 0]).mean() == pytest.approx(0.25, abs=0.05)
    peaks = [
        one.at(0.99)
        for one in store.forecasts.latest(START + 80, 5)
        if one.pair.source == "c0" and one.quantity is Quantity.BYTES_PEAK
    ]
    assert len(peaks) == 3 and max(peaks) < 200_000


def test_a_source_with_ten_thousand_pairs_is_a_tenth_of_what_is_fitted():
    flood = np.concatenate([np.zeros(10_000, dtype=np.int64), np.repeat(np.arange(1, 10), 200)])
    view = SeriesView(np.zeros((3, len(flood), 1), dtype=np.float32), groups=flood)
    counts = np.bincount(flood[FitSchedule(WorkLimits(), CONFIG.seed, background=False).sample_series(view)])
    assert counts.tolist() == [100] * 10


def test_a_pair_that_changes_its_ways_is_noticed_and_its_models_are_judged_anew(store):
    rng = np.random.default_rng(2)
    predictor = Predictor(CONFIG, background=False)
    fewest = []
    for second in range(1, 181):
        wild = 1 + 30 * rng.random() * (second > 120)
        rows = [
            Communication(talk.source, talk.virtual_ip, talk.destination, START + second, 1.0, size, 10, 2)
            for talk, size in zip(FLOW_KEYS, rng.integers(95_000, 105_000, 4).tolist(), strict=True)
        ]
        changed = Communication("c9", "10.9.0.1", "vm1", START + second, 1.0, int(100_000 * wild), 10, 2)
        store.facts.add_communications([*rows, changed])
        drifted = predictor.cycle(store, START + second).drifted
        fewest.append(predictor.forecaster.composition.scoreboard.count[1, :5, 0].copy())
    assert drifted >= 1
    moves = [one for one in store.forecasts.moves(START + 120) if one.subject.a == "c9"]
    assert moves[0].from_s > 5 and moves[-1].to_s == 0
    horizons = predictor.tracker.trusted()[:, 0].tolist()
    assert horizons[4] == 0 and min(horizons[:4]) >= 15
    steady, changed = np.array(fewest)[130:, :4].min(), np.array(fewest)[130:, 4].min()
    assert changed < 0.6 * steady

"""What was learnt survives a restart: the same weights, horizons and probabilities at once."""

import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from synthetic_traffic import START, Recipe, make

from cpdb import SubjectKind, open_store
from predictor import Predictor, PredictorConfig
from predictor.service.state import about, text

CONFIG = PredictorConfig(models=("naive", "ewma", "train_mean", "seasonal_naive"))
TRAFFIC = make(3, Recipe(pairs=5, surging=2, seconds=150))


def lived(store, config=CONFIG, until=120):
    predictor = Predictor(config, background=False)
    for second in range(1, until + 1):
        store.facts.add_communications(TRAFFIC.rows(second - 1))
        predictor.cycle(store, START + second)
    return predictor


@pytest.fixture
def store(tmp_path: Path):
    one = open_store(f"sqlite:///{tmp_path}/restart.db")
    yield one
    one.close()


def test_a_restart_goes_on_with_what_was_learnt(store):
    before = lived(store)
    before.keep(store, START + 120)
    after = Predictor(CONFIG, background=False)
    store.facts.add_communications(TRAFFIC.rows(120))
    for one in (before, after):
        one.cycle(store, START + 121)
    assert after.source.subjects == before.source.subjects
    for name in ("loss", "against", "count"):
        old, new = (one.forecaster.composition.scoreboard.state()[name] for one in (before, after))
        # Windows that were open are lost. The first three models always speak; a period may be found anew.
        assert new[:3] == pytest.approx(old[:3], rel=0.1)
    assert (after.tracker.trusted() == before.tracker.trusted()).all()
    said = [one.tracker.activity.probabilities() for one in (before, after)]
    assert said[1] == pytest.approx(said[0], abs=0.02)


def test_a_pair_that_the_rows_have_forgotten_is_still_known(store):
    before = lived(store, until=60)
    before.keep(store, START + 60)
    after = Predictor(CONFIG.tuned(history={"window_s": 130}), background=False)
    after.cycle(store, START + 1000)
    assert len(after.source.subjects) == 5
    # Nothing measured any more, so nothing is said.
    assert store.forecasts.latest(START + 1000, 30) == []


@pytest.mark.parametrize("other", [{"horizons_s": (5, 10, 30)}, {"levels": (0.1, 0.5, 0.9)}, {"models": ("ewma",)}])
def test_what_belongs_to_other_settings_is_left_alone(store, other):
    lived(store, until=40).keep(store, START + 40)
    after = Predictor(CONFIG.tuned(**other), background=False)
    after.cycle(store, START + 41)
    assert after.forecaster.composition.scoreboard.count.max() <= 40


def of_the_format_before() -> bytes:
    """What earlier versions kept: other names for the same arrays."""
    header = {"version": 1, "kind": "predictor/fast", **about(Predictor(CONFIG, background=False))}
    file = io.BytesIO()
    arrays = {"ledger/loss": np.zeros((4, 1, 6)), "subjects": text(["pair\tc0\t10.0.0.1"])}
    np.savez(file, about=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays)
    return zlib.compress(file.getvalue())


@pytest.mark.parametrize("kept", [b"nonsense", of_the_format_before()])
def test_what_cannot_be_read_is_left_alone(store, kept):
    store.forecasts.remember("predictor/fast", kept, START)
    store.facts.add_communications(TRAFFIC.rows(0))
    predictor = Predictor(CONFIG, background=False)
    assert predictor.cycle(store, START + 1).rows == 5
    assert len(predictor.source.subjects) == 5


def test_horizons_are_written_and_moves_recorded(store):
    lived(store, until=140)
    batch = store.forecasts.batch(START + 140, 5)
    assert batch is not None and len(batch.trusts.horizon_s) == 2 * 5 * 3
    assert set(np.frombuffer(batch.trusts.horizon_s, "<u2").tolist()) <= {0, 5, 15, 30}
    moves = store.forecasts.moves(0)
    assert {one.subject.kind for one in moves} == {SubjectKind.PAIR}
    assert all(one.from_s != one.to_s and one.reason for one in moves)
    talks = np.frombuffer(batch.activity, "<f4").reshape(5, 3)
    assert ((talks >= 0) & (talks <= 1)).all() and (np.diff(talks, axis=1) >= -0.05).all()


def test_scores_are_rolled_up_by_model_and_horizon(store):
    lived(store, until=130)
    batches = store.forecasts.score_batches(0)
    assert batches and batches[0].models == (*CONFIG.models, "auto")
    counts = np.frombuffer(batches[-1].count, "<u4").reshape(6, 5, 3, 6)
    assert (counts[-1] == counts[:-1].sum(axis=0)).all() and counts[-1, -1].min() > 0


def test_models_that_remember_go_on_with_what_they_were_fitted_to(store):
    config = CONFIG.tuned(models=("ewma", "arima"))
    before = lived(store, config, until=100)
    assert before.models["arima"].order is not None
    before.keep(store, START + 100)
    after = Predictor(config, background=False)
    after._keeper.recall(store, after)
    old, new = (one.models["arima"].state() for one in (before, after))
    assert new.keys() == old.keys() and len(old) > 1
    for name, value in old.items():
        assert new[name] == pytest.approx(value, abs=1e-5)

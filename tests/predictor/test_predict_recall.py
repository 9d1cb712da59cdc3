"""What was rolled up before the start, or imported, counts from the first forecast of minutes ahead on."""

import numpy as np
import pytest

from cpdb import Quantity, RetentionPolicy, Subject, SubjectKind, open_store
from forepath.exchange import Wish, load
from predictor import PredictorConfig, SlowTier, Tiers

MINUTE, CYCLE = 60, 60
NOW = 1_699_999_200.0
HISTORY = 8 * CYCLE
CONFIG = PredictorConfig(
    models=("naive", "ewma", "train_mean", "seasonal_naive"),
    slow=SlowTier(horizons_s=(1200,), step_s=MINUTE, history_s=HISTORY * MINUTE),
)
PAIR = Subject(SubjectKind.PAIR, "c1", "10.0.0.101")


def rates() -> np.ndarray:
    """Bytes/s of 8 hours that end now: the first 20 minutes of each hour are busy."""
    minutes = np.arange(HISTORY)
    noise = 1.0 + 0.05 * np.random.default_rng(1).standard_normal(HISTORY)
    return np.where(minutes % CYCLE < 20, 9000.0, 1000.0) * noise


@pytest.fixture
def store(tmp_path):
    one = open_store(f"sqlite:///{tmp_path}/recall.db")
    yield one
    one.close()


def first_forecast(store):
    tiers = Tiers(CONFIG, background=False)
    tiers.cycle(store, NOW)
    tiers.close()
    return store.forecasts.batch(NOW, 1.0, "slow")


def test_the_first_forecast_after_an_import_knows_the_hours_before(store, tmp_path):
    file = tmp_path / "hours.csv"
    lines = [f"{NOW - (HISTORY - 1 - n) * MINUTE:.0f},{rate:.0f}" for n, rate in enumerate(rates())]
    file.write_text("\n".join(["t,c1>10.0.0.101", *lines]) + "\n")
    load(store, file, Wish(), lambda _share: None)
    assert not store.retain(NOW + 1.0, RetentionPolicy(), 60.0).left
    batch = first_forecast(store)
    median = batch.value(PAIR, 1200, Quantity.BYTES_MEAN, 0.5)
    # The last 40 minutes were quiet, the last hours on the average are not: only who knows the hours expects the surge.
    assert median == pytest.approx(9000.0, rel=0.2)


def test_without_a_past_nothing_is_said_of_minutes_ahead(store):
    assert first_forecast(store) is None

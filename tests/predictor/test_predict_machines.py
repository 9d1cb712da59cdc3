"""Load of machines follows the communications that are forecast to arrive there, where it has to do with them."""

from pathlib import Path

import numpy as np
import pytest

from cpdb import Communication, HostLoad, Quantity, Subject, SubjectKind, VmLoad, open_store
from predictor import PredictorConfig, SlowTier, Tiers, summarise_scores
from predictor.models.communications import fitted

START = 2_000_000.0
CORES_PER_REQUEST = 0.01
BASE = 0.05


@pytest.fixture
def store(tmp_path: Path):
    one = open_store(f"sqlite:///{tmp_path}/machines.db")
    yield one
    one.close()


def test_a_line_is_found_and_its_fan_holds():
    rng = np.random.default_rng(1)
    arrivals = np.stack([rng.poisson(20, 200), rng.uniform(0, 1e6, 200)]).astype(float)
    load = BASE + CORES_PER_REQUEST * arrivals[0] + rng.normal(0, 0.01, 200)
    line = fitted(load, arrivals)
    assert line is not None
    assert line.slopes[0] == pytest.approx(CORES_PER_REQUEST, rel=0.1)
    assert abs(line.slopes[1]) * 1e6 < 0.01
    levels = (0.1, 0.5, 0.9)
    ahead = np.array([[50.0, 50.0, 50.0], [5e5, 5e5, 5e5]])
    quantiles = line.quantiles(ahead, levels, length=1, peak=False)
    assert quantiles[1] == pytest.approx(BASE + 50 * CORES_PER_REQUEST, rel=0.05)
    assert (quantiles[2] - quantiles[0]) == pytest.approx(2 * 1.28 * 0.01, rel=0.4)
    wider = line.quantiles(ahead + np.array([[-20, 0, 20], [0, 0, 0]]), levels, length=1, peak=False)
    assert wider[0] < quantiles[0] < quantiles[2] < wider[2]


def test_where_nothing_varies_or_little_is_known_there_is_no_line():
    flat = np.full((2, 100), 5.0)
    assert fitted(np.ones(100), flat) is None
    gaps = np.random.default_rng(1).uniform(0, 1, (2, 100))
    gaps[:, 10:] = np.nan
    assert fitted(np.ones(100), gaps) is None


def lived(store, seconds=200):
    """Requests come in a rhythm of 40 s; vm1's load follows them, vm2's wanders, whatever its few say."""
    rng = np.random.default_rng(2)
    models = ("naive", "ewma", "train_mean", "seasonal_naive")
    config = PredictorConfig(models=models, slow=SlowTier(horizons_s=()))
    tiers, idle = Tiers(config, background=False), 0.4
    for second in range(1, seconds + 1):
        t = START + second
        requests = int(rng.poisson(40 if second % 40 < 10 else 4))
        cores = BASE + CORES_PER_REQUEST * requests
        idle = float(np.clip(idle + 0.03 * rng.normal(), 0.1, 0.9))
        few = int(rng.poisson(5))
        store.facts.add_communications(
            [
                Communication("c1", "10.9.0.1", "vm1", t, 1.0, 1000 * requests, requests, requests),
                Communication("c2", "10.9.0.2", "vm2", t, 1.0, 1000 * few, few, few),
            ]
        )
        store.facts.add_loads(
            [
                VmLoad("vm1", "hA", t, "running", cores, 1.0, 1, 100, 200),
                VmLoad("vm2", "hA", t, "running", idle, 1.0, 1, 100, 200),
                HostLoad("hA", t, cores + idle, 4.0, 100, 200),
            ]
        )
        tiers.cycle(store, t)
    tiers.close()
    return tiers


def test_the_model_earns_its_say_where_load_follows_talk(store):
    machines = lived(store).fast["fast/machine"]
    assert machines.source.host_of == {"vm1": "hA", "vm2": "hA"}
    batches = store.forecasts.score_batches(START + 61)
    relative = {
        (name, one.model): one.relative
        for name in ("vm1", "vm2")
        for one in summarise_scores(batches, Subject(SubjectKind.VM, name), "ewma")
        if (one.horizon_s, one.quantity) == (5, Quantity.CPU_MEAN)
    }
    assert relative["vm1", "communications"] < 0.8 * min(relative["vm1", "train_mean"], 1.0)
    assert relative["vm2", "communications"] > relative["vm2", "naive"]

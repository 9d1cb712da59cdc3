"""Sums, links and machines are forecast beside the pairs, seconds and minutes ahead, from what was measured of them."""

import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from synthetic_traffic import START, Recipe, make

from cpdb import HostLoad, LinkLoad, Quantity, Subject, SubjectKind, VmLoad, open_store
from predictor import LIGHT_MODELS, LongTier, PredictorConfig, SlowTier, Tiers, tier_of

CONFIG = PredictorConfig(models=("naive", "ewma", "train_mean"))
SLOW = SlowTier(horizons_s=(60, 120), history_s=480)
MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path):
    one = open_store(f"sqlite:///{tmp_path}/tiers.db")
    yield one
    one.close()


def loads(t, cores):
    return [
        LinkLoad("leaf1", "hA", t, 1.0, 50_000, 50),
        VmLoad("vm1", "hA", t, "running", cores, 1.0, 1, 200 * MIB, 256 * MIB),
        HostLoad("hA", t, cores + 0.1, 4.0, 600 * MIB, 2048 * MIB),
    ]


HOURS = LongTier(horizons_s=(80, 160), step_s=20, history_s=640)


def lived(store, seconds, slow=SLOW):
    traffic = make(5, Recipe(pairs=6, surging=0, seconds=seconds))
    tiers = Tiers(CONFIG.tuned(slow=slow, long=HOURS), background=False)
    rng = np.random.default_rng(1)
    for second in range(1, seconds + 1):
        store.facts.add_communications(traffic.rows(second - 1))
        store.facts.add_loads(loads(START + second, 0.3 + 0.02 * rng.random()))
        tiers.cycle(store, START + second)
    tiers.close()
    return traffic


def said(store, now, kind, speed="fast"):
    """Subject -> {(horizon, quantity): (median, 0.9 quantile)}."""
    batch = store.forecasts.batch(START + now, 30, tier_of(kind, speed))
    assert batch is not None
    values = np.asarray(batch.array())
    middle, upper = batch.levels.index(0.5), batch.levels.index(0.9)
    return {
        subject: {
            (horizon_s, quantity): (float(values[s, h, q, middle]), float(values[s, h, q, upper]))
            for h, horizon_s in enumerate(batch.horizons_s)
            for q, quantity in enumerate(batch.quantities)
        }
        for s, subject in enumerate(batch.subjects)
    }


def test_hours_ahead_arima_is_among_the_models_where_it_is_configured():
    for models, minutes, hours in (
        (PredictorConfig().models, LIGHT_MODELS, (*LIGHT_MODELS, "arima")),
        (("arima", "ewma"), ("ewma",), ("ewma", "arima")),
        (("ewma",), ("ewma",), ("ewma",)),
    ):
        tiers = Tiers(PredictorConfig(models=models))
        assert tiers.slow["slow"].config.models == minutes
        assert tiers.long["long"].config.models == hours
        tiers.close()
    tiers = Tiers(PredictorConfig(long=LongTier(models=("ewma",))))
    assert tiers.long["long"].config.models == ("ewma",)
    tiers.close()


def test_one_process_fits_for_all_tiers_and_ends_with_them(store):
    names, seconds = ("ewma", "arima"), 150
    slow = SlowTier(horizons_s=(10,), step_s=2.0, history_s=240, models=names)
    traffic = make(5, Recipe(pairs=6, surging=0, seconds=seconds))
    tiers = Tiers(PredictorConfig(models=names, slow=slow, limits={"refit_every_s": 1.0}))
    fitted: dict[str, set[str]] = {}
    processes = set()
    for second in range(1, seconds + 1):
        store.facts.add_communications(traffic.rows(second - 1))
        for issue in tiers.turns(store, START + second):
            fitted.setdefault(issue.tier, set()).update(issue.report.installed)
        processes |= {one.pid for one in fitting()}
    end = time.monotonic() + 60
    while not all("arima" in fitted[tier] for tier in ("fast", "slow")) and time.monotonic() < end:
        second += 1
        time.sleep(0.1)
        for issue in tiers.turns(store, START + second):
            fitted[issue.tier] |= set(issue.report.installed)
        processes |= {one.pid for one in fitting()}
    assert "arima" in fitted["fast"] and "arima" in fitted["slow"]
    assert len(processes) == 1
    tiers.close()
    assert fitting() == []


def fitting() -> list[psutil.Process]:
    """The processes that fit for this one."""
    return [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]


def test_sums_links_and_machines_seconds_ahead(store):
    traffic = lived(store, 60)
    services = said(store, 60, SubjectKind.VIRTUAL_IP)
    assert set(services) == {Subject(SubjectKind.VIRTUAL_IP, f"10.9.0.{n}") for n in (1, 2)}
    for number in (1, 2):
        mean = traffic.sizes[number - 1 :: 2, -30:].sum(axis=0).mean()
        median, _ = services[Subject(SubjectKind.VIRTUAL_IP, f"10.9.0.{number}")][15, Quantity.BYTES_MEAN]
        assert median == pytest.approx(mean, rel=0.4)
    everything = said(store, 60, SubjectKind.DESTINATION)[Subject(SubjectKind.DESTINATION, "vm1")]
    assert everything[15, Quantity.CONNECTIONS_MEAN][0] == pytest.approx(
        traffic.requests[:, -30:].sum(axis=0).mean(), rel=0.4
    )
    link = said(store, 60, SubjectKind.LINK)[Subject(SubjectKind.LINK, "leaf1", "hA")]
    assert link[5, Quantity.BYTES_MEAN][0] == pytest.approx(50_000, rel=0.05)
    machines = said(store, 60, SubjectKind.VM)
    assert machines[Subject(SubjectKind.VM, "vm1")][5, Quantity.CPU_MEAN][0] == pytest.approx(0.31, abs=0.03)
    assert machines[Subject(SubjectKind.HOST, "hA")][5, Quantity.MEMORY_PEAK][0] == pytest.approx(600 * MIB, rel=0.05)


def test_minutes_ahead_from_the_same_rows(store):
    traffic = lived(store, 420)
    pairs = said(store, 420, SubjectKind.PAIR, "slow")
    assert len(pairs) == 6
    for number in range(6):
        median, upper = pairs[Subject(SubjectKind.PAIR, f"c{number}", f"10.9.0.{number % 2 + 1}")][
            60, Quantity.BYTES_MEAN
        ]
        assert median == pytest.approx(traffic.sizes[number, -200:].mean(), rel=0.5)
        assert upper >= median
    assert said(store, 420, SubjectKind.HOST, "slow")[Subject(SubjectKind.HOST, "hA")]
    hours = said(store, 420, SubjectKind.PAIR, "long")
    assert {horizon_s for one in hours.values() for horizon_s, _ in one} == {80, 160}


def test_by_default_pairs_are_forecast_up_to_two_hours_ahead():
    tiers = Tiers(CONFIG, background=False)
    assert [one.config.horizons_s for one in tiers.long.values()] == [(1200, 3600, 7200)]
    tiers.close()


def test_without_slow_horizons_there_is_no_slow_tier(store):
    lived(store, 30, SlowTier(horizons_s=()))
    assert store.forecasts.batch(START + 30, 600, tier_of(SubjectKind.PAIR, "slow")) is None

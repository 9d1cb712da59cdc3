"""Of two predictors one forecasts; the other knows what that one knows, and goes on where it ends."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_traffic import START, Recipe, make

from cpdb import Store, open_store
from predictor import PredictorConfig, PredictorReport, run
from predictor.service.duty import LEASE_S, PREDICTING, PredictorTurn, ReadyTiers

CONFIG = PredictorConfig(models=("naive", "ewma", "train_mean"), slow={"horizons_s": ()}, long={"horizons_s": ()})
TRAFFIC = make(3, Recipe(pairs=5, surging=2, seconds=150))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = open_store(f"sqlite:///{tmp_path}/two.db")
    yield one
    one.close()


def test_who_stands_by_forecasts_as_the_other_does_in_its_first_cycle(store: Store) -> None:
    working, waiting = ReadyTiers(CONFIG, background=False), ReadyTiers(CONFIG, background=False)
    for second in range(1, 121):
        now = START + second
        store.facts.add_communications(TRAFFIC.rows(second - 1))
        working.at_work().cycle(store, now)
        if second == 50:
            working.tiers.keep(store, now)
        waiting.stand_by(store, now)
    written = store.forecasts.batch(START + 120, 5)
    assert written is not None and written.issued_at == START + 120
    store.facts.add_communications(TRAFFIC.rows(120))
    for ready in (working, waiting):
        ready.at_work().cycle(store, START + 121)
    pairs = [ready.tiers.pairs for ready in (working, waiting)]
    assert pairs[0].source.subjects == pairs[1].source.subjects
    first, second_ = (one.final for one in pairs)
    assert not np.isnan(second_).any()
    # It has learnt a minute less; it is about the same all the same.
    assert np.median(np.abs(second_ - first) / (1 + np.abs(first))) < 0.3


def test_one_holds_the_lease_and_the_other_has_it_when_it_is_not_renewed(store: Store) -> None:
    one, two = PredictorTurn(store.leases, "one"), PredictorTurn(store.leases, "two")
    for turn in (one, two):
        turn.take()
    assert (one.other, two.other) == (None, "one")
    threading.Event().wait(LEASE_S + 0.1)
    for turn in (two, one):
        turn.take()
    assert (one.other, two.other) == ("two", None)
    two.give_back()
    one.take()
    assert one.other is None


def test_a_database_that_is_away_makes_nobody_stand_by(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/away.db")
    turn = PredictorTurn(store.leases, "one")
    turn.take()
    store.close()
    (tmp_path / "away.db").rename(tmp_path / "elsewhere")
    (tmp_path / "away.db").mkdir()
    turn.take()
    assert turn.other is None


def test_a_loop_beside_another_writes_nothing_and_begins_when_that_one_has_ended(store: Store) -> None:
    store.leases.hold(PREDICTING, "another", store.leases.now(), 60.0)
    stop = threading.Event()
    cycles: list[PredictorReport | None] = []
    loop = threading.Thread(target=run, args=(store, CONFIG, 0.05, stop, cycles.append))
    loop.start()
    try:
        while len(cycles) < 5:
            stop.wait(0.05)
        assert {one.pairs if one is not None else -1 for one in cycles} == {0}
        store.leases.release(PREDICTING, "another")
        end = threading.Event()
        for _ in range(100):
            held = store.leases.holder(PREDICTING, store.leases.now())
            if held is not None and held.holder != "another":
                break
            end.wait(0.1)
        assert held is not None and held.holder != "another"
    finally:
        stop.set()
        loop.join(30)
    assert store.leases.holder(PREDICTING, store.leases.now()) is None


@pytest.mark.long
def test_a_killed_predictor_leaves_no_forecast_older_than_five_seconds(store: Store, tmp_path: Path) -> None:
    pairs, rounds = 1000, 0
    rows = make(5, Recipe(pairs=pairs, surging=100, seconds=60)).rows
    environment = os.environ | {"FOREPATH_DATABASE_URL": str(store.engine.url)}
    argv = [sys.executable, "-m", "forepath", "predict"]
    both = [subprocess.Popen(argv, env=environment, cwd=tmp_path) for _ in range(2)]

    def age_s(seconds: float) -> float:
        """The greatest age of the newest forecast of all pairs within so many seconds, in which all go on talking."""
        nonlocal rounds
        oldest_s, end = 0.0, time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            now = time.time()
            store.facts.add_communications([replace(row, t=now) for row in rows(rounds % 60)])
            rounds += 1
            while time.monotonic() < begun + 1:
                newest = store.forecasts.batch(time.time(), 60)
                whole = newest is not None and len(newest.subjects) >= 0.99 * pairs
                oldest_s = max(oldest_s, time.time() - newest.issued_at if newest is not None and whole else 60.0)
                time.sleep(0.1)
        return oldest_s

    try:
        for _ in range(12):
            if age_s(5) < 5:
                break
        before_s = age_s(10)
        held = store.leases.holder(PREDICTING, store.leases.now())
        assert held is not None
        next(one for one in both if f"/{one.pid}/" in held.holder).kill()
        after_s = age_s(15)
    finally:
        for one in both:
            one.kill()
            one.wait(10)
    print(f"the newest forecast was {before_s:.1f} s old at most before, and {after_s:.1f} s after the kill")
    assert after_s < 5.0

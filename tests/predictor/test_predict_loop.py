"""The loop goes on after a failure and stops when told; settings that make no sense are refused."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_traffic import Recipe, make

from cpdb import Communication, Store, StoredBatch, StoreError, open_store
from predictor import PredictorConfig, run

QUICK = PredictorConfig(models=("naive", "ewma"), history={"min_s": 5})


def fill(store: Store, until: float) -> None:
    """Thirty seconds of traffic that ended at `until`."""
    traffic = make(1, Recipe(pairs=2, seconds=30))
    for second in range(30):
        rows = traffic.rows(second)
        t = until - 30 + second + 1
        store.facts.add_communications(
            [Communication(one.source, one.virtual_ip, None, t, 1.0, one.bytes, one.packets, 1) for one in rows]
        )


def test_the_loop_forecasts_and_stops(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/loop.db")
    fill(store, time.time())
    stop = threading.Event()
    loop = threading.Thread(target=run, args=(store, QUICK, 0.05, stop))
    loop.start()
    end = time.monotonic() + 30
    while not store.forecasts.latest(time.time(), 60) and time.monotonic() < end:
        time.sleep(0.02)
    stop.set()
    loop.join(30)
    assert not loop.is_alive()
    assert {one.horizon_s for one in store.forecasts.latest(time.time(), 60)} == {5, 15, 30}
    store.close()


def test_the_loop_survives_a_store_that_fails_for_a_while(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/loop.db")
    fill(store, time.time())
    healthy, calls, stop = store.facts, [], threading.Event()

    class Shaky:
        """Facts that fail twice before they are read."""

        flow_keys = healthy.flow_keys

        def batches(self, after_id: int, since: float, until: float | None = None) -> list[StoredBatch]:
            calls.append(since)
            if len(calls) <= 2:
                raise StoreError("database: gone for a moment")
            if len(calls) > 3:
                stop.set()
            return healthy.batches(after_id, since, until)

    shaky = replace(store, facts=Shaky())  # type: ignore[arg-type]
    loop = threading.Thread(target=run, args=(shaky, QUICK, 0.02, stop))
    loop.start()
    loop.join(30)
    assert not loop.is_alive()
    assert store.forecasts.latest(time.time(), 60)
    store.close()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"horizons_s": ()}, "horizons_s"),
        ({"levels": (0.9, 0.1)}, "levels"),
        ({"levels": (0.5, 1.0)}, "levels"),
        ({"history": {"window_s": 60}}, "window_s"),
        ({"models": ("ewma", "oracle")}, "oracle"),
        ({"models": ("naive",)}, "ewma"),
        ({"step_s": 0.0}, "step_s"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong, named):
    with pytest.raises(ValueError, match=named):
        PredictorConfig(**wrong)

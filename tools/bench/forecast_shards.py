"""Refreshing all forecasts by shards on several workers: what a pair costs, and whether it costs more among many."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from math import ceil

from cpdb import FlowKey, Store, open_store
from predictor import HistoryLimits, PredictorConfig, WorkLimits, use_one_thread
from predictor.service.crew import DaskCrew
from predictor.service.shards import publish
from predictor.service.workers import give_back_large_arrays
from tools.bench.figures import BenchTarget, Result, median
from tools.bench.forecast import (
    HORIZONS,
    NEVER_AGAIN_S,
    QUANTILES,
    START_S,
    ForecastLoad,
    Tell,
    peak_mib,
    run_apart,
    write_second,
)
from tools.bench.forecast_peers import SyntheticTraffic

# So many pairs make a shard, and so many are what a switch tells of.
SHARD_PAIRS, SWITCH_PAIRS = 50_000, 50_000
# Beside how many pairs the cost of one is judged, and how much more one of many may cost.
FEW_PAIRS, FLAT = 10_000, 1.2
# So much of the past is remembered, and what room it has at least, in bytes a pair and second: predictor/data/panel.py.
WINDOW_S, GRID_BYTES = 120, 40.0


@dataclass(frozen=True, slots=True)
class ShardCosts:
    """Medians of the cycles that were measured; memory is of all workers together, and of the one that publishes."""

    refresh_s: float
    slowest_s: float
    worker_cpu_s: float
    publisher_cpu_s: float
    workers_mib: float
    publisher_mib: float

    def cpu_ms(self, pairs: int) -> float:
        """CPU milliseconds of all processes for 1,000 pairs."""
        return 1e6 * (self.worker_cpu_s + self.publisher_cpu_s) / pairs


def measure_shards(asked: ForecastLoad, tell: Tell) -> Result:
    """Runs as many pairs as are asked for, and a few beside them, each with fresh workers."""
    tell(f"{FEW_PAIRS} pairs, {asked.workers} workers")
    few: ShardCosts | None = None
    if asked.pairs > FEW_PAIRS:
        few, _ = run_apart(_costs, replace(asked, pairs=FEW_PAIRS))
    tell(f"{asked.pairs} pairs, {asked.workers} workers")
    costs: ShardCosts
    costs, _ = run_apart(_costs, asked)
    figures = {
        "shards": float(shards_of(asked.pairs)),
        "refresh_s": costs.refresh_s,
        "slowest_refresh_s": costs.slowest_s,
        "worker_cpu_s": costs.worker_cpu_s,
        "publisher_cpu_s": costs.publisher_cpu_s,
        "cpu_ms_per_1000_pairs": costs.cpu_ms(asked.pairs),
        "workers_peak_mib": costs.workers_mib,
        "publisher_and_traffic_peak_mib": costs.publisher_mib,
    }
    whole_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    targets = [BenchTarget("peak memory, MiB", costs.workers_mib + costs.publisher_mib, whole_mib, "lower")]
    if few is not None:
        figures["cpu_ms_per_1000_of_few_pairs"] = few.cpu_ms(FEW_PAIRS)
        times = costs.cpu_ms(asked.pairs) / few.cpu_ms(FEW_PAIRS)
        targets.append(BenchTarget(f"a pair's CPU, in units of one among {FEW_PAIRS}", times, FLAT, "lower"))
    return Result(figures, targets)


def shards_of(pairs: int) -> int:
    """How many shards so many pairs are best divided into."""
    return ceil(pairs / SHARD_PAIRS)


def _costs(asked: ForecastLoad) -> ShardCosts:
    use_one_thread()
    give_back_large_arrays()
    config = PredictorConfig(
        horizons_s=HORIZONS, levels=QUANTILES, models=asked.models, seed=asked.seed, cycle_s=60,
        slow={"horizons_s": ()}, long={"horizons_s": ()},
        shards={"workers": asked.workers, "count": shards_of(asked.pairs), "copies_mb": 0},
        history=HistoryLimits(window_s=WINDOW_S),
        limits=WorkLimits(
            refit_every_s=NEVER_AGAIN_S, max_pairs=asked.pairs + 1000, threads=1,
            grid_mb=1e-6 * GRID_BYTES * WINDOW_S * asked.pairs,
        ),
    )  # fmt: skip
    crew = DaskCrew(config, background=False)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/shards.db")
        try:
            seconds = _seconds(store, asked)
            for _ in range(min(WINDOW_S, asked.history_s)):
                crew.follow(store, next(seconds))
            for _ in range(asked.warm_up):
                crew.turn(store, next(seconds))
            return _measured(crew, store, seconds, asked.measured)
        finally:
            crew.close()
            store.close()


def _seconds(store: Store, asked: ForecastLoad) -> Iterator[float]:
    """Writes what all pairs said in a second, and says when it was over."""
    talks = [FlowKey(f"c{n // 10}", f"10.{n % 10}.0.1", f"vm{n % 50}") for n in range(asked.pairs)]
    traffic = SyntheticTraffic(asked.pairs, asked.seed)
    for second in count():
        amounts = traffic.second()
        for begin in range(0, asked.pairs, SWITCH_PAIRS):
            part = slice(begin, begin + SWITCH_PAIRS)
            write_second(store, tuple(talks[part]), amounts[:, part], second)
        yield START_S + second + 1


def _measured(crew: DaskCrew, store: Store, seconds: Iterator[float], cycles: int) -> ShardCosts:
    """The last cycles: with what the publisher does, which puts answers together and writes them."""
    assert crew.client is not None
    walls, own, theirs = [], [], []
    for _ in range(cycles):
        now = next(seconds)
        before = sum(crew.client.run(time.process_time).values())
        cpu, wall = time.process_time(), time.perf_counter()
        publish(store, crew.turn(store, now))
        walls.append(time.perf_counter() - wall)
        own.append(time.process_time() - cpu)
        theirs.append(sum(crew.client.run(time.process_time).values()) - before)
    workers_mib = sum(crew.client.run(peak_mib).values())
    return ShardCosts(median(walls), max(walls), median(theirs), median(own), workers_mib, peak_mib())

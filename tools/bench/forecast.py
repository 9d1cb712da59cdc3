"""Refreshing all forecasts of many pairs from the store, next to two forecasting libraries on the same series."""

import multiprocessing
import resource
import tempfile
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from cpdb import Batch, FlowKey, ForepathError, Store, open_store
from predictor import HistoryLimits, Predictor, PredictorConfig, SeriesView, WorkLimits
from tools.bench.figures import BenchTarget, Result, median
from tools.bench.forecast_peers import (
    LEVELS,
    Floats,
    PeerAnswer,
    PeerJob,
    SyntheticTraffic,
    missing,
    mlforecast,
    statsforecast,
)

START_S = 1_700_000_000.0
HORIZONS = (5, 15, 30)
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.97, 0.99)
HISTORY_S = 180
# So many cycles warm up: until each pair has had its turn; so many are measured after them.
MEASURED = 5
# Fitted once, in the first cycle; it runs in a process of its own otherwise and is no part of a refresh.
NEVER_AGAIN_S = 1e9
SECONDS_PER_PAIR, LEAST_LIMIT_S = 0.5 / 10_000, 0.5
# 2 GB
MOST_MIB = 2e9 / 2**20
LEAST_TIMES = 5.0
# Fitting an ARIMA to each pair would take hours: so many are fitted, and the cost of all follows from theirs.
ARIMA_PAIRS = 100
# Networks are asked live about so many pairs at most, with 15 minutes of past.
NETWORKS = ("lstm", "transformer")
NETWORK_PAIRS, NETWORK_CELLS, NETWORK_CPU_S = 1000, 900, 0.1

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ForecastLoad:
    """The size of the bench. `warm_up` cycles come before those that are measured."""

    pairs: int = 10_000
    history_s: int = HISTORY_S
    warm_up: int = 45
    measured: int = MEASURED
    seed: int = 1
    models: tuple[str, ...] = PredictorConfig().models
    peers: bool = True
    workers: int = 1


def measure(asked: ForecastLoad, tell: Tell) -> Result:
    """Runs everyone in a process of its own; `tell` hears what is going on.

    Without peers, by choice or because one is not installed, the figures beside them are absent.
    """
    if asked.peers and missing():
        asked = replace(asked, peers=False)
    tell(f"forepath, {asked.pairs} pairs")
    ours, _ = run_apart(_forepath, asked)
    figures = {f"forepath_{name}": value for name, value in ours.items() if name != "fan"}
    targets = [
        BenchTarget(
            "refresh of all pairs, wall s",
            ours["refresh_s"],
            max(LEAST_LIMIT_S, SECONDS_PER_PAIR * asked.pairs),
            "lower",
        ),
        BenchTarget("peak memory, MiB", ours["peak_mib"], MOST_MIB, "lower"),
    ]
    for name in NETWORKS if asked.pairs >= NETWORK_PAIRS else ():
        tell(f"{name}, {NETWORK_PAIRS} pairs")
        cpu_s, _ = run_apart(_network, replace(asked, models=("ewma", name)))
        figures[f"{name}_query_cpu_s"] = cpu_s
        targets.append(BenchTarget(f"{name} asked about {NETWORK_PAIRS} pairs, CPU s", cpu_s, NETWORK_CPU_S, "lower"))
    if asked.peers:
        figures |= _accuracy("forepath", ours["fan"], asked)
        more, judged = _beside(ours, figures, asked, tell)
        figures, targets = figures | more, targets + judged
    return Result(figures, targets)


def _beside(
    ours: Any, own: dict[str, float], asked: ForecastLoad, tell: Tell
) -> tuple[dict[str, float], list[BenchTarget]]:
    figures: dict[str, float] = {}
    for name, work in (("mlforecast", _mlforecast), ("statsforecast_arima", _statsforecast)):
        tell(f"{name}, {asked.pairs} pairs")
        answer, peak = run_apart(work, asked)
        share = answer.pairs / asked.pairs
        figures |= {
            f"{name}_refresh_cpu_s": answer.refresh_cpu_s / share,
            f"{name}_refresh_s": answer.refresh_s / share,
            f"{name}_fit_cpu_s": answer.fit_cpu_s,
            f"{name}_pairs_measured": float(answer.pairs),
            f"{name}peak_mib": peak,
            **_accuracy(name, answer.fan, asked),
        }
        if share < 1:
            figures |= _accuracy(f"forepath_on_{name}_pairs", ours["fan"][: answer.pairs], asked)
    times = figures["mlforecast_refresh_cpu_s"] / ours["refresh_cpu_s"]
    figures["times_mlforecast_throughput"] = times
    figures["times_statsforecast_throughput"] = figures["statsforecast_arima_refresh_cpu_s"] / ours["refresh_cpu_s"]
    worse = {key: own[f"forepath_{key}"] / figures[f"mlforecast_{key}"] for key in ("wape", "wql")}
    return figures, [
        BenchTarget("times mlforecast's throughput (CPU)", times, LEAST_TIMES, "higher"),
        *(BenchTarget(f"{key}, in units of mlforecast's", value, 1.0, "lower") for key, value in worse.items()),
    ]


def _mlforecast(asked: ForecastLoad) -> PeerAnswer:
    return mlforecast(_job(asked))


def _statsforecast(asked: ForecastLoad) -> PeerAnswer:
    pairs = min(ARIMA_PAIRS, asked.pairs)
    statsforecast(replace(_job(asked), bytes=_job(asked).bytes[:4]), 4)  # compiles on its first call
    return statsforecast(_job(asked), pairs)


def _job(asked: ForecastLoad) -> PeerJob:
    until = _issued_after(asked)
    return PeerJob(SyntheticTraffic(asked.pairs, asked.seed).seconds(until), until, HORIZONS)


def _issued_after(asked: ForecastLoad) -> int:
    return asked.history_s + asked.warm_up + asked.measured


def _accuracy(name: str, fan: Floats, asked: ForecastLoad) -> dict[str, float]:
    """WAPE of the medians and wQL over mean bytes/s of each window, all horizons together, held-out seconds."""
    traffic = SyntheticTraffic(asked.pairs, asked.seed)
    traffic.seconds(_issued_after(asked))
    held = traffic.seconds(HORIZONS[-1])[: len(fan)]
    truth = np.stack([held[:, :horizon].mean(axis=1) for horizon in HORIZONS], axis=1)
    miss = truth[..., None] - fan
    grid = np.array(LEVELS)
    loss = np.maximum(grid * miss, (grid - 1.0) * miss).sum(axis=(0, 1))
    return {
        f"{name}_wape": float(np.abs(miss[..., 1]).sum() / truth.sum()),
        f"{name}_wql": float(2 * loss.mean() / truth.sum()),
        f"{name}_coverage_q90": float((miss[..., 2] <= 0).mean()),
    }


def _forepath(asked: ForecastLoad) -> dict[str, Any]:
    """Cycles of a predictor with a store: what the last ones cost, reading and writing included, and their fans."""
    config = PredictorConfig(
        horizons_s=HORIZONS, levels=QUANTILES, history=HistoryLimits(window_s=max(180, asked.history_s)),
        limits=WorkLimits(refit_every_s=NEVER_AGAIN_S, max_pairs=asked.pairs), models=asked.models, seed=asked.seed,
    )  # fmt: skip
    predictor = Predictor(config, background=False)
    talks = tuple(FlowKey(f"c{n // 10}", f"10.{n % 10}.0.1", f"vm{n % 50}") for n in range(asked.pairs))
    traffic = SyntheticTraffic(asked.pairs, asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/forecast.db")
        try:
            for second in range(asked.history_s):
                write_second(store, talks, traffic.second(), second)
                predictor.source.read(store, START_S + second + 1)
            costs = [_cycle(predictor, store, talks, traffic, asked.history_s + n) for n in range(asked.warm_up)]
            first = costs[0][0]
            costs = [
                _cycle(predictor, store, talks, traffic, asked.history_s + asked.warm_up + n)
                for n in range(asked.measured)
            ]
            return {
                "refresh_cpu_s": median(cpu for cpu, _ in costs),
                "refresh_s": median(wall for _, wall in costs),
                "slowest_refresh_s": max(wall for _, wall in costs),
                "first_cycle_with_fits_cpu_s": first,
                "peak_mib": peak_mib(),  # before the bench itself reads what was forecast
                "fan": _fan(store, START_S + _issued_after(asked), talks) if asked.peers else None,
            }
        finally:
            predictor.close()
            store.close()


def _network(asked: ForecastLoad) -> float:
    """CPU of asking the last of the models about NETWORK_PAIRS pairs. What it learnt does not matter: nothing."""
    predictor = Predictor(PredictorConfig(models=asked.models), background=False)
    network: Any = predictor.models[asked.models[-1]]
    traffic = SyntheticTraffic(NETWORK_PAIRS, asked.seed)
    cells = np.stack([traffic.second() for _ in range(NETWORK_CELLS)], axis=-1)
    view = SeriesView(cells.astype(np.float32), lead=2)
    network.fit_budget_s = 1e-3
    network.fit(view.part(np.arange(8)))
    network.wins = True
    costs = []
    for _ in range(1 + MEASURED):
        began = time.process_time()
        network.predict(view, view.last)
        costs.append(time.process_time() - began)
    return median(costs[1:])


def write_second(store: Store, talks: tuple[FlowKey, ...], amounts: Floats, second: int) -> None:
    """Writes bytes, packets and connections (3 x talks) of a second of one switch, named by the first of its talks."""
    name = f"switch/{talks[0].source}"
    size, packets, connections = (array("q", row.astype(np.int64).tobytes()) for row in amounts)
    batch = Batch(
        name, START_S + second + 1, 1.0, talks, size, packets, connections,
        complete=True, writer=name, seq=second,
    )  # fmt: skip
    store.facts.add_batches([batch])


def _cycle(
    predictor: Predictor, store: Store, talks: tuple[FlowKey, ...], traffic: SyntheticTraffic, second: int
) -> tuple[float, float]:
    write_second(store, talks, traffic.second(), second)
    cpu, wall = time.process_time(), time.perf_counter()
    predictor.cycle(store, START_S + second + 1)
    return time.process_time() - cpu, time.perf_counter() - wall


def _fan(store: Store, now: float, talks: tuple[FlowKey, ...]) -> Floats:
    """What was written last about mean bytes/s: pairs x horizons x LEVELS, in the order of the pairs."""
    batch = store.forecasts.batch(now, 1.0)
    told = 0 if batch is None else len(batch.subjects)
    if batch is None or told != len(talks):
        raise ForepathError(f"forepath: forecasts were written about {told} of {len(talks)} pairs")
    values = np.asarray(batch.array())
    mean = [quantity.value for quantity in batch.quantities].index("bytes_per_s_mean")
    place = {(subject.a, subject.b): row for row, subject in enumerate(batch.subjects)}
    order = [place[talk.source, talk.virtual_ip] for talk in talks]
    return values[order, :, mean][..., [batch.levels.index(level) for level in LEVELS]].astype(np.float64)


def run_apart(work: Callable[[ForecastLoad], Any], asked: ForecastLoad) -> tuple[Any, float]:
    """Runs `work` in a fresh process; returns its result and peak memory in MiB. Raises ForepathError if it fails."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, work, asked))
    process.start()
    theirs.close()
    try:
        result, peak = mine.recv()
    except EOFError:
        raise ForepathError(f"{work.__name__.lstrip('_')}: the process ended without a result") from None
    finally:
        process.join()
    return result, peak


def _child(pipe: Connection, work: Callable[[ForecastLoad], Any], asked: ForecastLoad) -> None:
    from predictor.service.workers import give_back_large_arrays, use_one_thread

    if work in (_forepath, _network):
        # As in `forepath predict`; the cycle has threads of its own.
        use_one_thread()
        give_back_large_arrays()
    result = work(asked)
    pipe.send((result, peak_mib()))
    pipe.close()


def peak_mib() -> float:
    """The most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

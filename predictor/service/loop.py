"""The loop of `forepath predict`: the only place of this room where a clock is read."""

import threading
import time
from collections.abc import Callable

import structlog

from cpdb import SettingsError, Store, StoreError
from predictor.config import PredictorConfig
from predictor.service.cycle import PredictorReport
from predictor.service.duty import PredictorTurn, ReadyTiers
from predictor.service.shards import ShardCrew, ShardedTiers
from predictor.service.tiers import Tiers
from predictor.service.workers import give_back_large_arrays, use_one_thread

log = structlog.get_logger(__name__)


def run(
    store: Store,
    config: PredictorConfig,
    cycle_s: float,
    stop: threading.Event,
    told: Callable[[PredictorReport | None], None] = lambda _report: None,
) -> int:
    """Cycles every `cycle_s` seconds until `stop` is set; a cycle that fails is logged and counted, the next goes on.

    Cycles do not drift: the n-th begins at n * cycle_s after the start. One that takes too long makes the loop
    leave out the beginnings that it missed instead of running after them. While another predictor is on duty, this one
    only keeps ready. `told` hears of every cycle, None where it failed. Returns how many did. Raises SettingsError
    where workers are asked for and Dask is not installed.
    """
    use_one_thread()
    give_back_large_arrays()
    ready, turn = ReadyTiers(config, crew=_crew(config)), PredictorTurn(store.leases)
    turn.take()
    renewing = threading.Thread(target=turn.keep_on, args=(stop,), daemon=True, name="lease")
    renewing.start()
    failed = 0
    next_at = time.monotonic()
    try:
        while not _ended(stop, turn, next_at):
            try:
                told(_step(ready, turn, store))
            except Exception as error:  # noqa: BLE001 - the one outer catch of this loop
                failed += 1
                told(None)
                log.error("cycle failed, going on", error=f"{type(error).__name__}: {error}", failed=failed)
            missed = max(0.0, time.monotonic() - next_at) // cycle_s
            next_at += (missed + 1) * cycle_s
        if turn.other is None:
            _keep(ready.tiers, store)
    finally:
        renewing.join()
        turn.give_back()
        ready.close()
    return failed


def _crew(config: PredictorConfig) -> ShardCrew | None:
    if config.shards.alone:
        return None
    try:
        from predictor.service.crew import DaskCrew
    except ImportError as error:
        raise SettingsError(f"predictor.shards: workers need {error.name}: pip install 'forepath[scale]'") from error
    return DaskCrew(config)


def _ended(stop: threading.Event, turn: PredictorTurn, until: float) -> bool:
    """Waits for the next cycle; whoever is on duty all at once does not."""
    stood_by = turn.other is not None
    while (left := until - time.monotonic()) > 0 and not (stood_by and turn.other is None):
        if stop.wait(min(left, WAKES_S)):
            return True
    return stop.is_set()


def _step(ready: ReadyTiers, turn: PredictorTurn, store: Store) -> PredictorReport:
    if turn.other is not None:
        ready.stand_by(store, time.time())
        return PredictorReport(time.time())
    report = ready.at_work().cycle(store, time.time())
    store.alarms.tell_refusals("predictor", time.time())
    log.debug("cycle", pairs=report.pairs, forecasts=report.forecasts, chosen=dict(report.chosen))
    return report


# How soon one that stands by notices that it is on duty.
WAKES_S = 0.2


def _keep(predictor: Tiers | ShardedTiers, store: Store) -> None:
    try:
        predictor.keep(store, time.time())
    except StoreError as error:
        log.warning("what was learnt is lost", error=str(error))

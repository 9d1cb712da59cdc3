"""The process behind `forepath orchestrate`: the only place of this room's deciding side that reads a clock."""

import gc
import threading
import time
from collections.abc import Callable

import structlog

from cpdb import ForepathError, Seconds
from orchestrator.cycle import CycleReport, Orchestrator

LOG = structlog.get_logger(__name__)


# So many more objects than were let go of are made before rings among them are looked for; by default it is 700.
SELDOM = (50_000, 20, 20)


def collect_seldom() -> None:
    """Tunes this process for cycles: each makes many objects that live as long as it does, and hardly a ring of them.

    Looking for rings as often as by default takes a sixth of a cycle. What is there already, modules above all, stays.
    """
    gc.set_threshold(*SELDOM)
    gc.collect()
    gc.freeze()


def run(
    orchestrator: Orchestrator,
    cycle_s: Seconds,
    stop: threading.Event,
    clock: Callable[[], Seconds] = time.time,
    told: Callable[[CycleReport | None], None] = lambda _report: None,
) -> int:
    """Cycles until `stop` is set, then closes; `told` hears of every cycle, None: it failed. Returns how many did.

    Machines are measured each `cycle_s`; decisions are as far apart as the last one allows.
    """
    collect_seldom()
    failed, decide_at = 0, clock()
    due = clock()
    while not stop.is_set():
        try:
            orchestrator.observe(clock())
            if (now := clock()) >= decide_at:
                decide_at = now
                report = orchestrator.cycle(now)
                decide_at += report.again_s - cycle_s / 2
                told(report)
        except ForepathError as error:
            failed += 1
            told(None)
            LOG.warning("cycle failed", error=str(error), failed=failed)
        except Exception:  # one bad cycle must not end the loop
            failed += 1
            told(None)
            LOG.exception("cycle failed", failed=failed)
        due = max(due + cycle_s, clock())  # a late cycle is not made up for by a burst
        stop.wait(max(0.0, due - clock()))
    orchestrator.close()
    return failed

"""What one kind of action alone would have been worth: recorded load replayed without it and with it, by the minute."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from backtest.whatif.compare import SHORT_BYTES, SHORT_CORES, ReplayTask
from backtest.whatif.cost import price_run, short_cores
from backtest.whatif.engine import ReplayEngine
from backtest.whatif.policies import Progress, play_policy, replay
from backtest.whatif.records import Floats, PolicyRun, ReplayPolicy
from cpdb import EvidenceReport, ReplayedMinute, Seconds, open_store

MINUTE_S = 60
# So many minutes that speak for a kind let it act in a replay whatever the settings ask for.
ENOUGH = 100_000.0


def replayed_minutes(
    task: ReplayTask, kinds: Sequence[str], start: Seconds, progress: Progress = lambda _share: None
) -> dict[str, tuple[ReplayedMinute, ...]]:
    """By kind of action the judged minutes of a task whose first row is that of `start`, the oldest first.

    Only that kind acts, with the live predictor and planner; without it nobody does. `progress` is called each second.
    """
    without = _Priced(task, replay(task.scene, task.load, ReplayPolicy.STATIC, task.seed, progress))
    return {kind: _minutes(task, without, _Priced(task, _alone(task, kind, progress)), start) for kind in kinds}


def _alone(task: ReplayTask, kind: str, progress: Progress) -> PolicyRun:
    """A replay in which a single kind of action has earned to act."""
    learning = {"earn_over_s": ENOUGH * MINUTE_S, "earn_least": 1}
    scene = replace(task.scene, orchestrator=task.scene.orchestrator.tuned(act="earned", learning=learning))
    with TemporaryDirectory(prefix="forepath-whatif-") as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'cpdb.db'}")
        try:
            store.inventory.declare_virtual_ips(scene.virtual_ips)
            engine = ReplayEngine(scene, task.load, store, task.seed)
            proven = ReplayedMinute(engine.begins_at, 1.0, 1.0, 1.0, 1.0, 0.0)
            store.wanted.observe([EvidenceReport(kind, (proven,), engine.begins_at)])
            return play_policy(engine, ReplayPolicy.PREDICTIVE, progress)
        finally:
            store.close()


class _Priced:
    """By second of a run: whether something was short, what it cost, and the cores allotted."""

    def __init__(self, task: ReplayTask, run: PolicyRun) -> None:
        cost = price_run(task.scene, task.load, run, task.judged)
        short = (cost.short_bytes > SHORT_BYTES).any(axis=1) | (short_cores(run.vms) > SHORT_CORES).any(axis=1)
        self.short: Floats = np.asarray(short, dtype=np.float64)
        self.cost: Floats = cost.by_second(task.cost_of_short)
        self.cores: Floats = np.asarray(run.vms.allowed.sum(axis=1))


def _minutes(task: ReplayTask, without: _Priced, alone: _Priced, start: Seconds) -> tuple[ReplayedMinute, ...]:
    spared, gain, more_cores = without.short - alone.short, without.cost - alone.cost, alone.cores - without.cores
    rows = np.stack([without.short, spared, gain, without.cores, more_cores])
    judged = np.flatnonzero(task.judged)
    # Minutes of the clock, so that those of overlapping replays are the same.
    minute_of = (judged + round(start)) // MINUTE_S
    return tuple(
        ReplayedMinute(float(minute * MINUTE_S), *rows[:, judged[minute_of == minute]].sum(axis=1).tolist())
        for minute in np.unique(minute_of).tolist()
    )

"""The demo's traffic as a recording, replayed: where no lab can be had, and beside what was measured in one.

Predictor, orchestrator and database are the live ones; time is virtual, so nothing depends on how fast this machine is.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np

from backtest.whatif import (
    EPOCH_S,
    SHORT_BYTES,
    SHORT_CORES,
    Comparison,
    PolicyRun,
    ReplayEngine,
    ReplayPolicy,
    ReplayTask,
    compare_runs,
    play_policy,
    read_load,
    replay,
    short_cores,
    weighted_quantile,
)
from cpdb import Store, open_store
from forepath import processes
from forepath.demo.cpu_need import CpuAccount, Price, rooms
from forepath.demo.layout import LabLayout
from forepath.demo.report import PolicyFigures, ReplayedTrial, TrialResult
from forepath.demo.results import TIMEOUT_S, at_unix
from forepath.demo.scene import as_toml, pooled, scene
from forepath.demo.schedule import WARM_UP, JudgedWindow, Phases, PolicySegment, Schedule, make_schedule, nominal_ms
from forepath.demo.screen import Screen, state_table
from forepath.settings import Settings, declare
from predictor import PredictorConfig

ORDER = (ReplayPolicy.PREDICTIVE, ReplayPolicy.REACTIVE, ReplayPolicy.STATIC)
SEED = 1
# A burning machine would like more than any quota gives it.
BURN_CORES = 1.0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How long the trial is, and the predictor's settings where they are not those of the settings file."""

    phases: Phases = field(default_factory=lambda: Phases(policies=tuple(policy.value for policy in ORDER)))
    predictor: PredictorConfig | None = None


class SimulatedTrial:
    """One run of the demo in virtual time: warm-up and surges once for each policy, on a scene that begins anew."""

    def __init__(
        self, seed: int, scenario: str, directory: Path, screen: Screen, rehearsal: Rehearsal = Rehearsal()
    ) -> None:
        self.layout, self.screen, self.directory = LabLayout(), screen, directory.resolve()
        self.schedule = make_schedule(seed, scenario, rehearsal.phases, self.layout)
        uris = {host.name: f"simulated:///{host.name}" for host in self.layout.hypervisors}
        declared = scene(self.layout, self.directory / "cpdb.db", uris, {}, nominal_ms(self.schedule))
        self.settings = pooled(declared, self.layout) if scenario == "crowd" else declared
        self._predictor = rehearsal.predictor

    def run(self) -> TrialResult:
        """Plays the schedule under each policy."""
        task = replay_task(self.schedule, self.settings, self.directory)
        if self._predictor is not None:
            task = replace(task, scene=replace(task.scene, predictor=self._predictor))
        runs, actions = [], []
        for number, policy in enumerate(ORDER):
            store = self._open(policy)
            try:
                runs.append(self._play(task, store, policy, number))
                actions += store.journal.actions()
            finally:
                store.close()
        replayed = replay_trial(task, self.schedule, runs, self.screen)
        windows = tuple(at_unix(_windows(self.schedule), EPOCH_S))
        measured = {name: figures for name, figures in replayed.policies.items() if name != ReplayPolicy.ORACLE}
        own = tuple(one for one in actions if one.issued_at >= EPOCH_S + task.warm_up_s)
        schedule = self.schedule
        return TrialResult(schedule.seed, schedule.scenario, True, measured, own, windows, Price(), replayed)

    def _open(self, policy: ReplayPolicy) -> Store:
        """The database that commands read is that of the predictive run."""
        name = "cpdb" if policy is ReplayPolicy.PREDICTIVE else policy.value
        store = open_store(f"sqlite:///{self.directory / name}.db")
        declare(self.settings, store)
        return store

    def _play(self, task: ReplayTask, store: Store, policy: ReplayPolicy, number: int) -> PolicyRun:
        now = [EPOCH_S]
        self.screen.watch(lambda: state_table(store, now[0]))

        def told(share: float) -> None:
            now[0] = EPOCH_S + share * task.load.seconds
            self.screen.step(f"simulated traffic is running: {policy.value}", (number + share) / (len(ORDER) + 1))

        return play_policy(ReplayEngine(task.scene, task.load, store, SEED), policy, told)


def replay_task(schedule: Schedule, settings: Settings, directory: Path, idle_cores: float = 0.0) -> ReplayTask:
    """Warm-up and first segment as a recording, `offered.csv` and `forepath.toml` there: all segments are alike.

    `idle_cores` are those that a serving machine takes beside its requests.
    """
    segment = _judged(schedule)
    recording, file = directory / "offered.csv", directory / "forepath.toml"
    file.write_text(as_toml(settings), encoding="utf-8")
    layout = LabLayout()
    served = {vm.name: idle_cores for vm in layout.vms if vm.service is not None and vm.priority > 0 and idle_cores}
    cores = served | {vm.name: BURN_CORES for vm in layout.vms if vm.burn_percent > 0}
    write_offered(schedule, cores, recording, int(segment.end_s))
    replayed = processes.replay_scene(settings)
    load = read_load(recording, replayed)
    return ReplayTask(str(recording), str(file), replayed, load, ceil(segment.start_s), SEED)


def write_offered(schedule: Schedule, cores: Mapping[str, float], path: Path, seconds: int) -> None:
    """What the clients ask for in each second, whatever becomes of it, as `forepath whatif` reads it.

    `cores` are those that machines want beside requests, by name.
    """
    rows: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    for client, requests in schedule.requests.items():
        for request in requests:
            if (t := int(request.at_s)) < seconds:
                name = f"{client}>{request.service}"
                rows.setdefault(name, np.zeros(seconds))[t] += request.bytes
                rows.setdefault(f"{name}:connections", np.zeros(seconds))[t] += 1
    for stream in schedule.streams:
        rows[f"{stream.client}>{stream.service}"] = np.array([stream.rate_at(t) for t in range(seconds)])
    rows |= {f"vm:{name}:cores": np.full(seconds, wanted) for name, wanted in cores.items()}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["t", *rows])
        writer.writerows([t, *(f"{values[t]:.10g}" for values in rows.values())] for t in range(seconds))


def replay_trial(
    task: ReplayTask,
    schedule: Schedule,
    runs: Sequence[PolicyRun],
    screen: Screen,
    policies: Sequence[ReplayPolicy] = tuple(ReplayPolicy),
) -> ReplayedTrial:
    """What each policy makes of a trial's traffic in a replay; those that `runs` lacks are replayed here."""
    done = {run.policy: run for run in runs}
    for number, policy in enumerate(policies):
        if policy not in done:
            say = f"what if: replaying the traffic under {policy.value}"
            told = partial(_told_share, screen, say, number / len(policies), len(policies))
            done[policy] = replay(task.scene, task.load, policy, SEED, told)
    found = compare_runs(task, [done[policy] for policy in policies])
    figures = {policy.value: replayed_figures(found, policy, schedule, LabLayout()) for policy in policies}
    return ReplayedTrial(figures, found.document())


def _told_share(screen: Screen, say: str, before: float, parts: int, share: float) -> None:
    screen.step(say, before + share / parts)


def replayed_figures(found: Comparison, policy: ReplayPolicy, schedule: Schedule, layout: LabLayout) -> PolicyFigures:
    """The demo's figures, out of a replay: seconds of its surges by what waits or is short in them."""
    run, load = found.runs[policy], found.task.load
    seconds = [t for one in _windows(schedule) for t in range(load.seconds) if one.start_s <= t + 0.5 < one.end_s]
    services = {one.service for one in _windows(schedule)}
    own = [at for at, pair in enumerate(load.pairs) if _service(schedule, pair.virtual_ip) in services]
    surging, after = np.ix_(seconds, own), np.ix_(_seconds_after(_windows(schedule), load.seconds), own)
    offered, served = float(run.pairs.need[surging].sum()), run.delivered_bytes[after]
    # What is delivered just after a surge, beyond what is asked for then, was asked for in it.
    late = served * max(0.0, 1.0 - float(run.pairs.need[after].sum()) / max(1.0, float(served.sum())))
    delivered = np.append(run.delivered_bytes[surging], late)
    lost = max(0.0, offered - float(delivered.sum()))
    # A client counts as lost what takes longer.
    delays = np.append(np.append(run.latency_s[surging], run.latency_s[after]), TIMEOUT_S)
    vms = [at for at, vm in enumerate(run.vms.names) if layout.vm(vm).service in services]
    return PolicyFigures(
        offered_bytes=round(offered),
        delivered_bytes=round(offered - lost),
        p95_latency_s=weighted_quantile(np.minimum(delays, TIMEOUT_S), np.append(delivered, lost), 0.95)
        if offered
        else None,
        short_bandwidth_s=float((found.costs[policy].short_bytes[surging] > SHORT_BYTES).any(axis=1).sum()),
        short_cpu_s=float((short_cores(run.vms)[np.ix_(seconds, vms)] > SHORT_CORES).any(axis=1).sum()),
        competing_share=found.document()["policies"][policy.value]["competitors_delivered_share"],
        cpu=_account(found, run, layout),
    )


def _seconds_after(windows: Sequence[JudgedWindow], seconds: int) -> list[int]:
    """The seconds in which what a surge asked for may still be served."""
    return [t for one in windows for t in range(seconds) if one.end_s <= t + 0.5 < one.end_s + TIMEOUT_S + 1]


def _account(found: Comparison, run: PolicyRun, layout: LabLayout) -> CpuAccount:
    """Over all judged seconds; what was allotted is what machines might use."""
    judged, room = found.task.judged, rooms(layout)
    lacking, need = short_cores(run.vms)[judged], run.vms.need[judged]
    served = [(at, vm) for at, vm in enumerate(run.vms.names) if layout.vm(vm).service is not None]
    short = lacking > SHORT_CORES

    def by_vm(seconds: Mapping[int, float]) -> dict[str, float]:
        return {vm: seconds[at] for at, vm in served}

    return CpuAccount(
        by_vm({at: float(short[:, at].sum()) for at, _ in served}),
        by_vm({at: round(float(lacking[:, at].sum()), 1) for at, _ in served}),
        by_vm({at: float((short[:, at] & (need[:, at] > room[vm])).sum()) for at, vm in served}),
        round(float(run.vms.allowed[judged].sum()), 1),
        round(float(run.vms.used[judged].sum()), 1),
    )


def _judged(schedule: Schedule) -> PolicySegment:
    """The first segment after the warm-up; all others repeat its traffic."""
    return next(segment for segment in schedule.segments if segment.name != WARM_UP)


def _windows(schedule: Schedule) -> list[JudgedWindow]:
    return [window for window in schedule.windows if window.segment == _judged(schedule).name]


def _service(schedule: Schedule, address: str) -> str:
    return next(name for name, own in schedule.addresses.items() if own == address)

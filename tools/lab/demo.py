"""The demo on real switches and VMs: the same commands that a user types, started one after the other on a stage."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from backtest.whatif import ReplayPolicy, recorded_durations
from cpdb import LabError, Store, open_store
from forepath import processes
from forepath.demo.cpu_need import Price, Span, account, offered, price, rooms
from forepath.demo.report import PolicyFigures, ReplayedTrial, TrialResult
from forepath.demo.results import at_unix, delivered_share, read_played, read_samples, shortage, summarise
from forepath.demo.scene import as_toml, pooled, scene
from forepath.demo.schedule import WARM_UP, Phases, Schedule, make_schedule, nominal_ms
from forepath.demo.screen import Screen, state_table
from forepath.demo.simulated import replay_task, replay_trial
from forepath.settings import Settings, declare
from orchestrator import LibvirtPool
from tools.lab.lab import Lab, Sampler

# The predictive policy is measured first: it has then seen the warm-up, whose draws differ, and nothing of the test.
ORDER = ("predictive", "reactive", "static")
ANSWER_S = 40.0
HEAD_START_S = 4.0
ENDING_S = 60.0
LOOK_EVERY_S = 0.25
# What building the lab takes of the whole demo, for the progress bar.
BUILDING_SHARE = 0.06
PYTHON = sys.executable
PLAYED = "played-{}.jsonl"


def lay_to_rest(settings: Settings, store: Store) -> None:
    """Puts machines of pools to where they are while nobody needs them. Raises DriverError and StoreError."""
    config = processes.orchestrator_config(settings, act=False)
    if not config.declared.pools:
        return
    driver = LibvirtPool(config.declared.hosts)
    try:
        for pool in config.declared.pools:
            for one in pool.members:
                driver.rest(pool, one, one.how, time.time())
                store.inventory.forget_change(pool.virtual_ip, one.vm)
    finally:
        driver.close()


class RealTrial:
    """One run of the demo. Use inside a stage; everything is started through the lab and ends with it."""

    def __init__(
        self, seed: int, scenario: str, directory: Path, screen: Screen, phases: Phases = Phases(policies=ORDER)
    ) -> None:
        self.directory = directory.resolve()
        self.screen = screen
        self.lab = Lab(run_directory=self.directory)
        self.schedule: Schedule = make_schedule(seed, scenario, phases, self.lab.layout)
        self.store: Store | None = None
        self.settings: Settings | None = None
        self.start_at = 0.0
        self._orchestrator: subprocess.Popen[bytes] | None = None
        self._sunk: list[int] = []
        self._settings = ("--settings", str(self.directory / "forepath.toml"))

    def run(self) -> TrialResult:
        """Builds the lab, plays the schedule under each policy, measures. Raises LabError with one line."""
        with self.lab:
            self.lab.start(lambda text, share: self.screen.step(text, BUILDING_SHARE * share))
            self._declare()
            self._start_control()
            self._play()
            self.screen.step("measuring is over: taking the lab down", 1.0)
            self._end_orchestrator()
        return self._result()

    def _declare(self) -> None:
        database = self.directory / "cpdb.db"
        cost = nominal_ms(self.schedule)
        declared = scene(self.lab.layout, database, self.lab.uris, self.lab.migration_uris, cost)
        crowded = self.schedule.scenario == "crowd"
        settings = self.settings = pooled(declared, self.lab.layout) if crowded else declared
        (self.directory / "forepath.toml").write_text(as_toml(settings), encoding="utf-8")
        self.schedule.save(self.directory / "schedule.json")
        self.store = open_store(settings.database.url)
        declare(settings, self.store)
        lay_to_rest(settings, self.store)

    def _start_control(self) -> None:
        self.screen.step("starting the controller")
        program = processes.controller_program(self.directory / "forepath.toml")
        self.lab.popen(program.name, program.argv, program.environment)
        self.screen.step("waiting until every virtual IP answers")
        services = [service.address for service in self.lab.layout.services]
        self._wait_for_answers(services)
        self.lab.popen("predictor", [PYTHON, "-m", "forepath", "predict", *self._settings])

    def _wait_for_answers(self, services: list[str]) -> None:
        probe = [PYTHON, "-m", "tools.lab.probe", "--for", f"{ANSWER_S:g}", *services]
        probes = {
            one.name: self.lab.client_popen(one.name, probe, f"probe-{one.name}") for one in self.lab.layout.clients
        }
        silent = [name for name, process in probes.items() if process.wait(ANSWER_S + 20) != 0]
        if silent:
            raise LabError(
                f"from {', '.join(silent)} a virtual IP does not answer; see {self.directory}/controller.log"
            )

    def _play(self) -> None:
        self.start_at = time.time() + HEAD_START_S
        (self.directory / "start_at").write_text(repr(self.start_at))
        for client in {*self.schedule.requests, *(one.client for one in self.schedule.streams)}:
            self.lab.client_popen(client, self._traffic(client))
        sampler = Sampler(self.lab, self.directory / "samples.jsonl")
        sampler.start()
        store = self.store
        assert store is not None
        self.screen.watch(lambda: state_table(store, time.time()))
        try:
            for segment in self.schedule.segments:
                self._take_over(segment.name)
                self._wait_until(segment.end_s, segment.name)
            self._sunk.append(self._sink_bytes())
            self._wait_until(self.schedule.duration_s, "last answers")
        finally:
            sampler.stop()

    def _traffic(self, client: str) -> list[str]:
        return [
            PYTHON, "-m", "tools.lab.traffic", "--schedule", str(self.directory / "schedule.json"),
            "--client", client, "--start-at", repr(self.start_at), "--spins-per-ms", repr(self.lab.spins_per_ms),
            "--out", str(self.directory / PLAYED.format(client)),
        ]  # fmt: skip

    def _take_over(self, segment: str) -> None:
        """Ends the policy before, puts everything back as it was, and lets the next policy begin."""
        self.screen.step(f"{segment}: putting the lab back to where it began")
        self._end_orchestrator()
        assert self.store is not None and self.settings is not None
        self.store.wanted.clear(time.time())
        self.lab.machines.reset()
        lay_to_rest(self.settings, self.store)
        self._sunk.append(self._sink_bytes())
        acting = ["--act", "--policy", segment] if segment in ("predictive", "reactive") else []
        argv = [PYTHON, "-m", "forepath", "orchestrate", *self._settings, *acting]
        self._orchestrator = self.lab.popen("orchestrator", argv)

    def _end_orchestrator(self) -> None:
        if self._orchestrator is not None and self._orchestrator.poll() is None:
            self._orchestrator.send_signal(signal.SIGTERM)
            try:
                self._orchestrator.wait(ENDING_S)
            except subprocess.TimeoutExpired as error:
                self._orchestrator.kill()
                told = f"see {self.directory}/orchestrator.log"
                raise LabError(f"the orchestrator did not end within {ENDING_S:g} s; {told}") from error

    def _sink_bytes(self) -> int:
        return int(self.lab.machines.stat("backup1")["sink_bytes"])

    def _wait_until(self, second: float, segment: str) -> None:
        while (left := self.start_at + second - time.time()) > 0:
            done = max(0.0, (time.time() - self.start_at) / self.schedule.duration_s)
            share = BUILDING_SHARE + (1.0 - BUILDING_SHARE) * done
            self.screen.step(f"traffic is running: {segment}", share)
            self._check_alive()
            time.sleep(min(LOOK_EVERY_S, left))

    def _check_alive(self) -> None:
        process = self._orchestrator
        if process is not None and process.poll() not in (None, 0):
            raise LabError(f"the orchestrator ended with {process.returncode}; see {self.directory}/orchestrator.log")

    def replay(self, price: Price, policies: Sequence[ReplayPolicy] = tuple(ReplayPolicy)) -> ReplayedTrial:
        """What a replay makes of the traffic that was played, with the CPU and the lead times that were measured."""
        assert self.store is not None and self.settings is not None
        paid = {name: price.factor * ms for name, ms in nominal_ms(self.schedule).items()}
        vms = [vm.model_copy(update=paid) if vm.cpu_ms_per_connection else vm for vm in self.settings.vm]
        settings = self.settings.model_copy(update={"vm": tuple(vms)})
        task = replay_task(self.schedule, settings, self.directory, price.idle_cores)
        task = replace(task, scene=replace(task.scene, durations_s=recorded_durations(self.store)))
        return replay_trial(task, self.schedule, (), self.screen, policies)

    def _result(self) -> TrialResult:
        assert self.store is not None
        windows = at_unix(self.schedule.windows, self.start_at)
        played = read_played(self.directory / PLAYED.format(client) for client in self.schedule.requests)
        samples = read_samples(self.directory / "samples.jsonl")
        works = offered(self.schedule, self.lab.layout, self.start_at)
        cost = price(samples, works)
        figures = {}
        for number, segment in enumerate(self.schedule.segments):
            if segment.name == WARM_UP:
                continue
            own = [window for window in windows if window.segment == segment.name]
            summary = summarise(played, own)
            short = shortage(samples, played, own, self.lab.layout)
            span = Span(self.start_at + segment.start_s, self.start_at + segment.end_s)
            figures[segment.name] = PolicyFigures(
                offered_bytes=summary.offered_bytes,
                delivered_bytes=summary.delivered_bytes,
                p95_latency_s=summary.p95_latency_s,
                short_bandwidth_s=short.short_bandwidth_s,
                short_cpu_s=short.short_cpu_s,
                competing_share=self._competing_share(number),
                cpu=account(samples, works, cost, span, rooms(self.lab.layout)),
            )
        actions = tuple(self.store.journal.actions())
        schedule = self.schedule
        return TrialResult(schedule.seed, schedule.scenario, False, figures, actions, tuple(windows), cost)

    def _competing_share(self, number: int) -> float | None:
        segment = self.schedule.segments[number]
        sent = sum(stream.sent_bytes(segment.start_s, segment.end_s) for stream in self.schedule.streams)
        return delivered_share(int(sent), self._sunk[number + 1] - self._sunk[number])

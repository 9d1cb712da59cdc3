"""The demo without a lab: predictor, orchestrator and database as they are, on simulated switches and machines.

Time is virtual, so that nothing depends on how fast this machine is. Figures from here are labelled as simulated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cpdb import (
    CONTROLLER,
    Communication,
    InstallStatus,
    LinkLoad,
    Node,
    NodeKind,
    ObservedRecord,
    Pair,
    ReservationReport,
    Store,
    WeightsReport,
    open_store,
)
from forepath import processes
from forepath.demo.cpu_need import Price, Span, account, offered, rooms
from forepath.demo.fluid import Flow, Fluid, FluidJob, Second
from forepath.demo.layout import LabLayout
from forepath.demo.report import PolicyFigures, TrialResult
from forepath.demo.results import Played, Sample, at_unix, summarise
from forepath.demo.scene import as_toml, scene
from forepath.demo.schedule import JudgedWindow, Phases, PolicySegment, Request, make_schedule, request_cpu_s
from forepath.demo.screen import Screen, state_table
from forepath.settings import declare
from orchestrator import FakeHypervisors, FakeVm, Orchestrator
from predictor import Predictor, PredictorConfig

ORDER = ("predictive", "reactive", "static")
# Any moment will do: time is virtual. This one is 2023-11-14 22:13:20 UTC.
EPOCH_S = 1_700_000_000.0
STEP_S = 1.0
BYTES_PER_PACKET = 1000
# A burning machine would like more than any quota gives it.
BURN_CORES = 1.0
Short = Callable[[Second, str, LabLayout], bool]


@dataclass(slots=True)
class SimulatedController:
    """What the controller does for the loop: meters stand while their lease does, and it reports what it installed."""

    store: Store
    limits: dict[Pair, float] = field(default_factory=dict)

    def poll(self, now: float) -> None:
        """Reads what is wanted and makes it so."""
        held = self.store.wanted.reservations(now)
        self.limits = {}
        for one in held:
            for limit in one.limits:
                self.limits[limit.pair] = min(limit.bytes_per_s, self.limits.get(limit.pair, float("inf")))
        made = InstallStatus.INSTALLED, "simulated", now
        rows: list[ObservedRecord] = [ReservationReport(one.key, "leaf1", one.generation, *made) for one in held]
        # Each service has one destination that is not on stand-by: whatever its weight, all go there.
        weights = self.store.wanted.weights()
        rows += [WeightsReport(one.virtual_ip, CONTROLLER, one.generation, *made) for one in weights]
        self.store.wanted.observe(rows)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How long the trial is, and the predictor's settings where they are not those of the settings file."""

    phases: Phases = field(default_factory=lambda: Phases(policies=ORDER))
    predictor: PredictorConfig | None = None


class SimulatedTrial:
    """One run of the demo in virtual time."""

    def __init__(
        self, seed: int, scenario: str, directory: Path, screen: Screen, rehearsal: Rehearsal = Rehearsal()
    ) -> None:
        self.layout = LabLayout()
        self.screen = screen
        self.schedule = make_schedule(seed, scenario, rehearsal.phases, self.layout)
        uris = {host.name: f"simulated:///{host.name}" for host in self.layout.hypervisors}
        self.settings = scene(self.layout, directory.resolve() / "cpdb.db", uris, {})
        (directory / "forepath.toml").write_text(as_toml(self.settings), encoding="utf-8")
        self.foreseeing = rehearsal.predictor or processes.predictor_config(self.settings)
        self.store = open_store(self.settings.database.url)
        self.controller = SimulatedController(self.store)
        self.fluid = Fluid({host.name: host.access_bytes_per_s for host in self.layout.hypervisors})
        self.now = EPOCH_S
        self._wanted: Mapping[str, float] = {}
        self._ended: list[FluidJob] = []
        self._seconds: list[tuple[float, Second]] = []
        self._samples: list[Sample] = []

    def run(self) -> TrialResult:
        """Plays the whole schedule under each policy."""
        declare(self.settings, self.store)
        self._place_machines()
        predictor = Predictor(self.foreseeing, background=False)
        self.screen.watch(lambda: state_table(self.store, self.now))
        try:
            for segment in self.schedule.segments:
                self._play(segment, predictor)
        finally:
            predictor.close()
        return self._result()

    def _place_machines(self) -> None:
        ports = {host.name: (host.switch, host.port) for host in self.layout.hypervisors}
        self.store.inventory.put_nodes(
            Node(vm.name, NodeKind.VM, attached_to=ports[vm.host][0], port=ports[vm.host][1]) for vm in self.layout.vms
        )

    def _play(self, segment: PolicySegment, predictor: Predictor) -> None:
        self.store.wanted.clear(self.now)
        hypervisors = self._hypervisors()
        orchestrator = self._orchestrator(segment.name, hypervisors)
        while self.now - EPOCH_S < segment.end_s:
            self.screen.step(
                f"simulated traffic is running: {segment.name}", (self.now - EPOCH_S) / self.schedule.duration_s
            )
            second = self._advance(hypervisors)
            self._write(second)
            predictor.cycle(self.store, self.now)
            orchestrator.observe(self.now)
            orchestrator.cycle(self.now)
            self.controller.poll(self.now)
        orchestrator.close()

    def _hypervisors(self) -> FakeHypervisors:
        config = processes.orchestrator_config(self.settings, act=False)
        machines = {
            vm.name: FakeVm(vm.name, vm.host, vm.quota_cores, vm.vcpus, vm.max_vcpus, vm.memory_bytes)
            for vm in self.layout.vms
        }
        return FakeHypervisors({host.name: host for host in config.declared.hosts}, machines, self._work)

    def _orchestrator(self, segment: str, hypervisors: FakeHypervisors) -> Orchestrator:
        acts = segment in ("predictive", "reactive")
        config = processes.orchestrator_config(self.settings, acts, segment if acts else None)
        return processes.make_orchestrator(config, self.store, lambda: self.now, hypervisors)

    def _work(self, vm: str, _now: float) -> float:
        burns = self.layout.vm(vm).burn_percent > 0
        return BURN_CORES if burns else self._wanted.get(vm, 0.0)

    def _advance(self, hypervisors: FakeHypervisors) -> Second:
        where = {vm.name: hypervisors.machines[vm.name].host for vm in self.layout.vms}
        before, self.now = self.now, self.now + STEP_S

        def grant(wanted: Mapping[str, float]) -> Mapping[str, float]:
            self._wanted = wanted
            return {vm: hypervisors.used(vm, self.now) for vm in wanted}

        second = self.fluid.advance(before, self._arrivals(before), self._flows(before), where, grant)
        # From here on the machines' load is what they did, no longer what they could have done.
        self._wanted = second.used_cores
        self._ended += second.ended
        self._seconds.append((self.now, second))
        self._samples.append(self._sample(second, hypervisors))
        return second

    def _sample(self, second: Second, hypervisors: FakeHypervisors) -> Sample:
        """What a control group would have counted till now; the limit is of a single virtual CPU and of all."""
        last = self._samples[-1] if self._samples else Sample(self.now)
        vms = {}
        hosts = {name: last.hosts.get(name, (0.0, 0.0, 0.0))[0] for name in hypervisors.hosts}
        for name, one in hypervisors.machines.items():
            used, held = last.vms[name][:2] if name in last.vms else (0.0, 0.0)
            got = hypervisors.used(name, self.now)
            lacks = max(0.0, second.wanted_cores.get(name, 0.0) - got)
            hosts[one.host] += got * STEP_S
            limit = one.cores_limit
            vms[name] = (used + got * STEP_S, held + min(STEP_S, lacks), limit / one.vcpus, one.host, limit)
        capacities = {name: host.cpu_cores_capacity for name, host in hypervisors.hosts.items()}
        return Sample(self.now, {}, vms, {name: (used, 0.0, capacities[name]) for name, used in hosts.items()})

    def _arrivals(self, since: float) -> list[FluidJob]:
        first = since - EPOCH_S
        return [
            _job(Pair(client, self.schedule.addresses[request.service]), self._vm_of(request.service), request)
            for client, requests in self.schedule.requests.items()
            for request in requests
            if first <= request.at_s < first + STEP_S
        ]

    def _vm_of(self, service: str) -> str:
        weights = self.layout.service(service).weights
        return max(weights, key=lambda name: weights[name])

    def _flows(self, since: float) -> list[Flow]:
        flows = []
        for stream in self.schedule.streams:
            pair = Pair(stream.client, self.schedule.addresses[stream.service])
            offered = stream.rate_at(since - EPOCH_S)
            limit = self.controller.limits.get(pair, float("inf"))
            flows.append(Flow(pair, self._vm_of(stream.service), offered, limit))
        return flows

    def _write(self, second: Second) -> None:
        names = {address: self._vm_of(service) for service, address in self.schedule.addresses.items()}
        talkers = [Pair(client, address) for client in self.schedule.requests for address in list(names)[:2]]
        rows = [_row(pair, second, names[pair.virtual_ip], self.now) for pair in {*talkers, *second.sent_bytes}]
        self.store.facts.add_communications(rows)
        access = {host.name: host.switch for host in self.layout.hypervisors}
        self.store.facts.add_loads(
            LinkLoad(access[host], host, self.now, STEP_S, int(size), int(size / BYTES_PER_PACKET))
            for host, size in second.link_bytes.items()
        )

    def _result(self) -> TrialResult:
        windows = at_unix(self.schedule.windows, EPOCH_S)
        names = {address: service for service, address in self.schedule.addresses.items()}
        played = [
            Played(
                job.pair.source, names[job.pair.virtual_ip], job.scheduled_at, job.scheduled_at, job.latency_s,
                job.bytes, job.surge,
            )
            for job in self._ended
        ]  # fmt: skip
        works = offered(self.schedule, self.layout, EPOCH_S)
        figures = {}
        for segment in self.schedule.segments[1:]:
            own = [window for window in windows if window.segment == segment.name]
            summary = summarise(played, own)
            figures[segment.name] = PolicyFigures(
                offered_bytes=summary.offered_bytes,
                delivered_bytes=summary.delivered_bytes,
                p95_latency_s=summary.p95_latency_s,
                short_bandwidth_s=self._seconds_of(own, _link_full),
                short_cpu_s=self._seconds_of(own, _cpu_short),
                # What a request costs is what the schedule says: there is nothing to measure.
                cpu=account(self._samples, works, Price(), _span(segment), rooms(self.layout)),
            )
        actions = tuple(self.store.journal.actions())
        return TrialResult(self.schedule.seed, self.schedule.scenario, True, figures, actions, tuple(windows))

    def _seconds_of(self, windows: list[JudgedWindow], short: Short) -> float:
        vms = {window.service: self._vm_of(window.service) for window in windows}
        return float(
            sum(
                short(second, vms[window.service], self.layout)
                for window in windows
                for t, second in self._seconds
                if window.start_s < t <= window.end_s
            )
        )


def _job(pair: Pair, vm: str, request: Request) -> FluidJob:
    at, cpu_s = EPOCH_S + request.at_s, request_cpu_s(request)
    return FluidJob(pair, vm, at, request.bytes, cpu_s, request.surge)


def _row(pair: Pair, second: Second, vm: str, now: float) -> Communication:
    size = int(second.sent_bytes.get(pair, 0.0))
    packets = -(-size // BYTES_PER_PACKET)
    new = second.connections.get(pair, 0)
    return Communication(pair.source, pair.virtual_ip, vm, now, STEP_S, size, packets, new)


def _span(segment: PolicySegment) -> Span:
    return Span(EPOCH_S + segment.start_s, EPOCH_S + segment.end_s)


def _link_full(second: Second, vm: str, layout: LabLayout) -> bool:
    return second.link_full.get(layout.vm(vm).host, False)


def _cpu_short(second: Second, vm: str, _layout: LabLayout) -> bool:
    return second.wanted_cores[vm] > 1.05 * second.used_cores[vm] + 0.02

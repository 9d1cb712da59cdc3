"""Builds each process from the settings; keeps those of `forepath run` alive and ends them by their recorded pids."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from cpdb import FILE_VARIABLE, MBIT, SettingsError, Store
from forepath.paths import routed
from forepath.settings import (
    Settings,
    declared_links,
    declared_nodes,
    declared_virtual_ips,
    host_specs,
    pool_specs,
    vm_specs,
)
from orchestrator import (
    Approval,
    Hypervisors,
    LibvirtHypervisors,
    LibvirtPool,
    Orchestrator,
    OrchestratorConfig,
    OvsQueues,
    QueueKeeper,
    QueueSpec,
    Scaling,
    TenantCap,
    problem_lines,
    whole,
)
from predictor import PredictorConfig
from ryu_apps import Routed

if TYPE_CHECKING:
    from backtest.whatif import ReplayScene

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# A process that lived this long was healthy: its next failure is a new one, not a continuation.
HEALTHY_AFTER_S = 60.0
GRACE_S = 5.0
LOOK_EVERY_S = 0.2
LOOK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: a name for people, the command, and what to add to the environment."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def pause_before_restart(failures: int) -> float:
    """Seconds to wait after the n-th failure in a row: 1, 2, 4, ... at most 30."""
    return min(FIRST_PAUSE_S * 2.0 ** (failures - 1), LONGEST_PAUSE_S)


@dataclass(slots=True)
class _Watched:
    program: Program
    process: subprocess.Popen[bytes]
    started_at: float
    failures: int = 0
    restart_at: float | None = None


class Supervisor:
    """Starts programs in sessions of their own, restarts the fallen with growing pauses, stops them all at the end."""

    def __init__(self, programs: Sequence[Program], log_directory: Path) -> None:
        self._programs = programs
        self._logs = log_directory
        self._watched: list[_Watched] = []
        self._restarts = 0

    def run(self, stop: threading.Event) -> int:
        """Supervises until `stop` is set; on return every program is gone. Returns how often one was restarted."""
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            for program in self._programs:
                # One by one: when the second cannot be started, the first must be known to be ended.
                self._watched.append(_Watched(program, self._start(program), time.monotonic()))
            while not stop.wait(LOOK_EVERY_S):
                for watched in self._watched:
                    self._look_after(watched, time.monotonic())
        finally:
            self.stop()
        return self._restarts

    def _start(self, program: Program) -> subprocess.Popen[bytes]:
        with (self._logs / f"{program.name}.log").open("ab") as output:
            process = subprocess.Popen(
                program.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **program.environment},
                start_new_session=True,
            )
        log.info("started", program=program.name, pid=process.pid)
        return process

    def _look_after(self, watched: _Watched, now: float) -> None:
        if not _ended(watched.process):
            return
        if watched.restart_at is None:
            _end_group(watched.process)
            healthy = now - watched.started_at > HEALTHY_AFTER_S
            watched.failures = 1 if healthy else watched.failures + 1
            watched.restart_at = now + pause_before_restart(watched.failures)
            log.warning("ended", program=watched.program.name, code=watched.process.returncode)
        elif now >= watched.restart_at:
            watched.process = self._start(watched.program)
            self._restarts += 1
            watched.started_at = now
            watched.restart_at = None

    def stop(self) -> None:
        """Asks every program's session to end, and ends what is left of it after a grace of 5 s."""
        for watched in self._watched:
            _signal(watched.process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and not all(_ended(watched.process) for watched in self._watched):
            time.sleep(LOOK_AGAIN_S)
        for watched in self._watched:
            _end_group(watched.process)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is not reaped by asking, so its number stays taken and its group can be signalled."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends whatever is left of a program's session, its children too, and reaps it."""
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Once reaped, the number may belong to somebody else.
    if process.returncode is None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass


def predictor_config(settings: Settings) -> PredictorConfig:
    """What the predictor is told."""
    return PredictorConfig(**dict(settings.predictor))


def orchestrator_config(settings: Settings, act: bool, policy: str | None = None) -> OrchestratorConfig:
    """What the orchestrator is told; `policy` from the command line comes before the file's.

    Raises SettingsError with everything that does not fit together, a line each.
    """
    if policy not in (None, "predictive", "reactive"):
        raise SettingsError(f"--policy {policy!r}: write predictive or reactive")
    section = settings.orchestrator
    values = dict(section) if policy is None else dict(section) | {"policy": policy}
    if "horizons_s" not in section.demand.model_fields_set:
        values["demand"] = section.demand.tuned(horizons_s=settings.predictor.horizons_s)
    if "poll_s" not in section.timing.model_fields_set:
        values["timing"] = section.timing.tuned(poll_s=settings.controller.poll_s)
    declared = {
        "hosts": host_specs(settings),
        "vms": vm_specs(settings),
        "queues": tuple(queue_specs(settings)),
        "pools": pool_specs(settings),
        "tenants": tenants(settings),
        "tenant_caps": tuple(tenant_caps(settings)),
    }
    try:
        return OrchestratorConfig(**values, act=act, declared=declared, routing=settings.routing)
    except ValidationError as error:
        raise SettingsError("\n".join(problem_lines(error))) from error


def replay_scene(settings: Settings) -> "ReplayScene":
    """What a replay is told: all that is declared, machines without a host spread over hosts in the file's order.

    Raises SettingsError for what a replay cannot do without: machines, hosts, and links with their capacities.
    """
    from backtest.whatif import ReplayScene, RequestCost

    if problems := list(_replay_problems(settings)):
        raise SettingsError("\n".join(problems))
    homeless = iter(itertools.cycle([host.name for host in settings.host]))
    host_of = {vm.name: vm.host or next(homeless) for vm in settings.vm}
    members = {member.name: pool for pool in settings.pool for member in pool.member}
    costs = {vm.name: RequestCost(vm.cpu_ms_per_connection, vm.cpu_ms_per_mb) for vm in settings.vm}
    first = {vip.name: vip.destination[0].name for vip in settings.virtual_ip}
    # Machines of a pool do the work of those that they help.
    costs |= {name: costs.get(first[pool.virtual_ip], RequestCost()) for name, pool in members.items()}
    return ReplayScene(
        nodes=tuple({node.name: node for node in declared_nodes(settings)}.values()),
        links=tuple(declared_links(settings)),
        virtual_ips=tuple(declared_virtual_ips(settings)),
        hosts=host_specs(settings),
        vms=vm_specs(settings),
        host_of=host_of | {member.name: member.host for pool in settings.pool for member in pool.member},
        costs=costs,
        orchestrator=orchestrator_config(settings, act=True),
        predictor=predictor_config(settings),
    )


def _replay_problems(settings: Settings) -> Iterator[str]:
    hosts = [host.name for host in settings.host]
    for table, declared in (("vm", settings.vm), ("host", settings.host), ("virtual_ip", settings.virtual_ip)):
        if not declared:
            yield f"{table}: nothing is declared, and a replay needs it; add [[{table}]] to the settings file"
    for vm in settings.vm:
        if vm.host is not None and vm.host not in hosts:
            yield f"vm: host {vm.host!r} of {vm.name} is not declared; known are {', '.join(hosts) or 'none'}"
    ends = {end for link in settings.link for end in (link.a, link.b)}
    for name in hosts:
        if name not in ends:
            yield f"link: none joins host {name} to a switch, so no capacity is known; add [[link]] with b = {name!r}"


def tenants(settings: Settings) -> dict[str, str]:
    """Machine or virtual IP address -> tenant, where one is declared."""
    machines = {one.name: one.tenant for one in settings.vm}
    services = {one.address: one.tenant for one in settings.virtual_ip}
    return {name: tenant for name, tenant in (machines | services).items() if tenant is not None}


def tenant_caps(settings: Settings) -> Iterator[TenantCap]:
    """What the requests of each tenant may be granted at most."""
    for one in settings.tenant:
        rate = None if one.mbit_per_s is None else one.mbit_per_s * MBIT
        yield TenantCap(one.name, one.link_share, rate)


def queue_specs(settings: Settings) -> Iterator[QueueSpec]:
    """The directions of links for which an interface is declared."""
    for one in settings.link:
        if one.queue_device is not None:
            capacity = one.capacity_mbit_per_s * MBIT
            yield QueueSpec(f"{one.a}>{one.b}", one.queue_device, capacity, one.guaranteed_share)


def path_reader(
    store: Store, seconds_fresh: float, clock: Callable[[], float]
) -> Callable[[str, str], tuple[str, ...]]:
    """A path function that reads topology and splits again when what it knows is older than `seconds_fresh`."""
    known: list[tuple[float, Routed]] = []

    def path(source: str, destination: str) -> tuple[str, ...]:
        now = clock()
        if not known or now - known[0][0] > seconds_fresh:
            known[:] = [(now, routed(store, now))]
        return known[0][1].path(source, destination)

    return path


def make_orchestrator(
    config: OrchestratorConfig, store: Store, clock: Callable[[], float], hypervisors: Hypervisors | None = None
) -> Orchestrator:
    """An orchestrator on the declared libvirt hosts, or on the hypervisors given, and on the declared queues."""
    drivers = hypervisors or with_pools(_libvirt(config), store, config)
    queues = QueueKeeper(OvsQueues(config.declared.queues), config.act) if config.declared.queues else None
    return Orchestrator(config, store, drivers, path_reader(store, 1.0, clock), queues)


def make_approval(config: OrchestratorConfig, store: Store, clock: Callable[[], float]) -> Approval:
    """Plans for a person to read and apply, on the declared libvirt hosts."""
    queues = OvsQueues(config.declared.queues)
    paths = path_reader(store, 1.0, clock)
    return Approval(config, store, with_pools(_libvirt(config), store, config), paths, lambda: whole(queues))


def with_pools(hypervisors: Hypervisors, store: Store, config: OrchestratorConfig) -> Hypervisors:
    """The hypervisors, able to bring machines of the declared pools in and out; themselves where there are none."""
    return (
        Scaling(hypervisors, LibvirtPool(config.declared.hosts), store, config)
        if config.declared.pools
        else hypervisors
    )


def _libvirt(config: OrchestratorConfig) -> LibvirtHypervisors:
    return LibvirtHypervisors(config.declared.hosts, migration_limit_s=config.moves.limit_s, vms=config.declared.vms)


def programs(settings_file: Path | None, act: bool) -> list[Program]:
    """The controller, the predictor and the orchestrator as separate processes on this machine."""
    with_settings = ["--settings", str(settings_file)] if settings_file else []
    own = [sys.executable, "-m", "forepath"]
    acting = ["--act"] if act else []
    return [
        controller_program(settings_file),
        Program("predictor", (*own, "predict", *with_settings)),
        Program("orchestrator", (*own, "orchestrate", *with_settings, *acting)),
    ]


def controller_manager() -> str | None:
    """Path of `ryu-manager`, first beside this Python and then on the PATH; None when it is not installed."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return shutil.which("ryu-manager", path=beside)


def controller_program(settings_file: Path | None) -> Program:
    """`ryu-manager ryu_apps.controller`, which reads the same settings file."""
    manager = controller_manager()
    if manager is None:
        raise SettingsError("ryu-manager is not installed beside this Python; run make setup")
    # The controller's words are Ryu's own; what it is told of the file goes through the environment.
    environment = {FILE_VARIABLE: str(settings_file)} if settings_file else {}
    return Program("controller", (manager, "ryu_apps.controller"), environment)

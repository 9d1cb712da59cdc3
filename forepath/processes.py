"""Builds each process from the settings, and the programs of `forepath run`."""

import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cpdb import FILE_VARIABLE, MBIT, SettingsError, Store
from forepath.listening import open_cluster
from forepath.paths import PathReader
from forepath.routed import never_routed
from forepath.settings import (
    Settings,
    declared_links,
    declared_nodes,
    declared_virtual_ips,
    host_specs,
    pool_specs,
    vm_specs,
)
from forepath.supervisor import Program
from orchestrator import (
    Approval,
    Hypervisors,
    LibvirtHypervisors,
    LibvirtPool,
    MachineNews,
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

if TYPE_CHECKING:
    from backtest.whatif import ReplayScene


# Exit codes of wrong settings; for `ryu-manager` also of a port that another program has.
WRONG_SETTINGS, NOT_HEARD = (3,), (2,)


def predictor_config(settings: Settings, workers: int | None = None, scheduler: str | None = None) -> PredictorConfig:
    """What the predictor is told; words of the command line come before the file's. Raises SettingsError."""
    config, said = PredictorConfig(**dict(settings.predictor)), {"workers": workers, "scheduler": scheduler}
    said = {name: value for name, value in said.items() if value is not None}
    try:
        config = config.tuned(shards={"workers": 1, "scheduler": None, **said}) if said else config
    except ValidationError as error:
        lines = [item["msg"].removeprefix("Value error, ") for item in error.errors()]
        raise SettingsError("\n".join(f"predictor.shards: {line}" for line in lines)) from error
    at = config.shards.scheduler
    if at is not None and not settings.tls.insecure and (problem := open_cluster(at)):
        raise SettingsError(problem)
    return config


def orchestrator_config(settings: Settings, act: bool | None, policy: str | None = None) -> OrchestratorConfig:
    """What the orchestrator is told; `act` and `policy` of the command line come before the file's.

    Raises SettingsError with everything that does not fit together, a line each.
    """
    if policy not in (None, "predictive", "reactive"):
        raise SettingsError(f"--policy {policy!r}: write predictive or reactive")
    section = settings.orchestrator
    told = {"policy": policy, "act": act}
    values = dict(section) | {name: value for name, value in told.items() if value is not None}
    own, foreseen = section.demand.model_fields_set, settings.predictor
    slow = sorted({*foreseen.slow.horizons_s, *foreseen.long.horizons_s})
    known = {"horizons_s": foreseen.horizons_s, "slow_horizons_s": tuple(slow)}
    values["demand"] = section.demand.tuned(**{name: far for name, far in known.items() if name not in own})
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
        routing = settings.routing.tuned(enabled=False) if never_routed(settings) else settings.routing
        return OrchestratorConfig(**values, declared=declared, routing=routing)
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
        streams=frozenset(vip.address for vip in settings.virtual_ip if vip.streams),
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


def make_orchestrator(
    config: OrchestratorConfig, store: Store, clock: Callable[[], float], hypervisors: Hypervisors | None = None
) -> Orchestrator:
    """An orchestrator on the declared libvirt hosts, or on the hypervisors given, and on the declared queues."""
    known = frozenset(one.name for one in config.declared.vms)
    drivers = hypervisors or with_pools(_libvirt(config, MachineNews(store, known, clock).hear), store, config)
    queues = QueueKeeper(OvsQueues(config.declared.queues), bool(config.act)) if config.declared.queues else None
    return Orchestrator(config, store, drivers, PathReader(store, 1.0, clock), queues)


def make_approval(config: OrchestratorConfig, store: Store, clock: Callable[[], float]) -> Approval:
    """Plans for a person to read and apply, on the declared libvirt hosts."""
    queues = OvsQueues(config.declared.queues)
    paths = PathReader(store, 1.0, clock)
    return Approval(config, store, with_pools(_libvirt(config), store, config), paths, lambda: whole(queues))


def with_pools(hypervisors: Hypervisors, store: Store, config: OrchestratorConfig) -> Hypervisors:
    """The hypervisors, able to bring machines of the declared pools in and out; themselves where there are none."""
    return (
        Scaling(hypervisors, LibvirtPool(config.declared.hosts), store, config)
        if config.declared.pools
        else hypervisors
    )


def _libvirt(config: OrchestratorConfig, told: Callable[[str, str, str], None] = lambda *_: None) -> LibvirtHypervisors:
    declared = config.declared
    return LibvirtHypervisors(declared.hosts, migration_limit_s=config.moves.limit_s, vms=declared.vms, told=told)


def programs(settings_file: Path | None, act: bool, page: bool = False) -> list[Program]:
    """The controller, the predictor, the orchestrator and the page as separate processes on this machine."""
    with_settings = ["--settings", str(settings_file)] if settings_file else []
    own = [sys.executable, "-m", "forepath"]
    acting = ["--act"] if act else []
    return [
        controller_program(settings_file),
        Program("predictor", (*own, "predict", *with_settings), hopeless=WRONG_SETTINGS),
        Program("orchestrator", (*own, "orchestrate", *with_settings, *acting), hopeless=WRONG_SETTINGS),
        *([Program("web", (*own, "web", *with_settings))] if page else []),
    ]


def rehearsals(settings: Settings, settings_file: Path | None, act: bool) -> list[Program]:
    """The process that shows which kinds of action would pay, where not all may act and all is declared for replays."""
    rules = settings.orchestrator.learning
    if act or settings.orchestrator.act is True or not rules.replay_share or any(_replay_problems(settings)):
        return []
    with_settings = ("--settings", str(settings_file)) if settings_file else ()
    own = (sys.executable, "-m", "forepath", "rehearse", *with_settings)
    return [Program("rehearsal", own, hopeless=WRONG_SETTINGS)]


def changed_programs(before: Settings, after: Settings) -> dict[str, tuple[str, ...]]:
    """Which programs a change of settings is about, and by which tables of the file; `database` is about all."""
    changed = [name for name in Settings.model_fields if getattr(before, name) != getattr(after, name)]
    read = {
        "controller": {"controller", "metrics", "tls"},
        "predictor": {"predictor", "metrics"},
        "web": {"web", "orchestrator", "tls"},
    }
    own = {name: tuple(table for table in changed if table in {*tables, "database"}) for name, tables in read.items()}
    # The orchestrator knows what is declared, and the predictor's horizons.
    own["orchestrator"] = tuple(table for table in changed if table not in ("controller", "web", "tls"))
    own["rehearsal"] = own["orchestrator"]
    return {name: tables for name, tables in own.items() if tables}


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
    return Program("controller", (manager, "ryu_apps.controller"), environment, hopeless=NOT_HEARD)

"""What an operator decides once: hosts, machines, thresholds and brakes. Nothing here is learnt."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from cpdb import BytesPerS, Seconds
from orchestrator.pools import PoolSpec, pool_of, pool_problems

__all__ = [
    "BUDGETS_PER_MINUTE",
    "LEAD_PRIORS_S",
    "QUEUE_DSCP",
    "HostSpec",
    "OrchestratorConfig",
    "Policy",
    "QueueSpec",
    "RouteSpec",
    "TenantCap",
    "VmSpec",
    "problems",
]


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A hypervisor. Capacity is declared: what a host reports of itself may be a whole machine that it only shares.

    `uri` is where the orchestrator connects, `migration_uri` is where other hosts send machines to. Nothing is moved to
    a `cordoned` host; one under `maintenance` is cordoned and left by the machines that may move.
    """

    name: str
    uri: str
    migration_uri: str
    cpu_cores_capacity: float
    memory_bytes_capacity: int
    cordoned: bool = False
    maintenance: bool = False

    @property
    def closed(self) -> bool:
        """Whether nothing may be moved there."""
        return self.cordoned or self.maintenance


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A machine. `cpu_cores_min` is its everyday limit, `cpu_cores_max` the most it gets; priority 0 is the lowest.

    Memory is planned only where `memory_bytes_max` is above 0. Machines of one `affinity` stay on one host together,
    of one `anti_affinity` no host takes a second. What makes the copy of a busy machine end must be allowed: to slow it
    down (`migration_auto_converge`); or to run it on the other host before all is copied (`migration_post_copy`), which
    loses the machine when a host or the network fails in between.
    """

    name: str
    priority: int = 0
    cpu_cores_min: float = 1.0
    cpu_cores_max: float = 1.0
    vcpus_max: int = 1
    memory_bytes_min: int = 64 << 20
    movable: bool = False
    migration_auto_converge: bool = False
    migration_post_copy: bool = False
    memory_bytes_max: int = 0
    affinity: str | None = None
    anti_affinity: str | None = None


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """When and how traffic is routed. `churn`: the price of moving; `outlook`: the weight of forecasts.

    Nothing is done unless the fullest link is expected above `trigger` of its capacity, and will be emptier by
    `min_gain` of that.
    """

    every_s: Seconds = 30.0
    paths: int = 4
    churn: float = 0.002
    outlook: float = 0.2
    trigger: float = 0.5
    min_gain: float = 0.05
    lease_s: Seconds = 900.0


Policy = Literal["predictive", "reactive"]
# The mark (expedited forwarding) that sends a packet into the guaranteed queue of a link that has one.
QUEUE_DSCP = 46
BUDGETS_PER_MINUTE: Mapping[str, int] = MappingProxyType(
    {
        "reserve_bandwidth": 30,
        "release_bandwidth": 30,
        "set_cpu_limit": 30,
        "set_vcpus": 6,
        "set_memory": 6,
        "set_network_rate": 6,
        "migrate_vm": 4,
        "set_weights": 6,
        "scale_out": 6,
        "scale_in": 6,
        "set_routes": 20,
    }
)
# Until enough was seen here: an OpenFlow rule waits for the next look at what is wanted, a move copies all memory.
LEAD_PRIORS_S: Mapping[str, Seconds] = MappingProxyType(
    {
        "reserve_bandwidth": 1.5,
        "release_bandwidth": 1.5,
        "set_weights": 1.5,
        "set_cpu_limit": 0.5,
        "set_vcpus": 2.0,
        "set_memory": 1.0,
        "set_network_rate": 0.5,
        "migrate_vm": 4.0,
        "scale_out_paused": 4.0,
        "scale_out_saved": 5.0,
        "scale_out_defined": 12.0,
        "scale_out_image": 15.0,
        "scale_in": 10.0,
        "set_routes": 4.0,
    }
)


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """One direction of a link, e.g. "leaf2>hA", where marked packets get a queue of their own.

    `device` is the switch's interface that sends in this direction; the share is of the capacity.
    """

    link: str
    device: str
    capacity_bytes_per_s: float
    guaranteed_share: float = 0.8

    @property
    def guaranteed_bytes_per_s(self) -> float:
        """What marked packets can always have."""
        return self.guaranteed_share * self.capacity_bytes_per_s


@dataclass(frozen=True, slots=True)
class TenantCap:
    """The most that one tenant's requests may be granted: of each link's capacity, and in all; None is no cap."""

    tenant: str
    link_share: float | None = None
    bytes_per_s: BytesPerS | None = None


@dataclass(frozen=True, slots=True)
class OrchestratorConfig:
    """All thresholds. Shares are of 1; times are seconds; `act=False` gives advice only."""

    hosts: tuple[HostSpec, ...] = ()
    vms: tuple[VmSpec, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    pools: tuple[PoolSpec, ...] = ()
    # None: all traffic goes the shortest way
    routing: RouteSpec | None = None
    policy: Policy = "predictive"
    act: bool = False
    owner: str = "orchestrator"
    horizons_s: tuple[int, ...] = (5, 15, 30)
    # demand
    level: float = 0.9
    margin: float = 1.2
    chance_sigmas: float = 2.5
    max_forecast_age_s: Seconds = 5.0
    max_interval_ratio: float = 100.0
    # bandwidth: begin above the trigger, then fit into the headroom (both are shares of capacity)
    link_trigger: float = 0.97
    link_headroom: float = 0.9
    link_floor: float = 0.05
    limit_deadband: float = 0.1
    lease_s: Seconds = 8.0
    # compute and placement
    cpu_headroom: float = 0.85
    cpu_step_cores: float = 0.05
    cpu_min_gain: float = 0.5
    cpu_deadband: float = 0.1
    calm_s: Seconds = 10.0
    # as long must measured calm last where trusted forecasts see nothing coming
    calm_foreseen_s: Seconds = 5.0
    calm_share: float = 0.7
    host_headroom: float = 0.9
    host_deadband: float = 0.05
    # memory: what is kept free beside a need (this share, at least so much), and in which steps it is given
    memory_reserve: float = 0.15
    memory_reserve_bytes: int = 24 << 20
    memory_step_bytes: int = 16 << 20
    memory_deadband: float = 0.15
    # whether machines go nearer to those who will call them although nothing is short
    follow_sources: bool = False
    # what is not in effect for at least this long before the need has passed is not worth its cost
    min_hold_s: Seconds = 1.0
    # live migration: how fast memory is copied, and whether that takes from the links between the hosts
    migration_bytes_per_s: BytesPerS = 125e6
    migration_over_links: bool = False
    migration_limit_s: Seconds = 30.0
    # brakes
    poll_s: Seconds = 1.0
    decision_s: Seconds = 0.5
    lead_priors_s: Mapping[str, Seconds] = field(default_factory=lambda: LEAD_PRIORS_S)
    max_world_age_s: Seconds = 5.0
    move_cooldown_s: Seconds = 60.0
    resize_cooldown_s: Seconds = 5.0
    oscillation_s: Seconds = 300.0
    # what turned round so often within the window is left as it is for a while
    most_turns: int = 8
    turns_window_s: Seconds = 60.0
    hold_still_s: Seconds = 120.0
    # nothing is made this many times larger or smaller in one go
    max_step: float = 4.0
    retry_s: Seconds = 30.0
    advice_repeat_s: Seconds = 30.0
    install_timeout_s: Seconds = 5.0
    budgets_per_minute: Mapping[str, int] = field(default_factory=lambda: BUDGETS_PER_MINUTE)
    budget_per_host: int = 30
    budget_per_tenant: int = 30
    moves_at_once: int = 2
    moves_per_host: int = 1
    moves_per_link: int = 1
    # machine or virtual IP address -> tenant, where one is declared
    tenants: Mapping[str, str] = field(default_factory=dict)
    tenant_caps: tuple[TenantCap, ...] = ()
    # destinations: whether weights follow predicted headroom, below which headroom, for which gain, how often
    balance: bool = True
    balance_below: float = 0.15
    balance_min_gain: float = 0.1
    balance_cooldown_s: Seconds = 20.0
    stop_file: Path | None = None
    # of two acting orchestrators one stands by: the other takes over when this long nothing was heard of the first
    duty_s: Seconds = 5.0
    # learning
    history_s: Seconds = 300.0
    learn_every_s: Seconds = 10.0

    def vm(self, name: str) -> VmSpec | None:
        """The machine declared by itself or in a pool, or None: undeclared ones are watched, never touched."""
        declared = next((item for item in self.vms if item.name == name), None)
        found = None if declared else pool_of(self.pools, name)
        return _member_spec(found[0], name) if found else declared

    def pool(self, virtual_ip: str) -> PoolSpec | None:
        """The pool declared for a virtual IP's address, or None."""
        return next((item for item in self.pools if item.virtual_ip == virtual_ip), None)

    def queue(self, link: str) -> QueueSpec | None:
        """The queue declared for that direction of a link, or None."""
        return next((item for item in self.queues if item.link == link), None)


def _member_spec(pool: PoolSpec, name: str) -> VmSpec:
    return VmSpec(name, pool.priority, pool.cpu_cores_min, pool.cpu_cores_max, pool.vcpus)


def problems(config: OrchestratorConfig) -> list[str]:
    """Everything wrong with the settings, all at once; empty when they are fine."""
    found = [*_share_problems(config), *_time_problems(config), *_machine_problems(config), *_queue_problems(config)]
    return [*found, *pool_problems(config.pools, (one.name for one in config.hosts))]


def _share_problems(config: OrchestratorConfig) -> Iterator[str]:
    for name in ("level", "link_trigger", "link_headroom", "host_headroom", "cpu_headroom", "calm_share"):
        value = getattr(config, name)
        if not 0 < value < 1.0000001:
            yield f"orchestrator.{name}: {value} is not a share between 0 and 1, e.g. 0.9"
    if config.max_step <= 1:
        yield f"orchestrator.max_step: {config.max_step} would allow no change at all; write 4 for four times"
    if config.margin < 1:
        yield f"orchestrator.margin: {config.margin} would ask for less than is forecast; write 1.2 for 20 % more"
    if config.policy not in ("predictive", "reactive"):
        yield f"orchestrator.policy: {config.policy!r} is unknown; write predictive or reactive"


def _time_problems(config: OrchestratorConfig) -> Iterator[str]:
    for name in (
        "lease_s",
        "poll_s",
        "max_world_age_s",
        "max_forecast_age_s",
        "history_s",
        "duty_s",
        "migration_bytes_per_s",
    ):
        if getattr(config, name) <= 0:
            yield f"orchestrator.{name}: must be above 0, e.g. 5"
    if config.lease_s < 2 * config.poll_s:
        least = 2 * config.poll_s
        yield f"orchestrator.lease_s: {config.lease_s} ends before it can be renewed; write at least {least}"
    if not config.horizons_s or sorted(set(config.horizons_s)) != list(config.horizons_s) or config.horizons_s[0] <= 0:
        yield f"orchestrator.horizons_s: {config.horizons_s} must ascend from above 0, e.g. (5, 15, 30)"


def _machine_problems(config: OrchestratorConfig) -> Iterator[str]:
    for kind, names in (("hosts", [one.name for one in config.hosts]), ("vms", [one.name for one in config.vms])):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"orchestrator.{kind}: {name} is named twice"
    for host in config.hosts:
        if host.cpu_cores_capacity <= 0 or host.memory_bytes_capacity <= 0:
            yield f"orchestrator.hosts.{host.name}: capacity must be above 0, e.g. 4 cores and 8589934592 bytes"
    for vm in config.vms:
        if not 0 < vm.cpu_cores_min <= vm.cpu_cores_max:
            yield f"orchestrator.vms.{vm.name}: 0 < cpu_cores_min <= cpu_cores_max must hold, e.g. 0.5 and 2"
        if vm.memory_bytes_max and not 0 < vm.memory_bytes_min <= vm.memory_bytes_max:
            yield f"orchestrator.vms.{vm.name}: memory_bytes_min must be above 0 and at most memory_bytes_max"
        if vm.vcpus_max < 1:
            yield f"orchestrator.vms.{vm.name}: vcpus_max {vm.vcpus_max} must be at least 1"


def _queue_problems(config: OrchestratorConfig) -> Iterator[str]:
    for kind, names in (
        ("link", [one.link for one in config.queues]),
        ("device", [one.device for one in config.queues]),
    ):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"orchestrator.queues: {kind} {name} is named twice; each has one queue of its own"
    for one in config.queues:
        if one.capacity_bytes_per_s <= 0 or not 0 < one.guaranteed_share < 1:
            yield f"orchestrator.queues.{one.link}: needs a capacity above 0 and a share between 0 and 1, e.g. 0.8"

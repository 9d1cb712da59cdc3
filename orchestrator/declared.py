"""What an operator declares: hypervisors, machines, queues, tenants, and pools that may help a virtual IP."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Self

from pydantic import model_validator

from cpdb import MIB, BytesPerS, Seconds, Section

Probe = Literal["agent", "tcp", "none"]
How = Literal["paused", "saved", "defined", "image"]
# In this order from the fastest to the slowest to serve: memory kept, memory on disk, off, made anew.
HOWS: tuple[How, ...] = ("paused", "saved", "defined", "image")
# What is observed of machines of pools and of destinations: `kind`; and the words for their states.
RUNNING, PAUSED, SAVED, OFF, ABSENT = "running", "paused", "saved", "off", "absent"
# States of machines that are measured and never acted on: one that ended badly, one of two that bear one name, one that
# no host has, and one that its host says nothing sound about.
CRASHED, TWICE, MISSING, UNMEASURED = "crashed", "twice", "missing", "unmeasured"
RESTS_AS: Mapping[How, str] = {"paused": PAUSED, "saved": SAVED, "defined": OFF, "image": ABSENT}
# How a machine that is in a certain state comes up: one that lost its memory has to start like any other.
COMES_UP: Mapping[str, How] = {state: how for how, state in RESTS_AS.items()}


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """`path` is a qcow2 file on every host that makes machines of it; `template` is the domain's XML.

    In the template $name, $mac, $address, $disk, $memory_kib and $vcpus are filled in.
    """

    path: str
    template: str


@dataclass(frozen=True, slots=True)
class PoolMember:
    """One machine of a pool: its name, addresses and host, and how it rests while it does not serve."""

    vm: str
    address: str
    mac: str
    host: str
    how: How = "paused"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a machine joins and leaves: probes, limits in seconds, and the shares of its weight on the way up.

    A machine that leaves must have been without traffic for `quiet_s`. When connections outlive `drain_limit_s` it
    stays, unless `cut_connections`.
    """

    probe: Probe = "none"
    port: int = 80
    wake_limit_s: Seconds = 30.0
    boot_limit_s: Seconds = 60.0
    health_limit_s: Seconds = 15.0
    ramp: tuple[float, ...] = (0.25, 0.5, 1.0)
    ramp_step_s: Seconds = 1.0
    quiet_s: Seconds = 3.0
    drain_limit_s: Seconds = 120.0
    cut_connections: bool = False
    cooldown_s: Seconds = 30.0


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Machines for one virtual IP (its address), and what each of them is given.

    At most `most` and at least `least` destinations serve at once, those declared for the virtual IP included.
    """

    virtual_ip: str
    members: tuple[PoolMember, ...]
    least: int = 1
    most: int = 2
    weight: int = 100
    priority: int = 0
    cpu_cores_min: float = 1.0
    cpu_cores_max: float = 1.0
    vcpus: int = 1
    memory_bytes: int = 128 * MIB
    image: GoldenImage | None = None
    manner: Manner = field(default_factory=Manner)

    def member(self, vm: str) -> PoolMember | None:
        """The member of that name, or None."""
        return next((one for one in self.members if one.vm == vm), None)


def pool_problems(pools: Sequence[PoolSpec], hosts: Iterable[str]) -> Iterator[str]:
    """Everything wrong with the pools, one line each."""
    known = set(hosts)
    names = [one.vm for pool in pools for one in pool.members]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"pools: {name} is a member twice"
    services = [one.virtual_ip for one in pools]
    for name in sorted({name for name in services if services.count(name) > 1}):
        yield f"pools: {name} has two pools; put their members into one"
    for pool in pools:
        yield from _problems(pool, known)


def _problems(pool: PoolSpec, hosts: set[str]) -> Iterator[str]:
    where = f"pools.{pool.virtual_ip}"
    if not 1 <= pool.least <= pool.most:
        yield f"{where}: 1 <= least <= most must hold, e.g. 1 and 3"
    if not 0 < pool.cpu_cores_min <= pool.cpu_cores_max:
        yield f"{where}: 0 < cpu_cores_min <= cpu_cores_max must hold, e.g. 0.5 and 2"
    if not pool.members:
        yield f"{where}: has no members; add [[pool.member]] with name, address, mac and host"
    ramp = pool.manner.ramp
    if not ramp or sorted(ramp) != list(ramp) or ramp[0] <= 0 or ramp[-1] != 1.0:
        yield f"{where}: ramp {ramp} must ascend to 1, e.g. (0.25, 0.5, 1.0)"
    for one in pool.members:
        if one.host not in hosts:
            yield f"{where}.{one.vm}: {one.host} is not a declared host"
        if one.how not in HOWS:
            yield f"{where}.{one.vm}: how {one.how!r} is unknown; write one of {', '.join(HOWS)}"
        if one.how == "image" and pool.image is None:
            yield f"{where}.{one.vm}: needs an image and a template, or another way to rest"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A hypervisor. Capacity is declared: what a host reports of itself may be a whole machine that it only shares.

    `uri` is where the orchestrator connects, `migration_uri` is where other hosts send machines to. Nothing is moved to
    a `cordoned` host; one under `maintenance` is cordoned and left by the machines that may move. Where hosts have
    different regions, these are planned apart.
    """

    name: str
    uri: str
    migration_uri: str
    cpu_cores_capacity: float
    memory_bytes_capacity: int
    cordoned: bool = False
    maintenance: bool = False
    region: str = ""

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


class DeclaredMachines(Section):
    """What is there: hypervisors, machines, queues, pools, and to which tenant a machine or a virtual IP belongs."""

    hosts: tuple[HostSpec, ...] = ()
    vms: tuple[VmSpec, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    pools: tuple[PoolSpec, ...] = ()
    tenants: Mapping[str, str] = {}
    tenant_caps: tuple[TenantCap, ...] = ()

    def vm(self, name: str) -> VmSpec | None:
        """The machine declared by itself or in a pool, or None: undeclared ones are watched, never touched."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, VmSpec]:
        pooled = {
            one.vm: VmSpec(one.vm, pool.priority, pool.cpu_cores_min, pool.cpu_cores_max, pool.vcpus)
            for pool in self.pools
            for one in pool.members
        }
        return pooled | {vm.name: vm for vm in self.vms}

    def pool(self, virtual_ip: str) -> PoolSpec | None:
        """The pool declared for a virtual IP's address, or None."""
        return next((pool for pool in self.pools if pool.virtual_ip == virtual_ip), None)

    def queue(self, link: str) -> QueueSpec | None:
        """The queue declared for that direction of a link, or None."""
        return next((queue for queue in self.queues if queue.link == link), None)

    @model_validator(mode="after")
    def _check_all(self) -> Self:
        lines = [*self._machine_problems(), *self._queue_problems()]
        lines += pool_problems(self.pools, (host.name for host in self.hosts))
        if lines:
            raise ValueError("; ".join(lines))
        return self

    def _machine_problems(self) -> Iterator[str]:
        yield from _named_twice("hosts", [host.name for host in self.hosts])
        yield from _named_twice("vms", [vm.name for vm in self.vms])
        for host in self.hosts:
            if host.cpu_cores_capacity <= 0 or host.memory_bytes_capacity <= 0:
                yield f"hosts.{host.name}: capacity must be above 0, e.g. 4 cores and 8589934592 bytes"
        for vm in self.vms:
            if not 0 < vm.cpu_cores_min <= vm.cpu_cores_max:
                yield f"vms.{vm.name}: 0 < cpu_cores_min <= cpu_cores_max must hold, e.g. 0.5 and 2"
            if vm.memory_bytes_max and not 0 < vm.memory_bytes_min <= vm.memory_bytes_max:
                yield f"vms.{vm.name}: memory_bytes_min must be above 0 and at most memory_bytes_max"
            if vm.vcpus_max < 1:
                yield f"vms.{vm.name}: vcpus_max {vm.vcpus_max} must be at least 1"

    def _queue_problems(self) -> Iterator[str]:
        yield from _named_twice("queues: link", [queue.link for queue in self.queues])
        yield from _named_twice("queues: device", [queue.device for queue in self.queues])
        for queue in self.queues:
            if queue.capacity_bytes_per_s <= 0 or not 0 < queue.guaranteed_share < 1:
                yield f"queues.{queue.link}: needs a capacity above 0 and a share between 0 and 1, e.g. 0.8"


def _named_twice(table: str, names: Sequence[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{table}: {name} is named twice"

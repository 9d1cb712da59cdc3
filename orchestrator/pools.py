"""What an operator declares about a pool: machines that may help a virtual IP, and how they join and leave."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cpdb import MIB, Seconds

Probe = Literal["agent", "tcp", "none"]
How = Literal["paused", "saved", "defined", "image"]
# In this order from the fastest to the slowest to serve: memory kept, memory on disk, off, made anew.
HOWS: tuple[How, ...] = ("paused", "saved", "defined", "image")
# What is observed of machines of pools and of destinations: `kind`; and the words for their states.
RUNNING, PAUSED, SAVED, OFF, ABSENT = "running", "paused", "saved", "off", "absent"
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


def pool_of(pools: Iterable[PoolSpec], vm: str) -> tuple[PoolSpec, PoolMember] | None:
    """The pool that a machine belongs to, and its entry there."""
    return next(((pool, one) for pool in pools for one in pool.members if one.vm == vm), None)


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

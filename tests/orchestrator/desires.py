"""For every kind of action: a world in which it is wanted, and how one sees that it has come true."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cpdb import (
    Destination,
    DestinationChange,
    InstallReport,
    Limit,
    MachineReport,
    Pair,
    Reservation,
    Standing,
    Store,
    VirtualIp,
    WantedSplit,
)
from orchestrator import (
    Action,
    HostSpec,
    Manner,
    MigrateVm,
    OrchestratorConfig,
    PoolMember,
    PoolSpec,
    ReleaseBandwidth,
    ReserveBandwidth,
    ScaleIn,
    ScaleOut,
    SetCpuLimit,
    SetMemory,
    SetNetworkRate,
    SetRoutes,
    SetVcpus,
    SetWeights,
    VmSpec,
    World,
)
from orchestrator.actions import RouteChange

MIB, GIB = 1 << 20, 1 << 30
VIP, START = "10.0.0.101", 1_000.0
SHOP, BULK = Pair("c1", VIP), Pair("c4", "10.0.0.103")
RESERVED = (f"{SHOP}/leaf2>hA", SHOP, 1e6, (Limit(BULK, 2e5),), 8.0)
WAYS = (("leaf1", "s1", "leaf2"), ("leaf1", "s2", "leaf2"))
ROUTE = RouteChange("leaf1", "leaf2", WAYS, (3072, 3073), (), (0.5, 0.5))
HOSTS = (HostSpec("hA", "fake://hA", "fake://hA", 2.0, GIB), HostSpec("hB", "fake://hB", "fake://hB", 2.0, GIB))
WEB2 = PoolMember("web2", "10.0.1.2", "52:54:00:00:00:02", "hB", "paused")
MANNER = Manner(probe="agent", quiet_s=1.0, ramp=(0.5, 1.0), ramp_step_s=0.5)
CONFIG = OrchestratorConfig(
    act=True,
    declared={
        "hosts": HOSTS,
        "vms": (VmSpec("vm1", 10, 0.2, 1.0, 2, movable=True),),
        "pools": (PoolSpec(VIP, (WEB2,), manner=MANNER, memory_bytes=128 * MIB),),
    },
)


@dataclass(frozen=True)
class Desire:
    """What the plan wants until the world shows it; `before` makes the world in which it can be wanted.

    `life` are the seconds that it takes undisturbed, `machines` those that run at the end.
    """

    action: Action
    shown: Callable[[World], bool]
    before: Callable[[Store], object] = lambda _store: None
    life: int = 4
    machines: tuple[str, ...] = ("vm1",)


def _vm(true: Callable[[Any], bool]) -> Callable[[World], bool]:
    return lambda world: "vm1" in world.vms and true(world.vms["vm1"])


def _reserved(store: Store) -> None:
    key, pair, rate, limits, _ = RESERVED
    store.wanted.reserve(Reservation(key, pair, rate, limits, "orchestrator", "", START, START + 1e6))


def _installed(kind: str) -> Callable[[World], bool]:
    return lambda world: any((one.kind, one.status) == (kind, "installed") for one in _reports(world))


def _reports(world: World) -> list[InstallReport]:
    return [one for one in world.wanted.observed if isinstance(one, InstallReport)]


def _older_split(store: Store) -> None:
    store.wanted.put_splits([WantedSplit(*ROUTE.ends, WAYS, (0.9, 0.1), (3072, 3073), "orchestrator", "", START)])


def _split(world: World) -> bool:
    return any(one.kind == "split" and one.generation > 1 and one.status == "installed" for one in _reports(world))


def _serving(world: World) -> bool:
    return any(
        one.name == "web2" and one.standing is Standing.SERVING and one.weight == 100
        for vip in world.virtual_ips.values()
        for one in vip.destinations
    )


def _at_rest(world: World) -> bool:
    named = [one.name for vip in world.virtual_ips.values() for one in vip.destinations]
    paused = any(
        one.vm == "web2" and one.state == "paused" for one in world.wanted.observed if isinstance(one, MachineReport)
    )
    return "web2" not in named and paused


def _service(store: Store) -> None:
    own = (Destination("vm1", "10.0.1.1", "52:54:00:00:00:01"),)
    store.inventory.declare_virtual_ips([VirtualIp(VIP, "shop", 10, own)])


def _two(store: Store) -> None:
    both = tuple(Destination(name, f"10.0.1.{name}", f"52:54:00:00:00:0{name}") for name in "ab")
    store.inventory.declare_virtual_ips([VirtualIp(VIP, "shop", 10, both)])


def _larger_service(store: Store) -> None:
    _service(store)
    place = (VIP, WEB2.vm, WEB2.address, WEB2.mac, 100, Standing.SERVING)
    store.inventory.put_change(DestinationChange(*place, "orchestrator", "", START))


OUT = ScaleOut(VIP, "web2", "hB", "paused")
DESIRES: dict[str, Desire] = {
    one.action.kind: one
    for one in (
        Desire(SetCpuLimit("vm1", 0.5, 0.8), _vm(lambda vm: abs(vm.cores_limit - 0.8) < 0.01)),
        Desire(SetVcpus("vm1", 1, 2), _vm(lambda vm: vm.vcpus == 2)),
        Desire(SetMemory("vm1", 256 * MIB, 192 * MIB), _vm(lambda vm: vm.memory.bytes == 192 * MIB)),
        # Nothing measures a machine's rate: the plan asks once, and the journal says whether it was done.
        Desire(SetNetworkRate("vm1", 0.0, 1e6), lambda _world: False),
        Desire(MigrateVm("vm1", "hA", "hB"), _vm(lambda vm: vm.host == "hB")),
        Desire(ReserveBandwidth(*RESERVED), lambda world: RESERVED[0] in world.wanted.reservations),
        Desire(ReleaseBandwidth(*RESERVED), lambda world: RESERVED[0] not in world.wanted.reservations, _reserved),
        Desire(SetWeights(VIP, (("a", 100), ("b", 0)), (("a", 50), ("b", 50))), _installed("weights"), _two),
        Desire(SetRoutes((ROUTE,), 1e3), _split, _older_split),
        Desire(OUT, _serving, _service, 10, ("vm1", "web2")),
        Desire(ScaleIn(VIP, "web2", "hB", "paused"), _at_rest, _larger_service, 10),
    )
}


def at_first(kind: str) -> str:
    """The state of the pool's machine before."""
    return "running" if kind == "scale_in" else "paused"


__all__ = ["CONFIG", "DESIRES", "HOSTS", "MIB", "SHOP", "START", "VIP", "WEB2", "Desire", "at_first"]

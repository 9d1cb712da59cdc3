"""A small scene by hand: two clients, one switch, two hosts, three machines, two services; and loads on it."""

from collections.abc import Sequence

import numpy as np

from backtest.whatif import ObjectSeries, OfferedLoad, PolicyRun, ReplayPolicy, ReplayScene, RequestCost, show_pair
from cpdb import MBIT, Destination, Link, Node, NodeKind, Pair, VirtualIp
from orchestrator import HostSpec, OrchestratorConfig, VmSpec
from orchestrator.declared import DeclaredMachines
from predictor import PredictorConfig

SHOP, BULK = "10.0.0.101", "10.0.0.102"
SHOP_PAIR, BULK_PAIR = Pair("c1", SHOP), Pair("c2", BULK)


def small_scene(**changes: object) -> ReplayScene:
    """c1 -> shop (shop1 on hA), c2 -> bulk (bulk1 on hA, batch on hB may move); hosts at 8 Mbit/s, clients at 80."""
    hosts = tuple(HostSpec(name, "", "", 2.0, 8 << 30) for name in ("hA", "hB"))
    vms = (
        VmSpec("shop1", 10, 0.5, 1.5),
        VmSpec("bulk1", 0, 0.25, 0.5),
        VmSpec("batch", 0, 0.25, 1.0, movable=True),
    )
    nodes = (
        Node("leaf", NodeKind.SWITCH, dpid=1),
        Node("c1", NodeKind.CLIENT, "10.0.0.1"),
        Node("c2", NodeKind.CLIENT, "10.0.0.2"),
        *(Node(host.name, NodeKind.HYPERVISOR) for host in hosts),
        *(Node(vm.name, NodeKind.VM, f"10.0.0.{11 + at}") for at, vm in enumerate(vms)),
    )
    links = (
        Link("leaf", 1, "c1", 0, 80 * MBIT, declared=True),
        Link("leaf", 2, "c2", 0, 80 * MBIT, declared=True),
        Link("leaf", 3, "hA", 0, 8 * MBIT, declared=True),
        Link("leaf", 4, "hB", 0, 8 * MBIT, declared=True),
    )
    vms = changes.get("vms", vms)  # type: ignore[assignment]
    declared = DeclaredMachines(hosts=hosts, vms=vms)
    values: dict[str, object] = {
        "nodes": nodes,
        "links": links,
        "virtual_ips": (
            VirtualIp(SHOP, "shop", 10, (Destination("shop1", "10.0.0.11", "02:00:00:00:00:0b"),)),
            VirtualIp(BULK, "bulk", 0, (Destination("bulk1", "10.0.0.12", "02:00:00:00:00:0c"),)),
        ),
        "hosts": hosts,
        "vms": vms,
        "host_of": {"shop1": "hA", "bulk1": "hA", "batch": "hB"},
        "costs": dict.fromkeys(("shop1", "bulk1", "batch"), RequestCost()),
        "orchestrator": OrchestratorConfig(act=True, declared=declared),
        "predictor": PredictorConfig(),
    }
    return ReplayScene(**(values | changes))  # type: ignore[arg-type]


def small_load(scene: ReplayScene, seconds: int = 4) -> OfferedLoad:
    """Nothing is asked for; tests fill in what they are about."""
    vms = tuple(vm.name for vm in scene.vms)
    none = np.zeros((seconds, 2))
    return OfferedLoad(
        (SHOP_PAIR, BULK_PAIR), none, none.copy(), vms, np.zeros((seconds, len(vms))), np.ones(seconds, dtype=np.bool_)
    )


def small_run(
    scene: ReplayScene,
    load: OfferedLoad,
    need: Sequence[float] = (),
    allowed: Sequence[float] = (),
    policy: ReplayPolicy = ReplayPolicy.REACTIVE,
) -> PolicyRun:
    """A run in which all is carried and nobody is short, but for what tests write into it.

    `need` and `allowed` are those of the first machine; the others are allowed their base limit and need nothing.
    """
    shape, vms, hosts = (load.seconds, len(scene.vms)), scene.vms, tuple(host.name for host in scene.hosts)
    base = np.tile([vm.cpu_cores_min for vm in vms], (load.seconds, 1))
    places = np.tile([hosts.index(scene.host_of[vm.name]) for vm in vms], (load.seconds, 1)).astype(np.int32)
    machines = ObjectSeries(tuple(vm.name for vm in vms), np.zeros(shape), base, np.zeros(shape), places, hosts)
    if len(need):
        machines.need[:, 0], machines.allowed[:, 0] = need, allowed
    offered = load.bytes_per_s
    ends = np.tile(np.array([0, 1], dtype=np.int32), (load.seconds, 1))
    names = tuple(show_pair(pair, scene) for pair in load.pairs)
    links = tuple(name for link in scene.links for name in (f"{link.a}>{link.b}", f"{link.b}>{link.a}"))
    none = np.zeros((load.seconds, len(links)))
    room = np.tile([link.capacity_bytes_per_s or 0.0 for link in scene.links for _ in range(2)], (load.seconds, 1))
    cores = np.tile([host.cpu_cores_capacity for host in scene.hosts], (load.seconds, 1))
    return PolicyRun(
        policy,
        machines,
        ObjectSeries(names, offered.copy(), offered.copy(), offered.copy(), ends, ("shop1", "bulk1")),
        ObjectSeries(links, none, room, none.copy()),
        ObjectSeries(hosts, np.zeros(cores.shape), cores, np.zeros(cores.shape)),
        offered.copy(),
        np.zeros(offered.shape),
    )

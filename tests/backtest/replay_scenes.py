"""Small scenes and loads for tests of the replay: everything in round numbers."""

import numpy as np

from backtest.whatif.records import Floats, OfferedLoad, ReplayScene, RequestCost
from cpdb import Destination, Link, Node, NodeKind, Pair, VirtualIp
from orchestrator import HostSpec, OrchestratorConfig, VmSpec
from predictor import PredictorConfig

GIB = 1 << 30
WIDE, NARROW = 1e9, 1e6
SHOP, BACKUP = "10.0.0.100", "10.0.0.200"
# Light models, or every test would fit what it is not about.
FORESEEING = PredictorConfig(models=("naive", "ewma"), slow={"horizons_s": ()})


def vip(address: str, name: str, priority: int, *machines: str) -> VirtualIp:
    behind = tuple(
        Destination(one, f"{address}{number}", f"02:00:00:00:{priority:02x}:{number:02x}")
        for number, one in enumerate(machines)
    )
    return VirtualIp(address, name, priority, behind)


def two_hosts(access_bytes_per_s: float = NARROW, **orchestrator: object) -> ReplayScene:
    """Three clients and two hosts at one switch: shop1 and backup1 on hA, shop2 and spare1 on hB."""
    hosts = tuple(HostSpec(name, "fake:///", "fake:///", 2.0, 4 * GIB) for name in ("hA", "hB"))
    names = ("shop1", "backup1", "shop2", "spare1")
    room = {"cpu_cores_min": 0.5, "cpu_cores_max": 1.5, "vcpus_max": 2}
    vms = tuple(VmSpec(name, priority=10 if "shop" in name else 0, **room) for name in names)  # type: ignore[arg-type]
    clients = ("c1", "c2", "c3")
    links = [Link("s1", number, name, 0, WIDE) for number, name in enumerate(clients, 1)]
    links += [Link("s1", 10 + number, host.name, 0, access_bytes_per_s) for number, host in enumerate(hosts)]
    return ReplayScene(
        nodes=(Node("s1", NodeKind.SWITCH, dpid=1), *(Node(one, NodeKind.CLIENT) for one in clients)),
        links=tuple(links),
        virtual_ips=(vip(SHOP, "shop", 10, "shop1"), vip(BACKUP, "backup", 0, "backup1")),
        hosts=hosts,
        vms=vms,
        host_of={"shop1": "hA", "backup1": "hA", "shop2": "hB", "spare1": "hB"},
        costs={"shop1": RequestCost(cpu_ms_per_connection=10.0)},
        orchestrator=OrchestratorConfig(declared={"hosts": hosts, "vms": vms}, **orchestrator),
        predictor=FORESEEING,
    )


def offered(
    seconds: int, rates: dict[Pair, float], cores: dict[str, float] | None = None, **more: object
) -> OfferedLoad:
    """The same in every second; a connection brings 10 kB."""
    sizes: Floats = np.tile(np.array(list(rates.values()), dtype=np.float64), (seconds, 1))
    wanted: Floats = np.tile(np.array(list((cores or {}).values()), dtype=np.float64), (seconds, 1))
    known = np.ones(seconds, dtype=bool)
    return OfferedLoad(tuple(rates), sizes, sizes / 1e4, tuple(cores or {}), wanted, known, **more)


PAIRS = tuple(Pair(client, address) for client in ("c1", "c2", "c3") for address in (SHOP, BACKUP))

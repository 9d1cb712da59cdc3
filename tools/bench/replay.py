"""What a replay costs at size: CPU of one policy's run, and which room it goes to."""

import cProfile
import pstats
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backtest.whatif import OfferedLoad, ReplayPolicy, ReplayScene, RequestCost, replay
from cpdb import GIB, Destination, Link, Node, NodeKind, Pair, VirtualIp
from orchestrator import HostSpec, OrchestratorConfig, VmSpec
from predictor import PredictorConfig
from tools.bench.figures import BenchTarget, Result

LEAVES, SPINES, PAIRS_A_CLIENT = 10, 4, 10
FABRIC_BYTES_PER_S, ACCESS_BYTES_PER_S = 1.25e9, 1.25e8
HOUR_S, HOUR_LIMIT_S = 3600, 120.0
BYTES_PER_CONNECTION, USUAL_BYTES_PER_S = 1e5, 1.2e6
ROOMS = ("backtest", "orchestrator", "predictor", "cpdb")
ELSEWHERE = "libraries"


@dataclass(frozen=True, slots=True)
class ReplayScale:
    """The size of the bench: an hour of it is what the limit is about."""

    pairs: int = 1000
    hosts: int = 50
    vms: int = 200
    seconds: int = 60
    policy: ReplayPolicy = ReplayPolicy.REACTIVE
    seed: int = 1

    @property
    def clients(self) -> int:
        """Each talks to ten services, or to all there are."""
        return -(-self.pairs // min(PAIRS_A_CLIENT, self.vms))


def measure(scale: ReplayScale) -> Result:
    """CPU seconds of an hour (from `seconds` of it, the start left out), and its shares by room from a second run."""
    scene, load = _scene(scale), _load(scale)
    start_s = _cpu_s(scene, _part(load, 1), scale)
    every_s = (_cpu_s(scene, load, scale) - start_s) / max(1, scale.seconds - 1)
    profile = cProfile.Profile()
    profile.runcall(replay, scene, load, scale.policy, scale.seed)
    figures = {"cpu_ms_a_second": every_s * 1e3, "cpu_s_an_hour": every_s * HOUR_S}
    figures |= {f"{room}_share": share for room, share in _shares(profile).items()}
    return Result(figures, [BenchTarget("CPU seconds for an hour", every_s * HOUR_S, HOUR_LIMIT_S, "lower")])


def _cpu_s(scene: ReplayScene, load: OfferedLoad, scale: ReplayScale) -> float:
    before = time.process_time()
    replay(scene, load, scale.policy, scale.seed)
    return time.process_time() - before


def _part(load: OfferedLoad, seconds: int) -> OfferedLoad:
    rows = slice(0, seconds)
    return replace(
        load,
        bytes_per_s=load.bytes_per_s[rows],
        connections_per_s=load.connections_per_s[rows],
        cores=load.cores[rows],
        known=load.known[rows],
    )


def _shares(profile: cProfile.Profile) -> dict[str, float]:
    """The share of the time that is spent in the code of each room itself, and in the libraries that they call."""
    spent: dict[str, float] = defaultdict(float)
    for (file, _, _), row in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        room = next((one for one in ROOMS if one in Path(file).parts and "site-packages" not in file), ELSEWHERE)
        spent[room] += row[2]
    total = sum(spent.values())
    return {room: spent[room] / total for room in (*ROOMS, ELSEWHERE)}


def _scene(scale: ReplayScale) -> ReplayScene:
    """Leaves and spines; clients and hosts at the leaves in turn, machines on the hosts in turn, a service for each."""
    leaves, spines = [f"leaf{n}" for n in range(LEAVES)], [f"spine{n}" for n in range(SPINES)]
    nodes = [Node(name, NodeKind.SWITCH, dpid=number) for number, name in enumerate(leaves + spines, 1)]
    nodes += [Node(f"c{n}", NodeKind.CLIENT) for n in range(scale.clients)]
    links = [Link(leaf, 0, spine, 0, FABRIC_BYTES_PER_S) for leaf in leaves for spine in spines]
    ends = [f"c{n}" for n in range(scale.clients)] + [f"h{n}" for n in range(scale.hosts)]
    links += [Link(leaves[n % LEAVES], 0, name, 0, ACCESS_BYTES_PER_S) for n, name in enumerate(ends)]
    hosts = tuple(HostSpec(f"h{n}", "", "", 16.0, 64 * GIB) for n in range(scale.hosts))
    vms = tuple(
        VmSpec(f"v{n}", priority=n % 3, cpu_cores_min=2.0, cpu_cores_max=6.0, vcpus_max=8, movable=n % 3 == 0)
        for n in range(scale.vms)
    )
    services = tuple(
        VirtualIp(
            _address(1, n), f"s{n}", n % 3,
            (Destination(vm.name, _address(2, n), f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}"),),
        )
        for n, vm in enumerate(vms)
    )  # fmt: skip
    return ReplayScene(
        nodes=tuple(nodes),
        links=tuple(links),
        virtual_ips=services,
        hosts=hosts,
        vms=vms,
        host_of={vm.name: f"h{n % scale.hosts}" for n, vm in enumerate(vms)},
        costs={vm.name: RequestCost(5.0, 2.0) for vm in vms},
        orchestrator=OrchestratorConfig(declared={"hosts": hosts, "vms": vms}),
        predictor=PredictorConfig(),
    )


def _address(net: int, number: int) -> str:
    return f"10.{net}.{number // 250}.{number % 250 + 1}"


def _load(scale: ReplayScale) -> OfferedLoad:
    """Waves of five minutes, each pair's in its own phase and height, with noise."""
    rng = np.random.default_rng(scale.seed)
    chosen = rng.choice(scale.clients * scale.vms, scale.pairs, replace=False).tolist()
    pairs = tuple(Pair(f"c{one // scale.vms}", _address(1, one % scale.vms)) for one in chosen)
    t = np.arange(scale.seconds)[:, None]
    waves = 1.0 + 0.8 * np.sin(2 * np.pi * (t / 300.0 + rng.random(scale.pairs)))
    heights = rng.lognormal(np.log(USUAL_BYTES_PER_S), 0.8, scale.pairs)
    sizes = heights * waves * rng.lognormal(0.0, 0.2, (scale.seconds, scale.pairs))
    cores = 0.5 + 0.3 * rng.random((scale.seconds, scale.vms))
    connections = rng.poisson(sizes / BYTES_PER_CONNECTION).astype(np.float64)
    names = tuple(f"v{n}" for n in range(scale.vms))
    return OfferedLoad(pairs, sizes, connections, names, cores, np.ones(scale.seconds, dtype=np.bool_))

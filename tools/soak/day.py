"""A day of a small network in virtual time, all of it in this process: the live predictor, planner and database."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from backtest.whatif import EPOCH_S, OfferedLoad, ReplayEngine, ReplayPolicy, ReplayScene, RequestCost, play_policy
from cpdb import MBIT, MIB, DatabaseSection, Destination, Link, Node, NodeKind, Pair, VirtualIp, open_store
from orchestrator import HostSpec, OrchestratorConfig, VmSpec
from predictor import PredictorConfig
from tools.soak.sampling import SampleFile, SoakSample, sample_processes, size_mb

DAY_S = 86_400
EVERY_S = 60
RETAIN_BUDGET_S = 5.0
SHOP = Pair("c1", "10.20.0.101")
_BYTES_PER_CONNECTION = 25_000.0
_HOST = HostSpec("hA", "", "", 1.6, 4096 * MIB)
_VM = VmSpec("shop1", 10, 0.4, 1.3, 2, 256 * MIB)


def day_scene() -> ReplayScene:
    """One client, one switch, one host, one machine that serves."""
    machine = Destination("shop1", "10.20.0.1", "02:00:0a:14:00:01")
    return ReplayScene(
        nodes=(Node("edge", NodeKind.SWITCH, dpid=1), Node("c1", NodeKind.CLIENT, address="10.20.1.1")),
        links=(Link("c1", 0, "edge", 1, 100 * MBIT), Link("edge", 2, "hA", 0, 16 * MBIT)),
        virtual_ips=(VirtualIp(SHOP.virtual_ip, "shop", 10, (machine,)),),
        hosts=(_HOST,),
        vms=(_VM,),
        host_of={"shop1": "hA"},
        costs={"shop1": RequestCost(12.0, 20.0)},
        orchestrator=OrchestratorConfig.model_validate({"act": True, "declared": {"hosts": (_HOST,), "vms": (_VM,)}}),
        predictor=PredictorConfig(),
    )


def day_load(rng: np.random.Generator, seconds: int) -> OfferedLoad:
    """New connections/s of one client: 5 by night, up to 60 at noon, by chance (Poisson)."""
    t = np.arange(seconds)
    mean = 5.0 + 55.0 * np.maximum(0.0, -np.cos(2 * np.pi * t / DAY_S))
    arrived = rng.poisson(mean).astype(np.float64)[:, None]
    own, known = np.zeros((seconds, 1)), np.ones(seconds, dtype=np.bool_)
    return OfferedLoad((SHOP,), arrived * _BYTES_PER_CONNECTION, arrived, ("shop1",), own, known)


def soak_day(path: Path, hours: float, retention: Mapping[str, float], say: Callable[[float], None]) -> None:
    """Plays so many hours of the day and samples this process into the file at `path`; times are virtual."""
    seconds = round(3600 * hours)
    policy, own = DatabaseSection(**retention).retention_policy(), psutil.Process()
    with SampleFile(path) as file, TemporaryDirectory(prefix="forepath-soak-") as name:
        store = open_store(f"sqlite:///{name}/cpdb.db")
        scene = day_scene()
        store.inventory.declare_virtual_ips(scene.virtual_ips)
        engine = ReplayEngine(scene, day_load(np.random.default_rng(1), seconds), store, seed=1)
        run = engine.recorder.run(ReplayPolicy.PREDICTIVE, ())
        # The whole result's memory is taken now, not page by page as the day goes on: that would look like a leak.
        for one in (run.vms, run.pairs, run.links, run.hosts):
            one.need[:], one.allowed[:], one.used[:] = 0.0, 0.0, 0.0
        run.delivered_bytes[:], run.latency_s[:] = 0.0, 0.0

        def turn(share: float) -> None:
            second = round(share * seconds)
            if second % EVERY_S == 0:
                store.retain(EPOCH_S + second, policy, RETAIN_BUDGET_S)
                file.write(sample_processes(second, (own,), {os.getpid(): "day"}))
                file.write([SoakSample(second, "database", "size_mb", size_mb(Path(name).glob("cpdb.db*")))])
                say(share)

        try:
            play_policy(engine, ReplayPolicy.PREDICTIVE, turn)
        finally:
            store.close()

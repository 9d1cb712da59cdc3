"""One cycle of the predictor with every model fitted, and one of the orchestrator on fakes: each within its second."""

import random
import tempfile
from collections.abc import Iterator

from cpdb import (
    GIB,
    Communication,
    Destination,
    Forecast,
    HostLoad,
    Link,
    Node,
    NodeKind,
    Pair,
    Quantity,
    Store,
    Trust,
    VirtualIp,
    VmLoad,
    open_store,
)
from orchestrator import FakeHypervisors, FakeVm, HostSpec, Orchestrator, OrchestratorConfig, VmSpec
from predictor import Predictor, PredictorConfig, WorkLimits
from ryu_apps import Topology
from tools.bench.figures import BenchTarget, Result, Size, cpu_s, median

PREDICTOR_PAIRS = (20, 200)
HISTORY_S = 300
CYCLE_S = 1.0
START_S = 1_700_000_000.0
# Fitted once, in the first cycle; it runs in a process of its own otherwise and is no part of a cycle.
NEVER_AGAIN_S = 1e9


def measure_predictor(size: Size) -> Result:
    """CPU of a cycle at 20 and at 200 pairs with 300 s of history; limit: the length of a cycle."""
    figures: dict[str, float] = {}
    targets = []
    for pairs in PREDICTOR_PAIRS:
        first, later = _cycles(size.of(pairs), max(70, size.of(HISTORY_S)), size.repetitions)
        figures |= {f"first_cycle_with_fits_{pairs}_pairs_cpu_s": first, f"cycle_{pairs}_pairs_cpu_s": later}
        targets.append(BenchTarget(f"predictor cycle, {pairs} pairs, CPU s", later, CYCLE_S, "lower"))
    return Result(figures, targets)


def _cycles(pairs: int, history_s: int, repetitions: int) -> tuple[float, float]:
    predictor = Predictor(PredictorConfig(limits=WorkLimits(refit_every_s=NEVER_AGAIN_S)), background=False)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/foreseeing.db")
        try:
            rng = random.Random(1)
            for second in range(history_s):
                store.facts.add_communications(list(talk(rng, pairs, second)))
            first = cpu_s(lambda: predictor.cycle(store, START_S + history_s))
            return first, median(_later(predictor, store, pairs, range(history_s, history_s + repetitions)))
        finally:
            predictor.close()
            store.close()


def _later(predictor: Predictor, store: Store, pairs: int, seconds: range) -> Iterator[float]:
    rng = random.Random(2)
    for second in seconds:
        store.facts.add_communications(list(talk(rng, pairs, second)))
        now = START_S + second + 1
        yield cpu_s(lambda now=now: predictor.cycle(store, now))  # type: ignore[misc]


def talk(rng: random.Random, pairs: int, second: int) -> Iterator[Communication]:
    """What each pair says in a second: noise, and four times as much in 10 of every 30 s for every other pair."""
    for n in range(pairs):
        surge = 4 if n % 2 == 0 and (second + 3 * n) % 30 < 10 else 1
        count = surge * rng.randrange(1, 5)
        size = count * rng.randrange(20_000, 40_000)
        yield Communication(
            f"c{n}", f"10.9.0.{n % 4 + 1}", f"vm{n % 20}", START_S + second + 1, 1.0, size, size // 1000 + 1, count
        )


PAIRS, VMS, HOSTS = 50, 20, 4
LEVELS = (0.05, 0.5, 0.9, 0.95)


def measure_orchestrator(size: Size) -> Result:
    """CPU of a cycle at 50 pairs and 20 VMs with 300 s of history. The slowest one learns: it has the limit."""
    pairs, vms = size.of(PAIRS), size.of(VMS)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/planning.db")
        try:
            history_s = size.of(HISTORY_S)
            _fill(store, pairs, vms, history_s)
            decider = _orchestrator(store, vms)
            taken = []
            for number in range(size.repetitions):
                now = START_S + history_s + number
                _foresee(store, pairs, now)
                decider.observe(now)
                taken.append(cpu_s(lambda now=now: decider.cycle(now)))  # type: ignore[misc]
        finally:
            store.close()
    figures = {"cycle_cpu_s": median(taken), "slowest_cycle_cpu_s": max(taken)}
    name = f"planning cycle, {PAIRS} pairs and {VMS} VMs, CPU s"
    return Result(figures, [BenchTarget(name, max(taken), CYCLE_S, "lower")])


def _host_of(vm: int) -> str:
    return f"h{vm % HOSTS}"


def _fill(store: Store, pairs: int, vms: int, history_s: int) -> None:
    rng = random.Random(1)
    switches = [Node("spine", NodeKind.SWITCH), *(Node(f"leaf{n}", NodeKind.SWITCH) for n in range(HOSTS))]
    store.inventory.put_nodes(switches)
    store.inventory.put_nodes(Node(f"vm{n}", NodeKind.VM, attached_to=f"leaf{n % HOSTS}", port=21) for n in range(vms))
    fabric = [Link(f"leaf{n}", 1, "spine", n + 1, 2.5e6, declared=True) for n in range(HOSTS)]
    hosts = [Link(f"leaf{n}", 21, f"h{n}", 0, 1.5e6, declared=True) for n in range(HOSTS)]
    clients = [Link(f"leaf{n % HOSTS}", 100 + n, f"c{n}", 0, 12.5e6, declared=True) for n in range(pairs)]
    store.inventory.put_links([*fabric, *hosts, *clients])
    store.inventory.declare_virtual_ips(
        [
            VirtualIp(f"10.9.0.{n}", f"v{n}", 10 * (n % 2), (Destination("vm0", "10.9.1.1", "52:54:00:00:00:01"),))
            for n in range(1, 5)
        ]
    )
    for second in range(history_s):
        store.facts.add_communications(list(talk(rng, pairs, second)))
        store.facts.add_loads(_loads(rng, vms, START_S + second + 1))


def _loads(rng: random.Random, vms: int, t: float) -> list[VmLoad | HostLoad]:
    machines = [
        VmLoad(f"vm{n}", _host_of(n), t, "running", rng.uniform(0.02, 0.2), 0.25, 1, GIB >> 3, GIB >> 3)
        for n in range(vms)
    ]
    return [*machines, *(HostLoad(f"h{n}", t, 0.8, 1.0, GIB, 2 * GIB) for n in range(HOSTS))]


def _foresee(store: Store, pairs: int, now: float) -> None:
    store.forecasts.add_forecasts(
        [
            Forecast(
                Pair(f"c{n}", f"10.9.0.{n % 4 + 1}"), now, horizon_s, quantity, "ewma",
                {level: (0.5 + level) * (4e5 if quantity.value.startswith("bytes") else 12.0) for level in LEVELS},
                trust=Trust(30),
            )
            for n in range(pairs)
            for horizon_s in (5, 15, 30)
            for quantity in Quantity
        ]
    )  # fmt: skip


def _orchestrator(store: Store, vms: int) -> Orchestrator:
    hosts = tuple(HostSpec(f"h{n}", "fake://", "fake://", 1.0, 2 * GIB) for n in range(HOSTS))
    specs = tuple(VmSpec(f"vm{n}", 10 * (n % 2), 0.25, 0.75, 2, movable=n % 2 == 0) for n in range(vms))
    machines = {one.name: FakeVm(one.name, _host_of(n), 0.25) for n, one in enumerate(specs)}
    hypervisors = FakeHypervisors({one.name: one for one in hosts}, machines, lambda _vm, _now: 0.2)
    topology = Topology.of(store.inventory.nodes(), store.inventory.links())
    return Orchestrator(OrchestratorConfig(declared={"hosts": hosts, "vms": specs}), store, hypervisors, topology.path)

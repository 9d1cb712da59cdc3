"""The orchestrator's whole cycle at size, from the database to the plan: usual, learning, with hosts running short."""

import multiprocessing
import resource
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from cpdb import (
    GIB,
    Batch,
    Destination,
    DestinationHealth,
    FlowKey,
    ForecastBatch,
    ForepathError,
    HealthReport,
    HealthStatus,
    HostLoad,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    Quantity,
    Store,
    Subject,
    SubjectKind,
    TrustArrays,
    VirtualIp,
    VmLoad,
    open_store,
)
from orchestrator import HostSpec, OrchestratorConfig, VmSpec, collect_seldom
from orchestrator.decide import Decider, Decision, QueueHealth
from tools.bench.figures import BenchTarget, Result, median

Floats = NDArray[np.float64]
Tell = Callable[[str], None]

START_S = 1_700_000_000.0
PAIRS_PER_SOURCE, DESTINATIONS, HOSTS_PER_LEAF, SPINES = 10, 4, 8, 4
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.97, 0.99)
FAST, SLOW = (5, 15, 30), (60, 300, 600)
QUANTITIES = (
    Quantity.BYTES_PEAK, Quantity.BYTES_MEAN, Quantity.CONNECTIONS_PEAK, Quantity.CONNECTIONS_MEAN,
    Quantity.PACKETS_PEAK, Quantity.PACKETS_MEAN,
)  # fmt: skip
BYTES_PER_CONNECTION = 20_000.0
CORES_IDLE, CORES_PER_CONNECTION = 0.05, 0.03
# A pair talks for some seconds and is silent for as many; in a surge it has so many times as many connections.
SPELL_S, SURGE = 20.0, 4.0
USUAL, HALF, ALL = 12, 4, 12
USUAL_S, SLOWEST_S, LEASE_S, MOST_MIB = 0.5, 2.0, 8.0, 1e9 / 2**20


@dataclass(frozen=True, slots=True)
class OrchestrateScale:
    """The size of the bench: a history of so many seconds, then cycles of three kinds, one a second."""

    pairs: int = 10_000
    vms: int = 2000
    hosts: int = 200
    history_s: int = 300
    seed: int = 1

    @property
    def sources(self) -> int:
        """Who calls."""
        return max(1, self.pairs // PAIRS_PER_SOURCE)

    @property
    def services(self) -> int:
        """Virtual IPs, with up to four destinations each."""
        return max(1, self.vms // DESTINATIONS)

    @property
    def leaves(self) -> int:
        """Switches at the edge."""
        return max(1, self.hosts // HOSTS_PER_LEAF)


@dataclass(slots=True)
class Neighbourhood:
    """Writes the made-up world into a store, second by second, as controller, predictor and orchestrator would."""

    scale: OrchestrateScale
    store: Store
    talks: tuple[FlowKey, ...] = ()
    machine: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    base: Floats = field(default_factory=lambda: np.zeros(0))
    phase: Floats = field(default_factory=lambda: np.zeros(0))
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        scale, self._rng = self.scale, np.random.default_rng(self.scale.seed)
        number = np.arange(scale.pairs)
        service = (number * 7 + number // scale.services) % scale.services
        self.machine = (service * DESTINATIONS + number % DESTINATIONS) % scale.vms
        self.talks = tuple(
            FlowKey(f"c{n // PAIRS_PER_SOURCE % scale.sources}", _address(int(service[n])), f"vm{self.machine[n]}")
            for n in range(scale.pairs)
        )
        self.base = self._rng.uniform(0.8, 3.0, scale.pairs)
        self.phase = self._rng.uniform(0.0, 2 * SPELL_S, scale.pairs)

    def declare(self) -> None:
        """Everything that is there before the first second."""
        scale, inventory = self.scale, self.store.inventory
        leaves = [Node(f"leaf{n}", NodeKind.SWITCH, dpid=n + 1) for n in range(scale.leaves)]
        spines = [Node(f"spine{n}", NodeKind.SWITCH, dpid=1000 + n) for n in range(SPINES)]
        vms = (
            Node(f"vm{n}", NodeKind.VM, attached_to=self.leaf_of(self.host_of(n)), port=100 + self.host_of(n))
            for n in range(scale.vms)
        )
        inventory.put_nodes([*leaves, *spines, *vms])
        inventory.put_links(Link(a, pa, b, pb, rate, declared=True) for a, pa, b, pb, rate in self._links())
        inventory.declare_virtual_ips([self._service(n) for n in range(scale.services)])
        up = DestinationHealth(HealthStatus.UP, answered=True)
        self.store.wanted.observe(
            [
                HealthReport(_address(n), one.name, up, "", START_S)
                for n in range(scale.services)
                for one in self._service(n).destinations
            ]
        )

    def _links(self) -> Iterator[tuple[str, int, str, int, float]]:
        for n in range(self.scale.leaves):
            yield from ((f"leaf{n}", m + 1, f"spine{m}", n + 1, 5e9) for m in range(SPINES))
        yield from ((self.leaf_of(n), 100 + n, f"h{n}", 0, 1.25e9) for n in range(self.scale.hosts))
        yield from ((f"leaf{n % self.scale.leaves}", 1000 + n, f"c{n}", 0, 1.25e9) for n in range(self.scale.sources))

    def host_of(self, vm: int) -> int:
        """Number of the host that a machine is on."""
        return vm % self.scale.hosts

    def leaf_of(self, host: int) -> str:
        """The switch that a host is plugged into."""
        return f"leaf{host % self.scale.leaves}"

    def _service(self, number: int) -> VirtualIp:
        first = number * DESTINATIONS
        behind = tuple(
            Destination(f"vm{n}", f"10.128.{n >> 8}.{n & 255}", f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}")
            for n in range(first, min(first + DESTINATIONS, self.scale.vms))
        )
        return VirtualIp(_address(number), f"v{number}", 10 * (number % 2), behind)

    def pass_second(self, second: int, surging: int = 0) -> float:
        """Everything measured and forecast in one second; `surging` hosts have machines that are called more often.

        Returns the moment at which it is known.
        """
        t = START_S + second + 1
        factor = np.where(self.machine % self.scale.hosts < surging, SURGE, 1.0)
        talking = (second + self.phase) % (2 * SPELL_S) < SPELL_S
        counts = np.where(talking, self._rng.poisson(self.base * factor), 0)
        self._count(counts, t)
        called = np.bincount(self.machine, counts, minlength=self.scale.vms).astype(np.float64)
        self._load(called, t)
        return t

    def _count(self, counts: NDArray[np.int64], t: float) -> None:
        batches, leaf = [], np.arange(len(counts)) // PAIRS_PER_SOURCE % self.scale.sources % self.scale.leaves
        for n in range(self.scale.leaves):
            own = np.flatnonzero((leaf == n) & (counts > 0))
            size = (counts[own] * BYTES_PER_CONNECTION * self._rng.uniform(0.8, 1.2, len(own))).astype(np.int64)
            sent, packets, opened = (
                array("q", one.astype(np.int64).tobytes()) for one in (size, size // 1000 + 1, counts[own])
            )
            keys = [self.talks[one] for one in own]
            batches.append(Batch(f"leaf{n}", t, 1.0, keys, sent, packets, opened, complete=True))
        self.store.facts.add_batches(batches)

    def _load(self, called: Floats, t: float) -> None:
        cores = np.minimum(0.5, CORES_IDLE + CORES_PER_CONNECTION * called + self._rng.normal(0, 0.005, len(called)))
        memory = (GIB * 2 // 5) + (called * (1 << 20)).astype(np.int64)
        by_host = np.bincount(np.arange(len(called)) % self.scale.hosts, weights=cores, minlength=self.scale.hosts)
        carried = called * BYTES_PER_CONNECTION
        rows: list[VmLoad | HostLoad | LinkLoad] = [
            VmLoad(f"vm{n}", f"h{self.host_of(n)}", t, "running", float(cores[n]), 0.5, 1, int(memory[n]), GIB >> 1)
            for n in range(len(called))
        ]
        rows += [HostLoad(f"h{n}", t, float(by_host[n]), 5.0, 8 * GIB, 16 * GIB) for n in range(self.scale.hosts)]
        each = int(carried.sum() / max(1, self.scale.leaves * SPINES))
        for a, _, b, _, _ in self._links():
            size = each if b.startswith("spine") else int(each / 10)
            rows += [LinkLoad(a, b, t, 1.0, size, size // 1000), LinkLoad(b, a, t, 1.0, size // 20, size // 2000)]
        self.store.facts.add_loads(rows)

    def foresee(self, second: int, surging: int = 0) -> None:
        """All tiers of forecasts, issued at the end of a second; slow ones each tenth."""
        t = START_S + second + 1
        factor = np.where(self.machine % self.scale.hosts < surging, SURGE, 1.0)
        pairs = tuple(Subject(SubjectKind.PAIR, one.source, one.virtual_ip) for one in self.talks)
        links = tuple(Subject(SubjectKind.LINK, a, b) for a, _, b, _, _ in self._links())
        self._issue("fast", pairs, FAST, self.base * factor * 0.5, t)
        self._issue("fast/link", links, FAST, np.full(len(links), 50.0), t)
        if second % 10 == 0:
            self._issue("slow", pairs, SLOW, self.base * 0.5, t)
            self._issue("slow/link", links, SLOW, np.full(len(links), 50.0), t)

    def _issue(
        self, tier: str, subjects: tuple[Subject, ...], horizons: tuple[int, ...], rate: Floats, t: float
    ) -> None:
        unit = np.array([BYTES_PER_CONNECTION, BYTES_PER_CONNECTION, 1.0, 1.0, 20.0, 20.0])
        unit *= np.array([1.5, 1.0, 1.5, 1.0, 1.5, 1.0])
        level = 0.4 + 1.2 * np.array(LEVELS)
        values = rate[:, None, None, None] * unit[:, None] * level * np.ones(len(horizons))[:, None, None]
        batch = ForecastBatch(
            t, tier, subjects, horizons, QUANTITIES, LEVELS, ("ewma",),
            bytes(len(subjects) * len(horizons) * len(QUANTITIES)), values.astype("<f4").tobytes(),
            np.full((len(subjects), len(horizons)), 0.9, dtype="<f4").tobytes(),
            TrustArrays(np.full(len(subjects), horizons[-1], dtype="<u2").tobytes()),
        )  # fmt: skip
        self.store.forecasts.add_batch(batch)

    def config(self) -> OrchestratorConfig:
        """What an operator would have declared: half of the machines may move, a quarter has memory to be given."""
        hosts = tuple(HostSpec(f"h{n}", "fake://", "fake://", 5.0, 16 * GIB) for n in range(self.scale.hosts))
        vms = tuple(
            VmSpec(
                f"vm{n}", 10 * (n // DESTINATIONS % 2), 0.5, 1.5, 2, movable=n % 2 == 0,
                memory_bytes_max=GIB if n % 4 == 0 else 0,
            )
            for n in range(self.scale.vms)
        )  # fmt: skip
        return OrchestratorConfig(declared={"hosts": hosts, "vms": vms}, guard={"stop_file": None})


def _address(service: int) -> str:
    return f"10.64.{service >> 8}.{service & 255}"


@dataclass(frozen=True, slots=True)
class CycleCost:
    """CPU seconds of one cycle: looking and deciding; how many steps and refusals came of it."""

    look_cpu_s: float
    decide_cpu_s: float
    steps: int
    refusals: int

    @property
    def cpu_s(self) -> float:
        """Of the whole cycle."""
        return self.look_cpu_s + self.decide_cpu_s


@dataclass(frozen=True, slots=True)
class OrchestrateCosts:
    """What each kind of cycle cost, in their order, and the peak memory of the process."""

    first: CycleCost
    usual: tuple[CycleCost, ...]
    half_short: tuple[CycleCost, ...]
    all_short: tuple[CycleCost, ...]
    peak_mib: float


def measure(scale: OrchestrateScale, tell: Tell) -> Result:
    """Builds the database, then runs the cycles in a process of its own; `tell` hears what is going on."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/orchestrate.db"
        store = open_store(url)
        try:
            world = Neighbourhood(scale, store)
            world.declare()
            for second in range(scale.history_s):
                tell(f"writing second {second} of {scale.history_s}")
                world.pass_second(second)
        finally:
            store.close()
        tell("cycles")
        return judge(_apart(url, scale))


def judge(found: OrchestrateCosts) -> Result:
    """Figures and targets; the first cycle reads and learns everything, and has a lease's time for it."""
    later = [*found.usual, *found.half_short, *found.all_short]
    usual, slowest = median(one.cpu_s for one in found.usual), max(one.cpu_s for one in later)
    figures = {"usual_cycle_cpu_s": usual, "slowest_cycle_cpu_s": slowest, "peak_mib": found.peak_mib}
    for name, own in (
        ("first", (found.first,)), ("usual", found.usual), ("half_short", found.half_short),
        ("all_short", found.all_short),
    ):  # fmt: skip
        worst = max(own, key=lambda one: one.cpu_s)
        figures |= {
            f"{name}_slowest_cpu_s": worst.cpu_s,
            f"{name}_slowest_look_cpu_s": worst.look_cpu_s,
            f"{name}_slowest_decide_cpu_s": worst.decide_cpu_s,
            f"{name}_steps": float(worst.steps),
            f"{name}_refusals": float(worst.refusals),
        }
    return Result(
        figures,
        [
            BenchTarget("a usual cycle, CPU s", usual, USUAL_S, "lower"),
            BenchTarget("the slowest cycle after the first, CPU s", slowest, SLOWEST_S, "lower"),
            BenchTarget("the first cycle, within a lease, CPU s", found.first.cpu_s, LEASE_S, "lower"),
            BenchTarget("peak memory, MiB", found.peak_mib, MOST_MIB, "lower"),
        ],
    )


def _cycles(url: str, scale: OrchestrateScale) -> OrchestrateCosts:
    from forepath.paths import PathReader

    store = open_store(url, create=False)
    try:
        world, clock = Neighbourhood(scale, store), [START_S]
        config = world.config()
        decider = Decider(config, store, PathReader(store, 1.0, lambda: clock[0]), lambda _now: QueueHealth())
        second = scale.history_s
        costs: list[CycleCost] = []
        for surging in [0] * (1 + USUAL) + [scale.hosts // 2] * HALF + [scale.hosts] * ALL:
            clock[0] = world.pass_second(second, surging)
            world.foresee(second, surging)
            costs.append(_cycle(decider, clock[0]))
            second += 1
        usual, half, short = (tuple(part) for part in (costs[1 : 1 + USUAL], costs[1 + USUAL : -ALL], costs[-ALL:]))
        return OrchestrateCosts(costs[0], usual, half, short, _peak_mib())
    finally:
        store.close()


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cycle(decider: Decider, now: float) -> CycleCost:
    begun = time.process_time()
    recent = decider.recent(now)
    world = decider.look(now, (), recent)
    looked = time.process_time()
    decision: Decision = decider.decide(world, recent)
    return CycleCost(
        looked - begun, time.process_time() - looked, len(decision.plan.steps), len(decision.plan.refusals)
    )


def _apart(url: str, scale: OrchestrateScale) -> OrchestrateCosts:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, url, scale))
    process.start()
    theirs.close()
    try:
        found: OrchestrateCosts = mine.recv()
    except EOFError:
        raise ForepathError("orchestrate: the process ended without a result") from None
    finally:
        process.join()
    return found


def _child(pipe: Connection, url: str, scale: OrchestrateScale) -> None:
    from predictor.service.workers import use_one_thread

    use_one_thread()
    collect_seldom()
    pipe.send(_cycles(url, scale))
    pipe.close()

"""A small world on fakes in virtual time: clients, links, a controller that follows what is wanted, and an oracle."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from weight_words import weight_words

from cpdb import (
    Communication,
    Destination,
    Forecast,
    InstallStatus,
    Link,
    LinkLoad,
    Pair,
    Quantity,
    ReservationReport,
    Store,
    Trust,
    VirtualIp,
)
from orchestrator import CycleReport, FakeHypervisors, FakeVm, HostSpec, Orchestrator, OrchestratorConfig, VmSpec

SHOP, SEARCH, BACKUP = "10.0.0.101", "10.0.0.102", "10.0.0.103"
BASE_BYTES, SURGE_BYTES = 8_000, 32_000
CORE_S_PER_BYTE = 0.42 / 640_000
CAPACITY = 1_500_000.0
START = 1_000.0
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
GIB = 1 << 30

HOSTS = (
    HostSpec("hA", "fake://hA", "fake://hA", 0.8, 2 * GIB),
    HostSpec("hB", "fake://hB", "fake://hB", 0.8, 2 * GIB),
)
VMS = (
    VmSpec("shop1", 10, 0.2, 0.6, 2),
    VmSpec("search1", 10, 0.2, 0.6, 2),
    VmSpec("backup1", 0, 0.1, 0.1, 1),
    VmSpec("batch1", 0, 0.25, 0.25, 1, movable=True),
)
CONFIG = OrchestratorConfig(
    act=True,
    declared={"hosts": HOSTS, "vms": VMS},
    demand={"margin": 1.2},
    bandwidth={"headroom": 0.9},
    cpu={"host_headroom": 0.9},
)
# What an oracle's forecasts are worth.
TRUSTED = Trust(3600, 0.05, 0.4, 0.25, 1.5)
NO_SURGES: tuple[tuple[float, float], ...] = ()


def paths(source: str, destination: str) -> tuple[str, ...]:
    leaf = {"hA": "leaf2", "hB": "leaf3"}.get(destination)
    return (source, "leaf1", "spine1", leaf, destination) if leaf else ()


@dataclass
class Simulation:
    """`surges` are (start, end) in seconds after START; the rest is noise from `rng`.

    `away`: destinations that the controller finds down. `too_soon_s`: forecasts have surges come so much too soon.
    """

    store: Store
    config: OrchestratorConfig = CONFIG
    surges: tuple[tuple[float, float], ...] = NO_SURGES
    surge_per_s: float = 20.0
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    foresee: bool = True
    trust: Trust = TRUSTED
    controller_alive: bool = True
    away: set[str] = field(default_factory=set)
    too_soon_s: float = 0.0
    backup_bytes_per_s: float = 1_060_000.0
    now: float = START
    reports: list[CycleReport] = field(default_factory=list)
    pending: dict[str, float] = field(default_factory=dict)
    queued: dict[Pair, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hypervisors = FakeHypervisors(
            {one.name: one for one in HOSTS},
            {
                "shop1": FakeVm("shop1", "hA", 0.2),
                "search1": FakeVm("search1", "hA", 0.2),
                "backup1": FakeVm("backup1", "hA", 0.1),
                "batch1": FakeVm("batch1", "hA", 0.25),
            },
            self.work,
        )
        declare(self.store)
        self.orchestrator = self.fresh()

    def fresh(self) -> Orchestrator:
        return Orchestrator(self.config, self.store, self.hypervisors, paths)

    def work(self, vm: str, now: float) -> float:
        return 1.0 if vm == "batch1" else 0.01 + self.pending.get(vm, 0.0)

    def rate(self, pair: Pair, t: float) -> float:
        """Requests per second that are due at `t`."""
        surging = pair == Pair("c1", SHOP) and any(a <= t - START < b for a, b in self.surges)
        return 2.0 + (self.surge_per_s if surging else 0.0)

    def run(self, seconds: int, each: Callable[["Simulation"], None] = lambda _sim: None) -> "Simulation":
        for _ in range(seconds):
            self.now += 1.0
            self._traffic()
            if self.foresee:
                self._forecast()
            if self.controller_alive:
                self._controller()
            each(self)
            self.orchestrator.observe(self.now)
            self.reports.append(self.orchestrator.cycle(self.now))
        return self

    def pairs(self) -> list[Pair]:
        return [Pair(client, vip) for client in ("c1", "c2", "c3") for vip in (SHOP, SEARCH)]

    def _traffic(self) -> None:
        """A second on the link to hA: datagrams push through, TCP takes what they leave, the rest of it waits."""
        for vm in ("shop1", "search1"):
            done = max(0.0, self.hypervisors.used(vm, self.now) - 0.01)
            self.pending[vm] = max(0.0, self.pending.get(vm, 0.0) - done)
        counts = {pair: poisson(self.rng, 2.0) for pair in self.pairs()}
        for pair, count in counts.items():
            surge = round(self.rate(pair, self.now - 0.5) - 2.0)
            self.queued[pair] = self.queued.get(pair, 0.0) + count * BASE_BYTES + surge * SURGE_BYTES
            counts[pair] += surge
        through = min(self.backup_bytes_per_s, self._limit())
        wish = sum(self.queued.values())
        share = min(1.0, max(0.0, CAPACITY - through) / wish) if wish else 0.0
        rows = [self._sent(pair, counts[pair], share) for pair in self.pairs()]
        sent = int(self.backup_bytes_per_s)
        rows.append(Communication("c4", BACKUP, "backup1", self.now, 1.0, sent, sent // 1200, 0))
        self.store.facts.add_communications(rows)
        total = int(min(CAPACITY, through + wish))
        self.store.facts.add_loads([LinkLoad("leaf2", "hA", self.now, 1.0, total, total // 1400)])

    def _limit(self) -> float:
        held = self.store.wanted.reservations(self.now) if self.controller_alive else []
        return min((one.bytes_per_s for item in held for one in item.limits), default=float("inf"))

    def _sent(self, pair: Pair, count: int, share: float) -> Communication:
        vm = "shop1" if pair.virtual_ip == SHOP else "search1"
        size = int(self.queued[pair] * share)
        # What waits for more than a few seconds is given up by its client.
        self.queued[pair] = min(self.queued[pair] - size, 3.0 * SURGE_BYTES * self.surge_per_s)
        self.pending[vm] += size * CORE_S_PER_BYTE
        return Communication(pair.source, pair.virtual_ip, vm, self.now, 1.0, size, size // 1400, count)

    def _forecast(self) -> None:
        forecasts = []
        for pair in self.pairs():
            for horizon in (5, 15, 30):
                coming = [self.rate(pair, self.now + self.too_soon_s + one + 0.5) for one in range(horizon)]
                peak, mean = max(coming), sum(coming) / horizon
                forecasts += [
                    fan(pair, self.now, horizon, Quantity.CONNECTIONS_PEAK, peak + 2),
                    fan(pair, self.now, horizon, Quantity.CONNECTIONS_MEAN, mean),
                    fan(pair, self.now, horizon, Quantity.BYTES_PEAK, sizes(peak) + 2 * BASE_BYTES),
                    fan(pair, self.now, horizon, Quantity.BYTES_MEAN, sizes(mean)),
                ]
        self.store.forecasts.add_forecasts([replace(one, trust=self.trust) for one in forecasts])

    def _controller(self) -> None:
        """Installs what is wanted one poll later, as a controller would."""
        held = self.store.wanted.reservations(self.now)
        rows = [
            ReservationReport(one.key, "leaf1", one.generation, InstallStatus.INSTALLED, "meter", self.now)
            for one in held
        ]
        self.store.wanted.observe(rows + weight_words(self.store, self.now, self.away))

    def outcomes(self, kind: str) -> list[tuple[float, str, str]]:
        """(seconds after START, outcome, sentence) of the actions of a kind, oldest first."""
        rows = [one for one in self.store.journal.actions() if one.kind == kind]
        return [(one.issued_at - START, one.outcome.value, one.sentence) for one in reversed(rows)]


def sizes(rate: float) -> float:
    """Bytes/s of so many requests/s: two of them are everyday ones, the rest belong to a surge."""
    return min(rate, 2.0) * BASE_BYTES + max(0.0, rate - 2.0) * SURGE_BYTES


def declare(store: Store) -> None:
    def vip(address: str, name: str, priority: int, vm: str) -> VirtualIp:
        return VirtualIp(address, name, priority, (Destination(vm, f"10.0.1.{len(vm)}", "52:54:00:00:00:01"),))

    store.inventory.declare_virtual_ips(
        [vip(SHOP, "shop", 10, "shop1"), vip(SEARCH, "search", 10, "search1"), vip(BACKUP, "backup", 0, "backup1")]
    )
    fabric, access = 2_500_000.0, CAPACITY
    store.inventory.put_links(
        [
            *(Link("leaf1", 10 + n, f"c{n}", 0, 12_500_000.0, declared=True) for n in range(1, 5)),
            Link("leaf1", 1, "spine1", 1, fabric, declared=True),
            Link("leaf2", 1, "spine1", 2, fabric, declared=True),
            Link("leaf3", 1, "spine1", 3, fabric, declared=True),
            Link("leaf2", 21, "hA", 0, access, declared=True),
            Link("leaf3", 21, "hB", 0, access, declared=True),
        ]
    )


def fan(
    pair: Pair,
    issued_at: float,
    horizon_s: int,
    quantity: Quantity,
    middle: float,
    width: float = 0.2,
    trust: Trust = TRUSTED,
) -> Forecast:
    """Quantiles around `middle`, +-`width` at the outer levels."""
    values = {level: middle * (1 + 2 * width * (level - 0.5)) for level in LEVELS}
    return Forecast(pair, issued_at, horizon_s, quantity, "oracle", values, trust=trust)


def poisson(rng: random.Random, mean: float) -> int:
    """Arrivals of a second (Knuth's product of uniform draws)."""
    limit, product, count = 2.718281828459045**-mean, rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


__all__ = ["BACKUP", "CONFIG", "HOSTS", "SEARCH", "SHOP", "START", "VMS", "Simulation", "fan", "paths", "replace"]

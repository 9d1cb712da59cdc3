"""A service with a pool in virtual time: clients, a controller that probes and spreads, machines that come and go."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fake_world import fan, poisson
from weight_words import weight_words

from cpdb import (
    Communication,
    Destination,
    DestinationHealth,
    HealthReport,
    HealthStatus,
    LiveCount,
    ObservedRecord,
    OutcomeKind,
    Quantity,
    Standing,
    Store,
    VirtualIp,
)
from orchestrator import (
    CycleReport,
    FakeHypervisors,
    FakePool,
    FakeVm,
    GoldenImage,
    HostSpec,
    Manner,
    Orchestrator,
    OrchestratorConfig,
    PoolMember,
    PoolSpec,
    Scaling,
    Timing,
    VmSpec,
)

VIP, START, GIB = "10.0.0.101", 5_000.0, 1 << 30
CORES_PER_REQUEST = 0.02
HOSTS = (HostSpec("hA", "", "", 2.0, GIB), HostSpec("hB", "", "", 2.0, GIB))
MEMBERS = (
    PoolMember("web2", "10.0.1.2", "52:54:00:00:00:02", "hB", "paused"),
    PoolMember("web3", "10.0.1.3", "52:54:00:00:00:03", "hA", "saved"),
    PoolMember("web4", "10.0.1.4", "52:54:00:00:00:04", "hB", "image"),
)
MANNER = Manner(probe="agent", quiet_s=2.0, drain_limit_s=20.0, ramp_step_s=1.0, cooldown_s=10.0)
POOL = PoolSpec(
    VIP, MEMBERS, most=4, priority=10, cpu_cores_min=0.2, cpu_cores_max=0.4,
    image=GoldenImage("/images/web.qcow2", "<domain/>"), manner=MANNER,
)  # fmt: skip
CONFIG = OrchestratorConfig(
    act=True,
    declared={"hosts": HOSTS, "vms": (VmSpec("web1", 10, 0.2, 0.4),), "pools": (POOL,)},
    cpu={"calm_s": 6.0},
    guard={"retry_s": 5.0},
)
AT_REST = {"web2": "paused", "web3": "saved"}


@dataclass
class PoolWorld:
    """`rate(t)`: requests a second, t seconds after START. `sick`: machines that the controller finds unhealthy.

    `live`: connections that stay open by machine, told by the controller while it is drained.
    """

    store: Store
    rate: Callable[[float], float] = lambda _t: 2.0
    config: OrchestratorConfig = CONFIG
    foresee: bool = False
    now: float = START
    sick: set[str] = field(default_factory=set)
    live: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    reports: list[CycleReport] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(3))
    asked: dict[str, float] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        destinations = (Destination("web1", "10.0.1.1", "52:54:00:00:00:01"),)
        self.store.inventory.declare_virtual_ips([VirtualIp(VIP, "shop", 10, destinations)])
        web1 = FakeVm("web1", "hA", 0.2)
        self.hypervisors = FakeHypervisors({one.name: one for one in HOSTS}, {"web1": web1}, self.work)
        self.pool = FakePool(self.hypervisors, dict(AT_REST))
        self.orchestrator = self.fresh()

    def fresh(self, store: Store | None = None, machines: FakePool | None = None) -> Orchestrator:
        """An orchestrator with nothing in its memory, on this world."""
        used = store or self.store
        coat = Scaling(self.hypervisors, machines or self.pool, used, self.config, Timing(background=False))
        return Orchestrator(self.config, used, coat, lambda _source, _destination: ())

    # -- what is true

    def serving(self) -> dict[str, int]:
        """Destinations that get new connections, with their weights."""
        (vip,) = self.store.inventory.virtual_ips()
        return {one.name: one.weight for one in vip.destinations if one.standing is Standing.SERVING and one.weight}

    def standing(self) -> dict[str, str]:
        """Every destination and its standing."""
        (vip,) = self.store.inventory.virtual_ips()
        return {one.name: one.standing.value for one in vip.destinations}

    def states(self) -> dict[str, str]:
        """The state of every machine of the pool."""
        return {one.vm: self.pool.state(one.vm) for one in self.config.declared.pools[0].members}

    def work(self, vm: str, _now: float) -> float:
        """Cores that a machine would like for the requests of this second."""
        return 0.005 + self.asked.get(vm, 0.0) * CORES_PER_REQUEST

    def settled(self) -> bool:
        """Nothing under way, and every machine either serves and runs, or neither."""
        pending = [one for one in self.store.journal.actions() if one.outcome is OutcomeKind.PENDING]
        halves = [one for one in self.standing().values() if one != "serving"]
        odd = [vm for vm, state in self.states().items() if (state == "running") != (vm in self.serving())]
        return not (pending or halves or odd)

    def outcomes(self, kind: str) -> list[tuple[str, str, str]]:
        """(machine, outcome, sentence) of the actions of a kind, oldest first."""
        rows = [one for one in self.store.journal.actions() if one.kind == kind]
        return [(one.target, one.outcome.value, one.sentence) for one in reversed(rows)]

    # -- time passes

    def run(self, seconds: int, each: Callable[["PoolWorld"], None] = lambda _world: None) -> "PoolWorld":
        for _ in range(seconds):
            self.tick()
            each(self)
            self.orchestrator.observe(self.now)
            self.reports.append(self.orchestrator.cycle(self.now))
        return self

    def tick(self) -> None:
        """A second of traffic, forecasts and the controller."""
        self.now += 1.0
        self._controller()
        self._traffic()
        if self.foresee:
            self._forecast()

    def _controller(self) -> None:
        """Says once how those are that come, and again when that changes; counts connections of those who leave."""
        rows: list[ObservedRecord] = []
        changes = self.store.inventory.changes()
        self.said = {name: word for name, word in self.said.items() if name in {one.name for one in changes}}
        for one in changes:
            health = HealthStatus.DOWN if one.name in self.sick else HealthStatus.UP
            if self.said.get(one.name) != health:
                self.said[one.name] = health
                rows.append(HealthReport(VIP, one.name, DestinationHealth(health, True), "", self.now))
            if one.standing is Standing.DRAINING and one.name in self.live:
                rows.append(LiveCount(VIP, one.name, self.live[one.name], self.now))
        self.store.wanted.observe(rows + weight_words(self.store, self.now, self.sick))

    def _traffic(self) -> None:
        weights, rate = self.serving(), self.rate(self.now - START)
        if not weights:
            self.lost.append(f"{self.now - START:.0f}: nobody serves")
        rows = []
        self.asked = {}
        for number, (vm, weight) in enumerate(sorted(weights.items())):
            if vm != "web1" and self.pool.state(vm) != "running":
                self.lost.append(f"{self.now - START:.0f}: {vm} serves and is {self.pool.state(vm)}")
            count = poisson(self.rng, rate * weight / sum(weights.values()))
            self.asked[vm] = count
            place = (f"c{number}", VIP, vm, self.now, 1.0)
            rows.append(Communication(*place, count * 10_000, count * 10, count))
        self.store.facts.add_communications(rows)

    def _forecast(self) -> None:
        from cpdb import Pair

        forecasts = []
        for horizon in (5, 15, 30):
            coming = [self.rate(self.now - START + one) for one in range(1, horizon + 1)]
            count = max(1, len(self.serving()))
            for number in range(count):
                pair = Pair(f"c{number}", VIP)
                peak, mean = max(coming) / count, sum(coming) / horizon / count
                for quantity, value in (
                    (Quantity.CONNECTIONS_PEAK, peak),
                    (Quantity.CONNECTIONS_MEAN, mean),
                    (Quantity.BYTES_PEAK, peak * 10_000),
                    (Quantity.BYTES_MEAN, mean * 10_000),
                ):
                    forecasts.append(fan(pair, self.now, horizon, quantity, value, 0.05))
        self.store.forecasts.add_forecasts(forecasts)


__all__ = ["AT_REST", "CONFIG", "MANNER", "MEMBERS", "POOL", "START", "VIP", "PoolWorld", "replace"]

"""A library of hostile and boring worlds: offered load and events from a seed, on one small declared scene."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from backtest.reading import RecordingError
from backtest.whatif.records import EventKind, Floats, OfferedLoad, ReplayScene, RequestCost, SceneEvent
from cpdb import MBIT, MIB, Destination, Link, Node, NodeKind, Pair, Seconds, VirtualIp
from orchestrator import HostSpec, OrchestratorConfig, VmSpec
from predictor import PredictorConfig

SECONDS = 320
# Weeks have to pass before and after the warm-up ends.
WEEKS_S = 560
PERIOD_S, SURGE_S = 40.0, 10.0
SHOP, API, BULK = "10.20.0.101", "10.20.0.102", "10.20.0.103"
BYTES_PER_CONNECTION = {SHOP: 25_000.0, API: 6_000.0, BULK: 100_000.0}
# New connections/s of each pair when nothing special happens.
EVERYDAY = {
    Pair("c1", SHOP): 8.0, Pair("c2", SHOP): 5.0, Pair("c1", API): 6.0,
    Pair("c3", API): 8.0, Pair("c4", BULK): 3.0, Pair("c2", BULK): 2.0,
}  # fmt: skip
PAIRS = tuple(EVERYDAY)
FRONT, BACK, PILE = PAIRS[0], PAIRS[3], PAIRS[4]
# Connections/s of a full surge: shop's needs twice its base limit and, with bulk beside it, more than its host's link.
SURGE = {FRONT: 55.0, BACK: 60.0, PILE: 18.0}


HOSTS = tuple(HostSpec(name, "", "", 1.6, 4096 * MIB) for name in ("hA", "hB", "hC"))
VMS = (
    VmSpec("shop1", 10, 0.4, 1.3, 2, 256 * MIB),
    VmSpec("api1", 5, 0.4, 1.0, 1, 256 * MIB),
    VmSpec("api2", 5, 0.4, 1.0, 1, 256 * MIB),
    VmSpec("bulk1", 0, 0.3, 0.6, 1, 256 * MIB),
    VmSpec("batch1", 0, 0.4, 0.4, 1, 256 * MIB, movable=True),
    VmSpec("batch2", 0, 0.4, 0.4, 1, 256 * MIB, movable=True),
    VmSpec("cron1", 0, 0.3, 0.3, 1, 256 * MIB, movable=True),
)
PLACES = ("hA", "hB", "hC", "hA", "hA", "hB", "hC")
COSTS = {
    "shop1": RequestCost(12.0, 20.0), "api1": RequestCost(10.0), "api2": RequestCost(10.0),
    "bulk1": RequestCost(5.0, 100.0),
}  # fmt: skip
SWITCHES = ("edge", "mid1", "mid2", "core")
WAYS = (("edge", "mid1"), ("mid1", "core"), ("edge", "mid2"), ("mid2", "core"))
MACHINES = {vm.name: Destination(vm.name, f"10.20.0.{at}", f"52:54:00:20:00:{at:02x}") for at, vm in enumerate(VMS, 11)}


def scenario_scene() -> ReplayScene:
    """Four clients behind one switch, two ways to three hosts behind another, seven machines, three services."""
    return ReplayScene(
        nodes=(
            *(Node(name, NodeKind.SWITCH, dpid=at) for at, name in enumerate(SWITCHES, 1)),
            *(Node(f"c{at}", NodeKind.CLIENT, f"10.20.1.{at}") for at in range(1, 5)),
            *(Node(host.name, NodeKind.HYPERVISOR) for host in HOSTS),
            *(Node(item.name, NodeKind.VM, item.address, item.mac) for item in MACHINES.values()),
        ),
        links=(
            *(Link(a, at, b, at, 60 * MBIT, declared=True) for at, (a, b) in enumerate(WAYS, 1)),
            *(Link("edge", 10 + at, f"c{at}", 0, 60 * MBIT, declared=True) for at in range(1, 5)),
            *(Link("core", 20 + at, host.name, 0, 16 * MBIT, declared=True) for at, host in enumerate(HOSTS)),
        ),
        virtual_ips=(
            VirtualIp(SHOP, "shop", 10, (MACHINES["shop1"],)),
            VirtualIp(API, "api", 5, (MACHINES["api1"], MACHINES["api2"])),
            VirtualIp(BULK, "bulk", 0, (MACHINES["bulk1"],)),
        ),
        hosts=HOSTS,
        vms=VMS,
        host_of=dict(zip(MACHINES, PLACES, strict=True)),
        costs=COSTS,
        orchestrator=OrchestratorConfig.model_validate({"act": True, "declared": {"hosts": HOSTS, "vms": VMS}}),
        predictor=PredictorConfig(),
    )


@dataclass(slots=True)
class Weather:
    """What a generator fills in, with its own chance: connections/s (seconds, pairs), and events."""

    rng: np.random.Generator
    seconds: int = SECONDS
    events: tuple[SceneEvent, ...] = ()
    connections: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.connections = np.tile(np.array(list(EVERYDAY.values())), (self.seconds, 1))

    @property
    def half(self) -> int:
        """Where the warm-up ends by default."""
        return self.seconds // 2

    def surge(self, pair: Pair, start: Seconds, length_s: Seconds = SURGE_S, height: float = 1.0) -> None:
        """Adds a surge of a pair, with a second to rise and one to fall; what lies beyond the end is cut off."""
        t = np.arange(self.seconds) + 0.5
        shape = np.clip(np.minimum(t - start, start + length_s - t), 0.0, 1.0)
        self.connections[:, PAIRS.index(pair)] += height * SURGE[pair] * shape

    def recur(
        self, pair: Pair = FRONT, period_s: Seconds = PERIOD_S, start: Seconds = 0.0, end: float = np.inf
    ) -> None:
        """Surges of a pair each `period_s` within [start, end), each up to a second early or late."""
        first = start + self.rng.uniform(10, 10 + period_s / 2)
        for at in np.arange(first, min(end, self.seconds), period_s):
            self.surge(pair, at + self.rng.uniform(-1, 1), SURGE_S * self.rng.uniform(0.9, 1.1))

    def scale(self, factor: Floats, pairs: tuple[Pair, ...] = PAIRS) -> None:
        """Multiplies pairs by a curve (seconds,)."""
        for pair in pairs:
            self.connections[:, PAIRS.index(pair)] *= factor

    def happen(self, kind: EventKind, name: str = "", start: Seconds = 0.0, length_s: Seconds = np.inf) -> None:
        """Adds an event."""
        self.events = (*self.events, SceneEvent(kind, start, start + length_s, name))

    def load(self) -> OfferedLoad:
        """As offered load: connections arrive by chance (Poisson), each of its service's size give or take a fifth."""
        scene = scenario_scene()
        arrived = self.rng.poisson(np.maximum(self.connections, 0.0)).astype(np.float64)
        sizes = np.array([BYTES_PER_CONNECTION[pair.virtual_ip] for pair in PAIRS])
        spread = 1.0 + 0.2 * self.rng.uniform(-1, 1, arrived.shape) / np.sqrt(np.maximum(arrived, 1.0))
        vms = tuple(vm.name for vm in scene.vms)
        own = np.zeros((self.seconds, len(vms)))
        for name, cores in {"batch1": 0.35, "batch2": 0.35, "cron1": 0.2}.items():
            own[:, vms.index(name)] = cores
        known = np.ones(self.seconds, dtype=np.bool_)
        return OfferedLoad(PAIRS, arrived * sizes * spread, arrived, vms, own, known, self.events)


def recurring_surge(world: Weather) -> None:
    """Every 40 s one client asks the shop for seven times as much for 10 s."""
    world.recur()


def daily_weekly(world: Weather) -> None:
    """Days of 40 s in weeks of seven: all services rise and fall, the last two days of a week at two fifths."""
    t = np.arange(world.seconds)
    day = np.maximum(0.0, np.sin(2 * np.pi * t / 40.0))
    weekend = np.where((t // 40) % 7 >= 5, 0.4, 1.0)
    for pair in (FRONT, BACK):
        world.connections[:, PAIRS.index(pair)] += 0.9 * SURGE[pair] * day * weekend


def slow_ramp(world: Weather) -> None:
    """The shop and the api grow from their everyday load to a full surge within two minutes, and stay there."""
    start = world.half + world.rng.uniform(-20, 10)
    ramp = np.clip((np.arange(world.seconds) - start) / 120.0, 0.0, 1.0)
    for pair in (FRONT, BACK):
        world.connections[:, PAIRS.index(pair)] += SURGE[pair] * ramp


def flash_crowd(world: Weather) -> None:
    """Half a minute of full surge at the shop that nothing announces, once, after the warm-up."""
    world.surge(FRONT, world.half + world.rng.uniform(20, world.half - 60), 30.0)


def moving_surge(world: Weather) -> None:
    """A surge every 25 s that goes from the shop to the api to bulk and round again."""
    for turn, at in enumerate(np.arange(world.rng.uniform(5, 20), world.seconds, 25.0)):
        world.surge((FRONT, BACK, PILE)[turn % 3], at)


def drifting_phase(world: Weather) -> None:
    """The recurring surge, but each one comes up to 6 s sooner or later than the period says, and all after it too."""
    at = world.rng.uniform(5, 25)
    while at < world.seconds:
        world.surge(FRONT, at)
        at += PERIOD_S + world.rng.uniform(-6, 6)


def changing_period(world: Weather) -> None:
    """The recurring surge, whose period becomes 27 s some time after the warm-up."""
    change = world.half + world.rng.uniform(0, 30)
    world.recur(end=change)
    world.recur(period_s=27.0, start=change)


def on_off(world: Weather) -> None:
    """The shop's client is on for 3 to 30 s and off for 5 to 40 s, exponentially distributed, at changing heights."""
    at = world.rng.uniform(0, 20)
    while at < world.seconds:
        length_s = float(np.clip(world.rng.exponential(10), 3, 30))
        world.surge(FRONT, at, length_s, world.rng.uniform(0.4, 1.1))
        at += length_s + float(np.clip(world.rng.exponential(15), 5, 40))


def heavy_tails(world: Weather) -> None:
    """Bursts of all pairs that surge, of which most are short and few are very long or very high (Pareto, 1.5)."""
    for pair in SURGE:
        at = world.rng.uniform(0, 30)
        while at < world.seconds:
            length_s = min(2.0 * (1 + world.rng.pareto(1.5)), 60.0)
            world.surge(pair, at, length_s, min(0.2 * (1 + world.rng.pareto(1.5)), 1.5))
            at += length_s + world.rng.exponential(20)


def pure_noise(world: Weather) -> None:
    """Every pair's rate is drawn anew each second (log-normal, sigma 0.8): nothing can be foreseen but the spread."""
    for pair in PAIRS:
        world.connections[:, PAIRS.index(pair)] *= 1.6 * world.rng.lognormal(-0.32, 0.8, world.seconds)


def calm(world: Weather) -> None:
    """Everyday load, far below every limit: nothing is to be done."""
    world.scale(np.full(world.seconds, 0.6))


def taught_pattern(world: Weather) -> None:
    """An attacker at the api surges every 40 s until it is believed, then comes at other times than that."""
    world.recur(BACK, end=world.half)
    at = world.half + 20.0
    while at < world.seconds:
        world.surge(BACK, at, world.rng.uniform(4, 12))
        at += world.rng.uniform(14, 60)


def cooldown_beat(world: Weather) -> None:
    """An attacker at the api goes on and off every 5 s, the time that a limit rests after it has turned."""
    for at in np.arange(world.rng.uniform(0, 10), world.seconds, 10.0):
        world.surge(BACK, at, 5.0)


def greedy_source(world: Weather) -> None:
    """One source of bulk grows until it offers three times what its host's link carries; the shop surges as ever."""
    world.recur()
    growth = np.clip((np.arange(world.seconds) - 0.3 * world.seconds) / (0.5 * world.seconds), 0.0, 1.0)
    world.connections[:, PAIRS.index(PILE)] += 60.0 * growth


def host_lost(world: Weather) -> None:
    """The recurring surge at the api, and one of its two hosts is gone for half a minute."""
    world.recur(BACK)
    world.happen(EventKind.HOST_LOST, "hC", world.half + world.rng.uniform(20, 60), 30.0)


def link_lost(world: Weather) -> None:
    """The recurring surge, and one of the two ways through the network is gone for a minute."""
    world.recur()
    world.happen(EventKind.LINK_LOST, "mid1>core", world.half + world.rng.uniform(10, 40), 60.0)


def failing_migrations(world: Weather) -> None:
    """The recurring surge, and no migration succeeds."""
    world.recur()
    world.happen(EventKind.MIGRATIONS_FAIL)


def late_telemetry(world: Weather) -> None:
    """The recurring surge, and for 40 s of the judged time what switches count comes late."""
    world.recur()
    world.happen(EventKind.TELEMETRY_LATE, "", world.half + world.rng.uniform(10, 60), 40.0)


def missing_forecasts(world: Weather) -> None:
    """The recurring surge, and for 60 s of the judged time nobody writes forecasts."""
    world.recur()
    world.happen(EventKind.FORECASTS_MISSING, "", world.half + world.rng.uniform(10, 60), 60.0)


FAMILIES: Mapping[str, Callable[[Weather], None]] = {
    family.__name__: family
    for family in (
        recurring_surge, daily_weekly, slow_ramp, flash_crowd, moving_surge, drifting_phase, changing_period, on_off,
        heavy_tails, pure_noise, calm, taught_pattern, cooldown_beat, greedy_source, host_lost, link_lost,
        failing_migrations, late_telemetry, missing_forecasts,
    )
}  # fmt: skip
# Where foresight has to gain nearly all that can be gained, and who attacks whom.
FORESEEABLE = frozenset({"recurring_surge", "daily_weekly", "slow_ramp"})
ATTACKERS = {"taught_pattern": BACK, "cooldown_beat": BACK, "greedy_source": PILE}


def describe_scenarios() -> Mapping[str, str]:
    """Name -> what it is, in one sentence."""
    return {name: (family.__doc__ or "").strip() for name, family in FAMILIES.items()}


def make_scenario(name: str, seed: int) -> OfferedLoad:
    """The load of a scenario on `scenario_scene`; the same name and seed give the same load.

    Raises RecordingError for a name that nobody knows.
    """
    if name not in FAMILIES:
        raise RecordingError(f"--scenario {name!r}: there is none of that name; there are {', '.join(FAMILIES)}")
    # A name's own stream of chance: families do not share their first draws.
    entropy = [seed, *name.encode()]
    world = Weather(np.random.default_rng(entropy), WEEKS_S if name == "daily_weekly" else SECONDS)
    FAMILIES[name](world)
    return world.load()

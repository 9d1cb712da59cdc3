"""Who gets new connections: controller, planner and commands follow one rule, in every case alike."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cpdb import (
    CONTROLLER,
    BandwidthRequest,
    Communication,
    Destination,
    DestinationChange,
    DestinationHealth,
    DriverError,
    HealthReport,
    HealthStatus,
    NodeKind,
    ObservedKind,
    Pair,
    Standing,
    Store,
    VirtualIp,
    WantedWeights,
    Withdrawal,
    destination_key,
    open_store,
)
from cpdb.model import NOT_KNOWN
from forepath.views import services
from orchestrator import (
    FakeHypervisors,
    FakePool,
    HostSpec,
    MemoryState,
    NetworkState,
    OrchestratorConfig,
    PairState,
    PlanningContext,
    PoolMember,
    PoolSpec,
    ScaleIn,
    VmState,
    WantedState,
    World,
)
from orchestrator.act.stages import Now, Stages
from orchestrator.context import served_demands
from orchestrator.lead_times import LeadTimes
from orchestrator.observe.gather import Gatherer
from orchestrator.pair_table import ConnectionSize
from orchestrator.strategies.admission import placed_requests
from orchestrator.strategies.services import serving as scaled_serving
from orchestrator.strategies.weights import candidates
from ryu_apps.rules import PortId
from ryu_apps.services.health import targets_of
from ryu_apps.services.virtual_ips import Destinations

VIP, NOW = "10.0.0.100", 1_000.0
NAMES = ("a", "b", "c")
UNKNOWN, UP, DOWN, FROZEN = HealthStatus
JOINING, SERVING, DRAINING, REMOVED = Standing
CONFIG = OrchestratorConfig(declared={"hosts": (HostSpec("h", "", "", 4.0, 1 << 30),)})
MEMBERS = tuple(PoolMember(name, f"10.0.0.{n}", f"02:00:00:00:00:0{n}", "h") for n, name in enumerate(NAMES, 1))
POOL = PoolSpec(VIP, MEMBERS, 1, 3)


@dataclass(frozen=True)
class Service:
    """A virtual IP with a and b (and c), what is wanted of it, and what the controller knows of them."""

    a: tuple[int, Standing] = (100, SERVING)
    b: tuple[int, Standing] = (100, SERVING)
    c: tuple[int, Standing] = (0, SERVING)
    wanted: Mapping[str, int] = field(default_factory=dict)
    health: Mapping[str, HealthStatus] = field(default_factory=dict)
    # Those that have answered once, although they are not up now
    answered: frozenset[str] = frozenset()
    probe: str = "arp"

    @property
    def vip(self) -> VirtualIp:
        behind = (
            Destination(name, f"10.0.0.{number}", f"02:00:00:00:00:0{number}", *getattr(self, name))
            for number, name in enumerate(NAMES, 1)
        )
        return VirtualIp(VIP, "shop", 5, tuple(behind), affinity="connection", probe=self.probe)

    @property
    def known(self) -> dict[str, DestinationHealth]:
        answered = {name for name, status in self.health.items() if status is UP} | self.answered
        return {name: DestinationHealth(status, name in answered) for name, status in self.health.items()}

    @property
    def reports(self) -> list[HealthReport]:
        return [HealthReport(VIP, name, health, "", NOW) for name, health in self.known.items()]

    @property
    def world(self) -> World:
        pair = PairState(Pair("c1", VIP), 5, "nobody", (), 1e4, 1.0, 1e4, 1.0, ConnectionSize(1e4))
        return World(
            NOW, 1.0, {pair.pair: pair}, virtual_ips={VIP: self.vip},
            network=NetworkState(ways=lambda source, end: ((source, end),)),
            wanted=WantedState(weights={VIP: self.wanted} if self.wanted else {}, observed=tuple(self.reports)),
            vms={name: VmState(name, "h", 0.1, 0.2, 1, MemoryState(1 << 20)) for name in NAMES},
        )  # fmt: skip

    def put_into(self, store: Store) -> None:
        store.inventory.declare_virtual_ips([self.vip])
        for item in self.vip.destinations:
            place = (VIP, item.name, item.address, item.mac, item.weight, item.standing)
            store.inventory.put_change(DestinationChange(*place, "o", "r", NOW))
        store.wanted.want_weights(WantedWeights(VIP, self.wanted, "o", "r"))
        gone = [Withdrawal(ObservedKind.HEALTH, destination_key(VIP, name), CONTROLLER, NOW) for name in NAMES]
        store.wanted.observe([*gone, *self.reports])


# One line a clause of the rule, and who then gets new connections.
RULE: Mapping[str, tuple[Service, str]] = {
    "by weight": (Service(), "ab"),
    "weight 0 is a stand-by": (Service(b=(0, SERVING)), "a"),
    "a wanted weight counts before a declared one": (Service(c=(0, SERVING), wanted={"c": 5, "b": 0}), "ac"),
    "a drained one gets nothing though its weight stays": (Service(a=(100, DRAINING)), "b"),
    "nor though a weight is wanted for it": (Service(a=(100, DRAINING), wanted={"a": 70, "b": 30}), "b"),
    "a removed one neither": (Service(a=(100, REMOVED)), "b"),
    "one that joins waits for its first answer": (Service(b=(100, JOINING)), "a"),
    "and serves from then on": (Service(b=(100, JOINING), health={"b": UP}), "ab"),
    "at once where nobody is probed": (Service(b=(100, JOINING), probe="none"), "ab"),
    "who is down gets nothing while another one is left": (Service(health={"a": DOWN}), "b"),
    "also when the other one is not known yet": (Service(health={"a": DOWN, "b": UNKNOWN}), "b"),
    "when nobody answers everyone stays": (Service(health={"a": DOWN, "b": DOWN}), "ab"),
    "but who drains": (Service(a=(100, DRAINING), health={"a": UP, "b": DOWN}), "b"),
    "and who never answered": (Service(b=(100, JOINING), health={"a": DOWN, "b": UNKNOWN}), "a"),
    "those that joined and answered once too": (
        Service(b=(100, JOINING), health={"a": DOWN, "b": DOWN}, answered=frozenset("b")),
        "ab",
    ),
    "a frozen one gets nothing": (Service(health={"a": FROZEN}), "b"),
    "not even as the last": (Service(b=(0, SERVING), health={"a": FROZEN}), ""),
    "one that answers with weight 0 is not left": (
        Service(b=(0, SERVING), health={"a": DOWN, "b": UP}),
        "a",
    ),
}


def by_chance(seed: int) -> Service:
    rng = random.Random(seed)
    ends = [(rng.choice((0, 10, 100)), rng.choice((SERVING, SERVING, JOINING, DRAINING))) for _ in NAMES]
    wanted = {name: rng.choice((0, 30)) for name in NAMES if rng.random() < 0.4}
    health = {name: rng.choice(tuple(HealthStatus)) for name in NAMES if rng.random() < 0.7}
    answered = frozenset(name for name, status in health.items() if status in (DOWN, FROZEN) and rng.random() < 0.5)
    probe = rng.choice(("arp", "arp", "none"))
    return Service(*ends, wanted=wanted, health=health, answered=answered, probe=probe)


SERVICES = {clause: service for clause, (service, _) in RULE.items()} | {
    f"by chance {n}": by_chance(n) for n in range(40)
}


# ---- the eight callers, each asked in its own words


def _of_rule(service: Service, _store: Store) -> list[str]:
    return [item.name for item in service.vip.eligible(service.wanted, service.known)]


def _of_controller(service: Service, _store: Store) -> list[str]:
    """The controller sees health and doubles itself; what the database says is what it once wrote."""
    vip = service.vip.with_weights(service.wanted)
    asked = Destinations()
    asked.declare({VIP: vip})
    for at, item in enumerate(vip.destinations, 1):
        asked.conflicts.saw(item.mac, None, PortId(1, at), NOW, lambda _at: NodeKind.HYPERVISOR)
    targets = targets_of("arp", VIP, [(item.address, item.mac) for item in vip.destinations])
    asked.health.due(targets, (), NOW)
    for target, item in zip(targets, vip.destinations, strict=True):
        status = service.health.get(item.name, UNKNOWN)
        if service.known.get(item.name, NOT_KNOWN).answered:
            asked.health.answered(target, True, NOW)
        for _ in range(3 if status is DOWN else 0):
            asked.health.answered(target, False, NOW)
        if status is FROZEN:
            asked.conflicts.saw("02:00:00:00:00:ff", item.address, PortId(1, 9), NOW, lambda _at: NodeKind.HYPERVISOR)
    return [item.name for item in asked.serving(NOW)[VIP].destinations if item.weight > 0]


def _of_commands(service: Service, store: Store) -> list[str]:
    service.put_into(store)
    return [one.name for one in services(store, NOW)[0].destinations if one.share > 0]


def _of_spread(service: Service, _store: Store) -> list[str]:
    context = PlanningContext.of(service.world, CONFIG)
    return [name for name in NAMES if served_demands(context, service.world.vms[name], 0)]


def _of_balancer(service: Service, _store: Store) -> list[str]:
    """Weights are chosen anew, so only those declared count: here they are declared as they are wanted."""
    vip = service.vip.with_weights(service.wanted)
    world = service.world
    return list(candidates(replace(world, wanted=replace(world.wanted, weights={})), vip))


def _of_scaling(service: Service, _store: Store) -> list[str]:
    return scaled_serving(service.world, POOL)


def _of_admission(service: Service, _store: Store) -> list[str]:
    world = replace(service.world, vms={}, pairs={})
    asked = BandwidthRequest("c1", VIP, 1e5, NOW + 60, "r", "o", NOW - 1)
    (case,) = placed_requests(
        PlanningContext.of(replace(world, wanted=replace(world.wanted, requests=(asked,))), CONFIG)
    )
    return [end for _, end in case.links]


def _of_stages(service: Service, store: Store) -> list[str]:
    """Machines that may not be drained."""
    service.put_into(store)
    return [name for name in NAMES if _last(name, store)]


def _last(name: str, store: Store) -> bool:
    member = next(one for one in POOL.members if one.vm == name)
    pool = FakePool(FakeHypervisors({"h": CONFIG.declared.hosts[0]}, {}, lambda _vm, _now: 0.0), {})
    stages = Stages(ScaleIn(VIP, name, "h", "paused"), POOL, member, pool, store, "o")
    before = next(one for one in store.inventory.changes() if one.name == name)
    try:
        stages.step("drain", Now(NOW, NOW))
    except DriverError:
        return True
    store.inventory.put_change(before)
    return False


def _of_gatherer(service: Service, store: Store) -> list[str]:
    service.put_into(store)
    store.facts.add_communications([Communication("c1", VIP, None, NOW, 1.0, 100, 1, 1)])
    world = Gatherer(store, CONFIG, lambda source, end: (source, end)).world(NOW, (), LeadTimes())
    found = world.pairs[Pair("c1", VIP)].destination
    return [found] if found else []


def _whole(service: Service) -> list[str]:
    return _of_rule(service, None)  # type: ignore[arg-type]


def _first(service: Service) -> list[str]:
    return _whole(service)[:1]


def _answering(service: Service) -> list[str]:
    """A machine that is down is no capacity, though it is tried when nobody answers."""
    return [name for name in _whole(service) if service.health.get(name) is not DOWN]


def _without_others(service: Service) -> list[str]:
    """Those that serve and without which nobody would be left for new connections: they may not be drained."""
    found = set(_whole(service))
    return [name for name in NAMES if getattr(service, name)[1] is SERVING and not found - {name}]


Caller = Callable[[Service, Store], list[str]]
Expected = Callable[[Service], list[str]]
CALLERS: Mapping[str, tuple[Caller, Expected]] = {
    "controller": (_of_controller, _whole),
    "commands": (_of_commands, _whole),
    "need of machines": (_of_spread, _whole),
    "balancer": (_of_balancer, _whole),
    "scaling": (_of_scaling, _answering),
    "admission": (_of_admission, _first),
    "stages": (_of_stages, _without_others),
    "gatherer": (_of_gatherer, _first),
}


@pytest.mark.parametrize("clause", RULE)
def test_the_rule(clause: str) -> None:
    service, names = RULE[clause]
    assert _whole(service) == list(names)
    shares = service.vip.shares(service.wanted, service.known)
    assert list(shares) == list(names)
    assert sum(shares.values()) == pytest.approx(1.0 if names else 0.0)


@pytest.mark.parametrize("caller", CALLERS)
def test_every_caller_follows_it(caller: str, tmp_path: Path) -> None:
    ask, expected = CALLERS[caller]
    store, different = open_store(f"sqlite:///{tmp_path / 'forepath.db'}"), {}
    for clause, service in SERVICES.items():
        if caller == "controller" and service.probe == "none":
            continue
        found = ask(service, store)
        if found != expected(service):
            different[clause] = (service, found, expected(service))
    store.close()
    assert different == {}

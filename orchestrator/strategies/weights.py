"""Strategy: where a destination will run short, new communications go to those that will have most left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cpdb import BytesPerS, Pair, VirtualIp
from orchestrator.actions import SetWeights
from orchestrator.config import OrchestratorConfig
from orchestrator.demand import Demand, PairDemand, together
from orchestrator.lead_times import Circumstances
from orchestrator.needs import ceiling, needed_on
from orchestrator.steps import Refusal, Step, acting_horizons, evidence, when
from orchestrator.strategies.destinations import Scene
from orchestrator.world import LinkKey, VmState, World

if TYPE_CHECKING:
    from orchestrator.optimise import Rows

# With affinity to sources those that speak stay: about so much of the demand is free to go elsewhere soon.
FREE_SHARE = 0.3
CONNECTION = "connection"


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual IP with alternatives. `shares` are those of its destinations now, `pinned` what stays where it is."""

    vip: VirtualIp
    names: tuple[str, ...]
    shares: Mapping[str, float]
    declared: Mapping[str, float]
    wants: tuple[PairDemand, ...]
    pinned: Mapping[str, float] = field(default_factory=dict)

    @property
    def free(self) -> float:
        """The share of the demand that follows the weights."""
        return 1.0 - sum(self.pinned.values())


@dataclass(slots=True)
class Places:
    """What a service's shares load: by place, its load without them, and what a whole share adds; capacity is 1."""

    service: Service
    base: dict[str, float] = field(default_factory=dict)
    per_share: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, place: str, base: float, name: str, load: float) -> None:
        """`load`: what the whole service would put on the place through destination `name`; shares of its capacity."""
        self.base.setdefault(place, base)
        own = self.per_share.setdefault(place, {})
        own[name] = own.get(name, 0.0) + load

    def left(self, shares: Mapping[str, float], place: str) -> float:
        """The headroom of a place under these shares; below 0 it is short."""
        pinned, free = self.service.pinned, self.service.free
        own = self.per_share[place].items()
        return 1.0 - self.base[place] - sum((pinned.get(name, 0.0) + free * shares[name]) * each for name, each in own)

    def least(self, shares: Mapping[str, float]) -> float:
        """The smallest headroom of all; 1 where there is no place at all."""
        return min((self.left(shares, place) for place in self.base), default=1.0)


@dataclass(slots=True)
class View:
    """What is looked at for every service; what links and machines need is found out once."""

    scene: Scene
    _pairs: dict[str, list[Pair]] = field(default_factory=dict)
    _needed: dict[tuple[LinkKey, int], BytesPerS] = field(default_factory=dict)

    def pairs(self, virtual_ip: str) -> list[Pair]:
        """The pairs of a virtual IP, by name."""
        if not self._pairs:
            for one in sorted(self.scene.world.pairs, key=str):
                self._pairs.setdefault(one.virtual_ip, []).append(one)
        return self._pairs.get(virtual_ip, [])

    def needed(self, key: LinkKey, horizon_s: int) -> BytesPerS:
        """What a link will have to carry."""
        if (key, horizon_s) not in self._needed:
            world = self.scene.world
            self._needed[key, horizon_s] = needed_on(world, self.scene.demand, world.links[key], horizon_s)
        return self._needed[key, horizon_s]


def service_of(view: View, vip: VirtualIp, names: tuple[str, ...], horizon_s: int) -> Service:
    """The service as it is at a horizon, its demand shared among these destinations."""
    world = view.scene.world
    wanted = world.weights.get(vip.address, {})
    declared = {one.name: float(one.weight) for one in vip.destinations if one.name in names}
    current = {name: max(0.0, float(wanted.get(name, weight))) for name, weight in declared.items()}
    wants = tuple(view.scene.demand.at(horizon_s, view.pairs(vip.address)))
    return Service(vip, names, _normed(current), _normed(declared), wants, _pinned(world, vip, names, wants))


def _normed(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total if total > 0 else 1 / len(weights) for name, weight in weights.items()}


def _pinned(world: World, vip: VirtualIp, names: Sequence[str], wants: Sequence[PairDemand]) -> dict[str, float]:
    """The share of the demand that stays with each destination whatever the weights."""
    if vip.affinity == CONNECTION:
        return {}
    total = sum(one.bytes.need for one in wants)
    found = dict.fromkeys(names, 0.0)
    for one in wants:
        name = world.pairs[one.pair].destination
        if name in found and total > 0:
            found[name] += (1 - FREE_SHARE) * one.bytes.need / total
    return found


def places(view: View, service: Service, horizon_s: int) -> Places:
    """Every place that the service's shares load differently."""
    scene, table = view.scene, Places(service)
    cores = {name: _cores(scene, service, name) for name in service.names}
    known = [one for one in cores.values() if one is not None]
    for name in service.names:
        vm, cost = scene.world.vms.get(name), cores[name]
        if vm is not None and known:
            _compute(table, _Machine(scene, service, vm, horizon_s), max(known) if cost is None else cost)
        _ways(view, table, (name, vm.host if vm else name), horizon_s)
    # A place that the shares do not load more or less says nothing about them.
    idle = [place for place, own in table.per_share.items() if _flat(own, len(service.names))]
    for place in idle:
        del table.base[place], table.per_share[place]
    return table


def _flat(own: Mapping[str, float], count: int) -> bool:
    return not own or (len(own) == count and max(own.values()) - min(own.values()) < 1e-9)


def _cores(scene: Scene, service: Service, name: str) -> float | None:
    """CPU in cores that all of the service's demand would take at one destination; None when nobody knows."""
    vm = scene.world.vms.get(name)
    if vm is None:
        return None
    totals = {
        "connections_per_s": together(one.connections for one in service.wants),
        "bytes_per_s": together(one.bytes for one in service.wants),
    }
    related = [one.slope * totals[one.feature] for one in vm.relations]
    return max(related, default=None) if related else _measured(scene, service, vm, totals["bytes_per_s"])


def _measured(scene: Scene, service: Service, vm: VmState, total: float) -> float | None:
    own = sum(one.bytes_per_s for one in scene.world.pairs_to(vm.name))
    return vm.cores_used / own * total if own > 0 and service.wants else None


@dataclass(frozen=True, slots=True)
class _Machine:
    """A destination that is a machine, among the others of its service and of its host."""

    scene: Scene
    service: Service
    vm: VmState
    horizon_s: int

    @property
    def neighbours(self) -> float:
        """Cores that the machines of its host need which are no destinations of this service."""
        others = (one for one in self.scene.world.on_host(self.vm.host) if one.name not in self.service.names)
        return sum(self.scene.cores(one, self.horizon_s) for one in others)


def _compute(table: Places, one: _Machine, cores: float) -> None:
    vm, most = one.vm, ceiling(one.vm)
    idle = min((it.base_cores for it in vm.relations), default=0.0)
    table.add(vm.name, idle / most, vm.name, cores / most)
    host = one.scene.world.hosts.get(vm.host)
    if host is not None:
        room = one.scene.config.cpu.host_headroom * host.cpu_cores_capacity
        table.add(f"host {vm.host}", one.neighbours / room, vm.name, cores / room)


def _ways(view: View, table: Places, place: tuple[str, str], horizon_s: int) -> None:
    """Links on the ways of the service's sources to a destination, with what others need of them."""
    (name, end), scene = place, view.scene
    loads: dict[LinkKey, float] = {}
    for one in table.service.wants:
        for key in scene.world.ways(one.pair.source, end):
            loads[key] = loads.get(key, 0.0) + one.bytes.need
    for key, load in loads.items():
        link = scene.world.links.get(key)
        if link is not None and link.capacity_bytes_per_s:
            room = scene.config.bandwidth.headroom * link.capacity_bytes_per_s
            own = [one.bytes for one in table.service.wants if key in scene.world.pairs[one.pair].links]
            others = max(0.0, view.needed(key, horizon_s) - together(own))
            table.add(link.name, others / room, name, load / room)


TOTAL = 100
# A destination keeps at least this share: who gets nothing at all shows nothing about itself.
LEAST_SHARE = 0.02


def plan_weights(world: World, demand: Demand, config: OrchestratorConfig) -> tuple[list[Step], list[Refusal]]:
    """Weights to change, and where no split would help. Only destinations that are declared with a weight take part."""
    found: list[Step | Refusal] = []
    view = View(Scene(world, demand, config))
    for vip in (
        sorted(world.virtual_ips.values(), key=lambda one: (-one.priority, one.address))
        if config.weights.enabled
        else ()
    ):
        names = candidates(world, vip)
        if len(names) > 1:
            found += _for_service(view, vip, names)
    return [one for one in found if isinstance(one, Step)], [one for one in found if isinstance(one, Refusal)]


def candidates(world: World, vip: VirtualIp) -> tuple[str, ...]:
    """Destinations that would get new connections by their declared weights: among them other weights are chosen."""
    return tuple(item.name for item in vip.eligible({}, world.health(vip.address)))


def _for_service(view: View, vip: VirtualIp, names: tuple[str, ...]) -> Iterator[Step | Refusal]:
    world, config = view.scene.world, view.scene.config
    horizons = acting_horizons(world, SetWeights.kind, config, Circumstances(vip.address))
    tables = {one: places(view, service_of(view, vip, names, one), one) for one in horizons}
    if not any(table.base for table in tables.values()):
        return
    worst = min(horizons, key=lambda one: (tables[one].least(tables[one].service.shares), one))
    table, shares = tables[worst], tables[worst].service.shares
    now = table.least(shares)
    if now >= config.weights.below:
        yield from _back(view.scene, table, worst)
        return
    best = _best(table)
    if table.least(best) - now < config.weights.min_gain:
        fullest = min(table.base, key=lambda one: (table.left(shares, one), one))
        text = f"{fullest} has {now:.0%} left, and no split leaves {config.weights.min_gain:.0%} more"
        yield Refusal(f"other weights for {vip.name}", text)
    elif max(abs(best[name] - shares[name]) for name in names) >= config.weights.min_gain:
        yield _step(view.scene, table, best, worst)


def _back(scene: Scene, table: Places, horizon_s: int) -> Iterator[Step]:
    """What was declared holds again as soon as it leaves enough."""
    service = table.service
    if not scene.world.weights.get(service.vip.address):
        return
    if table.least(service.declared) >= scene.config.weights.below + scene.config.weights.min_gain:
        yield _step(scene, table, service.declared, horizon_s)


def _best(table: Places) -> dict[str, float]:
    # numpy and scipy take half a second to import, which most commands need not spend.
    from orchestrator.optimise import best_shares

    found = best_shares(_rows(table), LEAST_SHARE)
    return {name: float(share) for name, share in zip(table.service.names, found, strict=True)}


def _rows(table: Places) -> "Rows":
    import numpy as np

    from orchestrator.optimise import Rows

    service, known = table.service, sorted(table.base)
    amounts = np.array([[table.per_share[one].get(name, 0.0) for name in service.names] for one in known])
    pinned = np.array([service.pinned.get(name, 0.0) for name in service.names])
    return Rows(np.array([table.base[one] for one in known]) + amounts @ pinned, amounts * service.free)


def _step(scene: Scene, table: Places, best: Mapping[str, float], horizon_s: int) -> Step:
    service, world, vip = table.service, scene.world, table.service.vip
    before = tuple((name, int(weight)) for name, weight in world.weights.get(vip.address, {}).items())
    after = _weights(service, best)
    rooms = {place: {"now": table.left(service.shares, place), "then": table.left(best, place)} for place in table.base}
    said = ", ".join(f"{place} {one['now']:.0%} -> {one['then']:.0%}" for place, one in sorted(rooms.items()))
    leader = max(service.wants, key=lambda one: one.bytes.need, default=None)
    proof = evidence(leader.bytes, horizon_s, scene.config) if leader else None
    needed_at = world.now + horizon_s
    vms = [name for name in service.names if name in world.vms]
    reason: dict[str, Any] = {
        "forecast": proof,
        "where": {"virtual_ip": vip.address},
        "headrooms": rooms,
        "circumstances": Circumstances(vip.address).to_json(),
        "alternatives": [],
        "promise": {
            "what": "headroom",
            "vms": vms,
            "value": min(one["then"] for one in rooms.values()),
            "by": needed_at,
        },
    }
    lead_s = world.leads.needed(SetWeights.kind, scene.config, Circumstances(vip.address))
    why = f"{vip.name} {when(horizon_s)}: headroom {said}"
    return Step(SetWeights(vip.address, before, after), why, reason, needed_at, lead_s)


def _weights(service: Service, best: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    """Whole numbers on the scale of the declared ones, so that a destination that joins finds its place among them.

    None at all where the declared ones are to hold again.
    """
    if best is service.declared:
        return ()
    total = max(TOTAL, sum(one.weight for one in service.vip.destinations if one.name in service.names))
    return tuple((name, max(1, round(total * best[name]))) for name in service.names)

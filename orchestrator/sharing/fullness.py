"""Says how full each place of a service's destinations would be under given weights: machine, host, ways to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cpdb import BytesPerS, Pair, VirtualIp
from orchestrator.demand import PairDemand, together
from orchestrator.moving.destination import Scene
from orchestrator.needs import ceiling, needed_on
from orchestrator.world import LinkKey, VmState, World

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
        room = one.scene.config.host_headroom * host.cpu_cores_capacity
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
            room = scene.config.link_headroom * link.capacity_bytes_per_s
            own = [one.bytes for one in table.service.wants if key in scene.world.pairs[one.pair].links]
            others = max(0.0, view.needed(key, horizon_s) - together(own))
            table.add(link.name, others / room, name, load / room)

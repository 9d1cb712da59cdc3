"""Strategy: where a destination will run short, new communications go to those that will have most left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cpdb import VirtualIp
from orchestrator.actions import SetWeights
from orchestrator.context import PlanningContext, evidence_of, propose_each, until_back
from orchestrator.declared import HostSpec
from orchestrator.demand_table import PairDemand
from orchestrator.lead_times import Circumstances
from orchestrator.needs import ceiling
from orchestrator.pair_table import LinkKey
from orchestrator.promises import HeadroomPromise
from orchestrator.proposal import Proposal, Reason, Refusal, RefusalCode, Step, when
from orchestrator.screens import not_ample, tight_links
from orchestrator.world import VmState, World

if TYPE_CHECKING:
    from orchestrator.optimise import Rows

# With affinity to sources those that speak stay: about so much of the demand is free to go elsewhere soon.
FREE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual IP with alternatives. `shares` are those of its destinations now, `pinned` what stays where it is.

    `numbers` are those of its pairs, with their `needs` in bytes/s.
    """

    vip: VirtualIp
    names: tuple[str, ...]
    shares: Mapping[str, float]
    declared: Mapping[str, float]
    numbers: Sequence[int]
    needs: Sequence[float]
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


def service_of(context: PlanningContext, vip: VirtualIp, names: tuple[str, ...], horizon_s: int) -> Service:
    """The service as it is at a horizon, its demand shared among these destinations."""
    wanted = context.world.wanted.weights.get(vip.address, {})
    declared = {one.name: float(one.weight) for one in vip.destinations if one.name in names}
    current = {name: max(0.0, float(wanted.get(name, weight))) for name, weight in declared.items()}
    numbers = context.world.table.of_service.members.get(vip.address, [])
    needs = context.demand.table(horizon_s).bytes.need[numbers].tolist()
    pinned = {} if vip.by_connection else _pinned(context.world, names, numbers, needs)
    return Service(vip, names, _normed(current), _normed(declared), numbers, needs, pinned)


def _normed(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total if total > 0 else 1 / len(weights) for name, weight in weights.items()}


def _pinned(world: World, names: Sequence[str], numbers: Sequence[int], needs: Sequence[float]) -> dict[str, float]:
    """The share of the demand that stays with each destination whatever the weights."""
    total = sum(needs)
    found = dict.fromkeys(names, 0.0)
    for number, need in zip(numbers, needs, strict=True):
        name = world.table.states[number].destination
        if name in found and total > 0:
            found[name] += (1 - FREE_SHARE) * need / total
    return found


def places(context: PlanningContext, service: Service, horizon_s: int, links: bool = True) -> Places:
    """Every place that the service's shares load differently, or without `links` the machines and hosts among them."""
    table = Places(service)
    vms = ((name, context.world.vms.get(name)) for name in service.names)
    cores = {name: _cores(context, service.vip, vm, horizon_s) if vm else None for name, vm in vms}
    known = [one for one in cores.values() if one is not None]
    for name in service.names:
        vm, cost = context.world.vms.get(name), cores[name]
        if vm is not None and known:
            _compute(table, _Machine(context, service, vm, horizon_s), max(known) if cost is None else cost)
    if links:
        _links(context, table, horizon_s)
    # A place that the shares do not load more or less says nothing about them.
    idle = [place for place, own in table.per_share.items() if _flat(own, len(service.names))]
    for place in idle:
        del table.base[place], table.per_share[place]
    return table


def _flat(own: Mapping[str, float], count: int) -> bool:
    return not own or (len(own) == count and max(own.values()) - min(own.values()) < 1e-9)


def _cores(context: PlanningContext, vip: VirtualIp, vm: VmState, horizon_s: int) -> float | None:
    """CPU in cores that all of the service's demand would take at one destination; None when nobody knows."""
    asked = context.asked_of(vip.address, horizon_s)
    related = [one.slope * asked.rate_of(one.feature) for one in vm.relations]
    if related:
        return max(related)
    own = sum(one.bytes_per_s for one in context.world.pairs_to(vm.name))
    spoken = vip.address in context.world.table.of_service.places
    return vm.cores_used / own * asked.bytes_per_s if own > 0 and spoken else None


def _host(context: PlanningContext, vm: VmState) -> HostSpec | None:
    return context.world.hosts.get(vm.host)


@dataclass(frozen=True, slots=True)
class _Machine:
    """A destination that is a machine, among the others of its service and of its host."""

    context: PlanningContext
    service: Service
    vm: VmState
    horizon_s: int

    @property
    def neighbours(self) -> float:
        """Cores that the machines of its host need which are no destinations of this service."""
        others = (one for one in self.context.world.on_host(self.vm.host) if one.name not in self.service.names)
        return sum(self.context.cores(one, self.horizon_s) for one in others)


def _compute(table: Places, one: _Machine, cores: float) -> None:
    vm, most = one.vm, ceiling(one.vm)
    idle = min((it.base_cores for it in vm.relations), default=0.0)
    table.add(vm.name, idle / most, vm.name, cores / most)
    host = _host(one.context, vm)
    if host is not None:
        room = one.context.config.cpu.host_headroom * host.cpu_cores_capacity
        table.add(f"host {vm.host}", one.neighbours / room, vm.name, cores / room)


def _links(context: PlanningContext, table: Places, horizon_s: int) -> None:
    """Links on the ways of the service's sources to its destinations, with what others need of them."""
    world, service, loads = context.world, table.service, dict[LinkKey, dict[str, float]]()
    for name in service.names:
        end = world.vms[name].host if name in world.vms else name
        ways = world.table.ways_to(service.vip.address, end, world.network.ways)
        sums = ways.sums(context.demand.table(horizon_s).bytes.need).tolist()
        for key, load in zip(ways.places, sums, strict=True):
            loads.setdefault(key, {})[name] = load
    for key, own in loads.items():
        link = world.links.get(key)
        if link is not None and link.capacity_bytes_per_s:
            room = context.config.bandwidth.headroom * link.capacity_bytes_per_s
            shares = {name: load / room for name, load in own.items()}
            if not _flat(shares, len(service.names)):
                sent = context.asked_on(key, horizon_s, service.vip.address).bytes_per_s
                table.base[link.name] = max(0.0, context.needed(key, horizon_s) - sent) / room
                table.per_share[link.name] = shares


TOTAL = 100
# A destination keeps at least this share: who gets nothing at all shows nothing about itself.
LEAST_SHARE = 0.02


def propose(context: PlanningContext) -> Proposal:
    """Weights to change, and where no split would help. Only destinations that are declared with a weight take part."""
    services = _worth_a_look(context) if context.config.weights.enabled else ()
    return propose_each(context, sorted(services, key=lambda vip: (-vip.priority, vip.address)), _for_service)


def _worth_a_look(context: PlanningContext) -> Iterator[VirtualIp]:
    """Services with alternatives whose weights are changed already, or of whose places one may have too little left."""
    groups: dict[tuple[int, ...], dict[str, tuple[str, ...]]] = {}
    for vip in context.world.virtual_ips.values():
        names = candidates(context.world, vip) if len(vip.destinations) > 1 else ()
        if len(names) > 1:
            horizons = context.acting_horizons(SetWeights.kind, Circumstances(vip.address))
            groups.setdefault(horizons, {})[vip.address] = names
    for horizons, services in groups.items():
        looked_at = {address for address in services if context.world.wanted.weights.get(address)}
        for one in horizons:
            looked_at |= set(services) if tight_links(context, one) else not_ample(context, services, one)
        yield from (vip for address, vip in context.world.virtual_ips.items() if address in looked_at)


def candidates(world: World, vip: VirtualIp) -> tuple[str, ...]:
    """Destinations that would get new connections by their declared weights: among them other weights are chosen."""
    return tuple(item.name for item in vip.eligible({}, world.health(vip.address)))


def _for_service(context: PlanningContext, vip: VirtualIp) -> Iterator[Step | Refusal]:
    names = candidates(context.world, vip)
    if len(names) < 2:
        return
    settings = context.config.weights
    horizons = context.acting_horizons(SetWeights.kind, Circumstances(vip.address))
    found = _worst(context, vip, names, horizons)
    if found is None:
        return
    worst, table = found
    shares = table.service.shares
    now = table.least(shares)
    if now >= settings.below:
        yield from _back(context, table, worst)
        return
    best = _best(table, _rows(table)) if _may_gain(context, table) else shares
    if table.least(best) - now < settings.min_gain:
        fullest = min(table.base, key=lambda one: (table.left(shares, one), one))
        text = f"{fullest} has {now:.0%} left, and no split leaves {settings.min_gain:.0%} more"
        yield Refusal(RefusalCode.NO_GAIN, vip.address, f"other weights for {vip.name}", text)
    elif max(abs(best[name] - shares[name]) for name in names) >= settings.min_gain:
        yield _step(context, table, best, worst)


def _worst(
    context: PlanningContext, vip: VirtualIp, names: tuple[str, ...], horizons: Sequence[int]
) -> tuple[int, Places] | None:
    """The horizon at which a service's tightest place has least left, and its places then; None where all have enough.

    Where that is too little although links have enough whatever the shares, and no split of the other places would
    gain enough, links are not looked at: they could only make it less.
    """
    below = context.config.weights.below
    for look in (_quick, places):
        tables = {one: look(context, service_of(context, vip, names, one), one) for one in horizons}
        least = min(table.least(table.service.shares) for table in tables.values())
        if look is _quick and least >= below and not context.world.wanted.weights.get(vip.address):
            return None
        if not any(table.base for table in tables.values()):
            continue
        worst = min(horizons, key=lambda one: (tables[one].least(tables[one].service.shares), one))
        table = tables[worst]
        if look is places or (least < below and not _may_gain(context, table)):
            return worst, table
    return None


def _may_gain(context: PlanningContext, table: Places) -> bool:
    """Whoever cannot gain enough by any split needs no program to say so."""
    # numpy and scipy take half a second to import, which most commands need not spend.
    from orchestrator.optimise import headroom_bound

    gain = headroom_bound(_rows(table), LEAST_SHARE) - table.least(table.service.shares)
    return gain >= context.config.weights.min_gain


def _quick(context: PlanningContext, service: Service, horizon_s: int) -> Places:
    """Its places, without links where these have enough whatever the shares."""
    return places(context, service, horizon_s, bool(tight_links(context, horizon_s)))


def _back(context: PlanningContext, table: Places, horizon_s: int) -> Iterator[Step]:
    """What was declared holds again where it leaves enough for as long as weights must then stay as they are."""
    vip, declared = table.service.vip, table.service.declared
    if not context.world.wanted.weights.get(vip.address):
        return
    stay_s = context.config.weights.cooldown_s
    tables = (
        places(context, service_of(context, vip, table.service.names, one), one)
        for one in until_back(context, SetWeights.kind, Circumstances(vip.address), stay_s)
    )
    enough = context.config.weights.below + context.config.weights.min_gain
    if all(one.least(declared) >= enough for one in tables):
        yield _step(context, table, declared, horizon_s)


def _best(table: Places, rows: "Rows") -> dict[str, float]:
    from orchestrator.optimise import best_shares

    found = best_shares(rows, LEAST_SHARE)
    return {name: float(share) for name, share in zip(table.service.names, found, strict=True)}


def _rows(table: Places) -> "Rows":
    import numpy as np

    from orchestrator.optimise import Rows

    service, known = table.service, sorted(table.base)
    amounts = np.array([[table.per_share[one].get(name, 0.0) for name in service.names] for one in known])
    pinned = np.array([service.pinned.get(name, 0.0) for name in service.names])
    return Rows(np.array([table.base[one] for one in known]) + amounts @ pinned, amounts * service.free)


def _leading_of(context: PlanningContext, vip: VirtualIp, horizon_s: int) -> PairDemand | None:
    """The demand of the pair of a virtual IP that asks for most."""
    groups, table = context.world.table.of_service, context.demand.table(horizon_s)
    place = groups.places.get(vip.address)
    return None if place is None else context.demand.view(table, int(table.of_groups(groups).leaders[place]))


def _step(context: PlanningContext, table: Places, best: Mapping[str, float], horizon_s: int) -> Step:
    service, world, vip = table.service, context.world, table.service.vip
    before = tuple((name, int(weight)) for name, weight in world.wanted.weights.get(vip.address, {}).items())
    rooms = {place: {"now": table.left(service.shares, place), "then": table.left(best, place)} for place in table.base}
    text = ", ".join(f"{place} {room['now']:.0%} -> {room['then']:.0%}" for place, room in sorted(rooms.items()))
    leader = _leading_of(context, vip, horizon_s)
    needed_at, about = world.now + horizon_s, Circumstances(vip.address)
    vms = tuple(name for name in service.names if name in world.vms)
    capacities = _tightest(world, rooms)
    least = min(room["then"] for room in rooms.values())
    reason = Reason(
        where={"virtual_ip": vip.address},
        forecast=evidence_of(context, leader.bytes, horizon_s) if leader else None,
        circumstances=about,
        promise=HeadroomPromise(vms=vms, links=tuple(capacities), value=least, by=needed_at),
        facts={"headrooms": rooms, "capacities": capacities},
    )
    why = f"{vip.name} {when(horizon_s)}: headroom {text}"
    action = SetWeights(vip.address, before, _weights(service, best))
    return Step(action, why, reason, needed_at, context.lead_s(SetWeights.kind, about))


def _tightest(world: World, rooms: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The links with the least headroom before and after, with their capacities in bytes/s: they show what it did."""
    capacities = {
        link.name: link.capacity_bytes_per_s
        for link in world.links.values()
        if link.capacity_bytes_per_s and link.name in rooms
    }
    tightest = {min(capacities, key=lambda name: rooms[name][when]) for when in ("now", "then") if capacities}
    return {name: capacities[name] for name in sorted(tightest)}


def _weights(service: Service, best: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    """Whole numbers on the scale of the declared ones, so that a destination that joins finds its place among them.

    None at all where the declared ones are to hold again.
    """
    if best is service.declared:
        return ()
    total = max(TOTAL, sum(one.weight for one in service.vip.destinations if one.name in service.names))
    return tuple((name, max(1, round(total * best[name]))) for name in service.names)

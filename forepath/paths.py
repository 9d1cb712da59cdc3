"""Which path traffic takes, now or at a moment ahead, and what every link carries then.

Paths come from the controller's own functions. What may change until then: destination weights that are wanted already,
and machines that are on their way."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf, sqrt
from typing import Any

import numpy as np

from cpdb import (
    HealthReport,
    Link,
    LinkLoad,
    Node,
    OutcomeKind,
    Pair,
    SettingsError,
    Store,
    Subject,
    SubjectKind,
    VirtualIp,
    read_health,
)
from forepath.forecasts import Ahead, QuantileBand
from forepath.views import RECENT_S, PairView, link_rates, spoken, with_new_weights
from orchestrator import (
    HELD_SHARE,
    Gatherer,
    LeadTimes,
    OrchestratorConfig,
    PlanningContext,
    SumForecast,
    from_json,
    reconcile,
)
from ryu_apps import Routed, SplitPath, Topology, choose, find_split_paths

# A pair keeps its destination while it speaks; after so much silence it is chosen anew (`idle_s` of the controller).
KEEPS_S = 60.0
# Nothing that is under way takes longer than this.
UNDER_WAY_S = 600.0


@dataclass(frozen=True, slots=True)
class PathChoice:
    """One of the paths that traffic between two switches is split over, its share, and whether this pair takes it.

    `pair_share`: of this pair's own traffic, what takes it; below 1 where the pair is divided by connection.
    """

    hops: tuple[str, ...]
    share: float
    tag: int
    taken: bool
    pair_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Way:
    """Names of the nodes from source to destination, both included, and why the traffic goes there.

    `split`: the paths to choose from; empty where traffic goes the shortest way.
    """

    hops: tuple[str, ...]
    because: tuple[str, ...]
    split: tuple[PathChoice, ...] = ()


def routed(store: Store, now: float) -> Routed:
    """Paths as they are now: the topology, and the splits in force on it."""
    nodes = store.inventory.nodes()
    topology = Topology.of(nodes, store.inventory.links())
    splits = find_split_paths(store.wanted.splits(), topology, now)
    return Routed(topology, splits, {node.name: node.address for node in nodes})


@dataclass(slots=True)
class PathReader:
    """A path function that looks at topology and splits again when what it knows is older than `seconds_fresh`.

    Where neither has changed, the paths that it has found stay.
    """

    store: Store
    seconds_fresh: float
    clock: Callable[[], float]
    _read_at: float = -inf
    _facts: tuple[list[Any], ...] = ()
    _ways: Routed | None = None
    _known: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def __call__(self, source: str, destination: str) -> tuple[str, ...]:
        """Names of the nodes on the way, both ends included; empty when there is none."""
        now = self.clock()
        if self._ways is None or now - self._read_at > self.seconds_fresh:
            self._ways = self._looked_at(now)
        found = self._known.get((source, destination))
        if found is None:
            found = self._known[source, destination] = self._ways.path(source, destination)
        return found

    def _looked_at(self, now: float) -> Routed:
        inventory, self._read_at = self.store.inventory, now
        places = [(one.name, one.kind, one.address, one.attached_to, one.port) for one in inventory.nodes()]
        splits = [one for one in self.store.wanted.splits() if one.expires_at is None or one.expires_at > now]
        facts = places, inventory.links(), splits
        if self._ways is not None and facts == self._facts:
            return self._ways
        self._facts = facts
        self._known.clear()
        return routed(self.store, now)


@dataclass(frozen=True, slots=True)
class PathFinder:
    """A snapshot of the topology and the virtual IPs; `moved` names machines that will be on another host by then."""

    store: Store
    ways: Routed
    services: tuple[VirtualIp, ...]
    moved: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, now: float = 0.0, at_s: float = 0.0) -> "PathFinder":
        """Reads nodes, links, virtual IPs and what is under way once, as it will be `at_s` seconds after `now`."""
        inventory, health = store.inventory, read_health(store.wanted.observed_of(HealthReport))
        weights = {item.virtual_ip: item.weights for item in store.wanted.weights()}
        services = tuple(
            with_new_weights(vip, weights.get(vip.address, {}), health.get(vip.address, {}))
            for vip in inventory.virtual_ips()
        )
        nodes = {node.name: node for node in inventory.nodes()}
        return cls(store, routed(store, now + at_s), services, _moved(store, now, now + at_s), nodes)

    @property
    def addresses(self) -> Mapping[str, str | None]:
        """Addresses of all nodes by name."""
        return self.ways.addresses

    def path(self, source: str, destination: str) -> tuple[str, ...]:
        """Names of the nodes from source to destination, both included; empty when there is no way.

        A virtual IP stands for the destination that the controller would choose for this source.
        """
        service = self._service(destination)
        chosen = destination if service is None else self._chosen(source, service)
        return self._to(source, chosen) if chosen else ()

    def to_service(self, source: str, to: str, now: float) -> Way:
        """The path to the destination of a pair (or to a node). Raises SettingsError when there is none."""
        destination, why = self._destination(source, to, now)
        hops = self._to(source, destination)
        if not hops:
            known = ", ".join(self.addresses)
            raise SettingsError(f"no path from {source!r} to {destination!r}; nodes known: {known or 'none'}")
        if destination in self.moved:
            why = (*why, f"{destination} is moving to {self.moved[destination]} and expected there by then")
        return Way(hops, why, self._split(source, destination, hops))

    def _split(self, source: str, destination: str, hops: tuple[str, ...]) -> tuple[PathChoice, ...]:
        ends = self.ways.ends(hops)
        own: tuple[SplitPath, ...] = self.ways.splits.get(ends, ()) if ends else ()
        shares = dict(self.ways.spread(source, destination, ends)) if ends else {}
        return tuple(PathChoice(one.hops, one.ratio, one.tag, one in shares, shares.get(one, 0.0)) for one in own)

    def _to(self, source: str, destination: str) -> tuple[str, ...]:
        host = self.moved.get(destination)
        if host is None:
            return self.ways.path(source, destination)
        hops = self.ways.path(source, host)
        return (*hops, destination) if hops else ()

    def _destination(self, source: str, to: str, now: float) -> tuple[str, tuple[str, ...]]:
        service = self._service(to)
        if service is None:
            return to, ()
        spoken = None if service.by_connection else self._spoken(source, service, now)
        if spoken is not None:
            return spoken, (f"{source} speaks with {spoken} and keeps it",)
        chosen = self._chosen(source, service)
        shares = ", ".join(f"{one.name} {one.weight}" for one in service.destinations)
        if chosen is None:
            raise SettingsError(f"{service.name}: no destination has a weight above 0 ({shares or 'none declared'})")
        if service.by_connection:
            return chosen, (f"each connection is placed by itself, by the weights ({shares}); most go to {chosen}",)
        return chosen, (f"{source} has been silent; by the weights ({shares}) it will be sent to {chosen}",)

    def _chosen(self, source: str, service: VirtualIp) -> str | None:
        if service.by_connection:
            most = max(service.destinations, key=lambda one: (one.weight, one.name), default=None)
            return most.name if most and most.weight else None
        node = self.nodes.get(source)
        address = node.address_towards(service.address) if node else None
        found = choose(address or source, service.address, service.destinations)
        return found.name if found else None

    def _spoken(self, source: str, service: VirtualIp, now: float) -> str | None:
        """The declared destination that the pair spoke with lately, None after long silence."""
        facts = self.store.facts
        own = {
            number: flow_key.destination
            for number, flow_key in facts.flow_keys().items()
            if flow_key.source == source and flow_key.virtual_ip == service.address
        }
        declared = {one.name for one in service.destinations}
        for batch in sorted(facts.batches(0, now - KEEPS_S, now), key=lambda one: -one.t) if own else ():
            for number, packets in zip(batch.key_ids, batch.packets, strict=True):
                destination = own.get(number) if packets else None
                if destination in declared:
                    return destination
        return None

    def _service(self, name: str) -> VirtualIp | None:
        return next((one for one in self.services if name in (one.name, one.address)), None)


def _moved(store: Store, now: float, then: float) -> dict[str, str]:
    """Machines that are being migrated and, by their lead time, will have arrived by `then`, with their new hosts."""
    return {
        one.target: str(one.body["to"])
        for one in reversed(store.journal.actions(since=now - UNDER_WAY_S, until=now))
        if one.kind == "migrate_vm" and one.outcome is OutcomeKind.PENDING and one.issued_at + one.timing.lead_s <= then
    }


PathOf = Callable[[str, str], tuple[str, ...]]
Hop = tuple[str, str]
PAIRS, LINK, MEASURED = "pairs", "link", "measured"


@dataclass(frozen=True, slots=True)
class Part:
    """What one pair brings to a link: its rate now and its predicted peak, bytes/s; without a forecast it goes on."""

    pair: Pair
    service: str
    destination: str | None
    bytes_per_s: float
    predicted: QuantileBand


@dataclass(frozen=True, slots=True)
class LinkView:
    """One direction of a link: capacity, load now (None: nothing is measured there) and predicted peak, bytes/s.

    `by_pairs` adds up the pairs that cross it: medians add, deviations of pairs add in squares as if they were
    independent, and the upper end is never below what is measured. It may exceed the capacity. `by_link` is foreseen of
    the link itself: it knows all traffic, but what did not fit it never saw. `needed_bytes_per_s` is what the planner
    counts on it within that horizon, None where nobody asked.
    """

    from_node: str
    to_node: str
    capacity_bytes_per_s: float | None
    bytes_per_s: float | None
    by_pairs: QuantileBand
    by_link: QuantileBand | None
    parts: tuple[Part, ...]
    needed_bytes_per_s: float | None = None

    @property
    def predicted(self) -> QuantileBand:
        """Both reconciled, as in plans; where nothing is foreseen of the link, its pairs and what is beside them."""
        beside, own = self.others_bytes_per_s, self.by_link
        low, middle, high = (one + beside for one in self.by_pairs.band)
        pairs = QuantileBand(low, middle, high, self.by_pairs.model)
        if own is None:
            return pairs
        carried = self.bytes_per_s or 0.0
        unexplained = 1.0 if not self.parts else beside / carried if carried else 0.0
        held = max(carried, own.q90) >= HELD_SHARE * (self.capacity_bytes_per_s or inf)
        sums = reconcile(_sum_of(pairs), _sum_of(own), np.array([unexplained]), np.array([held]))
        middle, upper = max(0.0, sums.usual.item()), max(sums.upper.item(), carried)
        return QuantileBand(max(0.0, middle - (own.q50 - own.q10)), middle, upper, f"{LINK}: {own.model}")

    @property
    def predicted_utilisation(self) -> float:
        """Share of the capacity that the 0.9 quantile would take; 0 where no capacity is known."""
        return self.share(self.predicted.q90) or 0.0

    def share(self, bytes_per_s: float | None) -> float | None:
        """A rate as a share of the capacity; None where either is not known."""
        return (
            bytes_per_s / self.capacity_bytes_per_s if bytes_per_s is not None and self.capacity_bytes_per_s else None
        )

    @property
    def others_bytes_per_s(self) -> float:
        """What is measured on the link beyond the pairs: answers, or traffic to no virtual IP."""
        return max(0.0, (self.bytes_per_s or 0.0) - sum(one.bytes_per_s for one in self.parts))


def _sum_of(one: QuantileBand) -> SumForecast:
    return SumForecast(np.array([one.q50]), np.array([one.q90 - one.q50]))


def links(store: Store, now: float, foreseen: Ahead, path_of: PathOf) -> list[LinkView]:
    """Every directed link with its load now and predicted; most congested prediction first."""
    crossing: dict[Hop, list[Part]] = defaultdict(list)
    for part, hops in _parts(store, now, foreseen, path_of):
        for hop in pairwise(hops):
            crossing[hop].append(part)
    measured = link_rates(store.facts.loads_at(LinkLoad, now, RECENT_S))
    views = [
        LinkView(
            *hop,
            capacity,
            measured.get(hop),
            _together(crossing[hop]),
            foreseen.links.get(Subject(SubjectKind.LINK, *hop)),
            tuple(sorted(crossing[hop], key=lambda one: -one.predicted.q90)),
        )
        for hop, capacity in _capacities(store.inventory.links()).items()
    ]
    return sorted(views, key=lambda view: (-view.predicted_utilisation, view.from_node, view.to_node))


def planned_links(
    store: Store, config: OrchestratorConfig, now: float, foreseen: Ahead, path_of: PathOf
) -> list[LinkView]:
    """The same with what the planner counts on each link within that horizon."""
    under_way = tuple(from_json(one.kind, one.body) for one in store.journal.pending())
    world = Gatherer(store, config, path_of).world(now, under_way, LeadTimes())
    context = PlanningContext.of(world, config)
    found = [((view.from_node, view.to_node), view) for view in links(store, now, foreseen, path_of)]
    return [
        replace(view, needed_bytes_per_s=context.needed(key, foreseen.horizon_s)) if key in world.links else view
        for key, view in found
    ]


def _parts(store: Store, now: float, foreseen: Ahead, path_of: PathOf) -> Iterable[tuple[Part, tuple[str, ...]]]:
    views = {view.pair: view for view in spoken(store, now)}
    services = {item.address: item.name for item in store.inventory.virtual_ips()}
    expected = {Pair(subject.a, subject.b): fan for subject, fan in foreseen.pairs.items()}
    for pair in sorted(views.keys() | expected.keys(), key=str):
        view = views.get(pair)
        destination = view.destination if view else None
        service = services.get(pair.virtual_ip, pair.virtual_ip)
        part = Part(
            pair, service, destination, view.bytes_per_s if view else 0.0, _quantile_band(view, expected.get(pair))
        )
        yield part, path_of(pair.source, destination or pair.virtual_ip)


def _quantile_band(view: PairView | None, said: QuantileBand | None) -> QuantileBand:
    now = view.bytes_per_s if view else 0.0
    if said is None:
        return QuantileBand(now, now, now, MEASURED)
    return QuantileBand(said.q10, said.q50, max(said.q90, now), said.model)


def _together(parts: Sequence[Part]) -> QuantileBand:
    bands = [one.predicted for one in parts]
    middle = sum(one.q50 for one in bands)
    below = sqrt(sum((one.q50 - one.q10) ** 2 for one in bands))
    above = sqrt(sum((one.q90 - one.q50) ** 2 for one in bands))
    upper = max(middle + above, sum(one.bytes_per_s for one in parts))
    return QuantileBand(max(0.0, middle - below), middle, upper, PAIRS)


def _capacities(items: Iterable[Link]) -> dict[Hop, float | None]:
    both = {}
    for item in items:
        both[item.a, item.b] = item.capacity_bytes_per_s
        both[item.b, item.a] = item.capacity_bytes_per_s
    return both

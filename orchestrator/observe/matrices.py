"""Reads the network between switches as routing sees it: links that are up, splits in force, and who sends how much."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from cpdb import Communication, Forecast, Link, LinkLoad, Node, NodeKind, Quantity, Seconds, Store, WantedSplit
from orchestrator.actions import Path
from orchestrator.config import RouteSettings
from orchestrator.foreseen import NO_FORECASTS, Floats, Ints
from orchestrator.observe.measured import RECENT_S
from orchestrator.pair_table import LinkKey, PairGroups, PairState, PairTable
from orchestrator.world import Matrix, RoutedNetwork, World

# Links without a known capacity never are the fullest.
UNKNOWN_BYTES_PER_S = 1e12
# Matrices kept to begin anew with when switches, links or pairs of switches come and go.
KEPT = 120
LEVELS = (0.5, 0.9)
# The controller's alarm while VLANs in use are among the labels of paths
LABELS_TAKEN = "labels_taken"
# 500 pairs of switches take 3 s on one core for a first decision (docs/routing.md), in which nothing else is decided:
# where hosts are behind more switches than make so many pairs, that must be asked for.
MOST_EDGES = 22


class RouteUse(NamedTuple):
    """Whether traffic is split over paths, and why."""

    on: bool
    why: str


NO_CHOICE = RouteUse(False, "no two switches have more than one path between them")


def judge_routes(settings: RouteSettings, nodes: Sequence[Node], joined: Iterable[Link]) -> RouteUse:
    """Whether routing is on in this network."""
    if settings.enabled != "auto":
        return RouteUse(settings.enabled, f"routing.enabled = {str(settings.enabled).lower()}")
    capacity = link_capacities(nodes, joined)
    links = {tuple(sorted(key)) for key in capacity}
    if not _has_loop(links):
        return NO_CHOICE
    unknown = sorted(f"{a}>{b}" for a, b in links if capacity[a, b] >= UNKNOWN_BYTES_PER_S)
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        return RouteUse(False, f"link {unknown[0]}{more}: no known capacity; declare capacity_mbit_per_s")
    edges = {node.attached_to for node in nodes} & {end for key in capacity for end in key}
    if len(edges) > MOST_EDGES:
        why = f"hosts are behind {len(edges)} switches: beyond {MOST_EDGES} a first decision may hold up others for"
        return RouteUse(False, f"{why} seconds; write routing.enabled = true if it may")
    return RouteUse(True, f"there is a choice of paths, and the capacities of all {len(links)} links are known")


def _has_loop(links: Iterable[tuple[str, ...]]) -> bool:
    """Whether one of these undirected links joins two that were joined already (Kruskal's union-find)."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := leader.setdefault(name, name)) != name:
            leader[name] = name = leader[above]
        return name

    for a, b in links:
        if find(a) == find(b):
            return True
        leader[find(a)] = find(b)
    return False


def routes_in_use(settings: RouteSettings, store: Store) -> RouteUse:
    """Whether routing is on in the network that the database knows. Raises StoreError."""
    return _with_labels(judge_routes(settings, store.inventory.nodes(), store.inventory.links()), settings, store)


def _with_labels(use: RouteUse, settings: RouteSettings, store: Store) -> RouteUse:
    """Off where VLANs in use took the labels of paths, unless routing was asked for."""
    taken = use.on and settings.enabled == "auto" and [one for one in store.alarms.open() if one.kind == LABELS_TAKEN]
    return RouteUse(False, taken[0].detail) if taken else use


@dataclass(frozen=True, slots=True, eq=False)
class FabricCrossings:
    """Where the pairs of a table cross the fabric: by number the pair of switches between which, -1 for none."""

    on_way: PairGroups[tuple[LinkKey, ...]]
    capacity: Mapping[LinkKey, float]
    ends: Sequence[LinkKey]
    end_of: Ints

    @classmethod
    def of(cls, table: PairTable, capacity: Mapping[LinkKey, float]) -> "FabricCrossings":
        """Of all pairs; links that are not in `capacity` are not of the fabric."""
        places: dict[LinkKey, int] = {}
        ways = [[key for key in way if key in capacity] for way in table.on_way.places]
        found = [places.setdefault((way[0][0], way[-1][1]), len(places)) if way else -1 for way in ways]
        end_of = np.full(len(table.states), -1)
        end_of[table.on_way.pair] = np.array(found, dtype=np.int64)[table.on_way.group]
        return cls(table.on_way, capacity, tuple(places), end_of)

    def between(self, values: Floats) -> dict[LinkKey, float]:
        """Sums of values by pair, by the switches between which they cross the fabric."""
        inside = self.end_of >= 0
        sums = np.bincount(self.end_of[inside], values[inside], len(self.ends))
        return dict(zip(self.ends, sums.tolist(), strict=True))

    def by_link(self, table: PairTable, values: Floats, rows: Mapping[LinkKey, WantedSplit]) -> dict[LinkKey, float]:
        """Sums of values by pair, by link; what a split in force divides is on all of its paths."""
        found = dict.fromkeys(self.capacity, 0.0)
        sums = zip(table.on_link.places, table.on_link.sums(values).tolist(), strict=True)
        found.update((key, value) for key, value in sums if key in found)
        heavy = {(ends, one.source, one.destination): (row, one) for ends, row in rows.items() for one in row.heavy}
        for number, state in enumerate(table.states) if heavy else ():
            ends = self.ends[self.end_of[number]] if self.end_of[number] >= 0 else None
            if ends is None or (ends, state.pair.source, state.destination) not in heavy:
                continue
            row, own = heavy[ends, state.pair.source, state.destination or ""]
            for key in state.links:
                found[key] = found.get(key, 0.0) - values[number]
            for path, share in zip(row.paths, own.ratios, strict=False):
                for hop in pairwise(path):
                    found[hop] = found.get(hop, 0.0) + share * values[number]
        return found


@dataclass(slots=True)
class FabricReader:
    """Adds a matrix now and then; a new one makes the past's matrices from what was recorded.

    Which nodes there are is read as often, which links are up each time; what follows from both only when they change.
    """

    store: Store
    settings: RouteSettings
    _known: tuple[Sequence[Node], Sequence[Link]] = ((), ())
    _judged: RouteUse | None = None
    _on: bool = False
    _looked_at: Seconds = float("-inf")
    _capacity: Mapping[LinkKey, float] = field(default_factory=dict)
    _crossings: FabricCrossings | None = None
    _matrices: deque[Matrix] = field(default_factory=lambda: deque(maxlen=KEPT))

    def read_fabric(self, world: World, joined: Sequence[Link]) -> RoutedNetwork:
        """The fabric at the world's time; `joined` are all links, up or not. Raises StoreError."""
        now = world.now
        if not 0 <= now - self._looked_at < self.settings.sample_s:
            self._look(self.store.inventory.nodes(), joined)
            self._on, self._looked_at = _with_labels(self._judged or NO_CHOICE, self.settings, self.store).on, now
        if not self._on:
            return RoutedNetwork()
        capacity = self._look(self._known[0], joined)
        alive = (row for row in self.store.wanted.splits() if row.expires_at is None or row.expires_at > now)
        rows = {(row.from_switch, row.to_switch): row for row in alive}
        if not self._matrices:
            self._matrices.extend(self._recorded(world, capacity))
        if not self._matrices or now - self._matrices[-1].t >= self.settings.sample_s:
            self._matrices.append(matrix_of(world, capacity, rows, self._crossed(world)))
        return RoutedNetwork(capacity, rows, tuple(self._matrices))

    def _look(self, nodes: Sequence[Node], joined: Sequence[Link]) -> Mapping[LinkKey, float]:
        known = nodes, joined
        if self._judged is None or known != self._known:
            self._known, self._judged = known, judge_routes(self.settings, *known)
            self._capacity = link_capacities(*known)
        return self._capacity

    def _crossed(self, world: World) -> FabricCrossings:
        kept, table = self._crossings, world.table
        if kept is None or kept.capacity is not self._capacity or kept.on_way is not table.on_way:
            kept = self._crossings = FabricCrossings.of(table, self._capacity)
        return kept

    def _recorded(self, world: World, capacity: Mapping[LinkKey, float]) -> Iterable[Matrix]:
        """The matrices before now, each of the last seconds before its time, over the paths of today."""
        sample_s, facts = self.settings.sample_s, self.store.facts
        since = world.now - KEPT * sample_s
        sent: dict[int, list[Communication]] = defaultdict(list)
        for row in facts.communications(since, world.now):
            sent[int((world.now - row.t) // sample_s)].append(row)
        carried: dict[int, list[LinkLoad]] = defaultdict(list)
        for load in facts.loads(LinkLoad, since, world.now):
            carried[int((world.now - load.t) // sample_s)].append(load)
        for number in sorted((number for number in sent if number > 0), reverse=True):
            yield _matrix_at(world, capacity, world.now - number * sample_s, sent[number], carried[number])


def _matrix_at(
    world: World,
    capacity: Mapping[LinkKey, float],
    t: Seconds,
    rows: Iterable[Communication],
    loads: Iterable[LinkLoad],
) -> Matrix:
    newest = t - RECENT_S
    demand: dict[LinkKey, float] = defaultdict(float)
    explained: dict[LinkKey, float] = defaultdict(float)
    spans: dict[str, float] = defaultdict(float)
    recent = [row for row in rows if row.t > newest]
    for row in recent:
        spans[str(row.pair)] += row.interval_s
    for row in recent:
        state = world.pairs.get(row.pair)
        path = path_inside(capacity, state) if state else ()
        if path and spans[str(row.pair)] > 0:
            rate = row.bytes / spans[str(row.pair)]
            demand[path[0], path[-1]] += rate
            for hop in pairwise(path):
                explained[hop] += rate
    amounts: dict[LinkKey, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for load in loads:
        key = load.from_node, load.to_node
        if key in capacity and load.t > newest:
            amounts[key][0] += load.bytes
            amounts[key][1] += load.interval_s
    measured = {key: amount / seconds for key, (amount, seconds) in amounts.items() if seconds > 0}
    background = {key: max(0.0, rate - explained[key]) for key, rate in measured.items()}
    return Matrix(t, dict(demand), background, fullest=_fullest(measured, capacity))


def link_capacities(nodes: Iterable[Node], links: Iterable[Link]) -> dict[LinkKey, float]:
    """Both directions of the links between switches that are up, in bytes/s."""
    switches = {node.name for node in nodes if node.kind is NodeKind.SWITCH}
    capacity = {}
    for link in links:
        if link.up and link.a in switches and link.b in switches:
            for key in ((link.a, link.b), (link.b, link.a)):
                capacity[key] = link.capacity_bytes_per_s or UNKNOWN_BYTES_PER_S
    return capacity


def path_inside(capacity: Mapping[LinkKey, float], state: PairState) -> Path:
    """The switches that a pair's traffic crosses; fewer than two: none of our links is between."""
    hops = [link for link in state.links if link in capacity]
    return (hops[0][0], *(to for _, to in hops)) if hops else ()


def longest_trusted(state: PairState) -> Forecast | None:
    """The forecast of a pair's peak in bytes/s at the longest horizon that is trusted."""
    peaks = (one for (_, what), one in state.forecasts.items() if what is Quantity.BYTES_PEAK and one.trusted)
    return max(peaks, key=lambda one: one.horizon_s, default=None)


def expected_rate(state: PairState, level: float) -> float:
    """What a pair will send at this level, at the longest trusted horizon: never less than it does, bytes/s."""
    forecast = longest_trusted(state)
    return max(state.bytes_per_s, forecast.at(level)) if forecast else state.bytes_per_s


def matrix_of(
    world: World,
    capacity: Mapping[LinkKey, float],
    rows: Mapping[LinkKey, WantedSplit] = MappingProxyType({}),
    crossings: FabricCrossings | None = None,
) -> Matrix:
    """What is measured now and, for each level, what is forecast at the longest trusted horizon.

    `rows` are the splits in force; `crossings` those of the world's table, where somebody has them.
    """
    table = world.table
    crossings = crossings or FabricCrossings.of(table, capacity)
    sent = table.column("bytes_per_s")
    told = ((number, one) for number, one in enumerate(table.states) if one.forecasts is not NO_FORECASTS)
    trusted = ((number, longest_trusted(one)) for number, one in told)
    forecasts = {number: one for number, one in trusted if one is not None}
    foreseen = {level: sent.copy() for level in LEVELS}
    for level, rates in foreseen.items():
        for number, one in forecasts.items():
            rates[number] = max(rates[number], one.at(level))
    explained = crossings.by_link(table, sent, rows)
    rising = crossings.by_link(table, foreseen[LEVELS[-1]] - sent, rows) if forecasts else dict.fromkeys(capacity, 0.0)
    measured = {key: link.bytes_per_s for key, link in world.links.items() if key in capacity}
    background = {key: max(0.0, rate - explained[key]) for key, rate in measured.items()}
    ahead = {key: max(rate, background[key] + explained[key]) + rising[key] for key, rate in measured.items()}
    expected = {level: crossings.between(rates) for level, rates in foreseen.items()} if forecasts else {}
    return Matrix(world.now, crossings.between(sent), background, expected, _fullest(ahead, capacity))


def _fullest(rates: Mapping[LinkKey, float], capacity: Mapping[LinkKey, float]) -> float:
    return max((rate / capacity[key] for key, rate in rates.items() if key in capacity), default=0.0)

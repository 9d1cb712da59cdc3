"""Assembles the world from the database: the only reader of facts on the deciding side."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cpdb import (
    BytesPerS,
    Forecast,
    ForecastBatch,
    Link,
    Pair,
    Quantity,
    Seconds,
    Store,
    Subject,
    SubjectKind,
    VirtualIp,
)
from orchestrator.actions import Action
from orchestrator.config import OrchestratorConfig
from orchestrator.foreseen import NO_FORECASTS, Cell, IssuedForecasts, forecasts_of
from orchestrator.lead_times import LeadTimes
from orchestrator.observe.learn import Learnt, Past, learn
from orchestrator.observe.matrices import FabricReader
from orchestrator.observe.measured import RECENT_S, TYPICAL_S, MachineFacts, cpu_relations, memory_relations, vm_states
from orchestrator.observe.offered import OfferedBefore
from orchestrator.observe.pairs import TierIssue, destinations_of, mean_rates, seen_pairs
from orchestrator.observe.services import DeclaredState
from orchestrator.observe.window import Listed, LoadRows, Traffic, Windows, sum_by
from orchestrator.pair_table import LinkKey, PairState, PairTable
from orchestrator.world import NO_FACTS_AGE_S, LinkState, NetworkState, Outlook, WantedState, World

FAST, SLOWER = "fast", ("slow", "long")
# What machines use beside what their communications explain, and what links and hosts carry.
OWN, SLOWER_OWN = "fast/beside", ("slow/beside",)
OF_LINKS, SLOWER_OF_LINKS = "fast/link", ("slow/link",)
OF_HOSTS, SLOWER_OF_HOSTS = "fast/machine", ("slow/machine",)
SUMS = frozenset({SubjectKind.LINK, SubjectKind.HOST})
SLOW_AGAIN_S = 5.0
# The slow tier is made anew every ten seconds or so; older than this it is no longer about now.
SLOW_MAX_AGE_S = 60.0


def outlook(
    store: Store, now: Seconds, links: Collection[tuple[str, str]], pairs: Collection[Pair], level: float
) -> Outlook:
    """The newest word about these links and pairs. Raises StoreError when the database is away."""
    wanted_links = {Subject(SubjectKind.LINK, *one) for one in links}
    wanted_pairs = {Subject(SubjectKind.PAIR, one.source, one.virtual_ip) for one in pairs}
    found: dict[tuple[tuple[str, str], int], BytesPerS] = {}
    for tier in (*SLOWER_OF_LINKS, OF_LINKS):
        batch = store.forecasts.batch(now, SLOW_MAX_AGE_S, tier)
        found |= {((one.a, one.b), far): value for one, far, value in peaks(batch, wanted_links, level)}
    slow = store.forecasts.batch(now, SLOW_MAX_AGE_S, SLOWER[0])
    return Outlook(found, {(Pair(one.a, one.b), far): value for one, far, value in peaks(slow, wanted_pairs, level)})


def peaks(
    batch: ForecastBatch | None, wanted: Collection[Subject], level: float
) -> Iterator[tuple[Subject, int, BytesPerS]]:
    """(subject, horizon, value) of the predicted peak at the known level nearest to `level`."""
    if batch is None:
        return
    for row in batch.rows(wanted, quantities=(Quantity.BYTES_PEAK,)):
        yield row.subject, row.horizon_s, row.at(level)


class Route(NamedTuple):
    """Where a pair goes now, over which links, and the pair's number in the traffic of late: -1, the last, for none."""

    destination: str | None
    links: tuple[LinkKey, ...]
    number: int


Paths = Callable[[str, str], Sequence[str]]
Routes = dict[Pair, Route]
SILENT = [0.0] * 6
FORGET_PAIR_S = 30.0
# Requests that ended so lately are still looked at: what is held for them may have to be given back.
JUST_OVER_S = 30.0


@dataclass(slots=True)
class Gatherer:
    """Reads the store; keeps what was measured lately and what is learnt of it (both can be read again at any time).

    `paths(source, destination)` names the nodes on the way, both ends included, () when there is none.
    """

    store: Store
    config: OrchestratorConfig
    paths: Paths
    _learnt: Learnt = field(default_factory=Learnt)
    _learnt_at: Seconds | None = None
    _fabric: FabricReader = field(init=False)
    _offered: OfferedBefore = field(init=False)
    _lately: Windows = field(init=False)
    _issues: dict[str, TierIssue] = field(default_factory=dict)
    _ways: dict[tuple[str, ...], tuple[LinkKey, ...]] = field(default_factory=dict)
    # By source, destination and host: the nodes on the way to the destination, and the links of it up to the host.
    _ways_to: dict[tuple[str, str, str], tuple[Sequence[str], tuple[LinkKey, ...]]] = field(default_factory=dict)
    _table: PairTable | None = None

    def __post_init__(self) -> None:
        self._offered = OfferedBefore(self.store)
        self._fabric = FabricReader(self.store, self.config.routing)
        longest_s = max(self.config.timing.history_s, FORGET_PAIR_S, RECENT_S + self.config.guard.max_world_age_s)
        self._lately = Windows(longest_s)

    def world(self, now: Seconds, in_flight: Sequence[Action], leads: LeadTimes) -> World:
        """The world at `now`. Raises StoreError when the database is away."""
        lately = self._lately
        lately.read(self.store, now)
        traffic = lately.traffic.between(now - FORGET_PAIR_S, now)
        machines = lately.machines.between(now - TYPICAL_S, now)
        declared, listed = DeclaredState.read(self.store), traffic.listed()
        joined = self.store.inventory.links()
        links = link_states(joined, self._recent_links(now), lately.links.names)
        self._read_forecasts(now)
        routes = self._routes(traffic, seen_pairs(traffic, listed), declared, self._hosts(machines))
        self._refresh(now, links, routes, declared.spread)
        services = tuple(declared.virtual_ips.values())
        relations, memory = cpu_relations(self._learnt, services), memory_relations(self._learnt, services)
        requests = tuple(self.store.requests.since(now - JUST_OVER_S))
        pairs = self._pairs(now, traffic, listed, routes, declared.virtual_ips)
        held = self.store.wanted.reservations(now)
        world = World(
            now=now,
            age_s=_age(now, self._reported(traffic), machines["t"].tolist()[-1:], bool(self.config.declared.vms)),
            pairs=self._offered.recall(pairs, held, now),
            links=links,
            vms=vm_states(now, machines, lately.machines, MachineFacts(relations, memory, self.config, self._beside())),
            hosts={one.name: one for one in self.config.declared.hosts},
            virtual_ips=declared.virtual_ips,
            in_flight=tuple(in_flight),
            leads=leads,
            wanted=WantedState(
                reservations={item.key: item for item in held},
                requests=requests,
                weights=declared.weights,
                observed=declared.observed,
            ),
            network=NetworkState(
                self._way, outlook=self._outlook(now, routes) if requests else Outlook(), sums=_own_sums(self._issued)
            ),
        )
        self._table = world.index.table = PairTable(world.pairs, self._table)
        return world.changed(network=replace(world.network, fabric=self._fabric.read_fabric(world, joined)))

    def _reported(self, traffic: Traffic) -> Seconds | None:
        """When switches last reported: where nobody has spoken for long, that is known all the same."""
        span = None if len(traffic.t) else self.store.facts.span()
        return float(traffic.t[-1]) if len(traffic.t) else span and span[1]

    def _outlook(self, now: Seconds, routes: Routes) -> Outlook:
        links = {key for route in routes.values() for key in route.links}
        return outlook(self.store, now, links, routes, self.config.demand.level)

    def _routes(
        self, traffic: Traffic, numbers: Sequence[int], declared: DeclaredState, hosts_of: Mapping[str, str]
    ) -> Routes:
        """Each pair's destination (the newest seen, else the first that gets new ones) and the links towards it.

        Pairs that have spoken lately, and those that are expected to speak.
        """
        destinations, names = destinations_of(traffic), [*traffic.names.destinations]
        asked = {traffic.names.pairs[number]: number for number in numbers}
        known = (self._issues[tier] for tier in (FAST, *SLOWER) if tier in self._issues)
        expected = (pair for one in known for pair in one.expected if one.issued)
        found: Routes = {}
        for pair, number in (dict.fromkeys(expected, -1) | asked).items():
            seen = destinations[number] if number >= 0 else -1
            destination = names[seen] if seen >= 0 else declared.first(pair.virtual_ip)
            way = self._way_to(pair.source, destination, hosts_of.get(destination)) if destination else ()
            found[pair] = Route(destination, way, number)
        return found

    def _way_to(self, source: str, destination: str, host: str | None) -> tuple[LinkKey, ...]:
        """The links towards a machine. Its own address may tell the path, so it is asked before its host is."""
        if host is None:
            return self._way(source, destination)
        nodes, key = self.paths(source, destination), (source, destination, host)
        before, found = self._ways_to.get(key, (None, ()))
        if before != nodes:
            way = self._way(source, destination)
            known = next((number for number, (_, to) in enumerate(way, 1) if to == host), 0)
            found = way[:known]
            self._ways_to[key] = nodes, found
        return found or self._way(source, host)

    def _way(self, source: str, end: str | None) -> tuple[LinkKey, ...]:
        nodes = tuple(self.paths(source, end)) if end else ()
        way = self._ways.get(nodes)
        if way is None:
            way = self._ways[nodes] = tuple(pairwise(nodes))
        return way

    def _refresh(
        self,
        now: Seconds,
        links: Mapping[LinkKey, LinkState],
        routes: Routes,
        spread: Mapping[str, Mapping[str, float]],
    ) -> None:
        if self._learnt_at is not None and 0 <= now - self._learnt_at < self.config.timing.learn_every_s:
            return
        since = now - self.config.timing.history_s
        past, ways = Past.of(self._lately, since, now), {pair: route.links for pair, route in routes.items()}
        capacities = {key: one.capacity_bytes_per_s for key, one in links.items() if one.capacity_bytes_per_s}
        kept = tuple(self.store.wanted.reservations_since(since))
        self._learnt = learn(replace(past, ways=ways, capacities=capacities, shares=spread, reservations=kept))
        self._learnt_at = now
        self._ways.clear()  # those that are not taken any more
        self._ways_to.clear()

    def _pairs(
        self, now: Seconds, traffic: Traffic, listed: Listed, routes: Routes, virtual_ips: Mapping[str, VirtualIp]
    ) -> dict[Pair, PairState]:
        issues = self._issued((FAST, *SLOWER))
        # Rows come late by a poll or two: 'recent' is what was recent to them.
        newest = float(traffic.t[-1]) if len(traffic.t) else now
        windows_s = (RECENT_S, TYPICAL_S, self.config.timing.poll_s)
        rates = (mean_rates(traffic, listed, newest - one) for one in windows_s)
        lines = [*np.array([column for pair in rates for column in pair]).T.tolist(), SILENT]
        priorities = {address: one.priority for address, one in virtual_ips.items()}
        sizes, states = self._learnt.sizes, {}
        for pair, (destination, links, number) in routes.items():
            sent, opened, usual_sent, usual_opened, newest_sent, newest_opened = lines[number]
            states[pair] = PairState(
                pair,
                priorities.get(pair.virtual_ip, 0),
                destination,
                links,
                sent,
                opened,
                usual_sent,
                usual_opened,
                sizes.get(pair),
                forecasts_of(pair, issues) if issues else NO_FORECASTS,
                newest_sent,
                newest_opened,
            )
        return states

    def _read_forecasts(self, now: Seconds) -> None:
        """The newest forecasts in each tier; those of minutes are read anew every few seconds only."""
        demand = self.config.demand
        if self.config.policy != "predictive":
            return
        fast_ones = FAST, OWN, OF_LINKS, OF_HOSTS
        slower = (*SLOWER, *SLOWER_OWN, *SLOWER_OF_LINKS, *SLOWER_OF_HOSTS) if demand.slow_horizons_s else ()
        for tier in (*fast_ones, *slower):
            known, fast = self._issues.setdefault(tier, TierIssue()), tier in fast_ones
            if fast or known.read_at is None or not 0 <= now - known.read_at < SLOW_AGAIN_S:
                age_s = demand.max_forecast_age_s if fast else demand.max_slow_forecast_age_s
                known.take(self.store.forecasts.batch(now, age_s, tier), now, demand.level)

    def _issued(self, tiers: Iterable[str]) -> tuple[IssuedForecasts, ...]:
        found = (self._issues[tier].issued for tier in tiers if tier in self._issues)
        return tuple(one for one in found if one is not None)

    def _beside(self) -> dict[str, Mapping[Cell, Forecast]]:
        """Forecasts of what each machine uses beside what its communications explain."""
        issues = self._issued((OWN, *SLOWER_OWN))
        subjects = dict.fromkeys(subject for one in issues for subject in one.batch.subjects)
        return {one.a: forecasts_of(Pair(one.a, one.b), issues) for one in subjects}

    def _recent_links(self, now: Seconds) -> LoadRows:
        rows = self._lately.links.between(now - RECENT_S - self.config.guard.max_world_age_s, now)
        return rows[rows["t"] > rows["t"][-1] - RECENT_S] if len(rows) else rows

    def _hosts(self, rows: LoadRows) -> dict[str, str]:
        """Machine -> the host that it was last seen on."""
        machines = self._lately.machines
        names, last = [*machines.names], dict(zip(rows["vm"].tolist(), rows["host"].tolist(), strict=True))
        return {names[vm]: machines.hosts[host] for vm, host in last.items()}


def _own_sums(issued: Callable[[Iterable[str]], tuple[IssuedForecasts, ...]]) -> dict[Subject, Mapping[Cell, Forecast]]:
    """Forecasts of links and hosts themselves, from what is issued in some tiers."""
    found: dict[Subject, Mapping[Cell, Forecast]] = {}
    for tiers in ((OF_LINKS, *SLOWER_OF_LINKS), (OF_HOSTS, *SLOWER_OF_HOSTS)):
        issues = issued(tiers)
        subjects = dict.fromkeys(subject for one in issues for subject in one.batch.subjects)
        found |= {one: forecasts_of(Pair(one.a, one.b), issues) for one in subjects if one.kind in SUMS}
    return found


def link_states(links: Iterable[Link], rows: LoadRows, numbers: Mapping[LinkKey, int]) -> dict[LinkKey, LinkState]:
    """Both directions of every link that is up, with the rate measured on it in these rows (0 when it is not)."""
    amounts, seconds, packets, drops = (
        sum_by(rows["link"], rows[name], len(numbers) + 1) for name in ("bytes", "interval_s", "packets", "drops")
    )
    rates = np.divide(amounts, seconds, out=np.zeros_like(amounts), where=seconds > 0).tolist()
    lost = np.divide(drops, packets + drops, out=np.zeros_like(drops), where=packets + drops > 0).tolist()
    states = {}
    for link in links:
        for key in ((link.a, link.b), (link.b, link.a)) if link.up else ():
            number = numbers.get(key, -1)  # the last place is nobody's
            states[key] = LinkState(key, link.capacity_bytes_per_s, rates[number], lost[number])
    return states


def _age(now: Seconds, reported: Seconds | None, loads: Sequence[Seconds], machines: bool) -> Seconds:
    newest = [now - NO_FACTS_AGE_S if reported is None else reported]
    if machines:
        newest.append(loads[-1] if len(loads) else now - NO_FACTS_AGE_S)
    return max(0.0, now - min(newest))

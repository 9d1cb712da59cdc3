"""Assembles the world from the database: the only reader of facts on the deciding side."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from cpdb import (
    BytesPerS,
    Communication,
    Destination,
    DestinationHealth,
    Forecast,
    ForecastBatch,
    HealthStatus,
    Link,
    LinkLoad,
    Pair,
    Quantity,
    Seconds,
    Store,
    Subject,
    SubjectKind,
    VirtualIp,
    VmLoad,
    read_health,
)
from orchestrator.actions import Action
from orchestrator.config import OrchestratorConfig
from orchestrator.context import CONNECTION
from orchestrator.lead_times import LeadTimes
from orchestrator.observe.learn import Learnt, Past, learn
from orchestrator.observe.matrices import FabricReader
from orchestrator.observe.measured import RECENT_S, RUNNING, TYPICAL_S, MachineFacts, vm_states
from orchestrator.world import LinkKey, LinkState, NetworkState, Outlook, PairState, WantedState, World

FAST_LINKS, SLOW_PAIRS, SLOW_LINKS = "fast/link", "slow", "slow/link"
# The slow tier is made anew every ten seconds or so; older than this it is no longer about now.
SLOW_MAX_AGE_S = 60.0


def outlook(
    store: Store, now: Seconds, links: Collection[tuple[str, str]], pairs: Collection[Pair], level: float
) -> Outlook:
    """The newest word about these links and pairs. Raises StoreError when the database is away."""
    wanted_links = {Subject(SubjectKind.LINK, *one) for one in links}
    wanted_pairs = {Subject(SubjectKind.PAIR, one.source, one.virtual_ip) for one in pairs}
    found: dict[tuple[tuple[str, str], int], BytesPerS] = {}
    for tier in (SLOW_LINKS, FAST_LINKS):
        batch = store.forecasts.batch(now, SLOW_MAX_AGE_S, tier)
        found |= {((one.a, one.b), far): value for one, far, value in peaks(batch, wanted_links, level)}
    slow = store.forecasts.batch(now, SLOW_MAX_AGE_S, SLOW_PAIRS)
    return Outlook(found, {(Pair(one.a, one.b), far): value for one, far, value in peaks(slow, wanted_pairs, level)})


def peaks(
    batch: ForecastBatch | None, wanted: Collection[Subject], level: float
) -> Iterator[tuple[Subject, int, BytesPerS]]:
    """(subject, horizon, value) of the predicted peak at the known level nearest to `level`."""
    if batch is None:
        return
    for row in batch.rows(wanted, quantities=(Quantity.BYTES_PEAK,)):
        yield row.subject, row.horizon_s, row.at(level)


Paths = Callable[[str, str], Sequence[str]]
FORGET_PAIR_S = 30.0
NO_FACTS_AGE_S = 1e9
# Requests that ended so lately are still looked at: what is held for them may have to be given back.
JUST_OVER_S = 30.0


@dataclass(slots=True)
class Gatherer:
    """Reads the store; keeps only what is learnt between cycles (it can be learnt again at any time).

    `paths(source, destination)` names the nodes on the way, both ends included, () when there is none.
    """

    store: Store
    config: OrchestratorConfig
    paths: Paths
    _learnt: Learnt = field(default_factory=Learnt)
    _learnt_at: Seconds | None = None
    _fabric: FabricReader = field(init=False)

    def __post_init__(self) -> None:
        self._fabric = FabricReader(self.store, self.config.routing)

    def world(self, now: Seconds, in_flight: Sequence[Action], leads: LeadTimes) -> World:
        """The world at `now`. Raises StoreError when the database is away."""
        facts, vips = self.store.facts, self.store.inventory.virtual_ips()
        rows = facts.communications(now - FORGET_PAIR_S, now)
        vm_loads = facts.loads(VmLoad, now - TYPICAL_S, now)
        link_loads = facts.loads(LinkLoad, now - RECENT_S - self.config.guard.max_world_age_s, now)
        virtual_ips = {vip.address: vip for vip in vips}
        observed = tuple(self.store.wanted.observed())
        health = read_health(observed)
        weights = {one.virtual_ip: one.weights for one in self.store.wanted.weights()}
        requests = tuple(self.store.requests.since(now - JUST_OVER_S))
        links = link_states(self.store.inventory.links(), link_loads)
        serving = {vip.address: vip.eligible(weights.get(vip.address, {}), health.get(vip.address, {})) for vip in vips}
        routes = self._routes(rows, serving, {one.vm: one.host for one in vm_loads})
        spread = {
            one.address: one.shares(weights.get(one.address, {}), _before_they_fell(health.get(one.address, {})))
            for one in virtual_ips.values()
            if one.affinity == CONNECTION
        }
        ways = {pair: way for pair, (_, way) in routes.items()}
        self._refresh(now, links, ways, spread)
        world = World(
            now=now,
            age_s=_age(now, self._newest(rows), vm_loads, bool(self.config.declared.vms)),
            pairs=self._pairs(now, rows, routes, virtual_ips),
            links=links,
            vms=vm_states(now, vm_loads, MachineFacts(self._learnt, tuple(virtual_ips.values()), self.config)),
            hosts={one.name: one for one in self.config.declared.hosts},
            virtual_ips=virtual_ips,
            in_flight=tuple(in_flight),
            leads=leads,
            wanted=WantedState(
                reservations={item.key: item for item in self.store.wanted.reservations(now)},
                requests=requests,
                weights=weights,
                observed=observed,
            ),
            network=NetworkState(ways=self._way, outlook=self._outlook(now, ways) if requests else Outlook()),
        )
        return replace(world, network=replace(world.network, fabric=self._fabric.read_fabric(world)))

    def _newest(self, rows: Sequence[Communication]) -> Seconds | None:
        """When switches last reported: where nobody has spoken for long, that is known all the same."""
        span = None if rows else self.store.facts.span()
        return rows[-1].t if rows else span and span[1]

    def _outlook(self, now: Seconds, ways: Mapping[Pair, tuple[LinkKey, ...]]) -> Outlook:
        links = {key for way in ways.values() for key in way}
        return outlook(self.store, now, links, ways, self.config.demand.level)

    def _routes(
        self, rows: Iterable[Communication], serving: Mapping[str, tuple[Destination, ...]], hosts_of: Mapping[str, str]
    ) -> dict[Pair, tuple[str | None, tuple[LinkKey, ...]]]:
        """Each pair's destination (the newest seen, else the first that gets new ones) and the links towards it."""
        destinations: dict[Pair, str | None] = {}
        for row in rows:
            destinations[row.pair] = row.destination or destinations.get(row.pair)
        found = {}
        for pair, seen in destinations.items():
            behind = serving.get(pair.virtual_ip)
            destination = seen or (behind[0].name if behind else None)
            found[pair] = (destination, self._way_to(pair.source, destination, hosts_of.get(destination or "")))
        return found

    def _way_to(self, source: str, destination: str | None, host: str | None) -> tuple[LinkKey, ...]:
        """The links towards a machine. Its own address may tell the path, so it is asked before its host is."""
        way = self._way(source, destination)
        if host is None or not destination:
            return way
        known = next((number for number, (_, to) in enumerate(way, 1) if to == host), None)
        return way[:known] if known else self._way(source, host)

    def _way(self, source: str, end: str | None) -> tuple[LinkKey, ...]:
        nodes = self.paths(source, end) if end else ()
        return tuple(pairwise(nodes))

    def _refresh(
        self,
        now: Seconds,
        links: Mapping[LinkKey, LinkState],
        ways: Mapping[Pair, tuple[LinkKey, ...]],
        spread: Mapping[str, Mapping[str, float]],
    ) -> None:
        if self._learnt_at is not None and 0 <= now - self._learnt_at < self.config.timing.learn_every_s:
            return
        since, facts = now - self.config.timing.history_s, self.store.facts
        self._learnt = learn(
            Past(
                facts.communications(since, now),
                [one for one in facts.loads(VmLoad, since, now) if one.state == RUNNING],
                facts.loads(LinkLoad, since, now),
                ways,
                {key: one.capacity_bytes_per_s for key, one in links.items() if one.capacity_bytes_per_s},
                spread,
            )
        )
        self._learnt_at = now

    def _pairs(
        self,
        now: Seconds,
        rows: Sequence[Communication],
        routes: Mapping[Pair, tuple[str | None, tuple[LinkKey, ...]]],
        virtual_ips: Mapping[str, VirtualIp],
    ) -> dict[Pair, PairState]:
        forecasts = _by_pair(self.store.forecasts.latest(now, self.config.demand.max_forecast_age_s))
        by_pair: dict[Pair, list[Communication]] = defaultdict(list)
        for row in rows:
            by_pair[row.pair].append(row)
        states = {}
        newest = rows[-1].t if rows else now  # rows come late by a poll or two: 'recent' is what was recent to them
        for pair, own in by_pair.items():
            service = virtual_ips.get(pair.virtual_ip)
            recent, usual = rates(own, newest - RECENT_S), rates(own, newest - TYPICAL_S)
            states[pair] = PairState(
                pair,
                service.priority if service else 0,
                *routes[pair],
                *recent,
                *usual,
                self._learnt.bytes_per_connection.get(pair),
                forecasts.get(pair, {}) if self.config.policy == "predictive" else {},
            )
        return states


def rates(rows: Iterable[Communication], since: Seconds) -> tuple[float, float]:
    """Mean bytes/s and connections/s over the rows after `since`; time without a row is unknown, not silence."""
    own = [row for row in rows if row.t > since]
    covered_s = sum(row.interval_s for row in own)
    if covered_s <= 0:
        return 0.0, 0.0
    return sum(row.bytes for row in own) / covered_s, sum(row.new_connections for row in own) / covered_s


def link_states(links: Iterable[Link], loads: Iterable[LinkLoad]) -> dict[LinkKey, LinkState]:
    """Both directions of every link that is up, with the rate lately measured on it (0 when it is not measured)."""
    sums: dict[LinkKey, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    rows = list(loads)
    since = rows[-1].t - RECENT_S if rows else 0.0
    for row in (one for one in rows if one.t > since):
        total = sums[row.from_node, row.to_node]
        total[0] += row.bytes
        total[1] += row.interval_s
        total[2] += row.drops
        total[3] += row.packets + row.drops
    states = {}
    for link in links:
        for key in ((link.a, link.b), (link.b, link.a)) if link.up else ():
            amount, seconds, drops, packets = sums.get(key, (0.0, 0.0, 0.0, 0.0))
            rate = amount / seconds if seconds else 0.0
            states[key] = LinkState(key, link.capacity_bytes_per_s, rate, drops / packets if packets else 0.0)
    return states


def _by_pair(forecasts: Iterable[Forecast]) -> dict[Pair, dict[tuple[int, Quantity], Forecast]]:
    found: dict[Pair, dict[tuple[int, Quantity], Forecast]] = defaultdict(dict)
    for one in forecasts:
        found[one.pair][one.horizon_s, one.quantity] = one
    return found


def _before_they_fell(health: Mapping[str, DestinationHealth]) -> dict[str, DestinationHealth]:
    """As if everyone answered: the past is learnt from, and most of it is from before a destination went down."""
    return {
        name: replace(item, status=HealthStatus.UNKNOWN) if item.status is HealthStatus.DOWN else item
        for name, item in health.items()
    }


def _age(now: Seconds, reported: Seconds | None, loads: Sequence[VmLoad], machines: bool) -> Seconds:
    newest = [now - NO_FACTS_AGE_S if reported is None else reported]
    if machines:
        newest.append(loads[-1].t if loads else now - NO_FACTS_AGE_S)
    return max(0.0, now - min(newest))

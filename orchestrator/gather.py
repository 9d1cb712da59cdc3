"""Assembles the world from the database: the only reader of facts on the deciding side."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cpdb import (
    Communication,
    Forecast,
    Link,
    LinkLoad,
    Pair,
    Quantity,
    Seconds,
    Store,
    VirtualIP,
    VmLoad,
)
from orchestrator.actions import Action
from orchestrator.config import OrchestratorConfig, VmSpec
from orchestrator.lead import LeadTimes
from orchestrator.learn import Learnt, Past, learn
from orchestrator.world import LinkKey, LinkState, PairState, VmState, World

Paths = Callable[[str, str], Sequence[str]]
RECENT_S = 3.0
TYPICAL_S = 12.0
STARVED_S = 5.0
STARVED_SHARE = 0.95
FORGET_PAIR_S = 30.0
NO_FACTS_AGE_S = 1e9


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

    def world(self, now: Seconds, in_flight: Sequence[Action], leads: LeadTimes) -> World:
        """The world at `now`. Raises StoreError when the database is away."""
        facts = self.store.facts
        rows = facts.communications(now - FORGET_PAIR_S, now)
        vm_loads = facts.loads(VmLoad, now - TYPICAL_S, now)
        link_loads = facts.loads(LinkLoad, now - RECENT_S - self.config.max_world_age_s, now)
        virtual_ips = {one.address: one for one in self.store.inventory.virtual_ips()}
        links = link_states(self.store.inventory.links(), link_loads)
        hosts_of = {one.vm: one.host for one in vm_loads}
        routes = self._routes(rows, virtual_ips, hosts_of)
        self._refresh(now, links, {pair: way for pair, (_, way) in routes.items()})
        return World(
            now=now,
            age_s=_age(now, rows, vm_loads, bool(self.config.vms)),
            pairs=self._pairs(now, rows, routes, virtual_ips),
            links=links,
            vms=self._vms(now, vm_loads),
            hosts={one.name: one for one in self.config.hosts},
            virtual_ips=virtual_ips,
            reservations={one.key: one for one in self.store.wanted.reservations(now)},
            observed=tuple(self.store.wanted.observed()),
            in_flight=tuple(in_flight),
            leads=leads,
            ways=self._way,
        )

    def _routes(
        self, rows: Iterable[Communication], virtual_ips: Mapping[str, VirtualIP], hosts_of: Mapping[str, str]
    ) -> dict[Pair, tuple[str | None, tuple[LinkKey, ...]]]:
        """Each pair's destination (the newest one seen, else the first with weight) and the links towards it."""
        destinations: dict[Pair, str | None] = {}
        for row in rows:
            destinations[row.pair] = row.destination or destinations.get(row.pair)
        found = {}
        for pair, seen in destinations.items():
            destination = seen or _first_destination(virtual_ips.get(pair.virtual_ip))
            end = hosts_of.get(destination or "", destination)
            found[pair] = (destination, self._way(pair.source, end))
        return found

    def _way(self, source: str, end: str | None) -> tuple[LinkKey, ...]:
        nodes = self.paths(source, end) if end else ()
        return tuple(pairwise(nodes))

    def _refresh(
        self, now: Seconds, links: Mapping[LinkKey, LinkState], ways: Mapping[Pair, tuple[LinkKey, ...]]
    ) -> None:
        if self._learnt_at is not None and 0 <= now - self._learnt_at < self.config.learn_every_s:
            return
        since, facts = now - self.config.history_s, self.store.facts
        self._learnt = learn(
            Past(
                facts.communications(since, now),
                facts.loads(VmLoad, since, now),
                facts.loads(LinkLoad, since, now),
                ways,
                {key: one.capacity_bytes_per_s for key, one in links.items() if one.capacity_bytes_per_s},
            )
        )
        self._learnt_at = now

    def _pairs(
        self,
        now: Seconds,
        rows: Sequence[Communication],
        routes: Mapping[Pair, tuple[str | None, tuple[LinkKey, ...]]],
        virtual_ips: Mapping[str, VirtualIP],
    ) -> dict[Pair, PairState]:
        forecasts = _by_pair(self.store.foresight.latest(now, self.config.max_forecast_age_s))
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

    def _vms(self, now: Seconds, loads: Iterable[VmLoad]) -> dict[str, VmState]:
        by_vm: dict[str, list[VmLoad]] = defaultdict(list)
        for one in loads:
            by_vm[one.vm].append(one)
        newest = max((own[-1].t for own in by_vm.values()), default=now)
        # A machine that was not in the newest answers is gone, or its host is.
        alive = {name: own for name, own in by_vm.items() if own[-1].t >= newest - RECENT_S}
        return {name: self._vm(now, own, self.config.vm(name)) for name, own in alive.items()}

    def _vm(self, now: Seconds, loads: Sequence[VmLoad], spec: VmSpec | None) -> VmState:
        last = loads[-1]
        recent = [one for one in loads if one.t > now - RECENT_S] or [last]
        return VmState(
            name=last.vm,
            host=last.host,
            cores_used=_mean_used(recent),
            cores_limit=last.cpu_cores_limit,
            vcpus=last.vcpus,
            memory_bytes=last.memory_bytes_limit,
            spec=spec,
            relations=self._learnt.relations.get(last.vm, ()),
            calm=spec is not None and self._calm(now, loads, recent, spec),
            starved=_starved(now, loads),
            seen_at=last.t,
        )

    def _calm(self, now: Seconds, loads: Sequence[VmLoad], recent: Sequence[VmLoad], spec: VmSpec) -> bool:
        """Long well below the everyday limit on average, and not rising: single seconds may exceed it by chance."""
        config = self.config
        window = [one for one in loads if one.t > now - config.calm_s - 1]
        long_enough = window[-1].t - window[0].t >= 0.8 * config.calm_s if window else False
        quiet = long_enough and _mean_used(window) < config.calm_share * spec.cpu_cores_min
        return quiet and _mean_used(recent) < config.cpu_headroom * spec.cpu_cores_min


def rates(rows: Iterable[Communication], since: Seconds) -> tuple[float, float]:
    """Mean bytes/s and connections/s over the rows after `since`; time without a row is unknown, not silence."""
    own = [row for row in rows if row.t > since]
    covered_s = sum(row.interval_s for row in own)
    if covered_s <= 0:
        return 0.0, 0.0
    return sum(row.bytes for row in own) / covered_s, sum(row.new_connections for row in own) / covered_s


def link_states(links: Iterable[Link], loads: Iterable[LinkLoad]) -> dict[LinkKey, LinkState]:
    """Both directions of every link that is up, with the rate lately measured on it (0 when it is not measured)."""
    sums: dict[LinkKey, list[float]] = defaultdict(lambda: [0.0, 0.0])
    rows = list(loads)
    since = rows[-1].t - RECENT_S if rows else 0.0
    for row in (one for one in rows if one.t > since):
        total = sums[row.from_node, row.to_node]
        total[0] += row.bytes
        total[1] += row.interval_s
    states = {}
    for link in links:
        for key in ((link.a, link.b), (link.b, link.a)) if link.up else ():
            amount, seconds = sums.get(key, (0.0, 0.0))
            states[key] = LinkState(key, link.capacity_bytes_per_s, amount / seconds if seconds else 0.0)
    return states


def _by_pair(forecasts: Iterable[Forecast]) -> dict[Pair, dict[tuple[int, Quantity], Forecast]]:
    found: dict[Pair, dict[tuple[int, Quantity], Forecast]] = defaultdict(dict)
    for one in forecasts:
        found[one.pair][one.horizon_s, one.quantity] = one
    return found


def _first_destination(service: VirtualIP | None) -> str | None:
    weighted = (one.name for one in service.destinations if one.weight > 0) if service else iter(())
    return next(weighted, None)


def _age(now: Seconds, rows: Sequence[Communication], loads: Sequence[VmLoad], machines: bool) -> Seconds:
    newest = [rows[-1].t if rows else now - NO_FACTS_AGE_S]
    if machines:
        newest.append(loads[-1].t if loads else now - NO_FACTS_AGE_S)
    return max(0.0, now - min(newest))


def _mean_used(loads: Sequence[VmLoad]) -> float:
    return sum(one.cpu_cores_used for one in loads) / len(loads)


def _starved(now: Seconds, loads: Sequence[VmLoad]) -> bool:
    window = [one for one in loads if one.t > now - STARVED_S]
    limit = sum(one.cpu_cores_limit for one in window)
    return len(window) >= 3 and limit > 0 and sum(one.cpu_cores_used for one in window) >= STARVED_SHARE * limit

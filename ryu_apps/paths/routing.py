"""Carries traffic over to wanted splits: who is on which path now, who may change, and what has to stay meanwhile.

A pair changes its path when it is silent, or after `patience_s`; a path's rules are confirmed by every switch on it
before its first packet, and stay until its last packet has long arrived.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from cpdb import FIRST_TAG, LABELS, Destination, WantedSplit
from ryu_apps.groups import turning_lane
from ryu_apps.paths.splits import (
    WEIGHTS,
    Ends,
    LabelShare,
    Lane,
    Pin,
    SplitPath,
    Spread,
    Transit,
    find_split_paths,
    is_whole,
    spread_over,
    transit_rule,
    transit_rules,
    turn_port,
)
from ryu_apps.rules import Action, Kind, Output, PushLabel, Rule, RuleKey, Table, ToGroup, kind_of
from ryu_apps.services.pairs import TrackedPair
from ryu_apps.services.virtual_ips import Services
from ryu_apps.topology.paths import Topology
from ryu_apps.topology.state import TopologyState

Seconds = float
# (switch, IP source, Ethernet destination) of packets that steering has rewritten
Key = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class PairFlow:
    """Traffic of a pair in one direction: from the switch where it enters to the one where it leaves.

    `key` tells its packets apart there; `names` are those of the two nodes.
    """

    ends: Ends
    key: Key
    names: Ends
    source_address: str
    destination_address: str
    pair: TrackedPair


def pair_flows(topology: TopologyState, services: Services) -> list[PairFlow]:
    """Both directions of every pair whose ends are on two switches; where two pairs look the same, the livelier one."""
    found: dict[Key, PairFlow] = {}
    for pair in services.pairs:
        for one in _flows_of_pair(topology, pair, _destinations(services, pair)):
            known = found.get(one.key)
            if known is None or known.pair.active < one.pair.active:
                found[one.key] = one
    return list(found.values())


def _destinations(services: Services, pair: TrackedPair) -> tuple[Destination, ...]:
    if pair.destination is not None:
        return (pair.destination,)
    # Its connections are placed one by one: they may go to any.
    service = services.virtual_ips.get(pair.virtual_ip)
    return service.destinations if service else ()


def _flows_of_pair(
    topology: TopologyState, pair: TrackedPair, destinations: Iterable[Destination]
) -> Iterable[PairFlow]:
    source = topology.hosts.of_address(pair.source_address)
    for to in destinations:
        host = topology.hosts.of_mac(to.mac)
        if source is None or host is None or source.at.dpid == host.at.dpid:
            continue
        directory = topology.snapshot.directory
        ends = directory.switch(source.at.dpid), directory.switch(host.at.dpid)
        there, back = (source.at.dpid, pair.source_address, to.mac), (host.at.dpid, pair.virtual_ip, source.mac)
        names = directory.host(pair.source_address, source.mac), to.name
        # Both families of two machines take the same path: they choose by the addresses of their nodes.
        sender, receiver = (
            directory.address(name) or own for name, own in zip(names, (pair.source_address, to.address), strict=True)
        )
        yield PairFlow(ends, there, names, sender, receiver, pair)
        yield PairFlow((ends[1], ends[0]), back, (to.name, names[0]), receiver, sender, pair)


Holds = Callable[[int, RuleKey], bool]

# A pair so young has sent no more than its first packets.
YOUNG_S = 1.0
# What is on its way when the last packet gets a tag has arrived by then.
LINGER_S = 3.0
# Rules of an earlier controller that nothing explains stay a while, and so must what they rely on.
ADOPTED_S = 8.0


@dataclass(slots=True)
class _Place:
    """Where a flow is now (nowhere: the shortest way), where it should be by which shares, and since when it is not.

    `lost`: a path has broken under it.
    """

    now: Spread = ()
    best: Spread = ()
    by: tuple[tuple[SplitPath, float, float], ...] = ()
    away_since: Seconds | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class _AdoptedPin:
    """The label and the port that an earlier controller gave to a flow."""

    tag: int
    port: int


@dataclass(frozen=True, slots=True)
class SplitProgress:
    """How far a split is: paths whose rules are not confirmed yet, all its flows, and those not on their path."""

    unready: tuple[SplitPath, ...]
    flows: int
    away: int


@dataclass(frozen=True, slots=True)
class RouteTiming:
    """`silent_s` without growth of its counters makes a pair idle; one that is never idle moves after `timeout_s`."""

    silent_s: Seconds = 2.0
    timeout_s: Seconds = 10.0


class Routes:
    """Remembers who is where; everything else is worked out anew. Without splits it costs nothing."""

    def __init__(self, topology: TopologyState, services: Services, timing: RouteTiming = RouteTiming()) -> None:
        self.in_force: Mapping[Ends, tuple[SplitPath, ...]] = {}
        self.progress: dict[Ends, SplitProgress] = {}
        # What each switch has to do, by number
        self.tagging: dict[int, LabelShare] = {}
        # Another number whenever other splits are wanted; and when time itself may change something next
        self.revision = 0
        self.due: Seconds = float("-inf")
        self.timing = timing
        self.first_label = FIRST_TAG
        self._topology, self._services = topology, services
        self._splits: tuple[WantedSplit, ...] = ()
        self._places: dict[Key, _Place] = {}
        # Paths that carried traffic lately -> when they did last
        self._used: dict[SplitPath, Seconds] = {}
        # What an earlier controller left
        self._adopted: dict[Key, _AdoptedPin] = {}
        self._adopted_until: Seconds = 0.0

    def declare(self, splits: tuple[WantedSplit, ...]) -> None:
        """The splits that are wanted; those with labels of another range than ours wait for new ones."""
        splits = tuple(filter(self.labels, splits))
        if splits != self._splits:
            self._splits = splits
            self.revision += 1

    def labels(self, split: WantedSplit) -> bool:
        """Whether all labels of a split are of our range."""
        return all(self.first_label <= tag < self.first_label + LABELS for tag in split.tags)

    def adopt(self, dpid: int, rules: Iterable[Rule], now: Seconds) -> None:
        """Takes over who is on which path from what a switch holds."""
        for rule in rules:
            kind = kind_of(rule.cookie)
            if kind in (Kind.PIN, Kind.LABEL):
                self._adopted_until = now + ADOPTED_S
            lane = self._lane(rule.actions) if kind is Kind.PIN and rule.table == Table.FORWARD else None
            if lane is not None:
                self._adopted[dpid, rule.match.ip_src or "", rule.match.eth_dst or ""] = lane

    def _lane(self, actions: tuple[Action, ...]) -> _AdoptedPin | None:
        """The label and the port of a pair that is on one path; None for one that is divided."""
        match actions:
            case (PushLabel(tag), Output(port)):
                return _AdoptedPin(tag, port)
            case (ToGroup(number),) if (lane := turning_lane(number)) is not None:
                return _AdoptedPin(self.first_label + lane[0], lane[1])
        return None

    def follow(self, holds: Holds, now: Seconds) -> None:
        """Works out what every switch has to do about labels now; `holds` tells what a switch has confirmed."""
        if not (self._splits or self._used or now < self._adopted_until):
            self.in_force, self.progress, self.tagging, self._places = {}, {}, {}, {}
            self.due = float("inf")
            return
        topology, gone = self._topology.snapshot.topology, _gone(self._topology)
        self._used |= {path: now for place in self._places.values() for path, _ in place.now}
        self._used = {
            path: at for path, at in self._used.items() if now - at < LINGER_S and is_whole(path.hops, topology)
        }
        self.in_force = find_split_paths(self._splits, topology, now, self._used, gone)
        transits = self._transits()
        unready = {
            path
            for path, found in transits.items()
            if not all(dpid is not None and holds(dpid, transit_rule(one).key) for dpid, one in found)
        }
        found = pair_flows(self._topology, self._services)
        self._places = {one.key: self._place(one, topology) for one in found}
        for one in found:
            place = self._places[one.key]
            if not all(is_whole(path.hops, topology, gone) for path, _ in place.now):
                place.now, place.lost = (), True
            self._move(one, unready, now)
        self.progress = self._progress(found, unready)
        tagging = _tagging(self._topology, transits, [*self._pins(found, now)])
        self.tagging = {dpid: replace(one, first_label=self.first_label) for dpid, one in tagging.items()}
        self.due = self._next_change(unready, now)

    def _next_change(self, unready: set[SplitPath], now: Seconds) -> Seconds:
        """When time itself may change something: at once while anybody is not where it should be."""
        if unready or any(place.now != place.best for place in self._places.values()):
            return now
        ends = [split.expires_at for split in self._splits if split.expires_at is not None and split.expires_at > now]
        busy = {path for place in self._places.values() for path, _ in place.now}
        ends += [at + LINGER_S for path, at in self._used.items() if path not in busy]
        return min(*ends, self._adopted_until if self._adopted_until > now else float("inf"), float("inf"))

    def _transits(self) -> dict[SplitPath, list[tuple[int | None, Transit]]]:
        dpids, topology = self._topology.snapshot.dpids, self._topology.snapshot.topology
        every = {path for own in self.in_force.values() for path in own} | set(self._used)
        return {
            path: [(dpids.get(switch), one) for switch, one in transit_rules(path, topology).items()] for path in every
        }

    def _place(self, one: PairFlow, topology: Topology) -> _Place:
        known = self._places.get(one.key)
        if known is not None:
            return known
        left = self._adopted.pop(one.key, None)
        choices = self.in_force.get(one.ends, ())
        own = (path for path in choices if _AdoptedPin(path.tag, topology.port(*path.hops[:2])) == left)
        return _Place(tuple((path, 1.0) for path in islice(own, 1)))

    def _move(self, one: PairFlow, unready: set[SplitPath], now: Seconds) -> None:
        place, choices = self._places[one.key], self.in_force.get(one.ends, ())
        by = tuple((path, path.weight, path.heavy.get(one.names, 0.0)) for path in choices)
        if by != place.by:
            place.best, place.by = self._spread(one, choices), by
        if place.now == place.best:
            place.away_since, place.lost = None, False
            return
        if place.away_since is None:
            place.away_since = now
        target = place.best
        if any(path in unready for path, _ in target):
            if place.now:
                return
            target = self._spread(one, [path for path in choices if path not in unready])
        young = now - one.pair.since < YOUNG_S and not place.now
        silent = now - one.pair.active > self.timing.silent_s
        if place.lost or young or silent or now - place.away_since >= self.timing.timeout_s:
            place.now, place.lost = target, False

    @staticmethod
    def _spread(one: PairFlow, choices: Sequence[SplitPath]) -> Spread:
        return spread_over(one.names, (one.source_address, one.destination_address), choices)

    def _progress(self, found: list[PairFlow], unready: set[SplitPath]) -> dict[Ends, SplitProgress]:
        every, away = dict.fromkeys(self.in_force, 0), dict.fromkeys(self.in_force, 0)
        for one in found:
            if one.ends in every:
                place = self._places[one.key]
                every[one.ends] += 1
                away[one.ends] += place.now != place.best
        return {
            ends: SplitProgress(tuple(path for path in own if path in unready), every[ends], away[ends])
            for ends, own in self.in_force.items()
        }

    def _pins(self, found: list[PairFlow], now: Seconds) -> Iterable[tuple[int, Pin]]:
        for one in found:
            spread, lanes = self._places[one.key].now, []
            for path, share in spread:
                self._used[path] = now
                topology, (here, *_, last) = self._topology.snapshot.topology, path.hops
                port = topology.port(here, path.hops[1])
                spare = turn_port(topology, (here, last), (port,))
                lanes.append(Lane(path.tag, port, max(round(share * WEIGHTS), 1), spare))
            if lanes:
                dpid, source, to = one.key
                yield dpid, Pin(source, to, tuple(lanes), one.pair.number)


def _gone(topology: TopologyState) -> frozenset[str]:
    """Switches that were there and are not any more: they may forward still, or be dead."""
    lost = {at.dpid for at in topology.links.ports} - topology.connected
    return frozenset(topology.snapshot.directory.switch(dpid) for dpid in lost)


def _tagging(
    topology: TopologyState,
    transits: Mapping[SplitPath, list[tuple[int | None, Transit]]],
    pins: Iterable[tuple[int, Pin]],
) -> dict[int, LabelShare]:
    by_transit: dict[int, list[Transit]] = {dpid: [] for dpid in topology.connected}
    by_pin: dict[int, list[Pin]] = {dpid: [] for dpid in topology.connected}
    for path in sorted(transits, key=lambda one: (one.tag, one.hops)):
        for dpid, one in transits[path]:
            by_transit.setdefault(dpid or 0, []).append(one)
    for dpid, pin in pins:
        by_pin.setdefault(dpid, []).append(pin)
    inner: dict[int, list[int]] = {}
    for at in sorted(topology.links.ports):
        if topology.links.peer(at) is not None:
            inner.setdefault(at.dpid, []).append(at.port)
    return {
        dpid: LabelShare(tuple(by_transit[dpid]), tuple(by_pin.get(dpid, ())), tuple(inner.get(dpid, ())))
        for dpid in by_transit
    }

"""Carries traffic over to wanted splits: who is on which path now, who may change, and what has to stay meanwhile.

A pair changes its path when it is silent, or after `patience_s`; a path's rules are confirmed by every switch on it
before its first packet, and stay until its last packet has long arrived.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cpdb import Destination, WantedSplit
from ryu_apps.paths.splits import (
    Ends,
    Lane,
    Pin,
    Tagging,
    Transit,
    choose_lane,
    is_whole,
    lanes,
    transit_rule,
    transit_rules,
)
from ryu_apps.rules import Kind, Output, Rule, RuleKey, Tag, kind_of
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

    `key` tells its packets apart there.
    """

    ends: Ends
    key: Key
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
        yield PairFlow(ends, there, pair.source_address, to.address, pair)
        yield PairFlow((ends[1], ends[0]), back, to.address, pair.source_address, pair)


Holds = Callable[[int, RuleKey], bool]

# A pair so young has sent no more than its first packets.
YOUNG_S = 1.0
# What is on its way when the last packet gets a tag has arrived by then.
LINGER_S = 3.0
# Rules of an earlier controller that nothing explains stay a while, and so must what they rely on.
ADOPTED_S = 8.0


@dataclass(slots=True)
class _Place:
    """Where a journey is now (None: the shortest way), where it should be by which shares, and since when it is not.

    `lost`: its path has broken under it.
    """

    lane: Lane | None = None
    best: Lane | None = None
    by: tuple[tuple[Lane, float], ...] = ()
    away_since: Seconds | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class _AdoptedPin:
    """The label and the port that an earlier controller gave to a flow."""

    tag: int
    port: int


@dataclass(frozen=True, slots=True)
class SplitProgress:
    """How far a split is: paths whose rules are not confirmed yet, all its journeys, and those not on their path."""

    unready: tuple[Lane, ...]
    journeys: int
    away: int


@dataclass(frozen=True, slots=True)
class RouteTiming:
    """`silent_s` without growth of its counters makes a pair idle; one that is never idle moves after `timeout_s`."""

    silent_s: Seconds = 2.0
    timeout_s: Seconds = 10.0


class Routes:
    """Remembers who is where; everything else is worked out anew. Without splits it costs nothing."""

    def __init__(self, topology: TopologyState, services: Services, timing: RouteTiming = RouteTiming()) -> None:
        self.in_force: Mapping[Ends, tuple[Lane, ...]] = {}
        self.progress: dict[Ends, SplitProgress] = {}
        # What each switch has to do, by number
        self.tagging: dict[int, Tagging] = {}
        # Another number whenever other splits are wanted; and when time itself may change something next
        self.revision = 0
        self.due: Seconds = float("-inf")
        self.timing = timing
        self._topology, self._services = topology, services
        self._splits: tuple[WantedSplit, ...] = ()
        self._places: dict[Key, _Place] = {}
        # Paths that carried traffic lately -> when they did last
        self._used: dict[Lane, Seconds] = {}
        # What an earlier controller left
        self._adopted: dict[Key, _AdoptedPin] = {}
        self._adopted_until: Seconds = 0.0

    def declare(self, splits: tuple[WantedSplit, ...]) -> None:
        """The splits that are wanted."""
        if splits != self._splits:
            self._splits = splits
            self.revision += 1

    def adopt(self, dpid: int, rules: Iterable[Rule], now: Seconds) -> None:
        """Takes over who is on which path from what a switch holds."""
        for rule in rules:
            kind = kind_of(rule.cookie)
            if kind in (Kind.PIN, Kind.TAG):
                self._adopted_until = now + ADOPTED_S
            tags = [one.tag for one in rule.actions if isinstance(one, Tag)]
            ports = [one.port for one in rule.actions if isinstance(one, Output)]
            if kind is Kind.PIN and tags and ports:
                self._adopted[dpid, rule.match.ipv4_src or "", rule.match.eth_dst or ""] = _AdoptedPin(
                    tags[0], ports[0]
                )

    def follow(self, holds: Holds, now: Seconds) -> None:
        """Works out what every switch has to do about labels now; `holds` tells what a switch has confirmed."""
        if not (self._splits or self._used or now < self._adopted_until):
            self.in_force, self.progress, self.tagging, self._places = {}, {}, {}, {}
            self.due = float("inf")
            return
        topology, gone = self._topology.snapshot.topology, _gone(self._topology)
        self._used |= {place.lane: now for place in self._places.values() if place.lane is not None}
        self._used = {
            lane: at for lane, at in self._used.items() if now - at < LINGER_S and is_whole(lane.hops, topology)
        }
        self.in_force = lanes(self._splits, topology, now, self._used, gone)
        transits = self._transits()
        unready = {
            lane
            for lane, found in transits.items()
            if not all(dpid is not None and holds(dpid, transit_rule(one).key) for dpid, one in found)
        }
        found = pair_flows(self._topology, self._services)
        self._places = {one.key: self._place(one, topology) for one in found}
        for one in found:
            place = self._places[one.key]
            if place.lane is not None and not is_whole(place.lane.hops, topology, gone):
                place.lane, place.lost = None, True
            self._move(one, unready, now)
        self.progress = self._progress(found, unready)
        self.tagging = _tagging(self._topology, transits, [*self._pins(found, now)])
        self.due = self._next_change(unready, now)

    def _next_change(self, unready: set[Lane], now: Seconds) -> Seconds:
        """When time itself may change something: at once while anybody is not where it should be."""
        if unready or any(place.lane != place.best for place in self._places.values()):
            return now
        ends = [split.expires_at for split in self._splits if split.expires_at is not None and split.expires_at > now]
        busy = {place.lane for place in self._places.values()}
        ends += [at + LINGER_S for lane, at in self._used.items() if lane not in busy]
        return min(*ends, self._adopted_until if self._adopted_until > now else float("inf"), float("inf"))

    def _transits(self) -> dict[Lane, list[tuple[int | None, Transit]]]:
        dpids, topology = self._topology.snapshot.dpids, self._topology.snapshot.topology
        every = {lane for own in self.in_force.values() for lane in own} | set(self._used)
        return {
            lane: [(dpids.get(switch), one) for switch, one in transit_rules(lane, topology).items()] for lane in every
        }

    def _place(self, one: PairFlow, topology: Topology) -> _Place:
        known = self._places.get(one.key)
        if known is not None:
            return known
        left = self._adopted.pop(one.key, None)
        choices = self.in_force.get(one.ends, ())
        return _Place(
            next((lane for lane in choices if _AdoptedPin(lane.tag, topology.port(*lane.hops[:2])) == left), None)
        )

    def _move(self, one: PairFlow, unready: set[Lane], now: Seconds) -> None:
        place, choices = self._places[one.key], self.in_force.get(one.ends, ())
        by = tuple((lane, lane.ratio) for lane in choices)
        if by != place.by:
            place.best, place.by = choose_lane(one.source_address, one.destination_address, choices), by
        if place.lane == place.best:
            place.away_since, place.lost = None, False
            return
        if place.away_since is None:
            place.away_since = now
        target = place.best
        if target in unready:
            if place.lane is not None:
                return
            ready = [lane for lane in choices if lane not in unready]
            target = choose_lane(one.source_address, one.destination_address, ready)
        young = now - one.pair.since < YOUNG_S and place.lane is None
        silent = now - one.pair.active > self.timing.silent_s
        if place.lost or young or silent or now - place.away_since >= self.timing.timeout_s:
            place.lane, place.lost = target, False

    def _progress(self, found: list[PairFlow], unready: set[Lane]) -> dict[Ends, SplitProgress]:
        every, away = dict.fromkeys(self.in_force, 0), dict.fromkeys(self.in_force, 0)
        for one in found:
            if one.ends in every:
                place = self._places[one.key]
                every[one.ends] += 1
                away[one.ends] += place.lane != place.best
        return {
            ends: SplitProgress(tuple(lane for lane in own if lane in unready), every[ends], away[ends])
            for ends, own in self.in_force.items()
        }

    def _pins(self, found: list[PairFlow], now: Seconds) -> Iterable[tuple[int, Pin]]:
        for one in found:
            lane = self._places[one.key].lane
            if lane is not None:
                self._used[lane] = now
                dpid, source, to = one.key
                port = self._topology.snapshot.topology.port(lane.hops[0], lane.hops[1])
                yield dpid, Pin(source, to, lane.tag, port, one.pair.number)


def _gone(topology: TopologyState) -> frozenset[str]:
    """Switches that were there and are not any more: they may forward still, or be dead."""
    lost = {at.dpid for at in topology.links.ports} - topology.connected
    return frozenset(topology.snapshot.directory.switch(dpid) for dpid in lost)


def _tagging(
    topology: TopologyState,
    transits: Mapping[Lane, list[tuple[int | None, Transit]]],
    pins: Iterable[tuple[int, Pin]],
) -> dict[int, Tagging]:
    by_transit: dict[int, list[Transit]] = {dpid: [] for dpid in topology.connected}
    by_pin: dict[int, list[Pin]] = {dpid: [] for dpid in topology.connected}
    for lane in sorted(transits, key=lambda one: (one.tag, one.hops)):
        for dpid, one in transits[lane]:
            by_transit.setdefault(dpid or 0, []).append(one)
    for dpid, pin in pins:
        by_pin.setdefault(dpid, []).append(pin)
    inner: dict[int, list[int]] = {}
    for at in sorted(topology.links.ports):
        if topology.links.peer(at) is not None:
            inner.setdefault(at.dpid, []).append(at.port)
    return {
        dpid: Tagging(tuple(by_transit[dpid]), tuple(by_pin.get(dpid, ())), tuple(inner.get(dpid, ())))
        for dpid in by_transit
    }

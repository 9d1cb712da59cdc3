"""Carries traffic over to wanted splits: who is on which path now, who may change, and what has to stay meanwhile.

A path's rules are confirmed by every switch on it before its first packet, and stay until its last packet has long
arrived. Where a switch can write connections down it does so for a while before a pair is turned, and they keep their
path until they are silent; elsewhere a pair changes when it is silent, or after `timeout_s`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cpdb import FIRST_TAG, LABELS, Destination, WantedSplit
from ryu_apps.paths.draining import NextHopCounts
from ryu_apps.paths.next_hops import (
    KEPT_IDLE_S,
    HeldNextHops,
    LabelShare,
    NextHop,
    NextHopPlace,
    Pin,
    Transit,
    read_next_hops,
    transit_rule,
    transit_rules,
    turn_port,
)
from ryu_apps.paths.splits import WEIGHTS, Ends, SplitPath, find_split_paths, is_whole, spread_over
from ryu_apps.rules import Kind, Rule, RuleKey, kind_of
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
        for one in _flows_of_pair(topology, services, pair):
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


def _flows_of_pair(topology: TopologyState, services: Services, pair: TrackedPair) -> Iterable[PairFlow]:
    source = topology.hosts.of_address(pair.source_address)
    for to in _destinations(services, pair):
        host = topology.hosts.of_mac(to.mac)
        if source is None or host is None or source.at.dpid == host.at.dpid:
            continue
        directory = topology.snapshot.directory
        ends = directory.switch(source.at.dpid), directory.switch(host.at.dpid)
        # Where connections are told apart, their answers keep the machine's address until where the pair enters.
        by_connection = pair.destination is None or services.tells_connections(to.address, source.at.dpid)
        answers = to.address if by_connection else pair.virtual_ip
        there, back = (source.at.dpid, pair.source_address, to.mac), (host.at.dpid, answers, source.mac)
        names = directory.host(pair.source_address, source.mac), to.name
        # Both families of two machines take the same path: they choose by the addresses of their nodes.
        sender, receiver = (
            directory.address(name) or own for name, own in zip(names, (pair.source_address, to.address), strict=True)
        )
        yield PairFlow(ends, there, names, sender, receiver, pair)
        yield PairFlow((ends[1], ends[0]), back, (to.name, names[0]), receiver, sender, pair)


Holds = Callable[[int, RuleKey], bool]

# A pair so young has sent no more than its first packet, which waits for its rules.
YOUNG_S = 1.0
# Connections are written down for so long before their pair is turned: those that pause for less keep their path.
NOTE_S = 4.0
# Rules that send kept connections have counted nothing for so long when the switch has forgotten them all.
DRAINED_S = KEPT_IDLE_S + 2.0
# Whether anybody keeps a path is looked at so often.
KEEP_LOOK_S = 0.5
# What is on its way when the last packet gets a tag has arrived by then.
LINGER_S = 3.0
# Rules of an earlier controller that nothing explains stay a while, and so must what they rely on.
ADOPTED_S = 8.0


# Paths by weight, of `WEIGHTS`; none is the shortest way
Weights = tuple[tuple[SplitPath, int], ...]


@dataclass(slots=True)
class _Place:
    """Where a flow is now, where it should be by which shares, and since when it is not."""

    now: Weights = ()
    best: Weights = ()
    by: tuple[tuple[SplitPath, float, float], ...] = ()
    away_since: Seconds | None = None
    # A path has broken under it
    lost: bool = False
    # Nothing was ever sent
    fresh: bool = False
    # Paths that connections may keep, since when no new ones take them; None is the shortest way
    kept: dict[SplitPath | None, Seconds] = field(default_factory=dict)
    # Since when the switch writes connections down: for ever until it has confirmed that, None while it does not
    noted: Seconds | None = None

    @property
    def lasting(self) -> tuple[SplitPath | None, ...]:
        """Paths that connections which were written down have."""
        own: list[SplitPath | None] = [path for path, _ in self.now]
        own = own or [None]
        return tuple(dict.fromkeys([*self.kept, *(own if self.noted is not None else ())]))


@dataclass(frozen=True, slots=True)
class SplitProgress:
    """How far a split is: paths whose rules are not confirmed yet, all its flows, and those not on their path."""

    unready: tuple[SplitPath, ...]
    flows: int
    away: int


@dataclass(frozen=True, slots=True)
class RouteTiming:
    """`silent_s` without growth of its counters makes a pair idle; one that is never idle moves after `timeout_s`.

    Where connections keep their path, a turn is over once those that are silent are gone (`DRAINED_S`, at most
    `timeout_s`), however long some of them go on.
    """

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
        self._adopted: dict[Key, HeldNextHops] = {}
        # Whether connections still keep a path, and the switches where they may
        self.kept = NextHopCounts()
        self.keeping: set[int] = set()
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
        rules = list(rules)
        if any(kind_of(rule.cookie) in (Kind.PIN, Kind.LABEL) for rule in rules):
            self._adopted_until = now + ADOPTED_S
        self._adopted |= {
            (dpid, *ends): next_hops for ends, next_hops in read_next_hops(rules, self.first_label).items()
        }

    def follow(self, holds: Holds, now: Seconds) -> None:
        """Works out what every switch has to do about labels now; `holds` tells what a switch has confirmed."""
        if not (self._splits or self._used or now < self._adopted_until):
            self.in_force, self.progress, self.tagging, self._places, self.keeping = {}, {}, {}, {}, set()
            self.due = float("inf")
            return
        topology, gone = self._topology.snapshot.topology, _gone(self._topology)
        self._used |= {path: now for place in self._places.values() for path in _paths_of(place)}
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
        self._places = {one.key: self._place(one, topology, now) for one in found}
        for one in found:
            place = self._places[one.key]
            broken = {path for path in _paths_of(place) if not is_whole(path.hops, topology, gone)}
            if any(path in broken for path, _ in place.now):
                place.now, place.lost, place.noted = (), True, None
            place.kept = {
                path: since
                for path, since in place.kept.items()
                if path not in broken and not self._is_drained(one, path, since)
            }
            self._move(one, unready, holds, now)
        self.progress = self._progress(found, unready, now)
        self.keeping = {key[0] for key, place in self._places.items() if place.kept}
        tagging = _tagging(self._topology, transits, [*self._pins(found, now)])
        self.tagging = {dpid: replace(one, first_label=self.first_label) for dpid, one in tagging.items()}
        self.due = self._next_change(unready, now)

    def _next_change(self, unready: set[SplitPath], now: Seconds) -> Seconds:
        """When time itself may change something: at once while anybody is not where it should be."""
        if unready or any(place.now != place.best for place in self._places.values()):
            return now
        ends = [split.expires_at for split in self._splits if split.expires_at is not None and split.expires_at > now]
        busy = {path for place in self._places.values() for path in _paths_of(place)}
        ends += [at + LINGER_S for path, at in self._used.items() if path not in busy]
        ends += [now + KEEP_LOOK_S] if self.keeping else []
        return min(*ends, self._adopted_until if self._adopted_until > now else float("inf"), float("inf"))

    def _transits(self) -> dict[SplitPath, list[tuple[int | None, Transit]]]:
        dpids, topology = self._topology.snapshot.dpids, self._topology.snapshot.topology
        every = {path for own in self.in_force.values() for path in own} | set(self._used)
        return {
            path: [(dpids.get(switch), one) for switch, one in transit_rules(path, topology).items()] for path in every
        }

    def _place(self, one: PairFlow, topology: Topology, now: Seconds) -> _Place:
        known = self._places.get(one.key)
        if known is not None:
            return known
        left = self._adopted.pop(one.key, None)
        if left is None:
            return _Place(fresh=now - one.pair.since < YOUNG_S)
        choices = self.in_force.get(one.ends, ())
        by = {NextHopPlace(path.tag, topology.port(*path.hops[:2])): path for path in choices}
        kept: dict[SplitPath | None, Seconds] = {by[next_hop]: now for next_hop in left.kept if next_hop in by}
        kept |= dict.fromkeys((None for next_hop in left.kept if not next_hop.tag), now)
        shares = ((by[next_hop], share) for next_hop, share in left.shares.items() if next_hop in by)
        return _Place(_weigh(shares), kept=kept)

    def _move(self, one: PairFlow, unready: set[SplitPath], holds: Holds, now: Seconds) -> None:
        place, choices = self._places[one.key], self.in_force.get(one.ends, ())
        fresh, place.fresh = place.fresh, False
        by = tuple((path, path.weight, path.heavy.get(one.names, 0.0)) for path in choices)
        if by != place.by:
            place.best, place.by = self._spread(one, choices), by
        if place.now == place.best:
            place.away_since, place.lost, place.noted = None, False, None
            return
        if place.away_since is None:
            place.away_since = now
        target = place.best
        if any(path in unready for path, _ in target):
            if place.now:
                return
            target = self._spread(one, [path for path in choices if path not in unready])
            if target == place.now:
                return
        if place.lost or fresh:
            place.now, place.lost = target, False
        elif one.key[0] not in self._services.unplacing:
            self._turn(one, target, holds, now)
        elif now - one.pair.active > self.timing.silent_s or now - place.away_since >= self.timing.timeout_s:
            place.now = target

    def _turn(self, one: PairFlow, target: Weights, holds: Holds, now: Seconds) -> None:
        """New connections take other paths once those that speak have been written down, with the path of each."""
        place, dpid = self._places[one.key], one.key[0]
        if place.noted is None:
            place.noted = float("inf")
        elif place.noted > now and all(holds(dpid, _kept_rule(one, path).key) for path in place.lasting):
            place.noted = now
        if now - place.noted >= NOTE_S:
            place.kept = dict.fromkeys(place.lasting, now)
            place.now, place.noted = target, None

    def _is_drained(self, one: PairFlow, path: SplitPath | None, since: Seconds) -> bool:
        return self.kept.silent_s(one.key[0], _kept_rule(one, path).cookie, since) >= DRAINED_S

    @staticmethod
    def _spread(one: PairFlow, choices: Sequence[SplitPath]) -> Weights:
        return _weigh(spread_over(one.names, (one.source_address, one.destination_address), choices))

    def _progress(self, found: list[PairFlow], unready: set[SplitPath], now: Seconds) -> dict[Ends, SplitProgress]:
        every, away = dict.fromkeys(self.in_force, 0), dict.fromkeys(self.in_force, 0)
        for one in found:
            if one.ends in every:
                place = self._places[one.key]
                every[one.ends] += 1
                wait_s = min(self.timing.timeout_s, DRAINED_S)
                turning = any(now - since < wait_s for since in place.kept.values())
                away[one.ends] += turning or place.now != place.best
        return {
            ends: SplitProgress(tuple(path for path in own if path in unready), every[ends], away[ends])
            for ends, own in self.in_force.items()
        }

    def _pins(self, found: list[PairFlow], now: Seconds) -> Iterable[tuple[int, Pin]]:
        for one in found:
            place = self._places[one.key]
            self._used |= dict.fromkeys(_paths_of(place), now)
            lasting = tuple(next_hop for path in place.lasting if (next_hop := self._next_hop(one, path)) is not None)
            if place.now or lasting:
                every = (self._next_hop(one, path, weight) for path, weight in place.now or ((None, WEIGHTS),))
                next_hops = tuple(next_hop for next_hop in every if next_hop is not None)
                if next_hops:
                    yield one.key[0], Pin(*one.key[1:], next_hops, one.pair.number, lasting, place.noted is not None)

    def _next_hop(self, one: PairFlow, path: SplitPath | None, weight: int = WEIGHTS) -> NextHop | None:
        """What a path begins with; the shortest way without one. None where that leads nowhere."""
        topology, (here, last) = self._topology.snapshot.topology, one.ends
        port = turn_port(topology, one.ends, ()) if path is None else topology.port(here, path.hops[1])
        if port is None:
            return None
        return NextHop(0 if path is None else path.tag, port, weight, turn_port(topology, (here, last), (port,)))


def _paths_of(place: _Place) -> list[SplitPath]:
    return [path for path, _ in place.now] + [path for path in place.kept if path is not None]


def _weigh(spread: Iterable[tuple[SplitPath, float]]) -> Weights:
    return tuple((path, max(round(share * WEIGHTS), 1)) for path, share in spread)


def _kept_rule(one: PairFlow, path: SplitPath | None) -> Rule:
    """The rule of connections that keep a path, as far as it is told from others."""
    return Pin(*one.key[1:], (), one.pair.number).kept_rule(NextHop(0 if path is None else path.tag, 0, WEIGHTS))


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

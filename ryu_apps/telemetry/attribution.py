"""What makes growth into rows: whose a cookie is, and which rows cannot be true."""

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import structlog

from cpdb import Destination, FlowKey, Link
from ryu_apps.network import Network
from ryu_apps.openflow import FlowColumns
from ryu_apps.pacing import RateLimiter
from ryu_apps.rules import KIND_SHIFT, NUMBER_MASK, Kind, PortId, number_of
from ryu_apps.services.pairs import TrackedPair, sum_number
from ryu_apps.telemetry.collector import Answer
from ryu_apps.telemetry.counted import CountedBeside
from ryu_apps.telemetry.counters import CounterDelta, PollDelta
from ryu_apps.telemetry.rows import LinkEnds, SampleSource
from ryu_apps.topology.state import Directory, TopologyState, name_of_address

Seconds = float
BytesPerS = float

# Counters come in lumps: one reading may hold what was sent while an earlier one was already on its way.
LUMP_S = 1.5
TOLERANCE = 1.1
WINDOW_S = 5.0
# So many windows in a row must disagree before a link is doubted.
STRIKES = 3
# Both ends are read at different moments: so many seconds of the highest rate may be missing at one of them.
APART_S = 2.0
MIN_BYTES = 100_000


class LineSpeeds:
    """A leaky bucket for each source, drained at its line's speed: what overflows cannot have been sent."""

    def __init__(self) -> None:
        self._speeds: Mapping[str, BytesPerS] = {}
        # Source -> (bytes that its line cannot yet have carried, at)
        self._levels: dict[str, tuple[float, Seconds]] = {}

    def declare(self, speeds: Mapping[str, BytesPerS]) -> None:
        """Line speed of each source that has a known one."""
        self._speeds = speeds
        self._levels = {source: level for source, level in self._levels.items() if source in speeds}

    def impossible(self, talks: Sequence[FlowKey], sizes: Sequence[int], since: Seconds, now: Seconds) -> set[str]:
        """Sources that claim more than their line carries, given the bytes of each talk in (since, now]."""
        totals: dict[str, int] = {}
        for talk, size in zip(talks, sizes, strict=True):
            totals[talk.source] = totals.get(talk.source, 0) + size
        return {source for source, total in totals.items() if self._overflows(source, total, since, now)}

    def _overflows(self, source: str, total: int, since: Seconds, now: Seconds) -> bool:
        speed = self._speeds.get(source)
        if not speed:
            return False
        level, then = self._levels.get(source, (0.0, since))
        most = speed * LUMP_S
        level = max(0.0, level + total - speed * TOLERANCE * (now - min(then, since)))
        # A single lie must not stain what comes after it.
        self._levels[source] = min(level, most), now
        return level > most


@dataclass(slots=True)
class _End:
    """What a port sent and received in the present window."""

    sent: int = 0
    received: int = 0
    looks: int = 0
    fastest: BytesPerS = 0.0


@dataclass(slots=True)
class BothEnds:
    """Compares the two ends of every link between switches; `doubted` are the ports of links that disagree."""

    doubted: frozenset[PortId] = frozenset()
    _ends: dict[PortId, _End] = field(default_factory=dict)
    _strikes: dict[tuple[PortId, PortId], int] = field(default_factory=dict)
    _since: Seconds = 0.0

    def grew(self, at: PortId, growth: CounterDelta) -> None:
        """A port's growth of (bytes, packets, drops) sent and received."""
        end, (sent, _, _, received, _, _) = self._ends.setdefault(at, _End()), growth.values
        end.sent, end.received, end.looks = end.sent + sent, end.received + received, end.looks + 1
        end.fastest = max(end.fastest, max(sent, received) / max(growth.interval_s, 0.1))

    def judge(self, peer_of: Callable[[PortId], PortId | None], now: Seconds) -> bool:
        """Closes the window when it is time; True when other links are doubted than before."""
        if now - self._since < WINDOW_S:
            return False
        ends, self._ends, self._since = self._ends, {}, now
        strikes = {}
        for at, end in ends.items():
            peer = peer_of(at)
            other = ends.get(peer) if peer is not None else None
            if peer is None or other is None or min(end.looks, other.looks) < 2:
                continue
            apart = abs(end.sent - other.received)
            if apart > _allowed(end, other):
                strikes[at, peer] = self._strikes.get((at, peer), 0) + 1
        self._strikes = strikes
        doubted = frozenset(at for pair, count in strikes.items() if count >= STRIKES for at in pair)
        changed, self.doubted = doubted != self.doubted, doubted
        return changed


def _allowed(end: _End, other: _End) -> float:
    most = max(end.sent, other.received)
    return (TOLERANCE - 1) * most + APART_S * min(max(end.fastest, other.fastest), most / 2) + MIN_BYTES


def marked(talks: Sequence[FlowKey], sources: Collection[str], doubtful: Callable[[FlowKey], bool] | None) -> list[int]:
    """TablePlaces of the talks of these sources, and of those that are doubtful for another reason."""
    if not sources and doubtful is None:
        return []
    return [
        place for place, talk in enumerate(talks) if talk.source in sources or (doubtful is not None and doubtful(talk))
    ]


_REPORT_EVERY_S = 10.0
_KIND_MASK = 0xF
_log = structlog.get_logger("ryu_apps.telemetry.attribution")


class PairAttribution:
    """Reads a switch's growth by what the network knows of its pairs. `implausible` counts rows that were marked."""

    def __init__(self, network: Network, sampled: Container[str] = ()) -> None:
        """Of switches that are `sampled` (by name) nobody's counters are told: sFlow tells of them."""
        self._network = network
        self._sampled = sampled
        # Pair number -> its talk, and what that was made from; kept for the last words of pairs that are gone
        self._flow_keys: dict[int, tuple[FlowKey, Destination | None, Directory]] = {}
        self._same: dict[FlowKey, FlowKey] = {}
        self._pairs: dict[FlowKey, TrackedPair] = {}
        self._speeds = LineSpeeds()
        self._ends = BothEnds()
        self._speeds_from: tuple[int, dict[PortId, BytesPerS]] = -1, {}
        self._forgot_at = -1
        self._doubtful: dict[FlowKey, bool] = {}
        self._limiter = RateLimiter()
        self.counted = CountedBeside(network)
        self.implausible = 0

    def sample_source(self, dpid: int, now: Seconds) -> SampleSource:
        """How this switch's growth is read at this moment."""

        def judge(talks: Sequence[FlowKey], sizes: Sequence[int], seconds: Seconds) -> Collection[int]:
            return self._judge(talks, sizes, now - seconds, now)

        account = partial(self.account, dpid=dpid)
        return SampleSource(f"switch/{self._network.topology.snapshot.directory.switch(dpid)}", account, judge)

    # ---- for the collector

    def name_of(self, dpid: int) -> str:
        """A switch's declared name, else its number."""
        return self._network.topology.snapshot.directory.switch(dpid)

    def read_entries(self, dpid: int, columns: FlowColumns, now: Seconds) -> Answer:
        """Counters of the pairs that enter at a switch: the cookie is the key."""
        entries = zip(columns.cookie, columns.packets, columns.bytes, columns.age_s, strict=True)
        return Answer(entries, None if self.name_of(dpid) in self._sampled else self.sample_source(dpid, now))

    def neighbour(self, at: PortId) -> LinkEnds:
        """The switch, declared machine or single host behind a port."""
        topology = self._network.topology
        directory, machines = topology.snapshot.directory, topology.snapshot.machines
        here, peer = directory.switch(at.dpid), topology.links.peer(at)
        if peer is not None:
            return LinkEnds(here, directory.switch(peer.dpid), edge=False)
        if at in machines:
            return LinkEnds(here, machines[at], edge=True)
        names = [next(iter(directory.names(host))) for host in topology.hosts if host.at == at]
        return LinkEnds(here, names[0] if len(names) == 1 else f"{here}:{at.port}", edge=True)

    def flows_grew(self, look: PollDelta) -> None:
        """Pairs whose packets were counted are active."""
        for key in [key for key, packets, _ in look.grown if packets] + [late[1] for late in look.late]:
            pair = self._network.services.pairs.of_number(number_of(key))
            if pair is not None:
                pair.active = look.t

    # ---- whose

    def account(self, cookie: int, dpid: int | None = None) -> tuple[FlowKey, bool] | None:
        """The talk that an accounting entry of a switch counts, and whether its packets are openings of connections.

        What belongs to no pair is told under the switch's name, as the source of a sum.
        """
        number = cookie & NUMBER_MASK
        talk = self._flow_key(number) or self._sum(number, dpid) or self.counted.flow_key(number, dpid)
        return None if talk is None else (talk, cookie >> KIND_SHIFT & _KIND_MASK == Kind.PAIR_SYN)

    def _flow_key(self, number: int) -> FlowKey | None:
        pair, known = self._network.services.pairs.of_number(number), self._flow_keys.get(number)
        if pair is None:
            return known[0] if known else None
        directory = self._network.topology.snapshot.directory
        if known is not None and known[1] is pair.destination and known[2] is directory:
            return known[0]
        name = pair.destination.name if pair.destination else None
        talk = FlowKey(name_of_address(self._network.topology, pair.source_address), pair.virtual_ip, name)
        talk = self._same.setdefault(talk, talk)
        self._flow_keys[number], self._pairs[talk] = (talk, pair.destination, directory), pair
        return talk

    def _sum(self, number: int, dpid: int | None) -> FlowKey | None:
        vips = self._network.services.virtual_ips if dpid is not None else ()
        address = next((one for one in vips if sum_number(dpid or 0, one) == number), None)
        return None if address is None else FlowKey(self.name_of(dpid or 0), address, None)

    def sampled(self, source: str, destination: str) -> FlowKey | None:
        """The talk of a sampled packet; only packets to a virtual IP are counted, and only where they enter."""
        pair = self._network.services.pairs.of_addresses(source, destination)
        if pair is not None:
            return self._flow_key(pair.number)
        if destination not in self._network.services.virtual_ips:
            return None
        talk = FlowKey(name_of_address(self._network.topology, source), destination, None)
        return self._same.setdefault(talk, talk)

    def forget(self) -> None:
        """Drops what was remembered of pairs that are gone."""
        if self._network.services.pairs.revision == self._forgot_at:
            return
        self._forgot_at = self._network.services.pairs.revision
        alive = {pair.number for pair in self._network.services.pairs}
        if max(len(self._flow_keys), len(self._same)) > 2 * len(alive) + 20_000:
            self._flow_keys = {number: known for number, known in self._flow_keys.items() if number in alive}
            self._same = {talk: talk for talk, *_ in self._flow_keys.values()}
            self._pairs = {talk: pair for talk, pair in self._pairs.items() if talk in self._same}

    # ---- what cannot be

    def port_grew(self, at: PortId, growth: CounterDelta) -> None:
        """A port's counters grew."""
        self._ends.grew(at, growth)
        _, to_it, _, _, from_it, _ = growth.values
        self._network.port_counted(at, to_it, from_it, growth.t)

    def watch(self, speeds: Mapping[PortId, BytesPerS], now: Seconds) -> None:
        """Takes line speeds of ports, and compares both ends of the links when it is time."""
        # Line speeds follow from names, places and what ports say: looked at again when one of them is news.
        made_from = self._network.topology.revision, dict(speeds)
        if made_from != self._speeds_from:
            self._speeds_from = made_from
            self._speeds.declare(_line_speeds(self._network, speeds))
        before = self._ends.doubted
        if self._ends.judge(self._network.topology.links.peer, now):
            self._doubtful = {}
            names = self._network.topology.snapshot.directory
            for at in sorted(self._ends.doubted - before):
                _log.warning("both ends of a link count differently", switch=names.switch(at.dpid), port=at.port)
        self.forget()

    def _judge(self, talks: Sequence[FlowKey], sizes: Sequence[int], since: Seconds, now: Seconds) -> Collection[int]:
        sources = self._speeds.impossible(talks, sizes, since, now)
        found = marked(talks, sources, self._on_doubted if self._ends.doubted else None)
        self.implausible += len(found)
        if sources and self._limiter.due("implausible", _REPORT_EVERY_S, now):
            some = ", ".join(sorted(sources)[:3])
            _log.warning("more bytes than the line carries", sources=some, marked_in_all=self.implausible)
        return found

    def _on_doubted(self, talk: FlowKey) -> bool:
        if talk not in self._doubtful:
            self._doubtful[talk] = not self._ends.doubted.isdisjoint(
                _ports_between(self._network.topology, self._pairs.get(talk))
            )
        return self._doubtful[talk]


def _ports_between(topology: TopologyState, pair: TrackedPair | None) -> set[PortId]:
    """Ports of the links between switches that a pair's packets use."""
    if pair is None or pair.destination is None:
        return set()
    snapshot, hosts = topology.snapshot, topology.hosts
    start, end = hosts.of_address(pair.source_address), hosts.of_mac(pair.destination.mac)
    if start is None or end is None:
        return set()
    names = [snapshot.directory.switch(host.at.dpid) for host in (start, end)]
    hops = pairwise(snapshot.topology.path(*names))
    return {
        PortId(dpid, snapshot.topology.port(here, there))
        for a, b in hops
        for here, there in ((a, b), (b, a))
        if (dpid := snapshot.directory.dpid(here)) is not None
    }


def _line_speeds(network: Network, ports: Mapping[PortId, BytesPerS]) -> dict[str, BytesPerS]:
    """Of each host and machine whose line is known: as its port says, else as declared."""
    directory, hosts = network.topology.snapshot.directory, network.topology.hosts
    speeds = {name: ports[host.at] for host in hosts if host.at in ports for name in directory.names(host)}
    return speeds | edge_capacities(network.declared.links, directory)


def edge_capacities(links: Sequence[Link], directory: Directory) -> dict[str, BytesPerS]:
    """Capacity of the declared link of each machine; several links add up."""
    found: dict[str, BytesPerS] = {}
    for link in links:
        ends = [name for name in (link.a, link.b) if directory.dpid(name) is None]
        if link.declared and link.capacity_bytes_per_s and len(ends) == 1:
            found[ends[0]] = found.get(ends[0], 0.0) + link.capacity_bytes_per_s
    return found

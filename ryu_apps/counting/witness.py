"""What makes growth into rows: whose a cookie is, and which rows cannot be true."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import structlog

from cpdb import Destination, Link, Talk
from ryu_apps.counting.accounting import Book
from ryu_apps.counting.counters import Growth
from ryu_apps.counting.plausibility import BothEnds, LineSpeeds, marked
from ryu_apps.declared import Directory
from ryu_apps.network import Network
from ryu_apps.pacing import RateLimiter
from ryu_apps.pairs import PairState
from ryu_apps.rules import KIND_SHIFT, NUMBER_MASK, Kind, PortId

Seconds = float
BytesPerS = float

_REPORT_EVERY_S = 10.0
_KIND_MASK = 0xF
_log = structlog.get_logger("ryu_apps.counting.witness")


class Witness:
    """Reads a switch's growth with the eyes of the network. `implausible` counts rows that were marked."""

    def __init__(self, network: Network) -> None:
        self._network = network
        # Pair number -> its talk, and what that was made from; kept for the last words of pairs that are gone
        self._talks: dict[int, tuple[Talk, Destination | None, Directory]] = {}
        self._same: dict[Talk, Talk] = {}
        self._pairs: dict[Talk, PairState] = {}
        self._speeds = LineSpeeds()
        self._ends = BothEnds()
        self._doubtful: dict[Talk, bool] = {}
        self._brake = RateLimiter()
        self.implausible = 0

    def book(self, dpid: int, now: Seconds) -> Book:
        """How this switch's growth is read at this moment."""

        def judge(talks: Sequence[Talk], sizes: Sequence[int], seconds: Seconds) -> Collection[int]:
            return self._judge(talks, sizes, now - seconds, now)

        return Book(f"switch/{self._network.picture.directory.switch(dpid)}", self.account, judge)

    # ---- whose

    def account(self, cookie: int) -> tuple[Talk, bool] | None:
        """The talk that an accounting entry counts, and whether its packets are openings of connections."""
        talk = self._talk(cookie & NUMBER_MASK)
        return None if talk is None else (talk, cookie >> KIND_SHIFT & _KIND_MASK == Kind.PAIR_SYN)

    def _talk(self, number: int) -> Talk | None:
        pair, known = self._network.pairs.of_number(number), self._talks.get(number)
        if pair is None:
            return known[0] if known else None
        directory = self._network.picture.directory
        if known is not None and known[1] is pair.destination and known[2] is directory:
            return known[0]
        name = pair.destination.name if pair.destination else None
        talk = Talk(directory.host(pair.source_address), pair.virtual_ip, name)
        talk = self._same.setdefault(talk, talk)
        self._talks[number], self._pairs[talk] = (talk, pair.destination, directory), pair
        return talk

    def sampled(self, source: str, destination: str) -> Talk | None:
        """The talk of a sampled packet; only packets to a virtual IP are counted, and only where they enter."""
        pair = self._network.pairs.of_addresses(source, destination)
        if pair is not None:
            return self._talk(pair.number)
        if destination not in self._network.virtual_ips:
            return None
        talk = Talk(self._network.picture.directory.host(source), destination, None)
        return self._same.setdefault(talk, talk)

    def forget(self) -> None:
        """Drops what was remembered of pairs that are gone."""
        alive = {pair.number for pair in self._network.pairs}
        if max(len(self._talks), len(self._same)) > 2 * len(alive) + 20_000:
            self._talks = {number: known for number, known in self._talks.items() if number in alive}
            self._same = {talk: talk for talk, *_ in self._talks.values()}
            self._pairs = {talk: pair for talk, pair in self._pairs.items() if talk in self._same}

    # ---- what cannot be

    def port_grew(self, at: PortId, growth: Growth) -> None:
        """A port's counters grew."""
        self._ends.grew(at, growth)

    def watch(self, speeds: Mapping[PortId, BytesPerS], now: Seconds) -> None:
        """Takes line speeds of ports, and compares both ends of the links when it is time."""
        self._speeds.declare(self._line_speeds(speeds))
        before = self._ends.doubted
        if self._ends.judge(self._network.wiring.peer, now):
            self._doubtful = {}
            names = self._network.picture.directory
            for at in sorted(self._ends.doubted - before):
                _log.warning("both ends of a link count differently", switch=names.switch(at.dpid), port=at.port)
        self.forget()

    def _line_speeds(self, ports: Mapping[PortId, BytesPerS]) -> dict[str, BytesPerS]:
        directory, declared = self._network.picture.directory, self._network.declared
        speeds = {
            directory.host(host.address, host.mac): ports[host.at] for host in self._network.hosts if host.at in ports
        }
        return speeds | edge_capacities(declared.links, directory)

    def _judge(self, talks: Sequence[Talk], sizes: Sequence[int], since: Seconds, now: Seconds) -> Collection[int]:
        sources = self._speeds.impossible(talks, sizes, since, now)
        found = marked(talks, sources, self._on_doubted if self._ends.doubted else None)
        self.implausible += len(found)
        if sources and self._brake.due("implausible", _REPORT_EVERY_S, now):
            some = ", ".join(sorted(sources)[:3])
            _log.warning("more bytes than the line carries", sources=some, marked_in_all=self.implausible)
        return found

    def _on_doubted(self, talk: Talk) -> bool:
        if talk not in self._doubtful:
            self._doubtful[talk] = not self._ends.doubted.isdisjoint(self._way(self._pairs.get(talk)))
        return self._doubtful[talk]

    def _way(self, pair: PairState | None) -> set[PortId]:
        """Ports of the links between switches that a pair's packets use."""
        if pair is None or pair.destination is None:
            return set()
        picture, hosts = self._network.picture, self._network.hosts
        start, end = hosts.of_address(pair.source_address), hosts.of_mac(pair.destination.mac)
        if start is None or end is None:
            return set()
        names = [picture.directory.switch(host.at.dpid) for host in (start, end)]
        hops = pairwise(picture.topology.path(*names))
        return {
            PortId(dpid, picture.topology.port(here, there))
            for a, b in hops
            for here, there in ((a, b), (b, a))
            if (dpid := picture.directory.dpid(here)) is not None
        }


def edge_capacities(links: Sequence[Link], directory: Directory) -> dict[str, BytesPerS]:
    """Capacity of the declared link of each machine; several links add up."""
    found: dict[str, BytesPerS] = {}
    for link in links:
        ends = [name for name in (link.a, link.b) if directory.dpid(name) is None]
        if link.declared and link.capacity_bytes_per_s and len(ends) == 1:
            found[ends[0]] = found.get(ends[0], 0.0) + link.capacity_bytes_per_s
    return found

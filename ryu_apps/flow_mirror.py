"""`ryu-manager SOME.APP ryu_apps.flow_mirror`: mirrors whatever flow entries there are, and changes nothing.

It sends statistics requests only. An entry that matches a source and a destination (IP, else Ethernet) is a
communication; the destination's address stands for an undeclared virtual IP.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, cast

from cpdb import FlowKey, address_text
from ryu_apps.application import SwitchApp
from ryu_apps.declared import Declared
from ryu_apps.openflow import FlowColumns, match_fields
from ryu_apps.rules import PortId
from ryu_apps.telemetry.collector import Answer, Collector, FlowFilter, pace
from ryu_apps.telemetry.counters import CounterDelta, Entry, PollDelta
from ryu_apps.telemetry.rows import LinkEnds, SampleSource
from ryu_apps.topology.state import Directory

Seconds = float
Ends = tuple[str, str]

# class << 7 | field of OFPXMC_OPENFLOW_BASIC; OpenFlow 1.3.5, 7.2.3.7
_ETH_DST, _ETH_SRC, *_IP = (0x8000 << 7 | field for field in (3, 4, 11, 12, 26, 27))
# Source and destination, of IPv4 and of IPv6
_IP_ENDS = (_IP[0], _IP[1]), (_IP[2], _IP[3])
_MAX_MATCHES = 200_000


class FlowMirror(SwitchApp):
    """Passive: statistics in, rows out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attribution = MatchAttribution()
        self.collector = Collector(self._attribution, self.writer, self.settings.poll_s, FlowFilter(matches=True))

    def declare(self, declared: Declared, now: Seconds) -> None:  # noqa: ARG002
        """Names may have changed."""
        self._attribution.declare(declared)

    def left(self, dpid: int, now: Seconds) -> None:  # noqa: ARG002
        """Other switches may report its pairs from now on."""
        self._attribution.forget_switch(dpid)


class MatchAttribution:
    """Whose an entry is, by what it matches; a pair that crosses several switches is taken from one of them."""

    def __init__(self) -> None:
        self._directory = Directory()
        self._machines: dict[PortId, str] = {}
        # Entry's key -> who it is about; match as sent -> (cookie, key)
        self._ends: dict[int, Ends] = {}
        self._matches: dict[bytes, tuple[int, int | None]] = {}
        self._owners: dict[Ends, int] = {}
        # For each switch its entries, and what those that it owns are told as
        self._keys: dict[int, set[int]] = {}
        self._accounts: dict[int, dict[int, tuple[FlowKey, bool]]] = {}
        self._declared = Declared()

    def declare(self, declared: Declared) -> None:
        """Names may have changed."""
        if (declared.nodes, declared.links) == (self._declared.nodes, self._declared.links):
            return
        self._declared, self._directory = declared, Directory(declared.nodes)
        neighbours = self._directory.find_neighbours(declared.links)
        names = {at: self._directory.switch(peer.dpid) for at, peer in neighbours.between.items()}
        self._machines = {**neighbours.machines, **names}
        self._keys = {}

    def forget_switch(self, dpid: int) -> None:
        """Other switches may report its pairs from now on."""
        self._owners = {ends: owner for ends, owner in self._owners.items() if owner != dpid}
        self._keys = {}

    def read_entries(self, dpid: int, columns: FlowColumns, now: Seconds) -> Answer:  # noqa: ARG002
        """Entries of one pair are added up; a pair that crosses several switches is taken from one of them."""
        if max(len(self._matches), len(self._ends)) > _MAX_MATCHES:
            self._matches, self._ends, self._keys = {}, {}, {}
        keys = self._keys_of(columns)
        present = set(keys) - {None}
        if present != self._keys.get(dpid):
            self._claim(dpid, present)
        rows = zip(keys, columns.packets, columns.bytes, columns.age_s, strict=True)
        known = rows if None not in keys else (row for row in rows if row[0] is not None)
        source = SampleSource(f"switch/{self.name_of(dpid)}", self._accounts[dpid].get)
        return Answer(cast(Iterable[Entry], known), source)

    def flows_grew(self, look: PollDelta) -> None:
        """Nothing here follows from it."""

    def port_grew(self, at: PortId, growth: CounterDelta) -> None:
        """Nothing here follows from it."""

    def _keys_of(self, columns: FlowColumns) -> list[int | None]:
        taken: set[int] = set()
        keys: list[int | None] = []
        for cookie, match in pace(zip(columns.cookie, columns.matches, strict=True)):
            known = self._matches.get(match)
            if known is None or known[0] != cookie:
                known = self._matches[match] = (cookie, self._key(cookie, match))
            key = known[1]
            while key in taken:
                # Entries in several tables may match the same.
                key, ends = (key + 1) % 2**64, self._ends[key]
                self._ends.setdefault(key, ends)
            if key is not None:
                taken.add(key)
            keys.append(key)
        return keys

    def _key(self, cookie: int, match: bytes) -> int | None:
        ends = ends_of(match)
        if ends is None:
            return None
        digest = blake2b(match, digest_size=8, salt=cookie.to_bytes(8, "big")).digest()
        key = int.from_bytes(digest, "big")
        self._ends[key] = ends
        return key

    def _claim(self, dpid: int, present: set[int | None]) -> None:
        """The switch holds other entries than before: it owns pairs that nobody else has, and no longer those gone."""
        keys = {key for key in present if key is not None}
        pairs = {self._ends[key] for key in keys}
        for ends in [ends for ends, owner in self._owners.items() if owner == dpid and ends not in pairs]:
            del self._owners[ends]
            # Others may have it.
            self._keys = {}
        for ends in pairs:
            self._owners.setdefault(ends, dpid)
        talks = {ends: self._talk(ends) for ends in pairs if self._owners[ends] == dpid}
        self._accounts[dpid] = {key: (talks[ends], False) for key in keys if (ends := self._ends[key]) in talks}
        self._keys[dpid] = keys

    def _talk(self, ends: Ends) -> FlowKey:
        source, destination = ends
        named = self._directory.host(destination, destination)
        name = None if named == destination else named
        return FlowKey(self._directory.host(source, source), destination, name)

    def name_of(self, dpid: int) -> str:
        """A switch's declared name, else its number."""
        return self._directory.switch(dpid)

    def neighbour(self, at: PortId) -> LinkEnds:
        """Declared neighbours by name, others by the port's number."""
        here = self._directory.switch(at.dpid)
        return LinkEnds(here, self._machines.get(at, f"{here}:{at.port}"), edge=False)


def ends_of(match: bytes) -> Ends | None:
    """Source and destination address of an entry, by IP or else by Ethernet; None when it does not name both."""
    fields = match_fields(match)
    for source, to in _IP_ENDS:
        if source in fields and to in fields:
            return address_text(fields[source]), address_text(fields[to])
    if _ETH_SRC in fields and _ETH_DST in fields:
        return fields[_ETH_SRC].hex(":"), fields[_ETH_DST].hex(":")
    return None

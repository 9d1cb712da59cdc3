"""`ryu-manager SOME.APP ryu_apps.flow_mirror`: mirrors whatever flow entries there are, and changes nothing.

It sends statistics requests only. An entry that matches a source and a destination (IPv4, else Ethernet) is a
communication; the destination's address stands for an undeclared virtual IP.
"""

from typing import Any

from ryu_apps.accounting import Neighbour, Party
from ryu_apps.declared import Declared, Directory
from ryu_apps.discovery import PortId
from ryu_apps.mirror import MirrorApp
from ryu_apps.polling import flow_sample
from ryu_apps.rules import Kind, Table, cookie, pair_number
from ryu_apps.samples import FlowSample

Seconds = float


class FlowMirror(MirrorApp):
    """Passive: statistics in, rows out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._directory = Directory(Declared())
        self._machines: dict[PortId, str] = {}
        self._ends: dict[int, tuple[str, str]] = {}
        self._owners: dict[int, int] = {}

    def declare(self, declared: Declared, now: Seconds) -> None:  # noqa: ARG002
        """Names may have changed."""
        self._directory = Directory(declared)
        between, machines = self._directory.wiring(declared.links)
        names = {at: self._directory.switch(peer.dpid) for at, peer in between.items()}
        self._machines = {**machines, **names}

    def left(self, dpid: int, now: Seconds) -> None:  # noqa: ARG002
        """Other switches may report its pairs from now on."""
        self._owners = {number: owner for number, owner in self._owners.items() if owner != dpid}

    def flows(self, dpid: int, entries: list[Any], now: Seconds) -> None:
        """Entries of one pair are added up; a pair that crosses several switches is taken from one of them."""
        merged: dict[int, FlowSample] = {}
        for entry in entries:
            number = self._pair(entry)
            if number is None or self._owners.setdefault(number, dpid) != dpid:
                continue
            sample = flow_sample(dpid, entry, now)
            known = merged.get(number)
            merged[number] = FlowSample(
                dpid,
                cookie(Table.ACCOUNT, Kind.PAIR, number),
                now,
                max(sample.age_s, known.age_s if known else 0.0),
                sample.packets + (known.packets if known else 0),
                sample.bytes + (known.bytes if known else 0),
            )
        gone = [number for number, owner in self._owners.items() if owner == dpid and number not in merged]
        for number in gone:
            del self._owners[number]
        rows = self.accounts.pairs(dpid, merged.values(), now, self._party)
        self.writer.offer(rows.values())

    def _pair(self, entry: Any) -> int | None:
        match = dict(entry.match.items())
        for source, destination in (("ipv4_src", "ipv4_dst"), ("eth_src", "eth_dst")):
            start, end = match.get(source), match.get(destination)
            # A masked field is a tuple and names nobody.
            if isinstance(start, str) and isinstance(end, str):
                number = pair_number(start, end)
                self._ends[number] = start, end
                return number
        return None

    def _party(self, number: int) -> Party | None:
        source, destination = self._ends[number]
        named = self._directory.host(destination, destination)
        return Party(self._directory.host(source, source), destination, None if named == destination else named)

    def neighbour(self, dpid: int, port: int) -> Neighbour | None:
        """Declared neighbours by name, others by the port's number."""
        here = self._directory.switch(dpid)
        return Neighbour(here, self._machines.get(PortId(dpid, port), f"{here}:{port}"), edge=False)

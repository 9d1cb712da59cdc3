"""What the controller knows of switches, links, hosts and wishes, and the picture of names and paths made from it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cpdb import Link, NodeKind, VirtualIp
from ryu_apps.declared import Declared, Directory
from ryu_apps.effects import Effect, Out
from ryu_apps.rules import PortId
from ryu_apps.services.pairs import Pairs
from ryu_apps.services.virtual_ips import Destinations
from ryu_apps.status.alarms import Watchman
from ryu_apps.topology.hosts import Host, Hosts
from ryu_apps.topology.links import Wiring
from ryu_apps.topology.lldp import Introductions
from ryu_apps.topology.paths import Topology

Seconds = float

HEARSAY_PROBES = 3


@dataclass(frozen=True)
class Picture:
    """Everything derived from links and names; rebuilt when one of them changes."""

    directory: Directory
    topology: Topology
    machines: Mapping[PortId, str] = field(default_factory=dict)

    @cached_property
    def dpids(self) -> dict[str, int]:
        """Numbers of the switches in the topology."""
        pairs = ((name, self.directory.dpid(name)) for name in self.topology.switches)
        return {name: dpid for name, dpid in pairs if dpid is not None}


class Knowledge:
    """State and what changes it. `stale` is set by whatever may change the rules and cleared by who recomputes."""

    def __init__(self, pairs: Pairs) -> None:
        self.wiring = Wiring()
        self.hosts = Hosts()
        self.pairs = pairs
        self.destinations = Destinations()
        self.declared = Declared()
        self.virtual_ips: Mapping[str, VirtualIp] = {}
        self.connected: set[int] = set()
        self.introductions = Introductions()
        self.watchman = Watchman()
        self.stale = True
        self._picture: Picture | None = None
        # Addresses whose place is hearsay, and how often they are still asked
        self._hearsay: dict[str, int] = {}

    # ---- what is known

    @property
    def picture(self) -> Picture:
        """Names, paths and machines as of now."""
        if self._picture is None:
            directory = Directory(self.declared)
            avoid = frozenset(directory.switch(at.dpid) for at in self.wiring.ports if at.dpid not in self.connected)
            topology = Topology(self.links(directory), {}, avoid)
            self._picture = Picture(directory, topology, directory.wiring(self.declared.links)[1])
        return self._picture

    def links(self, directory: Directory) -> list[Link]:
        """Links between switches as records, by name. A declared capacity comes before a port's own word."""
        return [
            Link(directory.switch(a.dpid), a.port, directory.switch(b.dpid), b.port, self.wiring.speed(a, b), up)
            for a, b, up in self.wiring.links()
        ]

    def _changed(self) -> None:
        self.stale = True
        self._picture = None

    def port_towards(self, dpid: int, host: Host) -> int | None:
        """Port of switch `dpid` on the way to a host; None when there is no way."""
        if host.at.dpid == dpid:
            port = self.wiring.ports.get(host.at)
            return host.at.port if port is None or port.up else None
        picture = self.picture
        here = picture.directory.switch(dpid)
        following = picture.topology.next_hops(picture.directory.switch(host.at.dpid)).get(here)
        return None if following is None else picture.topology.port(here, following)

    def spare_port(self, dpid: int, host: Host) -> int | None:
        """Port of switch `dpid` to a host while the first one is down; None when there is none that cannot loop."""
        picture = self.picture
        here, there = picture.directory.switch(dpid), picture.directory.switch(host.at.dpid)
        following = picture.topology.spare_hops(there).get(here) if host.at.dpid != dpid else None
        return None if following is None else picture.topology.port(here, following)

    # ---- events of switches

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        first = not self.declared.nodes
        if (declared.nodes, declared.links) != (self.declared.nodes, self.declared.links):
            between, machines = Directory(declared).wiring(declared.links)
            self.wiring.declare(between, machines)
            self._changed()
        self.stale |= declared.reservations != self.declared.reservations
        self.stale |= declared.splits != self.declared.splits
        self.declared = declared
        self.destinations.declare(declared.virtual_ips)
        self._serve(now)
        if first:
            self._remember(declared, now)

    def _serve(self, now: Seconds) -> None:
        # Weights are as wanted for whoever is well, and 0 for whoever gets nothing new now.
        serving = self.destinations.serving(now)
        self.stale |= serving != self.virtual_ips
        self.virtual_ips = serving
        self.stale |= self.pairs.refresh(serving, now)

    def _kind_at(self, at: PortId) -> NodeKind | None:
        name = self.picture.machines.get(at)
        return None if name is None else self.picture.directory.kind(name)

    def _remember(self, declared: Declared, now: Seconds) -> None:
        # Places that an earlier controller wrote down: a restart need not wait until everyone has spoken.
        for node in declared.nodes:
            dpid = self.picture.directory.dpid(node.attached_to) if node.attached_to else None
            if node.mac and node.port and dpid is not None and self.hosts.of_mac(node.mac) is None:
                self.hosts.learn(node.mac, node.address, PortId(dpid, node.port), now)
                # It may have moved since: ask a few times, its answer tells where it is.
                self._hearsay[node.address or ""] = HEARSAY_PROBES

    def switch_up(self, dpid: int, ports: Mapping[int, bool], now: Seconds) -> list[Effect]:
        """A switch connected with these ports (number -> up)."""
        self.connected.add(dpid)
        self.wiring.set_ports(dpid, ports, now)
        self._changed()
        return self._introduce([PortId(dpid, number) for number, up in ports.items() if up], now)

    def switch_down(self, dpid: int) -> None:
        """A switch lost its connection; it may well go on forwarding."""
        self.connected.discard(dpid)
        self._changed()

    def port(self, at: PortId, up: bool | None, now: Seconds) -> list[Effect]:
        """A port came up, went down, or (None) was removed."""
        changed = self.wiring.drop(at) if up is None else self.wiring.set_port(at, up, now)
        if changed:
            self._changed()
            if not up:
                # Whoever was there is looked for everywhere as soon as somebody asks.
                self.hosts.leave(at)
        return self._introduce([at] if up and changed else [], now)

    def _introduce(self, ports: Iterable[PortId], now: Seconds) -> list[Effect]:
        """LLDP frames out of ports that may lead to switches: whoever hears one learns which port that is."""
        return [
            Out(at.dpid, (at.port,), self.introductions.frame(at, now))
            for at in ports
            if at not in self.wiring.declared_edges
        ]

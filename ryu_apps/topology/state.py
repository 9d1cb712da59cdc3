"""Switches, ports, links and hosts as they are now, and the snapshot of names and paths that follows from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from cpdb import Link, Node, NodeKind, is_ipv6
from ryu_apps.effects import Alert, Effect, PacketOut
from ryu_apps.rules import PortId, vlan_of
from ryu_apps.topology.frames import Frame
from ryu_apps.topology.hosts import Host, HostTable
from ryu_apps.topology.links import SETTLE_S, LinkTable, Role
from ryu_apps.topology.lldp import LldpFrame, LldpSigner, Verdict
from ryu_apps.topology.paths import Topology

Seconds = float

# Alarms about frames that were made here, but cannot have come this way
RELAYED = "relayed_lldp"
UNVERIFIED_PROBES = 3


@dataclass(frozen=True, slots=True)
class DeclaredNeighbours:
    """Declared links by switch port: to another switch's port (both ways), and to the machine behind it."""

    between: Mapping[PortId, PortId]
    machines: Mapping[PortId, str]


class Directory:
    """Names of switches, ports and addresses. What nobody named is called by its number or address."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        nodes = tuple(nodes)
        self._switches = {
            node.dpid: node.name for node in nodes if node.kind is NodeKind.SWITCH and node.dpid is not None
        }
        self._dpids = {name: dpid for dpid, name in self._switches.items()}
        others = [node for node in nodes if node.kind is not NodeKind.SWITCH]
        self._by_address = {one: node for node in others for one in node.addresses if node.name != one}
        self._by_mac = {node.mac: node for node in others if node.mac and node.name not in (node.mac, node.address)}
        self._by_name = {node.name: node for node in others}

    def switch(self, dpid: int) -> str:
        """Name of a switch."""
        return self._switches.get(dpid) or f"dpid:{dpid:016x}"

    def port(self, at: PortId) -> str:
        """Name of a switch's port."""
        return f"{self.switch(at.dpid)}:{at.port}"

    def dpid(self, switch: str) -> int | None:
        """The inverse of `switch`; None for a name that is no switch's."""
        if switch in self._dpids:
            return self._dpids[switch]
        return int(switch[5:], 16) if switch.startswith("dpid:") else None

    def host(self, address: str | None, mac: str | None = None) -> str:
        """Name of the node with that address or MAC, else the address or MAC itself."""
        node = self._by_address.get(address or "") or self._by_mac.get(mac or "")
        return node.name if node else address or mac or "unknown"

    def names(self, host: Host) -> dict[str, tuple[str, ...]]:
        """All names of a host, with the addresses that each stands for: one name where somebody has named it."""
        found: dict[str, tuple[str, ...]] = {}
        for address in sorted(host.addresses, key=is_ipv6):
            name = self.host(address, host.mac)
            found[name] = (*found.get(name, ()), address)
        return found or {self.host(None, host.mac): ()}

    def kind(self, name: str) -> NodeKind:
        """What a named node is; HOST when nobody said."""
        node = self._by_name.get(name)
        return node.kind if node else NodeKind.HOST

    def address(self, name: str) -> str | None:
        """The declared address of a node."""
        node = self._by_name.get(name)
        return node.address if node else None

    def addresses_of(self, name: str, own: Sequence[str]) -> tuple[str | None, str | None]:
        """Of a host's own addresses those that its node keeps: of IPv4, or its only one; and of IPv6 beside it.

        As declared while it has these; None leaves what is known.
        """
        node = self._by_name.get(name)
        known = node.addresses if node else ()
        four, six = (
            min((one for one in own if is_ipv6(one) == ipv6), key=lambda one: one not in known, default=None)
            for ipv6 in (False, True)
        )
        if name in own:
            return name, None
        return (six, None) if node is not None and is_ipv6(node.address or "") else (four, six)

    def host_of(self, name: str, hosts: HostTable) -> Host | None:
        """The host that a node is, by its address or its MAC; None while it has not been seen."""
        node = self._by_name.get(name)
        own = node.addresses if node else ()
        found = next((host for one in own or (name,) if (host := hosts.of_address(one)) is not None), None)
        return found or (hosts.of_mac(node.mac) if node and node.mac else None)

    def find_neighbours(self, links: Sequence[Link]) -> DeclaredNeighbours:
        """Declared links: switch port to switch port (both ways), and switch port to the machine behind it.

        Discovered links in the database are skipped: they are what this controller wrote itself.
        """
        between: dict[PortId, PortId] = {}
        machines: dict[PortId, str] = {}
        for link in links:
            if not link.declared:
                continue
            a, b = self._dpids.get(link.a), self._dpids.get(link.b)
            if a is not None and b is not None and link.a_port and link.b_port:
                between[PortId(a, link.a_port)] = PortId(b, link.b_port)
                between[PortId(b, link.b_port)] = PortId(a, link.a_port)
            elif a is not None and b is None and link.a_port:
                machines[PortId(a, link.a_port)] = link.b
            elif b is not None and a is None and link.b_port:
                machines[PortId(b, link.b_port)] = link.a
        return DeclaredNeighbours(between, machines)


@dataclass(frozen=True)
class TopologySnapshot:
    """Everything derived from links and names; made anew when one of them changes."""

    directory: Directory
    topology: Topology
    machines: Mapping[PortId, str] = field(default_factory=dict)

    @cached_property
    def dpids(self) -> dict[str, int]:
        """Numbers of the switches in the topology."""
        pairs = ((name, self.directory.dpid(name)) for name in self.topology.switches)
        return {name: dpid for name, dpid in pairs if dpid is not None}


class AccessPorts:
    """Ports whose hosts send without a tag, and in which VLAN these are."""

    def __init__(self) -> None:
        # As declared: SWITCH:PORT
        self.names: Mapping[str, int] = {}
        self.vlans: Mapping[PortId, int] = {}

    def find(self, directory: Directory) -> None:
        """Takes note of the ports that the names stand for."""
        places = ((name.rpartition(":"), vlan) for name, vlan in self.names.items())
        found = ((directory.dpid(switch), int(port), vlan) for (switch, _, port), vlan in places)
        self.vlans = {PortId(dpid, port): vlan for dpid, port, vlan in found if dpid is not None}

    def vlan(self, at: PortId, frame: Frame) -> int:
        """The VLAN of a frame that came in at a port: its tag's, else that of an access port, 0 for none."""
        return frame.vlan or self.vlans.get(at, 0)


class TopologyState:
    """What is known of the network, and what changes it."""

    def __init__(self) -> None:
        self.links = LinkTable()
        self.hosts = HostTable()
        self.connected: set[int] = set()
        self.signer = LldpSigner()
        # Addresses whose place an earlier controller wrote down, and how often they are still asked
        self.unverified: dict[str, int] = {}
        self.access = AccessPorts()
        self._nodes: tuple[Node, ...] = ()
        self._declared_links: tuple[Link, ...] = ()
        self._snapshot: TopologySnapshot | None = None
        self._changes = 0
        self._places_checked = -1

    @property
    def revision(self) -> int:
        """Another number whenever a link, a name, a switch or the place of a host has changed."""
        return self._changes + self.hosts.revision

    @property
    def snapshot(self) -> TopologySnapshot:
        """Names, paths and machines as of now."""
        if self._snapshot is None:
            directory = Directory(self._nodes)
            avoid = frozenset(directory.switch(at.dpid) for at in self.links.ports if at.dpid not in self.connected)
            topology = Topology(self.link_records(directory), {}, avoid)
            self._snapshot = TopologySnapshot(
                directory, topology, directory.find_neighbours(self._declared_links).machines
            )
        return self._snapshot

    def link_records(self, directory: Directory) -> list[Link]:
        """Links between switches as records, by name. A declared capacity comes before a port's own word."""
        return [
            Link(directory.switch(a.dpid), a.port, directory.switch(b.dpid), b.port, self.links.speed(a, b), up)
            for a, b, up in self.links.links()
        ]

    @property
    def links_revision(self) -> int:
        """Another number whenever a link, a port, a name or a switch has changed."""
        return self._changes

    def _changed(self) -> None:
        self._changes += 1
        self._snapshot = None

    # ---- questions

    def kind_at(self, at: PortId) -> NodeKind | None:
        """What kind of machine is declared behind a port."""
        name = self.snapshot.machines.get(at)
        return None if name is None else self.snapshot.directory.kind(name)

    # ---- news

    def declare(self, nodes: tuple[Node, ...], links: tuple[Link, ...], now: Seconds) -> None:
        """Names and links from the database."""
        first = not self._nodes
        if (nodes, links) != (self._nodes, self._declared_links):
            self._nodes, self._declared_links = nodes, links
            directory = Directory(nodes)
            found = directory.find_neighbours(links)
            self.links.declare(found.between, found.machines)
            self.access.find(directory)
            self._changed()
        if first:
            self.remember(now)

    def remember(self, now: Seconds) -> None:
        """TablePlaces of hosts that another controller wrote down: nobody need wait until everyone has spoken."""
        for node in self._nodes:
            dpid = self.snapshot.directory.dpid(node.attached_to) if node.attached_to else None
            if node.mac and node.port and dpid is not None and self.hosts.of_mac(node.mac) is None:
                for address in node.addresses or (None,):
                    self.hosts.learn(node.mac, address, PortId(dpid, node.port), now, vlan_of(address or ""))
                    # It may have moved since: ask a few times, its answer tells where it is.
                    self.unverified[address or ""] = UNVERIFIED_PROBES

    def switch_up(self, dpid: int, ports: Mapping[int, bool], now: Seconds) -> list[Effect]:
        """A switch connected with these ports (number -> up)."""
        self.connected.add(dpid)
        self.links.set_ports(dpid, ports, now)
        self._changed()
        return self.introduce([PortId(dpid, number) for number, up in ports.items() if up], now)

    def switch_down(self, dpid: int) -> None:
        """A switch lost its connection; it may well go on forwarding."""
        self.connected.discard(dpid)
        self._changed()

    def port_changed(self, at: PortId, up: bool | None, now: Seconds) -> list[Effect]:
        """A port came up, went down, or (None) was removed."""
        changed = self.links.drop(at) if up is None else self.links.set_port(at, up, now)
        if changed:
            self._changed()
            if not up:
                # Whoever was there is looked for everywhere as soon as somebody asks.
                self.hosts.leave(at)
        return self.introduce([at] if up and changed else [], now)

    def introduce(self, ports: Iterable[PortId] | None, now: Seconds) -> list[Effect]:
        """LLDP frames out of ports (None: all that are up) that may lead to switches: who hears one learns whose."""
        if ports is None:
            ports = [at for at, port in self.links.ports.items() if port.up and at.dpid in self.connected]
        return [
            PacketOut(at.dpid, (at.port,), self.signer.frame(at, now))
            for at in ports
            if at not in self.links.declared_edges
        ]

    def grow_older(self, now: Seconds) -> None:
        """Forgets neighbours that were not heard for long, and hosts at ports that can have none."""
        if self.links.age(self.connected, now):
            self._changed()
        if self._places_checked != self.revision:
            for at in {host.at for host in self.hosts if host.at.dpid in self.connected}:
                if self.links.role(at, now) in (Role.DOWN, Role.SWITCH, Role.SUSPECT):
                    self.hosts.leave(at)
            self._places_checked = self.revision

    def hear_lldp(self, at: PortId, data: bytes, now: Seconds) -> list[Effect]:
        """An LLDP frame came in."""
        heard = self.signer.hear(at, data, now)
        if heard.verdict is Verdict.FOREIGN:
            return []
        if heard.verdict is not Verdict.TRUE or heard.sender is None:
            return [_suspicious(self.snapshot.directory, f"{heard.verdict.value}_lldp", at, heard)]
        why = self.links.doubt(at, heard.sender)
        if why is not None:
            alert = _suspicious(self.snapshot.directory, RELAYED, at, replace(heard, why=why))
            if self.links.suspect(at, now):
                self.hosts.leave(at)
                self._changed()
            return [alert]
        if self.links.hear(at, heard.sender, now):
            for end in (at, heard.sender):
                self.hosts.leave(end)
            self._changed()
        return []


def name_of_address(topology: TopologyState, address: str) -> str:
    """Name of who has an address: as it, or the MAC of its holder, was named, else the address itself."""
    holder = topology.hosts.of_address(address)
    return topology.snapshot.directory.host(address, holder.mac if holder else None)


def stand_in(topology: TopologyState, before: TopologyState, links: Iterable[Link], now: Seconds) -> None:
    """Takes over what was seen while standing by: ports, and of `links` those that another controller has found."""
    topology.links.ports, topology.links.speeds = before.links.ports, before.links.speeds
    topology.signer = before.signer
    directory = topology.snapshot.directory
    for link in links:
        a, b = directory.dpid(link.a), directory.dpid(link.b)
        ends = [PortId(dpid, port) for dpid, port in ((a, link.a_port), (b, link.b_port)) if dpid is not None]
        ports = [topology.links.ports[at] for at in ends if at in topology.links.ports]
        # Of a port that has only just been seen nobody knows.
        if not link.declared and link.up and len(ports) == 2 and all(now - one.since > SETTLE_S for one in ports):
            topology.links.hear(ends[0], ends[1], now)
            topology.links.hear(ends[1], ends[0], now)


def port_towards(topology: TopologyState, dpid: int, host: Host) -> int | None:
    """Port of switch `dpid` on the way to a host; None when there is no way."""
    if host.at.dpid == dpid:
        port = topology.links.ports.get(host.at)
        return host.at.port if port is None or port.up else None
    snapshot = topology.snapshot
    return _port_along(snapshot, dpid, snapshot.topology.next_hops(snapshot.directory.switch(host.at.dpid)))


def spare_port(topology: TopologyState, dpid: int, host: Host) -> int | None:
    """Port of switch `dpid` to a host while the first one is down; None when there is none that cannot loop."""
    if host.at.dpid == dpid:
        return None
    snapshot = topology.snapshot
    return _port_along(snapshot, dpid, snapshot.topology.spare_hops(snapshot.directory.switch(host.at.dpid)))


def _port_along(snapshot: TopologySnapshot, dpid: int, hops: Mapping[str, str]) -> int | None:
    here = snapshot.directory.switch(dpid)
    following = hops.get(here)
    return None if following is None else snapshot.topology.port(here, following)


def _suspicious(directory: Directory, kind: str, at: PortId, heard: LldpFrame) -> Alert:
    node = directory.switch(at.dpid)
    claimed = "nobody" if heard.sender is None else f"{directory.switch(heard.sender.dpid)}:{heard.sender.port}"
    detail = f"LLDP frame at {node}:{at.port} that says it is from {claimed}: {heard.why}"
    return Alert(kind, f"{node}:{at.port}", node, detail)

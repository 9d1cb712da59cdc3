"""The controller's mind: what it knows of the network, what each event teaches it, and what should follow.

Events come in as plain data, effects go out as plain data; there is no framework, no clock and no socket here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cpdb import Link, VirtualIP
from ryu_apps import frames
from ryu_apps.declared import Declared, Directory
from ryu_apps.discovery import PortId, Role, Wiring
from ryu_apps.effects import Effect, Out, Resubmit, introduce
from ryu_apps.frames import Arp, Frame
from ryu_apps.hosts import Host, Hosts, Learnt
from ryu_apps.pairs import Pairs
from ryu_apps.rules import ETH_IPV4, ETH_LLDP, Kind, Match, Table, kind_of
from ryu_apps.steering import virtual_mac
from ryu_apps.topology import Topology
from ryu_apps.waiting import HOLD_S, Brake, Held, Waiting

Seconds = float

LLDP_EVERY_S = 2.0
PROBE_EVERY_S = 2.0
# One broadcast question a host and period is enough; its sender will ask again.
ASK_EVERY_S = 0.5
RESUBMIT_EVERY_S = 0.02
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


class Network:
    """Knowledge and its changes. `stale` is set by whatever may change the rules and cleared by who recomputes."""

    def __init__(self, pairs: Pairs) -> None:
        self.wiring = Wiring()
        self.hosts = Hosts()
        self.pairs = pairs
        self.declared = Declared()
        self.virtual_ips: Mapping[str, VirtualIP] = {}
        self.connected: set[int] = set()
        self.stale = True
        self._picture: Picture | None = None
        self.waiting = Waiting()
        self._hearsay: dict[str, int] = {}
        self._brake = Brake()

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
        """Links between switches as records, by name."""
        return [
            Link(directory.switch(a.dpid), a.port, directory.switch(b.dpid), b.port, None, up)
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

    # ---- events of switches

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        first = not self.declared.nodes
        if (declared.nodes, declared.links) != (self.declared.nodes, self.declared.links):
            between, machines = Directory(declared).wiring(declared.links)
            self.wiring.declare(between, machines)
            self._changed()
        if declared.virtual_ips != self.virtual_ips or declared.reservations != self.declared.reservations:
            self.stale = True
        self.declared, self.virtual_ips = declared, declared.virtual_ips
        self.stale |= self.pairs.refresh(self.virtual_ips, now)
        if first:
            self._remember(declared, now)

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
        return [introduce(PortId(dpid, number)) for number, up in ports.items() if up]

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
        return [introduce(at)] if up and changed else []

    def tick(self, now: Seconds) -> list[Effect]:
        """What is due: LLDP frames, probes for hosts not found yet, things too old."""
        if self.wiring.age(self.connected, now):
            self._changed()
        self.stale |= self.waiting.expire(now)
        self._leave_dead_ports(now)
        self.stale |= self.pairs.refresh(self.virtual_ips, now)
        effects: list[Effect] = []
        if self._brake.due("lldp", LLDP_EVERY_S, now):
            up = [at for at, port in self.wiring.ports.items() if port.up and at.dpid in self.connected]
            effects += [introduce(at) for at in up]
        if self._brake.due("probe", PROBE_EVERY_S, now):
            effects += [effect for address in self._wanted_addresses() for effect in self._probe(address, now)]
        return effects

    def _wanted_addresses(self) -> list[str]:
        behind = {one.address for vip in self.virtual_ips.values() for one in vip.destinations}
        nodes = {node.address for node in self.declared.nodes if node.address and node.mac}
        lost = {address for address in behind | nodes if self.hosts.of_address(address) is None}
        asked = set(self._hearsay) - {""}
        self._hearsay = {address: left - 1 for address, left in self._hearsay.items() if left > 1}
        return sorted(lost | asked)

    def _leave_dead_ports(self, now: Seconds) -> None:
        places = {host.at for host in self.hosts if host.at.dpid in self.connected}
        for at in places:
            if self.wiring.role(at, now) in (Role.DOWN, Role.SWITCH):
                self.stale |= bool(self.hosts.leave(at))

    # ---- frames

    def packet_in(self, at: PortId, data: bytes, now: Seconds, cookie: int = 0) -> list[Effect]:
        """A frame came to the controller from port `at`, sent by the rule with that cookie."""
        frame = frames.parse(data)
        if frame is None:
            return []
        # A listening rule tells of ARP frames that the switches themselves carry on or have answered.
        told, answered = kind_of(cookie) is Kind.LISTEN, kind_of(cookie) is Kind.ANSWER
        if frame.eth_type == ETH_LLDP:
            self._neighbour(at, data, now)
            return []
        if self.wiring.role(at, now) is not Role.EDGE:
            return [] if told and frame.arp else self._forward(at, frame, data)
        released = self._learn(at, frame, now)
        if frame.arp is not None:
            if answered:
                return released
            unicast = frame.eth_dst != frames.BROADCAST
            return released + ([] if told and unicast else self._answer(at, frame, frame.arp, data, now))
        if frame.eth_type == ETH_IPV4:
            return released + self._packet(at, frame, data, now)
        return released + self._forward(at, frame, data)

    def _neighbour(self, at: PortId, data: bytes, now: Seconds) -> None:
        told = frames.read_lldp(data)
        if told is not None and self.wiring.hear(at, PortId(*told), now):
            for end in (at, PortId(*told)):
                self.hosts.leave(end)
            self._changed()

    def _learn(self, at: PortId, frame: Frame, now: Seconds) -> list[Effect]:
        if int(frame.eth_src[:2], 16) & 1 or frame.eth_src.startswith("f2:ea:"):
            return []
        address = frame.arp.sender if frame.arp else frame.ipv4_src
        if address in self.virtual_ips or address == frames.NO_ADDRESS:
            address = None
        if frame.arp is None and address and self.hosts.of_address(address) is not None:
            # A router forwards others' addresses; only ARP may take an address from its holder.
            address = None
        learnt = self.hosts.learn(frame.eth_src, address, at, now)
        self._hearsay.pop(address or "", None)
        if learnt in (Learnt.NEW, Learnt.MOVED, Learnt.ADDRESS):
            self.stale = True
            return self._release(now)
        return []

    def _release(self, now: Seconds) -> list[Effect]:
        ready = self.waiting.release(lambda address: self.hosts.of_address(address) is not None)
        return [effect for one in ready for effect in self.packet_in(one.at, one.data, now)]

    def _answer(self, at: PortId, frame: Frame, body: Arp, data: bytes, now: Seconds) -> list[Effect]:
        if body.operation == frames.REPLY or self.hosts.of_mac(frame.eth_dst) is not None:
            return self._forward(at, frame, data)
        if body.operation != frames.REQUEST or body.sender == body.target:
            return []
        if body.target in self.virtual_ips:
            return [Out(at.dpid, (at.port,), frames.arp_answer(body, virtual_mac(body.target)))]
        holder = self.hosts.of_address(body.target)
        if holder is None:
            return self._flood(at, data, now) if self._brake.due(("ask", body.target), ASK_EVERY_S, now) else []
        # A neighbour behind the same port answers for itself; speaking for it would mislead the bridge there.
        if holder.at == at or holder.mac == body.sender_mac:
            return []
        return [Out(at.dpid, (at.port,), frames.arp_answer(body, holder.mac))]

    def _packet(self, at: PortId, frame: Frame, data: bytes, now: Seconds) -> list[Effect]:
        source, to = frame.ipv4_src or "", frame.ipv4_dst or ""
        vip = self.virtual_ips.get(to)
        if vip is None:
            if self.hosts.of_mac(frame.eth_dst) is None and self.hosts.of_address(to) is None:
                return self._hold(Held(at, data, to, now + HOLD_S), Table.FORWARD, Match(eth_dst=frame.eth_dst))
            return self._forward(at, frame, data)
        pair = self.pairs.meet(source, vip, now)
        if pair is None or pair.destination is None:
            return []
        self.stale = True
        host = self.hosts.of_mac(pair.destination.mac)
        if host is None:
            held = Held(at, data, pair.destination.address, now + HOLD_S)
            return self._hold(held, Table.STEER, Match(eth_type=ETH_IPV4, ipv4_src=source, ipv4_dst=to))
        # Packets of one pair that come faster than its rules take effect would circle between here and the switch.
        if not self._brake.due(("resubmit", at, hash(data)), RESUBMIT_EVERY_S, now):
            return []
        return [Resubmit(at, data, frozenset((at.dpid, host.at.dpid)))]

    def _forward(self, at: PortId, frame: Frame, data: bytes) -> list[Effect]:
        host = self.hosts.of_mac(frame.eth_dst)
        if host is None or host.at == at or host.at.dpid not in self.connected:
            return []
        return [Out(host.at.dpid, (host.at.port,), data)]

    def _hold(self, held: Held, table: Table, match: Match) -> list[Effect]:
        now = held.until - HOLD_S
        self.waiting.hold(held)
        self.stale |= self.waiting.count(held.at.dpid, table, match, now)
        return self._probe(held.address, now)

    def _probe(self, address: str, now: Seconds) -> list[Effect]:
        if not self._brake.due(("ask", address), ASK_EVERY_S, now):
            return []
        return self._flood(None, frames.arp_probe(address), now)

    def _flood(self, but: PortId | None, data: bytes, now: Seconds) -> list[Effect]:
        ports: dict[int, list[int]] = {}
        for at in self.wiring.edges(now):
            if at != but and at.dpid in self.connected:
                ports.setdefault(at.dpid, []).append(at.port)
        return [Out(dpid, tuple(numbers), data) for dpid, numbers in ports.items()]

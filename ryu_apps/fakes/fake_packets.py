"""Packets of a fake switch: what rules look at and rewrite, and what the switch itself learns from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from itertools import accumulate
from typing import Any

from cpdb import LABELS
from ryu_apps.rules import (
    BRIDGE_GROUPS,
    ETH_ARP,
    ETH_IPV4,
    MULTICAST,
    PROTO_TCP,
    PROTO_UDP,
    TCP_OPENING,
    AnswerArp,
    BucketMatch,
    ChooseDestination,
    DestinationMatch,
    FreshMatch,
    GroupBucket,
    LearnConnection,
    LearnNextHop,
    LearnSource,
    Match,
    NoteSeen,
    PickBucket,
    bare,
    virtual_mac,
    vlan_of,
)

Seconds = float
Connection = tuple[int | None, str | None, str | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class Transport:
    """Ports of TCP or UDP; `flags` are TCP's: "S", "SA", "A"...; the type of an ICMPv6 message."""

    sport: int | None = None
    dport: int | None = None
    flags: str = ""
    icmpv6_type: int | None = None


@dataclass(frozen=True, slots=True)
class ArpFields:
    """An ARP request (1) or reply (2), or IPv6's of the same kind: who says so, and whose address it is about."""

    op: int
    sender: str | None
    target: str | None


@dataclass(frozen=True, slots=True)
class Registers:
    """What a switch notes about a packet on its way through the tables."""

    bucket: int = 0
    destination: int | None = None
    is_seen: bool = False


@dataclass(frozen=True, slots=True)
class Packet:
    """The parts of a packet that rules look at or rewrite."""

    eth_src: str
    eth_dst: str
    eth_type: int = ETH_IPV4
    ip_src: str | None = None
    ip_dst: str | None = None
    ip_proto: int | None = None
    ip_dscp: int = 0
    transport: Transport = Transport()
    arp: ArpFields | None = None
    size: int = 100
    label: int | None = None
    registers: Registers = Registers()


def is_matched(match: Match, packet: Packet, in_port: int) -> bool:
    """Whether a packet that came in at `in_port` has all fields of a match."""
    if match.in_port not in (None, in_port):
        return False
    if match.eth_dst == MULTICAST and not int(packet.eth_dst[:2], 16) & 1:
        return False
    if match.eth_dst == BRIDGE_GROUPS and not packet.eth_dst.startswith("01:80:c2:00:00:0"):
        return False
    block = None if packet.label is None else packet.label // LABELS * LABELS
    if match.label is not None and match.label < 0 and match.label != -(block or 0):
        return False
    if match.question_for is not None and not _asks_for(packet, match.question_for):
        return False
    transport = packet.transport
    opens = packet.ip_proto == PROTO_TCP and set(transport.flags) & {"S", "A"} == {"S"}
    kind = TCP_OPENING if opens else transport.icmpv6_type
    if match.port_dst not in (None, (packet.ip_proto, transport.dport)) or match.message_type not in (None, kind):
        return False
    if not _is_noted(match, packet.registers):
        return False
    source = match.ip_src
    if source is not None and vlan_of(source) not in (0, packet.label):
        return False
    ends = (bare(source or ""), packet.ip_src), (match.ip_dst or "", packet.ip_dst)
    if not all(not wanted or (address and _is_in(address, wanted)) for wanted, address in ends):
        return False
    names = ("label", "eth_type", "eth_src", "eth_dst", "ip_proto")
    anything = None, MULTICAST, BRIDGE_GROUPS, -(block or 0)
    return all(getattr(match, name) in (*anything, getattr(packet, name)) for name in names)


def _is_in(address: str, wanted: str) -> bool:
    return address == wanted or ("/" in wanted and ip_address(address) in ip_network(wanted))


def _asks_for(packet: Packet, address: str) -> bool:
    # What type a message of IPv6 has, another field of the match says.
    asks = packet.eth_type == ETH_ARP or packet.transport.icmpv6_type is not None
    return asks and packet.arp is not None and (packet.arp.op, packet.arp.target) == (1, address)


def _is_noted(match: Match, registers: Registers) -> bool:
    match match.register:
        case BucketMatch(first, mask):
            return registers.bucket & mask == first
        case DestinationMatch(number):
            return registers.destination == number
        case FreshMatch():
            return not registers.is_seen
    return True


def arp_answer(question: Packet, action: AnswerArp) -> Packet:
    """The reply that the action makes of an ARP request."""
    asker = question.arp.sender if question.arp else None
    return replace(question, eth_dst=question.eth_src, eth_src=action.mac, arp=ArpFields(2, action.address, asker))


def is_arp_reply(packet: Packet) -> bool:
    """Whether a packet answers an ARP request."""
    return packet.arp is not None and packet.arp.op == 2


def hashed(packet: Packet) -> int:
    """A number that all packets of a connection have in common, both ways."""
    ports = packet.transport
    ends = sorted([(packet.ip_src or "", ports.sport or 0), (packet.ip_dst or "", ports.dport or 0)])
    return int.from_bytes(blake2b(repr((packet.ip_proto, ends)).encode(), digest_size=8).digest(), "big")


def selected(buckets: Sequence[GroupBucket], packet: Packet) -> GroupBucket:
    """The bucket of a select group that the packet's connection falls into, by weight."""
    at = hashed(packet) % sum(bucket.weight for bucket in buckets)
    ends = accumulate(bucket.weight for bucket in buckets)
    return next(bucket for bucket, end in zip(buckets, ends, strict=True) if at < end)


def noted(packet: Packet, action: PickBucket | ChooseDestination | NoteSeen) -> Packet:
    """The packet with what the action notes in its registers."""
    if isinstance(action, NoteSeen):
        return replace(packet, registers=replace(packet.registers, is_seen=True))
    if isinstance(action, ChooseDestination):
        return replace(packet, registers=replace(packet.registers, destination=action.number))
    return with_bits(packet, hashed(packet) % action.buckets, action.buckets - 1)


def with_bits(packet: Packet, bits: int, mask: int) -> Packet:
    """The packet with these bits noted beside its hash bucket; the others stay."""
    return replace(packet, registers=replace(packet.registers, bucket=packet.registers.bucket & ~mask | bits))


def _connection(packet: Packet) -> Connection:
    has_ports = packet.ip_proto in (PROTO_TCP, PROTO_UDP)
    ports = (packet.transport.sport, packet.transport.dport) if has_ports else (None, None)
    return packet.ip_proto, packet.ip_src, packet.ip_dst, *ports


@dataclass(slots=True)
class _LearnedFlow:
    by: LearnConnection
    # Fields of the packet that are set, by name
    rewrite: dict[str, Any]
    active: Seconds


@dataclass(slots=True)
class LearnedFlows:
    """What the switch writes down by itself: connections by their ends, and (source, destination) pairs met."""

    _connections: dict[Connection, _LearnedFlow] = field(default_factory=dict)
    _met: dict[tuple[str | None, str | None], Seconds] = field(default_factory=dict)
    # What was noted of each connection, for how long it may be silent, and when it spoke last
    _next_hops: dict[Connection, tuple[int, Seconds, Seconds]] = field(default_factory=dict)

    def learn_connection(self, action: LearnConnection, packet: Packet, now: Seconds) -> None:
        """Writes down where the packet's connection goes, and what its answers look like."""
        has_ports = action.protocol in (PROTO_TCP, PROTO_UDP)
        ports = (packet.transport.sport, packet.transport.dport) if has_ports else (None, None)
        there = (packet.ip_proto, packet.ip_src, action.virtual_ip, *ports)
        back = (packet.ip_proto, action.address, packet.ip_src, *ports[::-1])
        self._connections[there] = _LearnedFlow(action, {"eth_dst": action.mac, "ip_dst": action.address}, now)
        to_client = {"eth_src": virtual_mac(action.virtual_ip), "ip_src": action.virtual_ip}
        self._connections[back] = _LearnedFlow(action, to_client, now)

    def rewritten(self, packet: Packet, now: Seconds) -> Packet:
        """The packet, rewritten when its connection is known."""
        for ports in ((packet.transport.sport, packet.transport.dport), (None, None)):
            key = (packet.ip_proto, packet.ip_src, packet.ip_dst, *ports)
            flow = self._connections.get(key)
            if flow is None:
                continue
            if now - flow.active < flow.by.idle_s:
                flow.active = now
                return replace(packet, **flow.rewrite)
            del self._connections[key]
        return packet

    def learn_next_hop(self, action: LearnNextHop, packet: Packet, now: Seconds) -> None:
        """Writes down what was noted of the packet's connection."""
        self._next_hops[_connection(packet)] = packet.registers.destination or 0, action.idle_s, now

    def with_next_hop(self, packet: Packet, now: Seconds) -> Packet:
        """The packet, with what was noted of its connection while that lives."""
        number, idle_s, active = self._next_hops.get(_connection(packet), (0, 0, 0))
        if now - active >= idle_s:
            self._next_hops.pop(_connection(packet), None)
            return packet
        self._next_hops[_connection(packet)] = number, idle_s, now
        return noted(packet, ChooseDestination(number))

    def has_met(self, packet: Packet, now: Seconds) -> bool:
        """Whether this source has been met for this destination address."""
        return self._met.get((packet.ip_src, packet.ip_dst), 0.0) > now

    def learn_source(self, action: LearnSource, packet: Packet, now: Seconds) -> None:
        """Writes down that it is met."""
        self._met[packet.ip_src, packet.ip_dst] = now + action.hold_s

    def keep_only(self, wanted: Callable[[LearnConnection], bool]) -> None:
        """What a rule has written goes with that rule."""
        self._connections = {key: flow for key, flow in self._connections.items() if wanted(flow.by)}

"""Reads and builds the few kinds of frame that reach the controller: ARP, RARP, the heads of IPv4, and TCP probes."""

import struct
from dataclasses import dataclass
from socket import inet_aton, inet_ntoa

from ryu_apps.rules import ETH_ARP, ETH_IPV4, ETH_RARP, PROTO_TCP, VLAN_TAGS

BROADCAST = "ff:ff:ff:ff:ff:ff"
NO_ADDRESS = "0.0.0.0"
LLDP_GROUP = "01:80:c2:00:00:0e"
REQUEST, REPLY = 1, 2
# Sender of the controller's own ARP probes: locally administered, unicast.
PROBE_MAC = "f2:ea:00:00:00:00"

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_FIXED = (1, ETH_IPV4, 6, 4)


@dataclass(frozen=True, slots=True)
class Arp:
    """An ARP or RARP body."""

    operation: int
    sender_mac: str
    sender: str
    target_mac: str
    target: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The parts of a frame that decide what happens to it."""

    eth_dst: str
    eth_src: str
    eth_type: int
    arp: Arp | None = None
    ipv4_src: str | None = None
    ipv4_dst: str | None = None
    # Number of its outer VLAN tag, 0 without one
    vlan: int = 0


def parse(data: bytes) -> Frame | None:
    """The frame's heads; None when it is cut short or makes no sense."""
    if len(data) < _ETHERNET.size:
        return None
    to, source, eth_type = _ETHERNET.unpack_from(data)
    arp = ipv4_src = ipv4_dst = None
    vlan, at = 0, _ETHERNET.size
    if eth_type in VLAN_TAGS and len(data) >= at + 4:
        # What is below a second tag is nobody's business here.
        vlan, eth_type, at = int.from_bytes(data[at : at + 2]) & 0xFFF, int.from_bytes(data[at + 2 : at + 4]), at + 4
    body = data[at:]
    if eth_type in (ETH_ARP, ETH_RARP):
        arp = _parse_arp(body)
        if arp is None:
            return None
    elif eth_type == ETH_IPV4:
        if len(body) < 20:
            return None
        ipv4_src, ipv4_dst = inet_ntoa(body[12:16]), inet_ntoa(body[16:20])
    return Frame(to.hex(":"), source.hex(":"), eth_type, arp, ipv4_src, ipv4_dst, vlan)


def _parse_arp(body: bytes) -> Arp | None:
    if len(body) < _ARP.size:
        return None
    *fixed, operation, sender_mac, sender, target_mac, target = _ARP.unpack_from(body)
    if tuple(fixed) != _ARP_FIXED:
        return None
    return Arp(operation, sender_mac.hex(":"), inet_ntoa(sender), target_mac.hex(":"), inet_ntoa(target))


def arp(body: Arp, eth_src: str, eth_dst: str) -> bytes:
    """An ARP frame."""
    return _ETHERNET.pack(mac_bytes(eth_dst), mac_bytes(eth_src), ETH_ARP) + _ARP.pack(
        *_ARP_FIXED,
        body.operation,
        mac_bytes(body.sender_mac),
        inet_aton(body.sender),
        mac_bytes(body.target_mac),
        inet_aton(body.target),
    )


def arp_answer(question: Arp, mac: str, vlan: int = 0) -> bytes:
    """The reply that says that `mac` holds the address asked for, with the tag that the question had."""
    body = Arp(REPLY, mac, question.target, question.sender_mac, question.sender)
    return tagged(arp(body, mac, question.sender_mac), vlan)


def tagged(data: bytes, vlan: int) -> bytes:
    """The frame with a VLAN tag; as it is for 0."""
    return data[:12] + VLAN_TAGS[0].to_bytes(2, "big") + vlan.to_bytes(2, "big") + data[12:] if vlan else data


def arp_probe(address: str, to: str = BROADCAST) -> bytes:
    """Asks who holds `address` without saying who asks, so that no host's cache learns anything wrong."""
    return arp(Arp(REQUEST, PROBE_MAC, NO_ADDRESS, "00:00:00:00:00:00", address), PROBE_MAC, to)


def mac_bytes(text: str) -> bytes:
    """A MAC as six bytes."""
    return bytes.fromhex(text.replace(":", ""))


# The port that questions come from; at a virtual IP nobody else is answered on it.
PROBE_PORT = 61_357
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")


@dataclass(frozen=True, slots=True)
class Segment:
    """Ends, numbers, flags and data of a TCP segment."""

    source: str
    source_port: int
    to: str
    to_port: int
    sequence: int
    acknowledged: int
    flags: int
    data: bytes = b""


def _checksum(data: bytes) -> int:
    # One's complement sum of 16-bit words (RFC 1071)
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def probe_frame(one: Segment, eth_src: str, eth_dst: str) -> bytes:
    """The segment as an Ethernet frame."""
    ends = inet_aton(one.source), inet_aton(one.to)
    plain = (one.source_port, one.to_port, one.sequence, one.acknowledged, _TCP.size // 4 << 4, one.flags, 1024)
    size = _TCP.size + len(one.data)
    pseudo = struct.pack("!4s4sBBH", *ends, 0, PROTO_TCP, size)
    tcp = _TCP.pack(*plain, _checksum(pseudo + _TCP.pack(*plain, 0, 0) + one.data), 0) + one.data
    head = (0x45, 0, _IPV4.size + size, 0, 0x4000, 64, PROTO_TCP)
    ip = _IPV4.pack(*head, _checksum(_IPV4.pack(*head, 0, *ends)), *ends)
    return (_ETHERNET.pack(mac_bytes(eth_dst), mac_bytes(eth_src), ETH_IPV4) + ip + tcp).ljust(60, b"\0")


def read_segment(data: bytes) -> Segment | None:
    """The TCP segment in a frame; None when there is none or it is cut short."""
    if len(data) < _ETHERNET.size + _IPV4.size or _ETHERNET.unpack_from(data)[2] != ETH_IPV4:
        return None
    first, _, total, *_, protocol, _sum, source, to = _IPV4.unpack_from(data, _ETHERNET.size)
    at = _ETHERNET.size + (first & 0xF) * 4
    if protocol != PROTO_TCP or first >> 4 != 4 or first & 0xF < 5 or len(data) < at + _TCP.size:
        return None
    source_port, to_port, sequence, acknowledged, offset, flags, *_ = _TCP.unpack_from(data, at)
    # Short frames are padded: what IP does not count is no data.
    own = data[at + (offset >> 4) * 4 : _ETHERNET.size + total]
    return Segment(inet_ntoa(source), source_port, inet_ntoa(to), to_port, sequence, acknowledged, flags, own)

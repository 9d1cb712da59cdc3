"""Reads and builds the frames that reach the controller: ARP, RARP, neighbour discovery, heads of IP, TCP probes."""

import struct
from dataclasses import dataclass

from cpdb import address_bytes, address_text, is_ipv6
from ryu_apps.rules import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ETH_RARP,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    PROTO_ICMPV6,
    PROTO_TCP,
    VLAN_TAGS,
)

BROADCAST = "ff:ff:ff:ff:ff:ff"
LLDP_GROUP = "01:80:c2:00:00:0e"
REQUEST, REPLY = 1, 2
# Sender of the controller's own questions: locally administered, unicast; and the link-local address made of it
PROBE_MAC = "f2:ea:00:00:00:00"
PROBE_ADDRESS = "fe80::f0ea:ff:fe00:0"
# Before a host has an address; RFC 5227, 2.1.1 and RFC 4862, 5.4.2
NO_ADDRESSES = ("0.0.0.0", "::")
ALL_NODES, _ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_FIXED = (1, ETH_IPV4, 6, 4)
# Type, code, checksum, flags, address in question; the option that names a MAC: RFC 4861, 4.3, 4.4, 4.6.1
_NEIGHBOUR = struct.Struct("!BBHI16s")
_MAC_OPTION = struct.Struct("!BB6s")
_OPTION_OF = {NEIGHBOUR_SOLICITATION: 1, NEIGHBOUR_ADVERTISEMENT: 2}
_SOLICITED, _OVERRIDE = 1 << 30, 1 << 29
# Nothing that was forwarded has it: RFC 4861, 7.1
_NEVER_FORWARDED = 255


@dataclass(frozen=True, slots=True)
class Arp:
    """An ARP or RARP body; of IPv6, a neighbour solicitation as a request, an advertisement as a reply for its target.

    A request whose sender has no address yet (`NO_ADDRESSES`) asks whether somebody has the one that it wants.
    """

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
    ip_src: str | None = None
    ip_dst: str | None = None
    # Number of its outer VLAN tag, 0 without one
    vlan: int = 0

    @property
    def speaker(self) -> str | None:
        """The address that its sender says to have; None for one of nobody's own, as link-local ones are."""
        said = self.arp.sender if self.arp else self.ip_src
        return None if said is None or said in NO_ADDRESSES or said.startswith(("fe8", "fe9", "fea", "feb")) else said


def parse(data: bytes) -> Frame | None:
    """The frame's heads; None when it is cut short or makes no sense."""
    if len(data) < _ETHERNET.size:
        return None
    to, source, eth_type = _ETHERNET.unpack_from(data)
    arp = ip_src = ip_dst = None
    vlan, at = 0, _ETHERNET.size
    if eth_type in VLAN_TAGS and len(data) >= at + 4:
        # What is below a second tag is nobody's business here.
        vlan, eth_type, at = int.from_bytes(data[at : at + 2]) & 0xFFF, int.from_bytes(data[at + 2 : at + 4]), at + 4
    body = data[at:]
    if eth_type in (ETH_ARP, ETH_RARP):
        arp = _parse_arp(body)
        if arp is None:
            return None
    elif eth_type in _IP_ENDS:
        ends = _IP_ENDS[eth_type]
        if len(body) < ends.size:
            return None
        ip_src, ip_dst = map(address_text, ends.unpack_from(body))
        arp = _parse_neighbour(body, source, to) if eth_type == ETH_IPV6 else None
    return Frame(to.hex(":"), source.hex(":"), eth_type, arp, ip_src, ip_dst, vlan)


# Source and destination in the heads of both families
_IP_ENDS = {ETH_IPV4: struct.Struct("!12x4s4s"), ETH_IPV6: struct.Struct("!8x16s16s")}


def _parse_arp(body: bytes) -> Arp | None:
    if len(body) < _ARP.size:
        return None
    *fixed, operation, sender_mac, sender, target_mac, target = _ARP.unpack_from(body)
    if tuple(fixed) != _ARP_FIXED:
        return None
    return Arp(operation, sender_mac.hex(":"), address_text(sender), target_mac.hex(":"), address_text(target))


def _parse_neighbour(body: bytes, eth_src: bytes, eth_dst: bytes) -> Arp | None:
    """Neighbour discovery in a packet of IPv6; None where there is none, or none that RFC 4861, 7.1 allows."""
    if len(body) < _IPV6.size + _NEIGHBOUR.size or body[6:8] != bytes((PROTO_ICMPV6, _NEVER_FORWARDED)):
        return None
    kind, code, *_, target = _NEIGHBOUR.unpack_from(body, _IPV6.size)
    if kind not in _OPTION_OF or code:
        return None
    source, to = map(address_text, _IP_ENDS[ETH_IPV6].unpack_from(body))
    mac = _mac_option(body[_IPV6.size + _NEIGHBOUR.size :], _OPTION_OF[kind]) or eth_src
    if kind == NEIGHBOUR_SOLICITATION:
        return Arp(REQUEST, mac.hex(":"), source, "00:00:00:00:00:00", address_text(target))
    return Arp(REPLY, mac.hex(":"), address_text(target), eth_dst.hex(":"), to)


def _mac_option(options: bytes, wanted: int) -> bytes | None:
    while len(options) >= _MAC_OPTION.size and options[1]:
        kind, length, mac = _MAC_OPTION.unpack_from(options)
        if (kind, length) == (wanted, 1):
            return bytes(mac)
        options = options[8 * length :]
    return None


def arp(body: Arp, eth_src: str, eth_dst: str) -> bytes:
    """An ARP frame."""
    return _ETHERNET.pack(mac_bytes(eth_dst), mac_bytes(eth_src), ETH_ARP) + _ARP.pack(
        *_ARP_FIXED,
        body.operation,
        mac_bytes(body.sender_mac),
        address_bytes(body.sender),
        mac_bytes(body.target_mac),
        address_bytes(body.target),
    )


def neighbour(body: Arp, eth_src: str, eth_dst: str) -> bytes:
    """A frame of IPv6 neighbour discovery that says the same: a solicitation, or the advertisement that answers one."""
    asks, asked_by_nobody = body.operation == REQUEST, body.target in NO_ADDRESSES
    kind = NEIGHBOUR_SOLICITATION if asks else NEIGHBOUR_ADVERTISEMENT
    if asks:
        flags, about, to = 0, body.target, _asked_at(body.target, eth_dst)
    elif asked_by_nobody:
        # Who has no address yet hears it with everybody else: RFC 4861, 7.2.4
        flags, about, to, eth_dst = _OVERRIDE, body.sender, ALL_NODES, _ALL_NODES_MAC
    else:
        flags, about, to = _SOLICITED | _OVERRIDE, body.sender, body.target
    ends = address_bytes(body.sender), address_bytes(to)
    option = _MAC_OPTION.pack(_OPTION_OF[kind], 1, mac_bytes(body.sender_mac))
    size, what = _NEIGHBOUR.size + len(option), address_bytes(about)
    total = _checksum(_pseudo_head(*ends, PROTO_ICMPV6, size) + _NEIGHBOUR.pack(kind, 0, 0, flags, what) + option)
    head = _IPV6.pack(6 << 28, size, PROTO_ICMPV6, _NEVER_FORWARDED, *ends)
    frame = _ETHERNET.pack(mac_bytes(eth_dst), mac_bytes(eth_src), ETH_IPV6)
    return frame + head + _NEIGHBOUR.pack(kind, 0, total, flags, what) + option


def _asked_at(address: str, eth_dst: str) -> str:
    """Where a question about an address goes: to the group of its last 24 bits, or to itself."""
    if not int(eth_dst[:2], 16) & 1:
        return address
    return address_text(address_bytes("ff02::1:ff00:0")[:13] + address_bytes(address)[13:])


def question_answer(question: Arp, mac: str, vlan: int = 0) -> bytes:
    """The answer that says that `mac` holds the address asked for, with the tag that the question had."""
    body = Arp(REPLY, mac, question.target, question.sender_mac, question.sender)
    build = neighbour if is_ipv6(question.target) else arp
    return tagged(build(body, mac, question.sender_mac), vlan)


def tagged(data: bytes, vlan: int) -> bytes:
    """The frame with a VLAN tag; as it is for 0."""
    return data[:12] + VLAN_TAGS[0].to_bytes(2, "big") + vlan.to_bytes(2, "big") + data[12:] if vlan else data


def question(address: str, to: str = BROADCAST) -> bytes:
    """Asks who holds `address`, by ARP without saying who asks; so that no host's cache learns anything wrong."""
    if not is_ipv6(address):
        return arp(Arp(REQUEST, PROBE_MAC, NO_ADDRESSES[0], "00:00:00:00:00:00", address), PROBE_MAC, to)
    # Asked by nobody, a host would answer all the others.
    if to == BROADCAST:
        to = (b"\x33\x33\xff" + address_bytes(address)[13:]).hex(":")
    return neighbour(Arp(REQUEST, PROBE_MAC, PROBE_ADDRESS, "00:00:00:00:00:00", address), PROBE_MAC, to)


def mac_bytes(text: str) -> bytes:
    """A MAC as six bytes."""
    return bytes.fromhex(text.replace(":", ""))


# The port that questions come from; at a virtual IP nobody else is answered on it.
PROBE_PORT = 61_357
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
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


def _pseudo_head(source: bytes, to: bytes, protocol: int, size: int) -> bytes:
    """What checksums cover before the message itself: RFC 9293, 3.1 and RFC 8200, 8.1; both are summed alike."""
    return source + to + struct.pack("!II", protocol, size)


def probe_frame(one: Segment, eth_src: str, eth_dst: str) -> bytes:
    """The segment as an Ethernet frame."""
    ends = address_bytes(one.source), address_bytes(one.to)
    plain = (one.source_port, one.to_port, one.sequence, one.acknowledged, _TCP.size // 4 << 4, one.flags, 1024)
    size = _TCP.size + len(one.data)
    total = _checksum(_pseudo_head(*ends, PROTO_TCP, size) + _TCP.pack(*plain, 0, 0) + one.data)
    tcp = _TCP.pack(*plain, total, 0) + one.data
    if is_ipv6(one.to):
        eth_type, head = ETH_IPV6, _IPV6.pack(6 << 28, size, PROTO_TCP, 64, *ends)
    else:
        fields = (0x45, 0, _IPV4.size + size, 0, 0x4000, 64, PROTO_TCP)
        eth_type, head = ETH_IPV4, _IPV4.pack(*fields, _checksum(_IPV4.pack(*fields, 0, *ends)), *ends)
    return (_ETHERNET.pack(mac_bytes(eth_dst), mac_bytes(eth_src), eth_type) + head + tcp).ljust(60, b"\0")


def read_segment(data: bytes) -> Segment | None:
    """The TCP segment in a frame; None when there is none or it is cut short."""
    if len(data) < _ETHERNET.size + _IPV4.size:
        return None
    eth_type, at = _ETHERNET.unpack_from(data)[2], _ETHERNET.size
    if eth_type == ETH_IPV4 and data[at] >> 4 == 4 and data[at] & 0xF >= 5:
        size, protocol = (data[at] & 0xF) * 4, data[at + 9]
        end = at + int.from_bytes(data[at + 2 : at + 4])
    elif eth_type == ETH_IPV6 and len(data) >= at + _IPV6.size:
        size, protocol = _IPV6.size, data[at + 6]
        end = at + size + int.from_bytes(data[at + 4 : at + 6])
    else:
        return None
    start = at + size
    if protocol != PROTO_TCP or len(data) < start + _TCP.size:
        return None
    source, to = map(address_text, _IP_ENDS[eth_type].unpack_from(data, at))
    source_port, to_port, sequence, acknowledged, offset, flags, *_ = _TCP.unpack_from(data, start)
    # Short frames are padded: what IP does not count is no data.
    own = data[start + (offset >> 4) * 4 : end]
    return Segment(source, source_port, to, to_port, sequence, acknowledged, flags, own)

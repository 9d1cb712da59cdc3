"""Reads and builds the few kinds of frame that reach the controller: ARP, RARP, LLDP and the heads of IPv4."""

import struct
from dataclasses import dataclass
from socket import inet_aton, inet_ntoa

from ryu_apps.rules import ETH_ARP, ETH_IPV4, ETH_LLDP, ETH_RARP

BROADCAST = "ff:ff:ff:ff:ff:ff"
NO_ADDRESS = "0.0.0.0"
LLDP_GROUP = "01:80:c2:00:00:0e"
REQUEST, REPLY = 1, 2
# Sender of the controller's own ARP probes: locally administered, unicast.
PROBE_MAC = "f2:ea:00:00:00:00"

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_FIXED = (1, ETH_IPV4, 6, 4)
_LLDP_OWNER = b"forepath"


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


def parse(data: bytes) -> Frame | None:
    """The frame's heads; None when it is cut short or makes no sense."""
    if len(data) < _ETHERNET.size:
        return None
    to, source, eth_type = _ETHERNET.unpack_from(data)
    arp = ipv4_src = ipv4_dst = None
    body = data[_ETHERNET.size :]
    if eth_type in (ETH_ARP, ETH_RARP):
        arp = _parse_arp(body)
        if arp is None:
            return None
    elif eth_type == ETH_IPV4:
        if len(body) < 20:
            return None
        ipv4_src, ipv4_dst = inet_ntoa(body[12:16]), inet_ntoa(body[16:20])
    return Frame(to.hex(":"), source.hex(":"), eth_type, arp, ipv4_src, ipv4_dst)


def _parse_arp(body: bytes) -> Arp | None:
    if len(body) < _ARP.size:
        return None
    *fixed, operation, sender_mac, sender, target_mac, target = _ARP.unpack_from(body)
    if tuple(fixed) != _ARP_FIXED:
        return None
    return Arp(operation, sender_mac.hex(":"), inet_ntoa(sender), target_mac.hex(":"), inet_ntoa(target))


def arp(body: Arp, eth_src: str, eth_dst: str) -> bytes:
    """An ARP frame."""
    return _ETHERNET.pack(_mac(eth_dst), _mac(eth_src), ETH_ARP) + _ARP.pack(
        *_ARP_FIXED,
        body.operation,
        _mac(body.sender_mac),
        inet_aton(body.sender),
        _mac(body.target_mac),
        inet_aton(body.target),
    )


def arp_answer(question: Arp, mac: str) -> bytes:
    """The reply that says that `mac` holds the address asked for."""
    body = Arp(REPLY, mac, question.target, question.sender_mac, question.sender)
    return arp(body, mac, question.sender_mac)


def arp_probe(address: str) -> bytes:
    """Asks who holds `address` without saying who asks, so that no host's cache learns anything wrong."""
    return arp(Arp(REQUEST, PROBE_MAC, NO_ADDRESS, "00:00:00:00:00:00", address), PROBE_MAC, BROADCAST)


def lldp(dpid: int, port: int) -> bytes:
    """An LLDP frame that tells the receiving switch who sent it, and through which port."""
    chassis = b"\x07" + f"dpid:{dpid:016x}".encode()
    number = b"\x07" + str(port).encode()
    # Organisation-specific element: marks the frame as ours, so that other controllers' LLDP is not believed.
    owner = b"\xf2\xea\x00\x01" + _LLDP_OWNER
    parts = [(1, chassis), (2, number), (3, struct.pack("!H", 10)), (127, owner), (0, b"")]
    body = b"".join(struct.pack("!H", kind << 9 | len(value)) + value for kind, value in parts)
    # 60 bytes is the least that Ethernet carries.
    return (_ETHERNET.pack(_mac(LLDP_GROUP), _mac(PROBE_MAC), ETH_LLDP) + body).ljust(60, b"\0")


def read_lldp(data: bytes) -> tuple[int, int] | None:
    """(dpid, port) of the sender; None when it is not one of our LLDP frames."""
    found: dict[int, bytes] = {}
    at = _ETHERNET.size
    while at + 2 <= len(data):
        (head,) = struct.unpack_from("!H", data, at)
        kind, length = head >> 9, head & 0x1FF
        if kind == 0:
            break
        found[kind] = data[at + 2 : at + 2 + length]
        at += 2 + length
    if not found.get(127, b"").endswith(_LLDP_OWNER) or not found.get(1, b"").startswith(b"\x07dpid:"):
        return None
    try:
        return int(found[1][6:], 16), int(found[2][1:])
    except (KeyError, ValueError):
        return None


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))

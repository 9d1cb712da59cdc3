"""Reads and builds the few kinds of frame that reach the controller: ARP, RARP and the heads of IPv4."""

import struct
from dataclasses import dataclass
from socket import inet_aton, inet_ntoa

from ryu_apps.rules import ETH_ARP, ETH_IPV4, ETH_RARP

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
    return _ETHERNET.pack(mac_bytes(eth_dst), mac_bytes(eth_src), ETH_ARP) + _ARP.pack(
        *_ARP_FIXED,
        body.operation,
        mac_bytes(body.sender_mac),
        inet_aton(body.sender),
        mac_bytes(body.target_mac),
        inet_aton(body.target),
    )


def arp_answer(question: Arp, mac: str) -> bytes:
    """The reply that says that `mac` holds the address asked for."""
    body = Arp(REPLY, mac, question.target, question.sender_mac, question.sender)
    return arp(body, mac, question.sender_mac)


def arp_probe(address: str, to: str = BROADCAST) -> bytes:
    """Asks who holds `address` without saying who asks, so that no host's cache learns anything wrong."""
    return arp(Arp(REQUEST, PROBE_MAC, NO_ADDRESS, "00:00:00:00:00:00", address), PROBE_MAC, to)


def mac_bytes(text: str) -> bytes:
    """A MAC as six bytes."""
    return bytes.fromhex(text.replace(":", ""))

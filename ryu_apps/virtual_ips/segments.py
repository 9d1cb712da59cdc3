"""Builds and reads the few TCP segments with which the controller asks whether a service answers."""

import struct
from dataclasses import dataclass
from socket import inet_aton, inet_ntoa

from ryu_apps.rules import ETH_IPV4, PROTO_TCP

# The port that questions come from; at a virtual IP nobody else is answered on it.
PROBE_PORT = 61_357
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")


@dataclass(frozen=True, slots=True)
class Segment:
    """Ends, numbers and flags of a TCP segment without data."""

    source: str
    source_port: int
    to: str
    to_port: int
    sequence: int
    acknowledged: int
    flags: int


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(data: bytes) -> int:
    # One's complement sum of 16-bit words (RFC 1071)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def frame(one: Segment, eth_src: str, eth_dst: str) -> bytes:
    """The segment as an Ethernet frame."""
    ends = inet_aton(one.source), inet_aton(one.to)
    plain = (one.source_port, one.to_port, one.sequence, one.acknowledged, _TCP.size // 4 << 4, one.flags, 1024)
    pseudo = struct.pack("!4s4sBBH", *ends, 0, PROTO_TCP, _TCP.size)
    tcp = _TCP.pack(*plain, _checksum(pseudo + _TCP.pack(*plain, 0, 0)), 0)
    head = (0x45, 0, _IPV4.size + _TCP.size, 0, 0x4000, 64, PROTO_TCP)
    ip = _IPV4.pack(*head, _checksum(_IPV4.pack(*head, 0, *ends)), *ends)
    return (_ETHERNET.pack(_mac(eth_dst), _mac(eth_src), ETH_IPV4) + ip + tcp).ljust(60, b"\0")


def read(data: bytes) -> Segment | None:
    """The TCP segment in a frame; None when there is none or it is cut short."""
    if len(data) < _ETHERNET.size + _IPV4.size or _ETHERNET.unpack_from(data)[2] != ETH_IPV4:
        return None
    first, *_, protocol, _sum, source, to = _IPV4.unpack_from(data, _ETHERNET.size)
    at = _ETHERNET.size + (first & 0xF) * 4
    if protocol != PROTO_TCP or first >> 4 != 4 or first & 0xF < 5 or len(data) < at + _TCP.size:
        return None
    source_port, to_port, sequence, acknowledged, _offset, flags, *_ = _TCP.unpack_from(data, at)
    return Segment(inet_ntoa(source), source_port, inet_ntoa(to), to_port, sequence, acknowledged, flags)

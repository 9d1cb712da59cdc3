"""Fields of packets as bytes, and matches made of them: the codec's lowest floor; OpenFlow 1.3.5, 7.2.3.

Open vSwitch reports some fields under Nicira's older numbers: both are read, the standard's are written.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from cpdb import LABELS, address_bytes, address_text, is_ipv6
from ryu_apps.rules import (
    BRIDGE_GROUPS,
    MULTICAST,
    PROTO_TCP,
    PROTO_UDP,
    TCP_OPENING,
    BucketMatch,
    DestinationMatch,
    FreshMatch,
    Match,
    PortMatch,
    bare,
    in_vlan,
    vlan_of,
)

_TYPE_LENGTH = struct.Struct("!HH")
_HEADER = struct.Struct("!I").unpack_from
_MATCH_OXM = 1
_EXPERIMENTER_CLASS = 0xFFFF
_ALL_ONES = 0xFFFF_FFFF
# A VLAN tag is there; 7.2.3.7
LABEL_PRESENT = 0x1000


def mac_bytes(text: str) -> bytes:
    """The six bytes of a MAC."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(value: bytes) -> str:
    """A MAC as it is written."""
    return value.hex(":")


class FieldType(NamedTuple):
    """A field of a packet: its number in class OFPXMC_OPENFLOW_BASIC, its size in bytes, and how it is written.

    `head` comes before the value: class, number, size; 7.2.3.2.
    """

    name: str
    number: int
    size: int
    head: bytes
    to_bytes: Callable[[Any], bytes]
    from_bytes: Callable[[bytes], Any]

    def encode(self, value: Any) -> bytes:
        """The field with this value."""
        return self.head + self.to_bytes(value)


def _head(number: int, size: int) -> bytes:
    return bytes((0x80, 0, number << 1, size))


def _number(name: str, number: int, size: int) -> FieldType:
    return FieldType(name, number, size, _head(number, size), lambda value: value.to_bytes(size, "big"), int.from_bytes)


def _mac(name: str, number: int) -> FieldType:
    return FieldType(name, number, 6, _head(number, 6), mac_bytes, mac_text)


def _address(name: str, number: int, size: int = 4) -> FieldType:
    return FieldType(name, number, size, _head(number, size), address_bytes, address_text)


# Numbers: table 12 in 7.2.3.7
IN_PORT = _number("in_port", 0, 4)
ETH_DST, ETH_SRC, ETH_TYPE = _mac("eth_dst", 3), _mac("eth_src", 4), _number("eth_type", 5, 2)
VLAN_VID, IP_DSCP, IP_PROTO = _number("vlan_vid", 6, 2), _number("ip_dscp", 8, 1), _number("ip_proto", 10, 1)
IPV4_SRC, IPV4_DST = _address("ipv4_src", 11), _address("ipv4_dst", 12)
TCP_SRC, TCP_DST = _number("tcp_src", 13, 2), _number("tcp_dst", 14, 2)
UDP_SRC, UDP_DST = _number("udp_src", 15, 2), _number("udp_dst", 16, 2)
ARP_OP, ARP_SPA, ARP_TPA = _number("arp_op", 21, 2), _address("arp_spa", 22), _address("arp_tpa", 23)
ARP_SHA, ARP_THA = _mac("arp_sha", 24), _mac("arp_tha", 25)
IPV6_SRC, IPV6_DST = _address("ipv6_src", 26, 16), _address("ipv6_dst", 27, 16)
ICMPV6_TYPE, ND_TARGET = _number("icmpv6_type", 29, 1), _address("ipv6_nd_target", 31, 16)
ND_TLL = _mac("ipv6_nd_tll", 33)
# Open vSwitch's own, since 2.12: flags of neighbour discovery and the type of its option; class 0x1000, numbers 1 and 2
ND_FLAGS = _number("nd_flags", 1, 4)._replace(head=b"\x10\x00\x02\x04")
ND_OPTION = _number("nd_option", 2, 1)._replace(head=b"\x10\x00\x04\x01")
# What rules call ip_src and ip_dst, of both families
IP_FIELDS = {IPV4_SRC: "ip_src", IPV6_SRC: "ip_src", IPV4_DST: "ip_dst", IPV6_DST: "ip_dst"}
# Open vSwitch's registers: class 1, numbers 0, 1 and 14
BUCKET_REGISTER, DESTINATION_REGISTER, SEEN_REGISTER = b"\x00\x01\x00\x04", b"\x00\x01\x02\x04", b"\x00\x01\x1c\x04"
_BUCKET_REGISTER_MASKED = b"\x00\x01\x01\x08"
# Any group address; TCP with SYN and without ACK, in ONF's extension 109
_MULTICAST = b"\x80\x00\x07\x0c" + 2 * b"\x01\x00\x00\x00\x00\x00"
_BRIDGE_GROUPS = b"\x80\x00\x07\x0c" + b"\x01\x80\xc2\x00\x00\x00" + b"\xff\xff\xff\xff\xff\xf0"
_GROUPS = {MULTICAST: _MULTICAST, BRIDGE_GROUPS: _BRIDGE_GROUPS}
# Ranges of labels are blocks of `LABELS`; value and mask follow.
_LABELS_HEAD = b"\x80\x00\x0d\x04"
_LABELS_MASK = (LABEL_PRESENT | 0xFFF & ~(LABELS - 1)).to_bytes(2, "big")
_SYN = b"\xff\xff\x55\x08" + b"\x4f\x4e\x46\x00" + b"\x00\x02" + b"\x00\x12"
_TCP_FLAGS = _EXPERIMENTER_CLASS << 7 | 42

_BASIC = (
    IN_PORT, ETH_DST, ETH_SRC, ETH_TYPE, VLAN_VID, IP_DSCP, IP_PROTO, IPV4_SRC, IPV4_DST, TCP_SRC, TCP_DST, UDP_SRC,
    UDP_DST, ARP_OP, ARP_SPA, ARP_TPA, ARP_SHA, ARP_THA, IPV6_SRC, IPV6_DST,
    ICMPV6_TYPE, ND_TARGET, ND_TLL,
)  # fmt: skip
# Class and number in one -> field. Nicira's numbers: class 0 for what OpenFlow 1.0 had, class 1 for what it added.
_BY_CODE = {0x8000 << 7 | field.number: field for field in _BASIC} | {
    1: ETH_DST, 2: ETH_SRC, 3: ETH_TYPE, 6: IP_PROTO, 7: IPV4_SRC, 8: IPV4_DST, 9: TCP_SRC, 10: TCP_DST, 11: UDP_SRC,
    12: UDP_DST, 15: ARP_OP, 16: ARP_SPA, 17: ARP_TPA, 1 << 7 | 17: ARP_SHA, 1 << 7 | 18: ARP_THA,
    1 << 7 | 19: IPV6_SRC, 1 << 7 | 20: IPV6_DST, 1 << 7 | 21: ICMPV6_TYPE, 1 << 7 | 23: ND_TARGET,
    1 << 7 | 25: ND_TLL, 0x1000 << 7 | 1: ND_FLAGS, 0x1000 << 7 | 2: ND_OPTION,
}  # fmt: skip
_BUCKET_CODE, _DESTINATION_CODE, _SEEN_CODE, _TCP_FLAGS_CODE = 1 << 7, 1 << 7 | 1, 1 << 7 | 14, 1 << 7 | 34


class WireField(NamedTuple):
    """A field as it was read: class << 7 | number, value, and its mask if it had one; the next one begins at `end`."""

    code: int
    value: bytes
    mask: bytes | None
    end: int

    @property
    def type(self) -> FieldType | None:
        """What field it is; None for one that no rule of ours has."""
        return _BY_CODE.get(self.code)


def read_field(data: bytes, at: int) -> WireField:
    """The field at `at`: header, value and mask; 7.2.3.2."""
    header: int = _HEADER(data, at)[0]
    start, end = at + 4, at + 4 + (header & 0xFF)
    if header >> 16 == _EXPERIMENTER_CLASS:
        start += 4
    value, mask = data[start:end], None
    if header >> 8 & 1:
        half = len(value) // 2
        value, mask = value[:half], value[half:]
    return WireField(header >> 9, value, mask, end)


def read_field_type(data: bytes, at: int) -> FieldType | None:
    """What field the header at `at` names."""
    header: int = _HEADER(data, at)[0]
    return _BY_CODE.get(header >> 9)


def _encode_register(register: BucketMatch | DestinationMatch | FreshMatch) -> bytes:
    if isinstance(register, FreshMatch):
        return SEEN_REGISTER + bytes(4)
    if isinstance(register, DestinationMatch):
        return DESTINATION_REGISTER + register.number.to_bytes(4, "big")
    return _BUCKET_REGISTER_MASKED + register.first.to_bytes(4, "big") + register.mask.to_bytes(4, "big")


def _encode_eth_dst(address: str) -> bytes:
    return _GROUPS.get(address) or _ETH_DST_HEAD + mac_bytes(address)


def _encode_label(label: int) -> bytes:
    if label < 0:
        return _LABELS_HEAD + (LABEL_PRESENT | -label).to_bytes(2, "big") + _LABELS_MASK
    return VLAN_VID.encode(LABEL_PRESENT | label)


def _plain(field: FieldType) -> Callable[[Any], bytes]:
    head, to_bytes = field.head, field.to_bytes
    return lambda value: head + to_bytes(value)


def _masked_head(field: FieldType) -> bytes:
    return field.head[:2] + bytes((field.head[2] | 1, 2 * field.size))


def _address_or_prefix(field: FieldType) -> Callable[[str], bytes]:
    of_ipv6, masked = field.size == 16, _masked_head(field)

    def encode(text: str) -> bytes:
        if is_ipv6(text) != of_ipv6:
            return b""
        address, _, length = text.partition("/")
        if not length:
            return field.encode(address)
        ones = (1 << int(length)) - 1
        return masked + address_bytes(address) + (ones << 8 * field.size - int(length)).to_bytes(field.size)

    return encode


def _encode_arp_question(address: str) -> bytes:
    return b"" if is_ipv6(address) else ARP_OP.encode(1) + ARP_TPA.encode(address)


def _encode_solicited(address: str) -> bytes:
    # That it is a solicitation, `message_type` says.
    return ND_TARGET.encode(address) if is_ipv6(address) else b""


_ETH_DST_HEAD = ETH_DST.head
_PORT_FIELDS = {PROTO_TCP: TCP_DST, PROTO_UDP: UDP_DST}
# Fields of a match and their bytes, in the order in which they must come; each family has its own place
_ENCODERS: tuple[tuple[str, Callable[[Any], bytes]], ...] = (
    ("register", _encode_register),
    ("in_port", _plain(IN_PORT)),
    ("eth_dst", _encode_eth_dst),
    ("eth_src", _plain(ETH_SRC)),
    ("eth_type", _plain(ETH_TYPE)),
    ("label", _encode_label),
    ("ip_proto", _plain(IP_PROTO)),
    ("ip_src", _address_or_prefix(IPV4_SRC)),
    ("ip_dst", _address_or_prefix(IPV4_DST)),
    ("port_dst", lambda one: _PORT_FIELDS[one.ip_proto].encode(one.port)),
    ("question_for", _encode_arp_question),
    ("ip_src", _address_or_prefix(IPV6_SRC)),
    ("ip_dst", _address_or_prefix(IPV6_DST)),
    ("message_type", lambda kind: b"" if kind == TCP_OPENING else ICMPV6_TYPE.encode(kind)),
    ("question_for", _encode_solicited),
    ("message_type", lambda kind: _SYN if kind == TCP_OPENING else b""),
)
_NAMES = tuple(name for name, _ in _ENCODERS)
assert set(_NAMES) == {field.name for field in fields(Match)}
_values = attrgetter(*_NAMES)
_encoders = tuple(encode for _, encode in _ENCODERS)


@lru_cache(maxsize=32_768)
def encode_match(match: Match) -> bytes:
    """The ofp_match with its padding; 7.2.3.1."""
    if match.ip_src is not None and (vlan := vlan_of(match.ip_src)):
        match = replace(match, ip_src=bare(match.ip_src), label=vlan)
    values = zip(_encoders, _values(match), strict=True)
    body = b"".join([encode(value) for encode, value in values if value is not None])
    size = 4 + len(body)
    return _TYPE_LENGTH.pack(_MATCH_OXM, size) + body + bytes(-size % 8)


def read_match(match: bytes) -> Iterator[WireField]:
    """The fields of a sound match, in order."""
    here, end = 4, _TYPE_LENGTH.unpack_from(match)[1]
    while here < end:
        field = read_field(match, here)
        yield field
        here = field.end


def describe_match(match: bytes) -> str:
    """A sound match of anybody for people: names and values, numbers for fields that no rule of ours has."""
    parts = []
    for field in read_match(match):
        kind = field.type
        text = field.value.hex() if kind is None else str(kind.from_bytes(field.value))
        mask = "" if field.mask is None else f"/{field.mask.hex() if kind is None else kind.from_bytes(field.mask)}"
        parts.append(f"{f'field {field.code}' if kind is None else kind.name}={text}{mask}")
    return ", ".join(parts) or "any packet"


def decode_match(data: bytes, at: int = 0) -> Match:
    """The sound match (`walk_match` accepts it) at `at`; fields that no rule of ours has are left out."""
    _, length = _TYPE_LENGTH.unpack_from(data, at)
    found: dict[str, Any] = {}
    here = at + 4
    while here < at + length:
        field = read_field(data, here)
        found.update(_decode(field))
        here = field.end
    if "ip_src" in found and (vlan := found.get("label", 0)) > 0:
        # No rule of ours looks at both otherwise.
        found["ip_src"] = in_vlan(found["ip_src"], vlan)
        del found["label"]
    return Match(**found)


def _decode(field: WireField) -> Iterator[tuple[str, Any]]:
    if field.code == _BUCKET_CODE:
        # A mask of all bits comes back as no mask.
        mask = _ALL_ONES if field.mask is None else int.from_bytes(field.mask)
        yield "register", BucketMatch(int.from_bytes(field.value), mask)
    elif field.code == _DESTINATION_CODE:
        yield "register", DestinationMatch(int.from_bytes(field.value))
    elif field.code == _SEEN_CODE:
        yield "register", FreshMatch()
    elif field.code in (_TCP_FLAGS, _TCP_FLAGS_CODE):
        yield "message_type", TCP_OPENING
    elif field.type is ICMPV6_TYPE:
        yield "message_type", int.from_bytes(field.value)
    elif field.type is VLAN_VID:
        label = int.from_bytes(field.value) & ~LABEL_PRESENT
        yield "label", label if field.mask is None else -label
    elif field.type is ETH_DST and field.mask is not None:
        yield "eth_dst", MULTICAST if field.mask == _MULTICAST[-6:] else BRIDGE_GROUPS
    elif field.type in IP_FIELDS:
        length = "" if field.mask is None else f"/{int.from_bytes(field.mask).bit_count()}"
        yield IP_FIELDS[field.type], address_text(field.value) + length
    elif field.type in (TCP_DST, UDP_DST):
        yield "port_dst", PortMatch(PROTO_TCP if field.type is TCP_DST else PROTO_UDP, int.from_bytes(field.value))
    elif field.type in (ARP_TPA, ND_TARGET):
        yield "question_for", address_text(field.value)
    elif field.type is not None and field.type.name in _NAMES:
        yield field.type.name, field.type.from_bytes(field.value)

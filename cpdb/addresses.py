"""Addresses and switch numbers in every spelling that people use, read into the one that is stored.

Each reader raises ValueError with what is wrong and what to write instead. Of which family an address is, and how it is
written (RFC 5952), is decided here and nowhere else.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Annotated, Any

from pydantic import BeforeValidator
from sqlalchemy import BigInteger, Dialect, Integer
from sqlalchemy.types import TypeDecorator, TypeEngine

LAST_DPID = (1 << 64) - 1
_MAC_FORMS = re.compile(
    r"[0-9a-f]{1,2}(?::[0-9a-f]{1,2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}|[0-9a-f]{12}",
    re.IGNORECASE,
)
_DPID_FORMS = re.compile(r"0x[0-9a-f]{1,16}|[0-9a-f]{16}|[0-9a-f]{2}(?::[0-9a-f]{2}){7}", re.IGNORECASE)
# What no single machine can be addressed by; the first that fits.
_NOBODYS = (
    ("is_unspecified", "means no address"),
    ("is_loopback", "is a loopback address, and never leaves its machine"),
    ("is_link_local", "is link-local, and machines give it to themselves"),
    ("is_multicast", "is a multicast address, a group's and not a machine's"),
)


def read_address(text: Any) -> str:
    """An IPv4 address, dotted."""
    said = str(text).strip()
    try:
        return str(IPv4Address(said))
    except ValueError:
        raise ValueError(f"{text!r} {_why_no_address(said)}") from None


def _why_no_address(said: str) -> str:
    try:
        found = ip_interface(said)
    except ValueError:
        if re.fullmatch(r"[\d.]+", said):
            return "is no IPv4 address: four numbers from 0 to 255 without leading zeros, e.g. 10.0.0.11"
        return "is no IPv4 address; write one, e.g. 10.0.0.11, and no name"
    if found.version == 6:
        return "is an IPv6 address; here IPv4 is needed, e.g. 10.0.0.11"
    return f"is an address with a prefix; write {found.ip}"


def is_ipv6(address: str) -> bool:
    """Whether an address, with or without prefix length or VLAN, is one of IPv6; else it is one of IPv4."""
    return ":" in address


def address_bytes(address: str) -> bytes:
    """The 4 or 16 bytes of an address."""
    return inet_pton(AF_INET6 if is_ipv6(address) else AF_INET, address)


def address_text(value: bytes) -> str:
    """The address with these 4 or 16 bytes as it is written, of IPv6 as RFC 5952 says."""
    return inet_ntop(AF_INET6 if len(value) == 16 else AF_INET, value)


def read_unicast(text: Any) -> str:
    """An address of IPv4 or IPv6 that one machine may have."""
    said = str(text).strip()
    if not is_ipv6(said):
        return _own(IPv4Address(read_address(said)), "10.0.0.11")
    try:
        found = IPv6Address(said)
    except ValueError:
        why = "is no IPv6 address; write one without prefix and zone, e.g. fd00::11"
        raise ValueError(f"{text!r} {why}") from None
    if found.scope_id is not None or found.ipv4_mapped is not None:
        why = "has a zone, which only one machine knows" if found.scope_id is not None else "is IPv4 in other words"
        raise ValueError(f"{text!r} {why}; write e.g. fd00::11")
    return _own(found, "fd00::11")


def _own(found: IPv4Address | IPv6Address, example: str) -> str:
    said = address_text(found.packed)
    for kind, why in _NOBODYS:
        if getattr(found, kind):
            raise ValueError(f"{said} {why}; write a machine's own, e.g. {example}")
    if found == IPv4Address("255.255.255.255"):
        raise ValueError(f"{said} is the broadcast address, everybody's; write a machine's own, e.g. {example}")
    if found.is_reserved or said.startswith("0."):
        raise ValueError(f"{said} is reserved and belongs to no machine; write e.g. {example}")
    return said


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_mac(text: Any) -> str:
    """A MAC that one machine may have, in lower case with colons; dashes, dots and capitals are understood."""
    said = str(text).strip()
    if not _MAC_FORMS.fullmatch(said):
        raise ValueError(f"{text!r} is no MAC; write six bytes in hexadecimal, e.g. 52:54:00:77:00:0b")
    digits = "".join(part.zfill(2) for part in re.split("[:.-]", said)).lower()
    mac = bytes.fromhex(digits).hex(":")
    if mac == "ff:ff:ff:ff:ff:ff":
        raise ValueError(f"{mac} is the broadcast MAC, everybody's; write the machine's own")
    if int(digits[:2], 16) & 1:
        raise ValueError(f"{mac} is a group's MAC (its first byte is odd); write the machine's own")
    if not int(digits, 16):
        raise ValueError(f"{mac} is nobody's MAC; write the machine's own")
    return mac


def read_dpid(value: Any) -> int:
    """A switch's number, 1 to 2^64 - 1; as text its 16 hexadecimal digits, as `ovs-vsctl` shows them, or 0x..."""
    found = value
    if isinstance(value, str):
        said = value.strip().replace(":", "") if _DPID_FORMS.fullmatch(value.strip()) else ""
        found = int(said, 16) if said else None
    if isinstance(found, bool) or not isinstance(found, int):
        raise ValueError(f'{value!r} is no dpid; write a number, e.g. 0x1f, or its 16 digits, "000000000000001f"')
    if not 1 <= found <= LAST_DPID:
        raise ValueError(f"{found:#x} is no dpid: those have 64 bits, 0x1 to 0xffffffffffffffff")
    return found


Address = Annotated[str, BeforeValidator(read_address)]
MachineAddress = Annotated[str, BeforeValidator(read_unicast)]
Mac = Annotated[str, BeforeValidator(read_mac)]
Dpid = Annotated[int, BeforeValidator(read_dpid)]


class Unsigned(TypeDecorator[int]):
    """Numbers from 0 to 2^bits - 1 in a column that is signed: the upper half lies below zero there."""

    impl = BigInteger
    cache_ok = True

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column that has so many bits."""
        return dialect.type_descriptor(BigInteger() if self.bits > 32 else Integer())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - the protocol
        """As it is stored; what does not fit is left as it is, for the database to refuse."""
        fits = value is not None and value >> (self.bits - 1) == 1
        return value - (1 << self.bits) if fits and value is not None else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - the protocol
        """As it was meant."""
        return value + (1 << self.bits) if value is not None and value < 0 else value


DPID, PORT = Unsigned(64), Unsigned(32)

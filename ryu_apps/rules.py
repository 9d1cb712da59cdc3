"""Rules and meters as plain records: what forepath wants a switch to hold, free of any framework."""

from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple

Seconds = float

# The top 16 bits of every cookie of ours. A rule without them belongs to somebody else and is never touched.
OWNER = 0xF0EA
OWNER_SHIFT = 48
OWNER_MASK = 0xFFFF << OWNER_SHIFT
TABLE_SHIFT = 44
KIND_SHIFT = 40
NUMBER_MASK = (1 << 40) - 1

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_RARP = 0x8035
ETH_LLDP = 0x88CC
PROTO_TCP = 6

# Reserved port of OpenFlow 1.3: the controller. Real ports are below PORT_MAX.
CONTROLLER = 0xFFFFFFFD
PORT_MAX = 0xFFFFFF00


class Table(IntEnum):
    """The pipeline, in order."""

    ACCOUNT = 0
    POLICE = 1
    STEER = 2
    FORWARD = 3


class Kind(IntEnum):
    """What a rule is for, inside its table."""

    DEFAULT = 0
    LISTEN = 1
    PAIR = 2
    PAIR_SYN = 3
    TO_DESTINATION = 4
    TO_CLIENT = 5
    HOST = 6
    LIMIT = 7
    QUENCH = 8
    ANSWER = 9


@dataclass(frozen=True, slots=True)
class Match:
    """Fields that must be equal; None matches anything. `syn` means TCP with SYN set and ACK clear."""

    in_port: int | None = None
    eth_type: int | None = None
    eth_src: str | None = None
    eth_dst: str | None = None
    ip_proto: int | None = None
    ipv4_src: str | None = None
    ipv4_dst: str | None = None
    arp_op: int | None = None
    arp_tpa: str | None = None
    syn: bool = False
    multicast: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """Sends the packet out of a port, or to the controller."""

    port: int


@dataclass(frozen=True, slots=True)
class SetField:
    """Rewrites one of eth_src, eth_dst, ipv4_src, ipv4_dst (text) or ip_dscp (number)."""

    field: str
    value: str | int


@dataclass(frozen=True, slots=True)
class AnswerArp:
    """Turns an ARP request into the reply that `mac` holds `address`, and sends it back where it came from."""

    mac: str
    address: str


Action = Output | SetField | AnswerArp


class RuleKey(NamedTuple):
    """What makes two rules of one switch the same rule."""

    table: int
    priority: int
    match: Match


@dataclass(frozen=True, slots=True)
class Rule:
    """One flow entry. `lease_until` (Unix seconds) makes the switch itself end it."""

    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...] = ()
    goto: int | None = None
    meter: int | None = None
    cookie: int = 0
    lease_until: Seconds | None = None

    @property
    def key(self) -> RuleKey:
        """Identity inside a switch."""
        return RuleKey(self.table, self.priority, self.match)


@dataclass(frozen=True, slots=True)
class Meter:
    """Drops what exceeds `rate_kbit_s` once `burst_kbit` is used up."""

    number: int
    rate_kbit_s: int
    burst_kbit: int


def cookie(table: Table, kind: Kind, number: int = 0) -> int:
    """A cookie of ours: owner, table, kind, and the number of the pair that the rule serves."""
    return (OWNER << OWNER_SHIFT) | (table << TABLE_SHIFT) | (kind << KIND_SHIFT) | (number & NUMBER_MASK)


def is_ours(value: int) -> bool:
    """Whether a cookie is in our range."""
    return value & OWNER_MASK == OWNER << OWNER_SHIFT


def kind_of(value: int) -> Kind | None:
    """The kind in one of our cookies, None for one that this version does not know."""
    number = (value >> KIND_SHIFT) & 0xF
    return Kind(number) if number in Kind._value2member_map_ else None


def number_of(value: int) -> int:
    """The pair number in one of our cookies."""
    return value & NUMBER_MASK


def pair_number(source_address: str, virtual_ip: str) -> int:
    """40 bits that name a pair: the same in every process and after every restart, so nothing has to be kept."""
    digest = blake2b(f"{source_address}>{virtual_ip}".encode(), digest_size=5).digest()
    return int.from_bytes(digest, "big")

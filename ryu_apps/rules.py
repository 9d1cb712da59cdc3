"""Rules and meters as plain records: what forepath wants a switch to hold, free of any framework."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from cpdb import FIRST_TAG, address_bytes

Seconds = float

# The top 16 bits of every cookie of ours. A rule without them belongs to somebody else and is never touched.
OWNER = 0xF0EA
OWNER_SHIFT = 48
OWNER_MASK = 0xFFFF << OWNER_SHIFT
# The top 16 bits of what switches write down by themselves on our behalf: never compared, it goes with its rule.
LEARNED = 0xF0EB
TABLE_SHIFT = 44
KIND_SHIFT = 40
NUMBER_MASK = (1 << 40) - 1

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_RARP = 0x8035
ETH_IPV6 = 0x86DD
ETH_LLDP = 0x88CC
# Ethertypes of VLAN tags: of customers, of providers; IEEE 802.1Q, table 9-1
VLAN_TAGS = (0x8100, 0x88A8)
PROTO_TCP = 6
PROTO_UDP = 17
PROTO_ICMPV6 = 58
# A host asks who holds an IPv6 address, and another one tells that it does: RFC 4861, 4.3 and 4.4
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136

# Reserved port of OpenFlow 1.3: the controller. Real ports are below PORT_MAX.
CONTROLLER = 0xFFFFFFFD
# What the switch does by itself, without any controller; 7.2.1 calls it optional.
NORMAL = 0xFFFFFFFA
PORT_MAX = 0xFFFFFF00
# What `Match.eth_dst`, `Match.label` and `Match.message_type` may be besides one address, one label, one type
MULTICAST = "multicast"
# Addresses that end at the next bridge, never beyond: IEEE 802.1Q, table 8-1
BRIDGE_GROUPS = "bridge groups"
# All labels of a range that begins at `FIRST_TAG`; of another one the same way
ANY_LABEL = -FIRST_TAG
TCP_OPENING = -1
# Where the port that is up is noted, above the hash bucket, and who stands in; 16 bits, all of them where none is
UP_SHIFT, STAND_IN_SHIFT, NOBODY_UP = 16, 10, 0xFFFF


class Table(IntEnum):
    """The pipeline, in order."""

    ACCOUNT = 0
    POLICER = 1
    REWRITE = 2
    FORWARD = 3
    # Resubmitted to from `forward`: connections that keep the path they had, what writes them down, and hash buckets
    # of divided pairs, apart from those of virtual IPs: there a connection that is placed would look like such a pair.
    KEPT = 4
    NOTE = 5
    PAIR_BUCKETS = 6
    # Resubmitted to from `buckets`: who stands in where a destination's port is down
    STAND_IN = 7
    # Resubmitted to from `rewrite` and `account`: live connections, hash buckets, destinations, met sources
    AFFINITY = 8
    BUCKETS = 9
    SERVE = 10
    MEET = 11


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
    DROP = 8
    ANSWER = 9
    FLOOD = 10
    PIN = 13
    LABEL = 14
    SPREAD = 15


class BucketMatch(NamedTuple):
    """Packets whose hash bucket, with the port above it that was noted, is `first` in the bits of `mask`."""

    first: int
    mask: int


class DestinationMatch(NamedTuple):
    """Packets for which the destination with this number was chosen."""

    number: int


class PortMatch(NamedTuple):
    """Packets of TCP or UDP to a port."""

    ip_proto: int
    port: int


class FreshMatch(NamedTuple):
    """Packets that have not been through our tables yet (`NoteSeen`)."""


@dataclass(frozen=True, slots=True)
class Match:
    """Fields that must be equal; None matches anything.

    `eth_dst` may be MULTICAST (every group address) or BRIDGE_GROUPS.
    `label` is a VLAN number, or below 0 a range (ANY_LABEL).
    `message_type` is a type of ICMPv6, or TCP_OPENING: SYN set and ACK clear.
    `ip_src` and `ip_dst` are addresses of the family that `eth_type` says (`match_ip`), or prefixes: "10.0.0.0/8".
    `ip_src` may be an address in a VLAN (`in_vlan`).
    `question_for` is the address that an ARP request or a neighbour solicitation asks for (`match_question`).
    `register` is what this switch has noted about the packet on its way.
    """

    in_port: int | None = None
    eth_type: int | None = None
    eth_src: str | None = None
    eth_dst: str | None = None
    ip_proto: int | None = None
    ip_src: str | None = None
    ip_dst: str | None = None
    question_for: str | None = None
    label: int | None = None
    port_dst: PortMatch | None = None
    message_type: int | None = None
    register: BucketMatch | DestinationMatch | FreshMatch | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """Sends the packet out of a port, or to the controller."""

    port: int


@dataclass(frozen=True, slots=True)
class ToGroup:
    """Lets a group of the switch choose what to do."""

    number: int


@dataclass(frozen=True, slots=True)
class SetField:
    """Rewrites one of eth_src, eth_dst, ip_src, ip_dst (text), ip_dscp or icmpv6_type (number)."""

    field: str
    value: str | int


@dataclass(frozen=True, slots=True)
class AnswerArp:
    """Turns an ARP request into the reply that `mac` holds `address`, and sends it back where it came from.

    Of IPv6: a solicitation whose type is an advertisement's already (switches set by type what may be set).
    """

    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class PushLabel:
    """Puts a label on the packet: the switches that follow send it the way of that label."""

    label: int


@dataclass(frozen=True, slots=True)
class PopLabel:
    """Takes the label off."""


@dataclass(frozen=True, slots=True)
class ResubmitTable:
    """Does what another table says of the packet, then goes on here."""

    table: int


@dataclass(frozen=True, slots=True)
class PickBucket:
    """Picks a hash bucket below `buckets` (a power of 2) by a hash of the packet's connection."""

    buckets: int


@dataclass(frozen=True, slots=True)
class ChooseDestination:
    """Notes which destination was chosen, for the tables that follow."""

    number: int


@dataclass(frozen=True, slots=True)
class NoteUp:
    """Notes the first of these ports that is up (NOBODY_UP: none) beside the hash bucket, at the bits from `shift`."""

    ports: tuple[int, ...]
    shift: int = UP_SHIFT


@dataclass(frozen=True, slots=True)
class NoteSeen:
    """Notes that the packet has been through our tables."""


@dataclass(frozen=True, slots=True)
class ToController:
    """Sends the packet to controllers with this number (0: those that said none); an extension of Open vSwitch."""

    number: int


@dataclass(frozen=True, slots=True)
class LearnConnection:
    """The switch itself writes down that this connection goes to `mac`, `address`, and its answers back.

    `protocol` 0: whatever is neither TCP nor UDP. What is silent for `idle_s` is forgotten.
    """

    protocol: int
    virtual_ip: str
    address: str
    mac: str
    number: int
    idle_s: int
    table: int = Table.AFFINITY


@dataclass(frozen=True, slots=True)
class LearnSource:
    """The switch itself writes down that it has met this (source, destination address), for `hold_s`."""

    hold_s: int
    table: int = Table.MEET
    eth_type: int = ETH_IPV4


@dataclass(frozen=True, slots=True)
class LearnNextHop:
    """The switch itself writes down what was noted of this connection (`ChooseDestination`), until it is silent.

    `protocol` 0: whatever is neither TCP nor UDP.
    """

    protocol: int
    eth_type: int
    idle_s: int
    table: int = Table.KEPT


Action = (
    Output | ToGroup | SetField | AnswerArp | PushLabel | PopLabel | ResubmitTable | PickBucket | ChooseDestination
    | LearnConnection | LearnSource | LearnNextHop | NoteSeen | NoteUp | ToController
)  # fmt: skip


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


@lru_cache(maxsize=65_536)
def pair_number(source_address: str, virtual_ip: str) -> int:
    """40 bits that name a pair: the same in every process and after every restart, so nothing has to be kept."""
    digest = blake2b(f"{source_address}>{virtual_ip}".encode(), digest_size=5).digest()
    return int.from_bytes(digest, "big")


class GroupKind(IntEnum):
    """OpenFlow's group types that we use: one bucket by weight, or the first one whose port is up."""

    SELECT = 1
    FAST_FAILOVER = 3


@dataclass(frozen=True, slots=True)
class GroupBucket:
    """One choice: its actions, its weight (select) or the port that has to be up (fast failover)."""

    actions: tuple[Action, ...]
    weight: int = 0
    watch_port: int | None = None


@dataclass(frozen=True, slots=True)
class SwitchGroup:
    """A group of buckets, by number."""

    number: int
    kind: GroupKind
    buckets: tuple[GroupBucket, ...]


def in_vlan(address: str, vlan: int) -> str:
    """An address as hosts and pairs have it: "10.0.0.1@20" in VLAN 20, itself where there is no tag (0)."""
    return f"{address}@{vlan}" if vlan else address


def vlan_of(address: str) -> int:
    """The VLAN in such an address, 0 for none."""
    return int(address.partition("@")[2] or 0)


def bare(address: str) -> str:
    """Such an address without its VLAN."""
    return address.partition("@")[0]


class PortId(NamedTuple):
    """A port of a switch."""

    dpid: int
    port: int


def virtual_mac(address: str) -> str:
    """The MAC that answers for a virtual IP: locally administered, made of the address, the same after a restart."""
    value = address_bytes(address)
    return (b"\xf2\xea" + (value if len(value) == 4 else blake2b(value, digest_size=4).digest())).hex(":")


@dataclass(frozen=True, slots=True)
class Desired:
    """What a switch should hold."""

    rules: Mapping[RuleKey, Rule]
    meters: Mapping[int, Meter]
    groups: Mapping[int, SwitchGroup] = field(default_factory=dict)

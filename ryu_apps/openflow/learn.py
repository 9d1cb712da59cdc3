"""Open vSwitch's learn action: entries that the switch makes by itself of a packet, and back.

Layout: lib/ofp-actions.c and lib/learn.c of Open vSwitch.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from cpdb import address_bytes, address_text
from ryu_apps.families import eth_type_of
from ryu_apps.openflow.fields import (
    DESTINATION_REGISTER,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    IP_FIELDS,
    IP_PROTO,
    IPV4_DST,
    IPV4_SRC,
    IPV6_DST,
    IPV6_SRC,
    TCP_DST,
    TCP_SRC,
    UDP_DST,
    UDP_SRC,
    FieldType,
    mac_bytes,
    mac_text,
    read_field_type,
)
from ryu_apps.rules import (
    ETH_IPV6,
    LEARNED,
    NUMBER_MASK,
    OWNER_SHIFT,
    PROTO_TCP,
    PROTO_UDP,
    Action,
    LearnConnection,
    LearnNextHop,
    LearnSource,
    virtual_mac,
)

# A connection that said that it ends is forgotten after so much silence, whoever speaks last.
FIN_IDLE_S = 10
# Connections to one destination that one switch remembers at most. Further ones follow their hash bucket.
MAX_CONNECTIONS = 50_000
MAX_MET = 100_000

LEARN2 = 45
_EXPERIMENTER, _NICIRA, _DELETE_LEARNED = 0xFFFF, 0x2320, 2
_LEARN_PRIORITY = {PROTO_TCP: 20, PROTO_UDP: 20, 0: 10}
_PORTS = {PROTO_TCP: (TCP_SRC, TCP_DST), PROTO_UDP: (UDP_SRC, UDP_DST)}
# Timeouts, priority, cookie, flags, table, timeouts after FIN, limit
_LEARN_ACTION = struct.Struct("!HHIHHHHQHBxHHI4x")


def _is(field: FieldType, value: bytes) -> bytes:
    return (0x2000 | 8 * field.size).to_bytes(2, "big") + value.rjust(2, b"\0") + field.head + b"\0\0"


def _same(source: FieldType, to: FieldType) -> bytes:
    return (8 * to.size).to_bytes(2, "big") + source.head + b"\0\0" + to.head + b"\0\0"


def _written(field: FieldType, value: bytes) -> bytes:
    return (0x2800 | 8 * field.size).to_bytes(2, "big") + value + field.head + b"\0\0"


def _ends(eth_type: int) -> tuple[FieldType, FieldType]:
    return (IPV6_SRC, IPV6_DST) if eth_type == ETH_IPV6 else (IPV4_SRC, IPV4_DST)


class _ConnectionSpecs(NamedTuple):
    """What all learned entries of one family and protocol have in common, there and back."""

    protocol: bytes
    ports_there: bytes
    ports_back: bytes


@lru_cache(maxsize=8)
def _connection_specs(eth_type: int, protocol: int) -> _ConnectionSpecs:
    proto = _is(IP_PROTO, bytes((protocol,))) if protocol else _same(IP_PROTO, IP_PROTO)
    ports = _PORTS.get(protocol, ())
    return _ConnectionSpecs(
        _is(ETH_TYPE, eth_type.to_bytes(2, "big")) + proto,
        b"".join(_same(port, port) for port in ports),
        b"".join(_same(port, other) for port, other in zip(ports, ports[::-1], strict=True)),
    )


@lru_cache(maxsize=2)
def _met_specs(eth_type: int) -> bytes:
    return _is(ETH_TYPE, eth_type.to_bytes(2, "big")) + b"".join(_same(end, end) for end in _ends(eth_type))


@lru_cache(maxsize=4096)
def _virtual_mac_bytes(address: str) -> bytes:
    return mac_bytes(virtual_mac(address))


def encode_learn_connection(action: LearnConnection) -> bytes:
    """Two actions: one makes the entry there, one the entry back."""
    eth_type = eth_type_of(action.virtual_ip)
    specs, (source, to) = _connection_specs(eth_type, action.protocol), _ends(eth_type)
    virtual_ip, address = address_bytes(action.virtual_ip), address_bytes(action.address)
    there = b"".join((
        specs.protocol, _same(source, source), _is(to, virtual_ip), specs.ports_there,
        _written(ETH_DST, mac_bytes(action.mac)), _written(to, address),
    ))  # fmt: skip
    back = b"".join((
        specs.protocol, _is(source, address), _same(source, to), specs.ports_back,
        _written(ETH_SRC, _virtual_mac_bytes(action.virtual_ip)), _written(source, virtual_ip),
    ))  # fmt: skip
    head = (
        action.idle_s, 0, _LEARN_PRIORITY[action.protocol], LEARNED << OWNER_SHIFT | action.number, _DELETE_LEARNED,
        action.table, FIN_IDLE_S if action.protocol == PROTO_TCP else 0, 0, 2 * MAX_CONNECTIONS,
    )  # fmt: skip
    return _learn(there, *head) + _learn(back, *head)


def _learn(specs: bytes, *head: int) -> bytes:
    size = _LEARN_ACTION.size + len(specs)
    size += -size % 8
    return (_LEARN_ACTION.pack(_EXPERIMENTER, size, _NICIRA, LEARN2, *head) + specs).ljust(size, b"\0")


def encode_learn_source(action: LearnSource) -> bytes:
    """The action that makes the entry of a source that was met."""
    head = (0, action.hold_s, 1, LEARNED << OWNER_SHIFT, 0, action.table, 0, 0, MAX_MET)
    return _learn(_met_specs(action.eth_type), *head)


# The register as it is then, into the register of whoever is found
_COPIED = b"\x08\x20" + 2 * (DESTINATION_REGISTER + b"\0\0")


def encode_learn_next_hop(action: LearnNextHop) -> bytes:
    """The action that makes the entry of a connection there; it outlives the rule that made it."""
    specs, ends = _connection_specs(action.eth_type, action.protocol), _ends(action.eth_type)
    body = b"".join((specs.protocol, *(_same(end, end) for end in ends), specs.ports_there, _COPIED))
    head = (action.idle_s, 0, _LEARN_PRIORITY[action.protocol], LEARNED << OWNER_SHIFT, 0, action.table, 0, 0, MAX_MET)
    return _learn(body, *head)


def decode_learn(data: bytes) -> Iterator[Action]:
    """What a sound learn action makes; nothing for the second of a connection's two."""
    _, _, _, _, idle_s, hard_s, _, cookie, _, table, *_ = _LEARN_ACTION.unpack_from(data)
    equal, written = _read_specs(data, _LEARN_ACTION.size)
    if not written and idle_s:
        protocol = int.from_bytes(equal.get("ip_proto", b""))
        yield LearnNextHop(protocol, int.from_bytes(equal["eth_type"]), idle_s, table)
    elif not written:
        yield LearnSource(hard_s, table, int.from_bytes(equal["eth_type"]))
    # The entry for answers says nothing more.
    elif "eth_dst" in written:
        protocol = int.from_bytes(equal.get("ip_proto", b""))
        virtual_ip, address = address_text(equal["ip_dst"]), address_text(written["ip_dst"])
        to = mac_text(written["eth_dst"])
        yield LearnConnection(protocol, virtual_ip, address, to, cookie & NUMBER_MASK, idle_s, table)


class _Constants(NamedTuple):
    """Values that an entry to be learned has in its match, and that it writes, by field."""

    equal: dict[str, bytes]
    written: dict[str, bytes]


def _read_specs(data: bytes, at: int) -> _Constants:
    # Each: what it is and how many bits, a value or field, and for a match or load the field that it goes to.
    found = _Constants({}, {})
    while at + 2 <= len(data) and (head := int.from_bytes(data[at : at + 2])):
        bits, is_value, kind = head & 0x7FF, head & 0x2000, head >> 11 & 3
        at += 2
        size = (bits + 15) // 16 * 2 if is_value else 6
        value, at = data[at : at + size], at + size
        if kind == 2:
            # Output has no field to go to.
            continue
        field = read_field_type(data, at)
        at += 6
        if is_value and field is not None:
            found[kind][IP_FIELDS.get(field, field.name)] = value[-field.size :]
    return found

"""Open vSwitch's learn action: entries that the switch makes by itself of a packet, and back.

Layout: lib/ofp-actions.c and lib/learn.c of Open vSwitch.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from socket import inet_aton, inet_ntoa
from typing import NamedTuple

from ryu_apps.openflow.fields import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    IP_PROTO,
    IPV4_DST,
    IPV4_SRC,
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
    ETH_IPV4,
    LEARNED,
    NUMBER_MASK,
    OWNER_SHIFT,
    PROTO_TCP,
    PROTO_UDP,
    Action,
    LearnConnection,
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


class _ConnectionSpecs(NamedTuple):
    """What all learned entries of one protocol have in common, there and back."""

    protocol: bytes
    ports_there: bytes
    ports_back: bytes


@lru_cache(maxsize=8)
def _connection_specs(protocol: int) -> _ConnectionSpecs:
    proto = _is(IP_PROTO, bytes((protocol,))) if protocol else _same(IP_PROTO, IP_PROTO)
    ports = _PORTS.get(protocol, ())
    return _ConnectionSpecs(
        _is(ETH_TYPE, ETH_IPV4.to_bytes(2, "big")) + proto,
        b"".join(_same(port, port) for port in ports),
        b"".join(_same(port, other) for port, other in zip(ports, ports[::-1], strict=True)),
    )


# A value that must be equal, or is written; then where: field and offset
_IS_4, _LOAD_4, _LOAD_6 = b"\x20\x20", b"\x28\x20", b"\x28\x30"
_AT_ETH_SRC, _AT_ETH_DST = ETH_SRC.head + b"\0\0", ETH_DST.head + b"\0\0"
_AT_IPV4_SRC, _AT_IPV4_DST = IPV4_SRC.head + b"\0\0", IPV4_DST.head + b"\0\0"
_SAME_SOURCE, _BACK_TO_SOURCE = _same(IPV4_SRC, IPV4_SRC), _same(IPV4_SRC, IPV4_DST)
_MET_SPECS = _is(ETH_TYPE, ETH_IPV4.to_bytes(2, "big")) + _SAME_SOURCE + _same(IPV4_DST, IPV4_DST)


@lru_cache(maxsize=4096)
def _virtual_mac_bytes(address: str) -> bytes:
    return mac_bytes(virtual_mac(address))


def encode_learn_connection(action: LearnConnection) -> bytes:
    """Two actions: one makes the entry there, one the entry back."""
    specs = _connection_specs(action.protocol)
    virtual_ip, address = inet_aton(action.virtual_ip), inet_aton(action.address)
    there = b"".join((
        specs.protocol, _SAME_SOURCE, _IS_4, virtual_ip, _AT_IPV4_DST, specs.ports_there,
        _LOAD_6, mac_bytes(action.mac), _AT_ETH_DST, _LOAD_4, address, _AT_IPV4_DST,
    ))  # fmt: skip
    back = b"".join((
        specs.protocol, _IS_4, address, _AT_IPV4_SRC, _BACK_TO_SOURCE, specs.ports_back,
        _LOAD_6, _virtual_mac_bytes(action.virtual_ip), _AT_ETH_SRC, _LOAD_4, virtual_ip, _AT_IPV4_SRC,
    ))  # fmt: skip
    size = _LEARN_ACTION.size + len(there)
    size += -size % 8
    head = _LEARN_ACTION.pack(
        _EXPERIMENTER, size, _NICIRA, LEARN2, action.idle_s, 0, _LEARN_PRIORITY[action.protocol],
        LEARNED << OWNER_SHIFT | action.number, _DELETE_LEARNED, action.table,
        FIN_IDLE_S if action.protocol == PROTO_TCP else 0, 0, 2 * MAX_CONNECTIONS,
    )  # fmt: skip
    return (head + there).ljust(size, b"\0") + (head + back).ljust(size, b"\0")


def encode_learn_source(action: LearnSource) -> bytes:
    """The action that makes the entry of a source that was met."""
    size = _LEARN_ACTION.size + len(_MET_SPECS)
    size += -size % 8
    head = _LEARN_ACTION.pack(
        _EXPERIMENTER, size, _NICIRA, LEARN2, 0, action.hold_s, 1, LEARNED << OWNER_SHIFT, 0, action.table, 0, 0,
        MAX_MET,
    )  # fmt: skip
    return (head + _MET_SPECS).ljust(size, b"\0")


def decode_learn(data: bytes) -> Iterator[Action]:
    """What a sound learn action makes; nothing for the second of a connection's two."""
    _, _, _, _, idle_s, hard_s, _, cookie, _, table, *_ = _LEARN_ACTION.unpack_from(data)
    equal, written = _read_specs(data, _LEARN_ACTION.size)
    if not written:
        yield LearnSource(hard_s, table)
    # The entry for answers says nothing more.
    elif "eth_dst" in written:
        protocol = int.from_bytes(equal.get("ip_proto", b""))
        virtual_ip, address = inet_ntoa(equal["ipv4_dst"]), inet_ntoa(written["ipv4_dst"])
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
            found[kind][field.name] = value[-field.size :]
    return found

"""Actions and instructions as bytes and back: OpenFlow 1.3.5, 7.2.4 and 7.2.5, and Open vSwitch's extensions of them.

Layouts of Nicira's actions: include/openflow/nicira-ext.h and lib/ofp-actions.c of Open vSwitch.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from socket import inet_aton, inet_ntoa
from typing import Any, NamedTuple

from ryu_apps.openflow.fields import (
    ARP_OP,
    ARP_SHA,
    ARP_SPA,
    ARP_THA,
    ARP_TPA,
    BUCKET_REGISTER,
    DESTINATION_REGISTER,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    IP_DSCP,
    IP_PROTO,
    IPV4_DST,
    IPV4_SRC,
    LABEL_PRESENT,
    TCP_DST,
    TCP_SRC,
    UDP_DST,
    UDP_SRC,
    VLAN_VID,
    FieldType,
    mac_bytes,
    mac_text,
    read_field,
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
    AnswerArp,
    ChooseDestination,
    LearnConnection,
    LearnSource,
    Output,
    PickBucket,
    PopLabel,
    PushLabel,
    ResubmitTable,
    SetField,
    ToGroup,
    virtual_mac,
)

# A connection that said that it ends is forgotten after so much silence, whoever speaks last.
FIN_IDLE_S = 10
# Connections to one destination that one switch remembers at most. Further ones follow their hash bucket.
MAX_CONNECTIONS = 50_000
MAX_MET = 100_000

# Types of actions and instructions; 7.2.4, 7.2.5
_OUTPUT, _PUSH_VLAN, _POP_VLAN, _GROUP, _SET_FIELD, _EXPERIMENTER = 0, 17, 18, 22, 25, 0xFFFF
_GOTO_TABLE, _APPLY_ACTIONS, _METER = 1, 4, 6
_VLAN_ETHERTYPE = 0x8100
_PORT_IN, _WHOLE_PACKET, _MAX_PART = 0xFFFFFFF8, 0xFFFF, 0xFFE5
_NICIRA = 0x2320
_REG_MOVE, _REG_LOAD, _MULTIPATH, _RESUBMIT_TABLE, _CONNTRACK, _LEARN2 = 6, 7, 10, 14, 35, 45
_NO_TABLE, _CONNTRACK_TABLE_AT = 0xFF, 18
_IN_PORT_16 = 0xFFF8
# Hash of addresses, protocol and ports, the same in both directions (ovs-actions(7): symmetric_l3l4+udp)
_HASH_FIELDS, _HASH_BASIS, _MODULO = 3, 0xF0EA, 0
_DELETE_LEARNED = 2
_LEARN_PRIORITY = {PROTO_TCP: 20, PROTO_UDP: 20, 0: 10}
_PORTS = {PROTO_TCP: (TCP_SRC, TCP_DST), PROTO_UDP: (UDP_SRC, UDP_DST)}

_TYPE_LENGTH = struct.Struct("!HH")
_OUTPUT_ACTION = struct.Struct("!HHIH6x")
_SHORT_ACTION = struct.Struct("!HHI")
_PUSH_ACTION = struct.Struct("!HHH2x")
_NICIRA_HEAD = struct.Struct("!HHIH")
_RESUBMIT_ACTION = struct.Struct("!HHIHHB3x")
_MULTIPATH_ACTION = struct.Struct("!HHIHHH2xHHI2xH4s")
_LOAD_ACTION = struct.Struct("!HHIHH4sQ")
_MOVE_ACTION = struct.Struct("!HHIHHHH4s4s")
# Timeouts, priority, cookie, flags, table, timeouts after FIN, limit
_LEARN_ACTION = struct.Struct("!HHIHHHHQHBxHHI4x")
_GOTO_INSTRUCTION = struct.Struct("!HHB3x")
_ACTIONS_INSTRUCTION = struct.Struct("!HH4x")


def encode_actions(actions: Iterable[Action]) -> bytes:
    """The actions one after the other."""
    return b"".join([_ENCODERS[type(action)](action) for action in actions])


def encode_instructions(actions: tuple[Action, ...], goto: int | None) -> bytes:
    """What a rule does besides its meter: its actions at once, then its next table."""
    parts = encode_actions(actions)
    if actions:
        parts = _ACTIONS_INSTRUCTION.pack(_APPLY_ACTIONS, 8 + len(parts)) + parts
    return parts if goto is None else parts + _GOTO_INSTRUCTION.pack(_GOTO_TABLE, 8, goto)


def encode_meter_instruction(number: int) -> bytes:
    """Sends the packet through a meter first."""
    return _SHORT_ACTION.pack(_METER, 8, number)


def encode_output(port: int, max_bytes: int = _WHOLE_PACKET) -> bytes:
    """Out of a port; of a packet to the controller it gets so many bytes."""
    return _OUTPUT_ACTION.pack(_OUTPUT, 16, port, max_bytes)


def encode_part_output(port: int) -> bytes:
    """Out of a port, as a frame of ours that is sent through a switch leaves it."""
    return encode_output(port, _MAX_PART)


def _encode_set_field(action: SetField) -> bytes:
    return _set_field(_SETTABLE[action.field], action.value)


def _set_field(field: FieldType, value: Any) -> bytes:
    # All of them fit into 16 bytes.
    return (_SET_HEAD + field.head + field.to_bytes(value)).ljust(16, b"\0")


def _encode_answer_arp(action: AnswerArp) -> bytes:
    return b"".join(
        (
            _move(ETH_SRC, ETH_DST),
            _set_field(ETH_SRC, action.mac),
            _set_field(ARP_OP, 2),
            _move(ARP_SHA, ARP_THA),
            _set_field(ARP_SHA, action.mac),
            _move(ARP_SPA, ARP_TPA),
            _set_field(ARP_SPA, action.address),
            encode_part_output(_PORT_IN),
        )
    )


def _move(source: FieldType, to: FieldType) -> bytes:
    return _MOVE_ACTION.pack(_EXPERIMENTER, 24, _NICIRA, _REG_MOVE, 8 * to.size, 0, 0, source.head, to.head)


def _encode_push_label(action: PushLabel) -> bytes:
    return _PUSH_ACTION.pack(_PUSH_VLAN, 8, _VLAN_ETHERTYPE) + _set_field(VLAN_VID, LABEL_PRESENT | action.label)


def _encode_pick_bucket(action: PickBucket) -> bytes:
    # Offset and number of bits less 1 in one field, as Open vSwitch writes them
    bits = action.buckets.bit_length() - 2
    return _MULTIPATH_ACTION.pack(
        _EXPERIMENTER, 32, _NICIRA, _MULTIPATH, _HASH_FIELDS, _HASH_BASIS, _MODULO, action.buckets - 1, 0, bits,
        BUCKET_REGISTER,
    )  # fmt: skip


def _encode_choose(action: ChooseDestination) -> bytes:
    return _LOAD_ACTION.pack(_EXPERIMENTER, 24, _NICIRA, _REG_LOAD, 31, DESTINATION_REGISTER, action.number)


def _encode_resubmit(action: ResubmitTable) -> bytes:
    return _RESUBMIT_ACTION.pack(_EXPERIMENTER, 16, _NICIRA, _RESUBMIT_TABLE, _IN_PORT_16, action.table)


# ---- learn: entries that the switch makes of a packet


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


def _encode_learn_connection(action: LearnConnection) -> bytes:
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
        _EXPERIMENTER, size, _NICIRA, _LEARN2, action.idle_s, 0, _LEARN_PRIORITY[action.protocol],
        LEARNED << OWNER_SHIFT | action.number, _DELETE_LEARNED, action.table,
        FIN_IDLE_S if action.protocol == PROTO_TCP else 0, 0, 2 * MAX_CONNECTIONS,
    )  # fmt: skip
    return (head + there).ljust(size, b"\0") + (head + back).ljust(size, b"\0")


def _encode_learn_source(action: LearnSource) -> bytes:
    size = _LEARN_ACTION.size + len(_MET_SPECS)
    size += -size % 8
    head = _LEARN_ACTION.pack(
        _EXPERIMENTER, size, _NICIRA, _LEARN2, 0, action.hold_s, 1, LEARNED << OWNER_SHIFT, 0, action.table, 0, 0,
        MAX_MET,
    )  # fmt: skip
    return (head + _MET_SPECS).ljust(size, b"\0")


_SETTABLE = {field.name: field for field in (ETH_SRC, ETH_DST, IPV4_SRC, IPV4_DST, IP_DSCP)}
_SET_HEAD = _TYPE_LENGTH.pack(_SET_FIELD, 16)
_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    Output: lambda action: encode_output(action.port),
    ToGroup: lambda action: _SHORT_ACTION.pack(_GROUP, 8, action.number),
    SetField: _encode_set_field,
    AnswerArp: _encode_answer_arp,
    PushLabel: _encode_push_label,
    PopLabel: lambda _action: _SHORT_ACTION.pack(_POP_VLAN, 8, 0),
    ResubmitTable: _encode_resubmit,
    PickBucket: _encode_pick_bucket,
    ChooseDestination: _encode_choose,
    LearnConnection: _encode_learn_connection,
    LearnSource: _encode_learn_source,
}


# ---- back


class Instructions(NamedTuple):
    """What a rule does with a packet."""

    actions: tuple[Action, ...] = ()
    goto: int | None = None
    meter: int | None = None


def decode_instructions(data: bytes, at: int, end: int) -> Instructions:
    """The sound instructions in [at, end); those that no rule of ours has are left out."""
    found = Instructions()
    while at < end:
        kind, length = _TYPE_LENGTH.unpack_from(data, at)
        if kind == _GOTO_TABLE:
            found = found._replace(goto=data[at + 4])
        elif kind == _METER:
            found = found._replace(meter=int.from_bytes(data[at + 4 : at + 8]))
        elif kind == _APPLY_ACTIONS:
            found = found._replace(actions=decode_actions(data, at + 8, at + length))
        at += length
    return found


def decode_actions(data: bytes, at: int, end: int) -> tuple[Action, ...]:
    """The sound actions in [at, end), in order; those that no rule of ours has are left out."""
    actions: list[Action] = []
    # Fields of the answer to an ARP request, which takes eight actions
    answer: dict[str, Any] | None = None
    while at < end:
        kind, length = _TYPE_LENGTH.unpack_from(data, at)
        stop = at + length
        if kind == _EXPERIMENTER and _NICIRA_HEAD.unpack_from(data, at)[2:] == (_NICIRA, _REG_MOVE):
            answer = answer or {}
        elif answer is None:
            actions += _decode_action(kind, data[at:stop])
        elif kind == _SET_FIELD:
            answer |= _set_value(data, at)
        elif kind == _OUTPUT:
            actions.append(AnswerArp(answer["eth_src"], answer["arp_spa"]))
            answer = None
        at = stop
    return tuple(actions)


def _set_value(data: bytes, at: int) -> dict[str, Any]:
    field = read_field(data, at + 4)
    return {} if field.type is None else {field.type.name: field.type.from_bytes(field.value)}


def _decode_action(kind: int, data: bytes) -> Iterator[Action]:
    if kind == _OUTPUT:
        yield Output(_OUTPUT_ACTION.unpack_from(data)[2])
    elif kind == _GROUP:
        yield ToGroup(_SHORT_ACTION.unpack_from(data)[2])
    elif kind == _POP_VLAN:
        yield PopLabel()
    elif kind == _EXPERIMENTER:
        yield from _decode_nicira(data)
    elif kind == _SET_FIELD:
        for name, value in _set_value(data, 0).items():
            if name == VLAN_VID.name:
                yield PushLabel(value & ~LABEL_PRESENT)
            elif name in _SETTABLE:
                yield SetField(name, value)


def _decode_nicira(data: bytes) -> Iterator[Action]:
    _, _, experimenter, subtype = _NICIRA_HEAD.unpack_from(data)
    if experimenter != _NICIRA:
        return
    if subtype == _RESUBMIT_TABLE:
        yield ResubmitTable(_RESUBMIT_ACTION.unpack_from(data)[5])
    elif subtype == _CONNTRACK and data[_CONNTRACK_TABLE_AT] != _NO_TABLE:
        # Nobody's but others': they go on in that table.
        yield ResubmitTable(data[_CONNTRACK_TABLE_AT])
    elif subtype == _MULTIPATH:
        yield PickBucket(_MULTIPATH_ACTION.unpack_from(data)[7] + 1)
    elif subtype == _REG_LOAD:
        _, _, _, _, _, register, number = _LOAD_ACTION.unpack_from(data)
        if register == DESTINATION_REGISTER:
            yield ChooseDestination(number)
    elif subtype == _LEARN2:
        yield from _decode_learn(data)


def _decode_learn(data: bytes) -> Iterator[Action]:
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

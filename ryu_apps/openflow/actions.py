"""Actions and instructions as bytes and back: OpenFlow 1.3.5, 7.2.4 and 7.2.5, and Open vSwitch's extensions of them.

Layouts of Nicira's actions: include/openflow/nicira-ext.h and lib/ofp-actions.c of Open vSwitch.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from cpdb import is_ipv6
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
    ICMPV6_TYPE,
    IP_DSCP,
    IP_FIELDS,
    IPV4_DST,
    IPV4_SRC,
    IPV6_DST,
    IPV6_SRC,
    LABEL_PRESENT,
    ND_FLAGS,
    ND_OPTION,
    ND_TLL,
    SEEN_REGISTER,
    VLAN_VID,
    FieldType,
    read_field,
)
from ryu_apps.openflow.learn import (
    LEARN2,
    decode_learn,
    encode_learn_connection,
    encode_learn_next_hop,
    encode_learn_source,
)
from ryu_apps.rules import (
    Action,
    AnswerArp,
    ChooseDestination,
    LearnConnection,
    LearnNextHop,
    LearnSource,
    NoteSeen,
    NoteUp,
    Output,
    PickBucket,
    PopLabel,
    PushLabel,
    ResubmitTable,
    SetField,
    ToController,
    ToGroup,
)

# Types of actions and instructions; 7.2.4, 7.2.5
_OUTPUT, _PUSH_VLAN, _POP_VLAN, _GROUP, _SET_FIELD, _EXPERIMENTER = 0, 17, 18, 22, 25, 0xFFFF
_GOTO_TABLE, _APPLY_ACTIONS, _METER = 1, 4, 6
_VLAN_ETHERTYPE = 0x8100
_PORT_IN, _WHOLE_PACKET, _MAX_PART = 0xFFFFFFF8, 0xFFFF, 0xFFE5
_NICIRA = 0x2320
_REG_MOVE, _REG_LOAD, _MULTIPATH, _BUNDLE_LOAD, _RESUBMIT_TABLE, _CONTROLLER, _CONNTRACK = 6, 7, 10, 13, 14, 20, 35
_NO_TABLE, _CONNTRACK_TABLE_AT = 0xFF, 18
_IN_PORT_16 = 0xFFF8
# Hash of addresses, protocol and ports, the same in both directions (ovs-actions(7): symmetric_l3l4+udp)
_HASH_FIELDS, _HASH_BASIS, _MODULO = 3, 0xF0EA, 0
_BY_ACTION = 1
# What an advertisement says: RFC 4861, 4.4 and 4.6.1
_OPTION_TARGET, _SOLICITED_OVERRIDE = 2, 3 << 29

_TYPE_LENGTH = struct.Struct("!HH")
_OUTPUT_ACTION = struct.Struct("!HHIH6x")
_SHORT_ACTION = struct.Struct("!HHI")
_PUSH_ACTION = struct.Struct("!HHH2x")
_NICIRA_HEAD = struct.Struct("!HHIH")
_RESUBMIT_ACTION = struct.Struct("!HHIHHB3x")
_MULTIPATH_ACTION = struct.Struct("!HHIHHH2xHHI2xH4s")
# Algorithm (0: the first that is up), fields, basis, kind of members (ports), their number, bits, register
_BUNDLE_ACTION = struct.Struct("!HHIHHHHIHH4s4x")
_LOAD_ACTION = struct.Struct("!HHIHH4sQ")
# Most bytes, id, reason
_CONTROLLER_ACTION = struct.Struct("!HHIHHHBx")
_MOVE_ACTION = struct.Struct("!HHIHHHH4s4s")
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
    field = _SETTABLE[action.field]
    if field in _IPV6_OF and is_ipv6(str(action.value)):
        field = _IPV6_OF[field]
    return _set_field(field, action.value)


def _set_field(field: FieldType, value: Any) -> bytes:
    size = 8 + field.size + -field.size % 8
    return (_TYPE_LENGTH.pack(_SET_FIELD, size) + field.head + field.to_bytes(value)).ljust(size, b"\0")


def _encode_answer(action: AnswerArp) -> bytes:
    if is_ipv6(action.address):
        ends = _move(IPV6_SRC, IPV6_DST), _set_field(IPV6_SRC, action.address), _set_field(ND_OPTION, _OPTION_TARGET)
        says = *ends, _set_field(ND_TLL, action.mac), _set_field(ND_FLAGS, _SOLICITED_OVERRIDE)
    else:
        owner = _set_field(ARP_OP, 2), _move(ARP_SHA, ARP_THA), _set_field(ARP_SHA, action.mac)
        says = *owner, _move(ARP_SPA, ARP_TPA), _set_field(ARP_SPA, action.address)
    back = _move(ETH_SRC, ETH_DST), _set_field(ETH_SRC, action.mac)
    return b"".join((*back, *says, encode_part_output(_PORT_IN)))


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


def _encode_note_up(action: NoteUp) -> bytes:
    count = len(action.ports)
    size = _BUNDLE_ACTION.size + 2 * count + -2 * count % 8
    bits = action.shift << 6 | 15
    head = _BUNDLE_ACTION.pack(_EXPERIMENTER, size, _NICIRA, _BUNDLE_LOAD, 0, 0, 0, 2, count, bits, BUCKET_REGISTER)
    return (head + struct.pack(f"!{count}H", *action.ports)).ljust(size, b"\0")


def _load(register: bytes, number: int) -> bytes:
    return _LOAD_ACTION.pack(_EXPERIMENTER, 24, _NICIRA, _REG_LOAD, 31, register, number)


def _encode_to_controller(action: ToController) -> bytes:
    return _CONTROLLER_ACTION.pack(_EXPERIMENTER, 16, _NICIRA, _CONTROLLER, _WHOLE_PACKET, action.number, _BY_ACTION)


def _encode_resubmit(action: ResubmitTable) -> bytes:
    return _RESUBMIT_ACTION.pack(_EXPERIMENTER, 16, _NICIRA, _RESUBMIT_TABLE, _IN_PORT_16, action.table)


_SET_BY_RULES = ETH_SRC, ETH_DST, IPV4_SRC, IPV4_DST, IP_DSCP, ICMPV6_TYPE
_SETTABLE = {IP_FIELDS.get(field, field.name): field for field in _SET_BY_RULES}
_IPV6_OF = {IPV4_SRC: IPV6_SRC, IPV4_DST: IPV6_DST}
_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    Output: lambda action: encode_output(action.port),
    ToGroup: lambda action: _SHORT_ACTION.pack(_GROUP, 8, action.number),
    SetField: _encode_set_field,
    AnswerArp: _encode_answer,
    PushLabel: _encode_push_label,
    PopLabel: lambda _action: _SHORT_ACTION.pack(_POP_VLAN, 8, 0),
    ResubmitTable: _encode_resubmit,
    PickBucket: _encode_pick_bucket,
    ChooseDestination: lambda action: _load(DESTINATION_REGISTER, action.number),
    NoteUp: _encode_note_up,
    NoteSeen: lambda _action: _load(SEEN_REGISTER, 1),
    ToController: _encode_to_controller,
    LearnConnection: encode_learn_connection,
    LearnSource: encode_learn_source,
    LearnNextHop: encode_learn_next_hop,
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
    # Fields of the answer to an ARP request or a solicitation, which takes eight actions
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
            actions.append(AnswerArp(answer["eth_src"], answer.get("arp_spa") or answer["ip_src"]))
            answer = None
        at = stop
    return tuple(actions)


def _set_value(data: bytes, at: int) -> dict[str, Any]:
    field = read_field(data, at + 4)
    kind = field.type
    return {} if kind is None else {IP_FIELDS.get(kind, kind.name): kind.from_bytes(field.value)}


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
    elif subtype == _BUNDLE_LOAD:
        count, bits = _BUNDLE_ACTION.unpack_from(data)[8:10]
        yield NoteUp(struct.unpack_from(f"!{count}H", data, _BUNDLE_ACTION.size), bits >> 6)
    elif subtype == _REG_LOAD:
        _, _, _, _, _, register, number = _LOAD_ACTION.unpack_from(data)
        if register == DESTINATION_REGISTER:
            yield ChooseDestination(number)
        elif register == SEEN_REGISTER:
            yield NoteSeen()
    elif subtype == _CONTROLLER:
        yield ToController(_CONTROLLER_ACTION.unpack_from(data)[5])
    elif subtype == LEARN2:
        yield from decode_learn(data)

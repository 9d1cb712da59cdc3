"""How the switch's own lookups, hashes and notes look on the wire: Open vSwitch's extensions of OpenFlow 1.3."""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from ryu_apps.framework import parser
from ryu_apps.rules import (
    ETH_IPV4,
    LEARNED,
    NUMBER_MASK,
    OWNER_SHIFT,
    PROTO_TCP,
    PROTO_UDP,
    Action,
    Choose,
    KeepConnection,
    LookInto,
    Match,
    MeetOnce,
    PickSlot,
    Table,
    virtual_mac,
)

SLOT_REGISTER, CHOICE_REGISTER = "reg0", "reg1"
# A connection that said that it ends is forgotten after so much silence, whoever speaks last.
FIN_IDLE_S = 10
# Connections to one destination that one switch remembers at most. Further ones follow their slot.
MOST_CONNECTIONS = 50_000
MOST_MET = 100_000

# Hash of addresses, protocol and ports, the same in both directions (ovs-actions(7): symmetric_l3l4+udp)
_HASH_FIELDS = 3
_MODULO = 0
_BASIS = 0xF0EA
_IN_PORT = 0xFFF8
_DELETE_LEARNED = 2
_KEEP_PRIORITY = {PROTO_TCP: 20, PROTO_UDP: 20, 0: 10}
_PORTS = {PROTO_TCP: ("tcp_src", "tcp_dst"), PROTO_UDP: ("udp_src", "udp_dst")}
Learnt = tuple[dict[str, int], Any]


class Learn(parser.NXActionLearn):
    """The framework's `learn` with a limit (NXAST_LEARN2): how many entries of this cookie there may be."""

    _subtype = 45
    _MORE = struct.Struct("!IHH")
    _AFTER = struct.calcsize(parser.NXActionLearn._fmt_str)

    limit = 0

    @classmethod
    def parser(cls, buf: bytes) -> Any:
        """From the wire."""
        made = super().parser(buf[: cls._AFTER] + buf[cls._AFTER + cls._MORE.size :])
        made.limit = cls._MORE.unpack_from(buf, cls._AFTER)[0]
        return made

    def serialize_body(self) -> bytearray:
        """To the wire."""
        plain = super().serialize_body()
        return bytearray(plain[: self._AFTER] + self._MORE.pack(self.limit, 0, 0) + plain[self._AFTER :])


parser.NXAction.register(Learn)


def register_fields(match: Match) -> dict[str, Any]:
    """What of a match is about ports, slots and choices, as fields of an OFPMatch."""
    fields: dict[str, Any] = {} if match.tcp_dst is None else {"tcp_dst": match.tcp_dst}
    if match.slot is not None:
        fields[SLOT_REGISTER] = match.slot
    if match.chosen is not None:
        fields[CHOICE_REGISTER] = match.chosen
    return fields


def read_register_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse: keywords of a Match."""
    found: dict[str, Any] = {"tcp_dst": fields["tcp_dst"]} if "tcp_dst" in fields else {}
    if SLOT_REGISTER in fields:
        slot = fields[SLOT_REGISTER]
        # A mask of all bits comes back as no mask.
        found["slot"] = tuple(slot) if isinstance(slot, tuple) else (slot, 0xFFFFFFFF)
    if CHOICE_REGISTER in fields:
        found["chosen"] = fields[CHOICE_REGISTER]
    return found


def encode_lookup(action: LookInto | PickSlot | Choose | KeepConnection | MeetOnce) -> list[Any]:
    """The messages of an action."""
    match action:
        case LookInto(table):
            return [parser.NXActionResubmitTable(in_port=_IN_PORT, table_id=table)]
        case PickSlot(slots):
            bits = _bits(slots.bit_length() - 1)
            return [parser.NXActionMultipath(_HASH_FIELDS, _BASIS, _MODULO, slots - 1, 0, bits, SLOT_REGISTER)]
        case Choose(number):
            return [parser.NXActionRegLoad(_bits(32), CHOICE_REGISTER, number)]
        case KeepConnection():
            return [_there(action), _back(action)]
        case MeetOnce(hold_s):
            specs = [
                _is(ETH_IPV4, "eth_type", 16),
                _same("ipv4_src", "ipv4_src", 32),
                _same("ipv4_dst", "ipv4_dst", 32),
            ]
            made = Learn(Table.MEET, specs, 0, hold_s, 1, LEARNED << OWNER_SHIFT)
            made.limit = MOST_MET
            return [made]


def _bits(count: int) -> int:
    # Offset and number of bits less 1 in one field, as Open vSwitch writes them
    return count - 1


def _is(value: int, field: str, bits: int) -> Any:
    return parser.NXFlowSpecMatch(src=value, dst=(field, 0), n_bits=bits)


def _same(source: str, field: str, bits: int) -> Any:
    return parser.NXFlowSpecMatch(src=(source, 0), dst=(field, 0), n_bits=bits)


def _load(value: int, field: str, bits: int) -> Any:
    return parser.NXFlowSpecLoad(src=value, dst=(field, 0), n_bits=bits)


def _number(text: str) -> int:
    """An address or MAC as a number."""
    parts = [int(one, 16) for one in text.split(":")] if ":" in text else [int(one) for one in text.split(".")]
    return int.from_bytes(bytes(parts), "big")


def _address(number: int) -> str:
    return ".".join(str(one) for one in number.to_bytes(4, "big"))


def _there(one: KeepConnection) -> Any:
    ends = [_same("ipv4_src", "ipv4_src", 32), _is(_number(one.virtual_ip), "ipv4_dst", 32)]
    ends += [_same(port, port, 16) for port in _PORTS.get(one.protocol, ())]
    to = [_load(_number(one.mac), "eth_dst", 48), _load(_number(one.address), "ipv4_dst", 32)]
    return _learn(one, [*_protocol(one), *ends, *to])


def _back(one: KeepConnection) -> Any:
    ends = [_is(_number(one.address), "ipv4_src", 32), _same("ipv4_src", "ipv4_dst", 32)]
    ports = _PORTS.get(one.protocol, ())
    ends += [_same(port, other, 16) for port, other in zip(ports, ports[::-1], strict=True)]
    to = [_load(_number(virtual_mac(one.virtual_ip)), "eth_src", 48), _load(_number(one.virtual_ip), "ipv4_src", 32)]
    return _learn(one, [*_protocol(one), *ends, *to])


def _protocol(one: KeepConnection) -> list[Any]:
    is_ip = _is(ETH_IPV4, "eth_type", 16)
    return [is_ip, _is(one.protocol, "ip_proto", 8) if one.protocol else _same("ip_proto", "ip_proto", 8)]


def _learn(one: KeepConnection, specs: list[Any]) -> Any:
    made = Learn(
        Table.AFFINITY,
        specs,
        one.idle_s,
        0,
        _KEEP_PRIORITY[one.protocol],
        LEARNED << OWNER_SHIFT | one.number,
        _DELETE_LEARNED,
        FIN_IDLE_S if one.protocol == PROTO_TCP else 0,
    )
    made.limit = 2 * MOST_CONNECTIONS
    return made


def decode_lookups(messages: Iterable[Any]) -> list[Action]:
    """The actions of this file that the messages make; others are left out."""
    actions: list[Action] = []
    for one in messages:
        if isinstance(one, parser.NXActionResubmitTable):
            actions.append(LookInto(one.table_id))
        elif isinstance(one, parser.NXActionMultipath):
            actions.append(PickSlot(one.max_link + 1))
        elif isinstance(one, parser.NXActionRegLoad) and one.dst == CHOICE_REGISTER:
            actions.append(Choose(one.value))
        elif isinstance(one, Learn):
            actions += _decode_learn(one)
    return actions


def _decode_learn(message: Any) -> list[Action]:
    if message.table_id == Table.MEET:
        return [MeetOnce(message.hard_timeout)]
    constant = {
        (type(spec), spec.dst[0].removesuffix("_nxm")): spec.src for spec in message.specs if isinstance(spec.src, int)
    }
    to = {field: value for (kind, field), value in constant.items() if kind is parser.NXFlowSpecLoad}
    if "eth_dst" not in to:
        # The entry for answers says nothing more.
        return []
    protocol = constant.get((parser.NXFlowSpecMatch, "ip_proto"), 0)
    virtual_ip = _address(constant[parser.NXFlowSpecMatch, "ipv4_dst"])
    mac = to["eth_dst"].to_bytes(6, "big").hex(":")
    number = message.cookie & NUMBER_MASK
    return [KeepConnection(protocol, virtual_ip, _address(to["ipv4_dst"]), mac, number, message.idle_timeout)]

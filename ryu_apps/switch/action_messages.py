"""Actions as OpenFlow 1.3 messages and back, for rules and for the buckets of groups alike."""

from collections.abc import Iterable
from typing import Any

from ryu_apps.framework import ofproto, parser
from ryu_apps.rules import Action, AnswerArp, Output, SetField, Tag, ToGroup, Untag
from ryu_apps.switch.nicira import decode_lookups, encode_lookup
from ryu_apps.switch.vlan import decode_tag, encode_tag


def encode_action(action: Action) -> list[Any]:
    """The messages of one action."""
    match action:
        case Output(port):
            return [parser.OFPActionOutput(port, ofproto.OFPCML_NO_BUFFER)]
        case SetField(field, value):
            return [parser.OFPActionSetField(**{field: value})]
        case AnswerArp(mac, address):
            return _answer_arp(mac, address)
        case Tag() | Untag():
            return encode_tag(action)
        case ToGroup(number):
            return [parser.OFPActionGroup(number)]
        case _:
            return encode_lookup(action)


def _answer_arp(mac: str, address: str) -> list[Any]:
    def move(source: str, to: str, bits: int) -> Any:
        return parser.NXActionRegMove(src_field=source, dst_field=to, n_bits=bits)

    return [
        move("eth_src", "eth_dst", 48),
        parser.OFPActionSetField(eth_src=mac),
        parser.OFPActionSetField(arp_op=2),
        move("arp_sha", "arp_tha", 48),
        parser.OFPActionSetField(arp_sha=mac),
        move("arp_spa", "arp_tpa", 32),
        parser.OFPActionSetField(arp_spa=address),
        parser.OFPActionOutput(ofproto.OFPP_IN_PORT),
    ]


def decode_actions(messages: Iterable[Any]) -> list[Action]:
    """Actions from their messages."""
    actions: list[Action] = []
    fields: dict[str, Any] = {}
    for one in messages:
        if one.type == ofproto.OFPAT_OUTPUT and one.port != ofproto.OFPP_IN_PORT:
            actions.append(Output(one.port))
        elif one.type == ofproto.OFPAT_EXPERIMENTER:
            actions += decode_lookups([one])
        elif one.type == ofproto.OFPAT_GROUP:
            actions.append(ToGroup(one.group_id))
        elif one.type == ofproto.OFPAT_POP_VLAN:
            actions.append(Untag())
        elif one.type == ofproto.OFPAT_SET_FIELD and one.key == "vlan_vid":
            actions.append(decode_tag(one.value))
        elif one.type == ofproto.OFPAT_SET_FIELD:
            fields[one.key] = one.value
    if "arp_spa" in fields:
        return [*actions, AnswerArp(fields["eth_src"], fields["arp_spa"])]
    return [*(SetField(name, value) for name, value in fields.items()), *actions]

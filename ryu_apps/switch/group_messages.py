"""Groups as OpenFlow 1.3 messages and back."""

from typing import Any

from ryu_apps.framework import ofproto, parser
from ryu_apps.rules import Bucket, Group, GroupKind
from ryu_apps.switch.action_messages import decode_actions, encode_action

KINDS = {GroupKind.SELECT: ofproto.OFPGT_SELECT, GroupKind.FAST_FAILOVER: ofproto.OFPGT_FF}


def encode_group(datapath: Any, command: int, group: Group) -> Any:
    """An OFPGroupMod; `command` is one of OFPGC_*."""
    buckets = [_bucket(one, group.kind) for one in group.buckets]
    return parser.OFPGroupMod(datapath, command, KINDS[group.kind], group.number, buckets)


def _bucket(one: Bucket, kind: GroupKind) -> Any:
    watched = ofproto.OFPP_ANY if one.watch_port is None else one.watch_port
    actions = [message for action in one.actions for message in encode_action(action)]
    return parser.OFPBucket(one.weight if kind is GroupKind.SELECT else 0, watched, ofproto.OFPG_ANY, actions)


def forget_group(datapath: Any, number: int) -> Any:
    """An OFPGroupMod that removes a group, and with it the rules that use it."""
    return parser.OFPGroupMod(datapath, ofproto.OFPGC_DELETE, ofproto.OFPGT_FF, number, [])


def decode_group(description: Any) -> Group | None:
    """A group from one entry of a group description reply; None for a type that is never ours."""
    kind = next((ours for ours, theirs in KINDS.items() if theirs == description.type), None)
    if kind is None:
        return None
    buckets = tuple(
        Bucket(
            tuple(decode_actions(one.actions)),
            one.weight if kind is GroupKind.SELECT else 0,
            None if one.watch_port == ofproto.OFPP_ANY else one.watch_port,
        )
        for one in description.buckets
    )
    return Group(description.group_id, kind, buckets)

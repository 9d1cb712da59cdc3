"""How tags look in OpenFlow: a VLAN number of our own range, pushed at the first switch, popped at the last."""

from collections.abc import Mapping
from typing import Any

from cpdb import FIRST_TAG
from ryu_apps.framework import ofproto, parser
from ryu_apps.rules import Match, Tag, Untag

ETH_VLAN = 0x8100
# Whatever has the highest bits of FIRST_TAG is in our range.
_ANY = (ofproto.OFPVID_PRESENT | FIRST_TAG, ofproto.OFPVID_PRESENT | FIRST_TAG)


def tag_fields(match: Match) -> dict[str, Any]:
    """What of a match is about tags, as fields of an OFPMatch."""
    if match.tag is not None:
        return {"vlan_vid": ofproto.OFPVID_PRESENT | match.tag}
    return {"vlan_vid": _ANY} if match.tagged else {}


def read_tag_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse: keywords of a Match."""
    seen = fields.get("vlan_vid")
    if seen is None:
        return {}
    return {"tagged": True} if isinstance(seen, tuple) else {"tag": seen & ~ofproto.OFPVID_PRESENT}


def encode_tag(action: Tag | Untag) -> list[Any]:
    """The messages of an action on tags."""
    if isinstance(action, Untag):
        return [parser.OFPActionPopVlan()]
    return [parser.OFPActionPushVlan(ETH_VLAN), parser.OFPActionSetField(vlan_vid=ofproto.OFPVID_PRESENT | action.tag)]


def decode_tag(number: int) -> Tag:
    """The action whose field was set to this VLAN number."""
    return Tag(number & ~ofproto.OFPVID_PRESENT)

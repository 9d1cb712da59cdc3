"""OpenFlow 1.3 as bytes: what a switch may send, checked to the last length, and statistics read into columns.

The door. Nothing in here knows the controller framework, waits, or reads a clock.
"""

from ryu_apps.openflow.guard import Head, Phase, check, read_head
from ryu_apps.openflow.hello import plain_hello
from ryu_apps.openflow.inbox import Inbox, OpenReplies
from ryu_apps.openflow.malformed import MalformedMessage, Reason
from ryu_apps.openflow.match import match_fields
from ryu_apps.openflow.statistics import (
    Columns,
    FlowColumns,
    GroupColumns,
    MeterColumns,
    PortColumns,
    QueueColumns,
    decode_flow_stats,
    decode_group_stats,
    decode_meter_stats,
    decode_port_stats,
    decode_queue_stats,
)

__all__ = [
    "Columns",
    "FlowColumns",
    "GroupColumns",
    "Head",
    "Inbox",
    "MalformedMessage",
    "MeterColumns",
    "OpenReplies",
    "Phase",
    "PortColumns",
    "QueueColumns",
    "Reason",
    "check",
    "decode_flow_stats",
    "decode_group_stats",
    "decode_meter_stats",
    "decode_port_stats",
    "decode_queue_stats",
    "match_fields",
    "plain_hello",
    "read_head",
]

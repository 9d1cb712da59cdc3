"""OpenFlow 1.3 as bytes: what a switch may send, checked to the last length, statistics read into columns, and the one
codec of our own rules, meters and groups.

The door. Nothing in here knows the controller framework, waits, or reads a clock.
"""

from ryu_apps.openflow.actions import decode_actions, encode_actions
from ryu_apps.openflow.fields import decode_match, describe_match, encode_match, mac_bytes, read_match
from ryu_apps.openflow.guard import Head, Inbox, OpenReplies, Phase, check, plain_hello, read_head
from ryu_apps.openflow.messages import (
    ALL_TABLES,
    EntryFilter,
    MultipartKind,
    WireEntry,
    decode_entries,
    decode_groups,
    decode_meters,
    decode_rules,
    encode_barrier,
    encode_change,
    encode_controller_id,
    encode_packet_out,
    encode_request,
    encode_resubmit,
    has_failover,
    max_meters,
)
from ryu_apps.openflow.statistics import (
    FlowColumns,
    GroupColumns,
    MeterColumns,
    PortColumns,
    QueueColumns,
    StatisticsColumns,
    decode_flow_stats,
    decode_group_stats,
    decode_meter_stats,
    decode_port_stats,
    decode_queue_stats,
)
from ryu_apps.openflow.walks import MalformedMessage, MalformedReason, match_fields

__all__ = [
    "ALL_TABLES",
    "EntryFilter",
    "FlowColumns",
    "GroupColumns",
    "Head",
    "Inbox",
    "MalformedMessage",
    "MalformedReason",
    "MeterColumns",
    "MultipartKind",
    "OpenReplies",
    "Phase",
    "PortColumns",
    "QueueColumns",
    "StatisticsColumns",
    "WireEntry",
    "check",
    "decode_actions",
    "decode_entries",
    "decode_flow_stats",
    "decode_group_stats",
    "decode_groups",
    "decode_match",
    "decode_meter_stats",
    "decode_meters",
    "decode_port_stats",
    "decode_queue_stats",
    "decode_rules",
    "describe_match",
    "encode_actions",
    "encode_barrier",
    "encode_change",
    "encode_controller_id",
    "encode_match",
    "encode_packet_out",
    "encode_request",
    "encode_resubmit",
    "has_failover",
    "mac_bytes",
    "match_fields",
    "max_meters",
    "plain_hello",
    "read_head",
    "read_match",
]

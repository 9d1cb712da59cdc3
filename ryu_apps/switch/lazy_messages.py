"""Checked bytes as the framework's messages, of which only what somebody looks at is decoded."""

import struct
from typing import Any

from ryu_apps.framework import ofproto, parser
from ryu_apps.openflow import StatisticsColumns, decode_flow_stats, plain_hello, read_head

_HEADER_BYTES = ofproto.OFP_MULTIPART_REPLY_SIZE
_OWN_ERROR = struct.pack("!H", ofproto.OFPET_EXPERIMENTER)
_FLOW_HEAD = struct.Struct("!HBxIIHHHH4xQQQ").unpack_from


class LazyFlowStats:
    """One flow entry of a statistics reply: counters at once, match and instructions only when asked for."""

    def __init__(self, buf: bytes, offset: int) -> None:
        self._buf, self._offset, self._decoded = buf, offset, None
        (
            self.length,
            self.table_id,
            self.duration_sec,
            self.duration_nsec,
            self.priority,
            self.idle_timeout,
            self.hard_timeout,
            self.flags,
            self.cookie,
            self.packet_count,
            self.byte_count,
        ) = _FLOW_HEAD(buf, offset)

    @classmethod
    def parser(cls, buf: bytes, offset: int) -> "LazyFlowStats":
        """The framework's hook."""
        return cls(buf, offset)

    def _full(self) -> Any:
        if self._decoded is None:
            self._decoded = parser.OFPFlowStats.parser(self._buf, self._offset)
        return self._decoded

    @property
    def match(self) -> Any:
        """The decoded match."""
        return self._full().match

    @property
    def instructions(self) -> Any:
        """The decoded instructions."""
        return self._full().instructions


class _Lazy:
    """What a lazy reply has besides the framework's own class, which it also is.

    `columns` holds the decoded statistics; `body` makes the framework's objects at the first look.
    """

    buf: bytes
    columns: StatisticsColumns | None
    entry: Any
    single: bool
    _body: Any = None

    @property
    def body(self) -> Any:
        """The entries as the framework's objects."""
        if self._body is None:
            self._body = self._decode()
        return self._body

    @body.setter
    def body(self, value: Any) -> None:
        self._body = value

    def _decode(self) -> Any:
        if self.single:
            return self.entry.parser(self.buf, _HEADER_BYTES)
        found, at = [], _HEADER_BYTES
        while at < len(self.buf):
            one = self.entry.parser(self.buf, at)
            found.append(one)
            at += one.length if hasattr(one, "length") else one.len
        return found

    def matches(self) -> list[bytes]:
        """The match of each flow entry as sent, in order; for flow statistics only."""
        return decode_flow_stats(self.buf[_HEADER_BYTES:], matches=True).matches


def _lazy(kind: Any, entry: Any = None, single: bool = False) -> Any:
    # Events are found by the name of the message's class.
    more = {"entry": entry or kind.cls_stats_body_cls, "single": single, "__module__": kind.__module__}
    return type(kind.__name__, (_Lazy, kind), more)


_LAZY = {
    ofproto.OFPMP_FLOW: _lazy(parser.OFPFlowStatsReply, LazyFlowStats),
    ofproto.OFPMP_PORT_STATS: _lazy(parser.OFPPortStatsReply),
    ofproto.OFPMP_TABLE: _lazy(parser.OFPTableStatsReply),
    ofproto.OFPMP_TABLE_FEATURES: _lazy(parser.OFPTableFeaturesStatsReply),
    ofproto.OFPMP_QUEUE: _lazy(parser.OFPQueueStatsReply),
    ofproto.OFPMP_GROUP: _lazy(parser.OFPGroupStatsReply),
    ofproto.OFPMP_METER: _lazy(parser.OFPMeterStatsReply),
    ofproto.OFPMP_METER_CONFIG: _lazy(parser.OFPMeterConfigStatsReply),
    ofproto.OFPMP_GROUP_DESC: _lazy(parser.OFPGroupDescStatsReply),
    # The framework's own way copies what is left of such a reply for every 16 bytes of it.
    ofproto.OFPMP_EXPERIMENTER: _lazy(parser.OFPExperimenterStatsReply, single=True),
}


def _own_error(datapath: Any, data: bytes, head: Any) -> Any:
    # The framework has a class for such errors but no event: they would never arrive anywhere.
    number, experimenter = struct.unpack_from("!HI", data, 10)
    message = parser.OFPErrorMsg(datapath, ofproto.OFPET_EXPERIMENTER, number, data[16:])
    message.experimenter = experimenter
    message.set_headers(head.version, head.kind, len(data), head.xid)
    message.set_buf(data)
    return message


def message_of(datapath: Any, data: bytes, columns: StatisticsColumns | None) -> Any:
    """The framework's message for checked bytes; `columns` is what the check decoded.

    Raises MalformedMessage for a kind that the framework does not know; its parsers raise what they like.
    """
    head = read_head(data)
    if head.kind == ofproto.OFPT_HELLO:
        data = plain_hello(data)
    elif head.kind == ofproto.OFPT_MULTIPART_REPLY:
        kind, flags = struct.unpack_from("!HH", data, 8)
        if kind in _LAZY:
            message = parser.MsgBase.parser.__func__(_LAZY[kind], datapath, *head, data)
            message.type, message.flags, message.columns = kind, flags, columns
            return message
    elif head.kind == ofproto.OFPT_ERROR and data[8:10] == _OWN_ERROR:
        return _own_error(datapath, data, head)
    return parser._MSG_PARSERS[head.kind](datapath, head.version, head.kind, len(data), head.xid, data)

"""Sends to one switch: the one place where messages leave, without anybody ever waiting for the switch."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import structlog

from ryu_apps.effects import Change
from ryu_apps.framework import kill, ofproto, parser, spawn, unbounded_queue
from ryu_apps.rules import Action
from ryu_apps.switch.asked import Asked
from ryu_apps.switch.datapath import encode_change
from ryu_apps.switch.packing import pack
from ryu_apps.switch.templates import by_framework, from_template

Seconds = float

_MOST_BYTES = 64 << 20
_log = structlog.get_logger("ryu_apps.switch.wire")


_known = lru_cache(maxsize=4096)(by_framework)


def pack_instructions(actions: tuple[Action, ...], goto: int | None) -> bytes:
    """The bytes of what a rule does besides its meter, made by the framework once and used again."""
    return from_template(actions, goto) or _known(actions, goto)


class _Number:
    """Takes a transaction number as a message of the framework would."""

    xid = 0

    def set_xid(self, xid: int) -> None:
        """The framework's hook."""
        self.xid = xid


class Wire:
    """A queue and a green thread of its own that drains it. `asked` knows what was sent besides changes."""

    def __init__(self, datapath: Any, most_bytes: int = _MOST_BYTES) -> None:
        self.dpid: int = datapath.id
        self.asked = Asked()
        self._datapath = datapath
        self._queue = unbounded_queue()
        self._waiting_bytes = 0
        self._most_bytes = most_bytes
        self._thread = spawn(self._drain)

    def _drain(self) -> None:
        while True:
            data = self._queue.get()
            self._datapath.send(data)
            self._waiting_bytes -= len(data)

    def serves(self, datapath: Any) -> bool:
        """Whether this is the wire of that connection."""
        return self._datapath is datapath

    def close(self) -> None:
        """Stops sending; what is still queued is lost with the connection."""
        kill(self._thread)

    def _put(self, data: bytes) -> None:
        if self._waiting_bytes > self._most_bytes:
            _log.warning("switch does not read, connection closed", dpid=self.dpid, queued_bytes=self._waiting_bytes)
            self._datapath.close()
        self._waiting_bytes += len(data)
        self._queue.put(data)

    def _send(self, message: Any, about: str) -> int:
        xid: int = self._datapath.set_xid(message)
        message.serialize()
        self._put(bytes(message.buf))
        self.asked.note(xid, about)
        return xid

    def change(self, change: Change, now: Seconds) -> int:
        """Sends one change, returns its transaction number."""
        return self.changes((change,), now)[0]

    def changes(self, changes: Sequence[Change], now: Seconds) -> list[int]:
        """Sends changes in one piece and in this order; returns their transaction numbers."""
        parts, numbers = [], []
        for change in changes:
            xid = self._datapath.set_xid(_Number())
            parts.append(pack(change, now, xid, pack_instructions) or self._by_framework(change, now, xid))
            numbers.append(xid)
        self._put(b"".join(parts))
        return numbers

    def _by_framework(self, change: Change, now: Seconds, xid: int) -> bytes:
        message = encode_change(self._datapath, change, now)
        message.set_xid(xid)
        message.serialize()
        return bytes(message.buf)

    def barrier(self) -> int:
        """Asks to be told when everything so far is done."""
        return self._send(parser.OFPBarrierRequest(self._datapath), "barrier")

    def out(self, ports: Iterable[int], data: bytes) -> None:
        """Sends a frame out of ports."""
        actions = [parser.OFPActionOutput(port) for port in ports]
        self._packet_out(ofproto.OFPP_CONTROLLER, actions, data)

    def resubmit(self, port: int, data: bytes) -> None:
        """Puts a frame through the switch's tables as if it had just come in at `port`: it is counted there."""
        self._packet_out(port, [parser.OFPActionOutput(ofproto.OFPP_TABLE)], data)

    def _packet_out(self, port: int, actions: list[Any], data: bytes) -> None:
        message = parser.OFPPacketOut(
            self._datapath, buffer_id=ofproto.OFP_NO_BUFFER, in_port=port, actions=actions, data=data
        )
        self._send(message, "packet out")

    def ask_rules(self, cookie: int = 0, mask: int = 0, table: int = ofproto.OFPTT_ALL) -> int:
        """Asks for flow statistics, restricted by cookie and table."""
        message = parser.OFPFlowStatsRequest(
            self._datapath, 0, table, ofproto.OFPP_ANY, ofproto.OFPG_ANY, cookie, mask, parser.OFPMatch()
        )
        return self._send(message, "flow statistics")

    def ask_count(self, cookie: int, mask: int, table: int) -> int:
        """Asks how many entries there are with a cookie."""
        message = parser.OFPAggregateStatsRequest(
            self._datapath, 0, table, ofproto.OFPP_ANY, ofproto.OFPG_ANY, cookie, mask, parser.OFPMatch()
        )
        return self._send(message, "aggregate statistics")

    def ask_ports(self) -> int:
        """Asks for the counters of all ports."""
        return self._send(parser.OFPPortStatsRequest(self._datapath, 0, ofproto.OFPP_ANY), "port statistics")

    def ask_meters(self) -> tuple[int, int]:
        """Asks what meters the switch can have, and which it has."""
        return (
            self._send(parser.OFPMeterFeaturesStatsRequest(self._datapath, 0), "meter features"),
            self._send(parser.OFPMeterConfigStatsRequest(self._datapath, 0, ofproto.OFPM_ALL), "meters"),
        )

    def ask_groups(self) -> tuple[int, int]:
        """Asks what groups the switch can have, and which it has."""
        return (
            self._send(parser.OFPGroupFeaturesStatsRequest(self._datapath, 0), "group features"),
            self._send(parser.OFPGroupDescStatsRequest(self._datapath, 0), "groups"),
        )

"""Sends to one switch: the one place where messages leave, without anybody ever waiting for the switch."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from ryu_apps.effects import Change
from ryu_apps.framework import kill, spawn, unbounded_queue
from ryu_apps.openflow import (
    ALL_TABLES,
    ControllerRole,
    EntryFilter,
    MultipartKind,
    encode_barrier,
    encode_change,
    encode_controller_id,
    encode_packet_out,
    encode_request,
    encode_resubmit,
    encode_role,
)
from ryu_apps.tables import TablePlaces

Seconds = float

_MAX_BYTES = 64 << 20
# Answered or not, what is older than so many requests is no longer refused.
_MAX_REQUESTS = 8192
_log = structlog.get_logger("ryu_apps.switch.wire")
_REQUESTS = {
    MultipartKind.FLOWS: "flow statistics",
    MultipartKind.AGGREGATE: "aggregate statistics",
    MultipartKind.TABLES: "tables",
    MultipartKind.TABLE_FEATURES: "table features",
    MultipartKind.PORTS: "port statistics",
    MultipartKind.GROUPS: "groups",
    MultipartKind.GROUP_FEATURES: "group features",
    MultipartKind.METERS: "meters",
    MultipartKind.METER_FEATURES: "meter features",
}


class SentRequests:
    """The latest requests that are no changes, by transaction number: a switch that refuses names no more than that."""

    def __init__(self) -> None:
        self._about: OrderedDict[int, str] = OrderedDict()

    def note(self, xid: int, about: str) -> None:
        """Remembers a request."""
        self._about[xid] = about
        if len(self._about) > _MAX_REQUESTS:
            self._about.popitem(last=False)

    def take(self, xid: int) -> str | None:
        """What that request was; None for one that was never sent, or told before."""
        return self._about.pop(xid, None)


class _Number:
    """Takes a transaction number as a message of the framework would."""

    def set_xid(self, xid: int) -> None:
        """The framework's hook."""


class Wire:
    """A queue and a green thread of its own that drains it. `requests` knows what was sent besides changes.

    Tables are told by our own numbers; `places` says where they are on the switch.
    """

    def __init__(self, datapath: Any, places: TablePlaces = TablePlaces(), max_bytes: int = _MAX_BYTES) -> None:
        self.dpid: int = datapath.id
        self.places = places
        self.requests = SentRequests()
        self.datapath = datapath
        self._queue = unbounded_queue()
        self._waiting_bytes = 0
        self._max_bytes = max_bytes
        self._thread = spawn(self._drain)
        if places.controller_id is not None:
            # Packets with this number come to this controller alone.
            xid = self._next_xid()
            self._send(xid, encode_controller_id(places.controller_id, xid), "controller id")

    def _drain(self) -> None:
        while True:
            data = self._queue.get()
            self.datapath.send(data)
            self._waiting_bytes -= len(data)

    def serves(self, datapath: Any) -> bool:
        """Whether this is the wire of that connection."""
        return self.datapath is datapath

    def close(self) -> None:
        """Stops sending; what is still queued is lost with the connection."""
        kill(self._thread)

    def _next_xid(self) -> int:
        xid: int = self.datapath.set_xid(_Number())
        return xid

    def _put(self, data: bytes) -> None:
        if self._waiting_bytes > self._max_bytes:
            _log.warning("switch does not read, connection closed", dpid=self.dpid, queued_bytes=self._waiting_bytes)
            self.datapath.close()
        self._waiting_bytes += len(data)
        self._queue.put(data)

    def _send(self, xid: int, data: bytes, about: str) -> int:
        self._put(data)
        self.requests.note(xid, about)
        return xid

    def changes(self, changes: Sequence[Change], now: Seconds) -> list[int]:
        """Sends changes in one piece and in this order; returns their transaction numbers."""
        numbers = [self._next_xid() for _ in changes]
        sent = [self.places.sent(change) for change in changes]
        self._put(b"".join([encode_change(change, now, xid) for change, xid in zip(sent, numbers, strict=True)]))
        return numbers

    def barrier(self) -> int:
        """Asks to be told when everything so far is done."""
        xid = self._next_xid()
        return self._send(xid, encode_barrier(xid), "barrier")

    def ask_role(self, role: ControllerRole, generation: int) -> int:
        """Asks to be the switch's master or slave from now on, as of a generation of masters."""
        xid = self._next_xid()
        return self._send(xid, encode_role(role, generation, xid), f"role {role.name.lower()}")

    def out(self, ports: Iterable[int], data: bytes) -> None:
        """Sends a frame out of ports."""
        xid = self._next_xid()
        self._send(xid, encode_packet_out(ports, data, xid), "packet out")

    def resubmit(self, port: int, data: bytes) -> None:
        """Puts a frame through the switch's tables as if it had just come in at `port`: it is counted there."""
        xid = self._next_xid()
        self._send(xid, encode_resubmit(port, data, xid), "packet out")

    def request(self, kind: MultipartKind, flows: EntryFilter = EntryFilter()) -> int:
        """Asks for everything of a kind; of flow entries for those that pass the filter."""
        xid = self._next_xid()
        if flows.table != ALL_TABLES:
            flows = flows._replace(table=flows.table + self.places.first_table)
        return self._send(xid, encode_request(kind, xid, flows), _REQUESTS[kind])

    def ask_rules(self, cookie: int = 0, mask: int = 0, table: int = ALL_TABLES) -> int:
        """Asks for flow statistics, restricted by cookie and table."""
        return self.request(MultipartKind.FLOWS, EntryFilter(cookie, mask, table))

    def ask_count(self, cookie: int, mask: int, table: int) -> int:
        """Asks how many entries there are with a cookie."""
        return self.request(MultipartKind.AGGREGATE, EntryFilter(cookie, mask, table))

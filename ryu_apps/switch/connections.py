"""Serves the connections of switches: each message is checked before the framework sees it, each peer is bounded."""

import contextlib
import os
import ssl
import struct
import sys
import time
from collections import Counter
from socket import SHUT_RDWR, SHUT_WR
from typing import Any

import structlog

from ryu_apps.framework import (
    CONFIG_DISPATCHER,
    DEAD_DISPATCHER,
    HANDSHAKE_DISPATCHER,
    MAIN_DISPATCHER,
    exclusive_listen,
    hub,
    ofp_event,
    ofproto,
    parser,
    stock,
)
from ryu_apps.openflow import (
    Inbox,
    MalformedMessage,
    OpenReplies,
    Phase,
    StatisticsColumns,
    check,
    decode_flow_stats,
    plain_hello,
    read_head,
)
from ryu_apps.settings import ConnectionsSection, cannot_listen
from ryu_apps.switch.errors import refusals

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


Seconds = float

_log = structlog.get_logger("ryu_apps.switch.connections")
_PHASES = {
    HANDSHAKE_DISPATCHER: Phase.HELLO,
    CONFIG_DISPATCHER: Phase.FEATURES,
    MAIN_DISPATCHER: Phase.OPEN,
}
_READ_BYTES = 65536
# No connection keeps the loop longer than this and one message.
_TURN_S = 0.005
_WATCH_EVERY_S = 1.0
_TLS_HANDSHAKE_S = 5.0
_ACCEPT_AGAIN_S = 0.2
# A connection is asked for an echo after so much silence, and taken to live as long as the last word is not older.
ECHO_AFTER_S, LIVES_S = 1.0, 3.5
# As for a wrong setting
EXIT_UNHEARD = 2


def overdue(phase: Phase, bounds: ConnectionsSection, connected_s: Seconds, silent_s: Seconds) -> str | None:
    """Why a connection of this age, silent for so long, should be closed; None while it should not."""
    if phase is not Phase.OPEN and connected_s > bounds.handshake_s:
        return f"no {phase.name.lower()} within {bounds.handshake_s:g} s"
    if silent_s > bounds.silent_s:
        return f"silent for {bounds.silent_s:g} s"
    return None


def _refuse(reason: str, peer: Any, text: str, dpid: int | None = None) -> None:
    untold = refusals.add(reason, time.monotonic())
    if untold is not None:
        more = {"not_logged": untold} if untold else {}
        name = None if dpid is None else f"{dpid:016x}"
        _log.warning("connection refused", reason=reason, peer=str(peer), dpid=name, why=text, **more)


class GuardedDatapath(stock.Datapath):
    """The framework's connection with its receiving half replaced, and its echo loop by one that also closes."""

    bounds = ConnectionsSection()

    def __init__(self, socket: Any, address: Any) -> None:
        super().__init__(socket, address)
        self._since = self._heard = self._turn = time.monotonic()
        self._replies = OpenReplies(self.bounds.max_reply_bytes)

    def _recv_loop(self) -> None:
        inbox = Inbox()
        try:
            while self.state != DEAD_DISPATCHER:
                data = self._receive()
                if data == b"":
                    break
                for message in inbox.feed(data or b""):
                    self._take(message)
        except MalformedMessage as error:
            _refuse(error.reason, self.address, str(error), self.id)
        finally:
            self.close()
            self._hang_up()

    def _receive(self) -> bytes | None:
        # What came; nothing at the end of the connection; None when there was no news for a while.
        try:
            data: bytes = self.socket.recv(_READ_BYTES)
        except TimeoutError:
            return None
        except ssl.SSLError as error:
            # On TLS a timeout looks like this, and everything else is final.
            return None if "timed out" in str(error) else b""
        except (EOFError, OSError):
            return b""
        return data

    def _take(self, data: bytes) -> None:
        if self.state == DEAD_DISPATCHER:
            return
        columns = check(data, _PHASES[self.state])
        self._replies.note(data)
        self._heard = time.monotonic()
        try:
            self._tell(message_of(self, data, columns))
        except Exception as error:  # noqa: BLE001
            # Sound lengths, but something that the framework or a handshake cannot read: that message is left out.
            self._cannot_read(data, error)
        if time.monotonic() - self._turn > _TURN_S:
            hub.sleep(0)
            self._turn = time.monotonic()

    def _tell(self, message: Any) -> None:
        event = ofp_event.ofp_msg_to_ev(message)
        self.ofp_brick.send_event_to_observers(event, self.state)
        for handler in self.ofp_brick.get_handlers(event):
            if self.state in handler.callers[type(event)].dispatchers:
                handler(event)

    def _cannot_read(self, data: bytes, error: Exception) -> None:
        untold = refusals.add("unreadable", time.monotonic())
        if untold is not None:
            _log.warning(
                "message left out", peer=str(self.address), type=data[1], bytes=len(data), why=repr(error)[:200]
            )

    def _hang_up(self) -> None:
        try:
            self.socket.shutdown(SHUT_WR)
        except OSError:
            pass
        self.socket.close()

    def _echo_request_loop(self) -> None:
        while self.state != DEAD_DISPATCHER:
            hub.sleep(_WATCH_EVERY_S)
            now = time.monotonic()
            phase, silent_s = _PHASES.get(self.state), now - self._heard
            if phase is None:
                return
            late = overdue(phase, self.bounds, now - self._since, silent_s)
            if late:
                _refuse("overdue", self.address, late, self.id)
                self._cut()
            elif phase is Phase.OPEN and silent_s > ECHO_AFTER_S:
                self.send_msg(parser.OFPEchoRequest(self))

    def lives(self) -> bool:
        """Whether the switch has said anything lately; it is asked to every second in which it does not."""
        return self.state != DEAD_DISPATCHER and time.monotonic() - self._heard < LIVES_S

    def refuse_twin(self) -> None:
        """Ends this connection: another switch has its number."""
        refusals.add("one dpid twice", time.monotonic())
        self._cut()

    def _cut(self) -> None:
        # The receiving half waits in recv: it wakes up when nothing can come any more.
        self.close()
        try:
            self.socket.shutdown(SHUT_RDWR)
        except OSError:
            pass


class GuardedServer(hub.StreamServer):
    """Accepts connections, but only so many from one address, and for ever."""

    bounds = ConnectionsSection()

    def __init__(self, listen_info: Any, handle: Any, **tls: Any) -> None:
        try:
            # The framework would share the port with any other that shares it, and each would get some switches.
            self.server = exclusive_listen(listen_info[0], listen_info[1])
        except OSError as error:
            # In a green thread of the framework, where raising ends nobody.
            sys.stderr.write(f"ryu-manager: {cannot_listen(listen_info[0], listen_info[1], error)}\n")
            sys.stderr.flush()
            os._exit(EXIT_UNHEARD)
        self.handle = handle
        self._connected: Counter[str] = Counter()
        self._context = _tls_context(tls) if tls else None

    def serve_forever(self) -> None:
        """Accepts until the process ends; running out of file descriptors is waited out."""
        while True:
            try:
                sock, address = self.server.accept()
            except OSError as error:
                _refuse("accept", "-", str(error))
                hub.sleep(_ACCEPT_AGAIN_S)
                continue
            self._admit(sock, address)

    def _admit(self, sock: Any, address: Any) -> None:
        host = str(address[0]) if address else "local"
        if self._connected[host] >= self.bounds.max_connections:
            _refuse("connections", address, f"{self._connected[host]} connections from {host} are open")
            sock.close()
            return
        self._connected[host] += 1
        hub.spawn(self._serve, sock, address, host)

    def _serve(self, sock: Any, address: Any, host: str) -> None:
        try:
            if self._context is not None:
                sock.settimeout(_TLS_HANDSHAKE_S)
                sock = self._context.wrap_socket(sock, server_side=True)
            self.handle(sock, address)
        except OSError as error:
            _refuse("socket", address, str(error))
        finally:
            sock.close()
            self._connected[host] -= 1
            if not self._connected[host]:
                del self._connected[host]


def serve(sock: Any, address: Any) -> None:
    """Serves one connection until it ends."""
    with contextlib.closing(GuardedDatapath(sock, address)) as datapath:
        datapath.serve()


def _tls_context(tls: dict[str, Any]) -> Any:
    # The framework hands out its arguments to the first connection only: one context for all instead.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls["certfile"], tls["keyfile"])
    if tls.get("ca_certs"):
        context.load_verify_locations(tls["ca_certs"])
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def harden(bounds: ConnectionsSection) -> None:
    """Puts the guard before the framework. Before the first switch connects; safe to call twice."""
    GuardedDatapath.bounds = GuardedServer.bounds = bounds
    stock.datapath_connection_factory = serve
    stock.StreamServer = GuardedServer

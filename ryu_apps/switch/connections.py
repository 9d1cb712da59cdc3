"""Serves the connections of switches: each message is checked before the framework sees it, each peer is bounded."""

import contextlib
import ssl
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
    hub,
    ofp_event,
    parser,
    stock,
)
from ryu_apps.openflow import Inbox, MalformedMessage, OpenReplies, Phase, check
from ryu_apps.settings import ConnectionsSection
from ryu_apps.switch.refusals import refusals
from ryu_apps.switch.replies import message_of

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
            elif phase is Phase.OPEN and silent_s > self.bounds.silent_s / 3:
                self.send_msg(parser.OFPEchoRequest(self))

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
        super().__init__(listen_info, handle)
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

"""Serves the connections of switches: each message is checked before the framework sees it, each peer is bounded."""

import contextlib
import os
import ssl
import sys
import time
from collections import Counter
from socket import SHUT_RDWR, SHUT_WR
from typing import Any

import structlog

from cpdb import SettingsError
from ryu_apps.effects import Alert
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
from ryu_apps.openflow import Inbox, MalformedMessage, OpenReplies, Phase, check, frame_origin, offered_versions
from ryu_apps.pacing import RateLimiter
from ryu_apps.settings import ConnectionsSection, cannot_listen
from ryu_apps.switch.errors import other_version, refusals
from ryu_apps.switch.flood_gate import FloodGate
from ryu_apps.switch.lazy_messages import message_of
from ryu_apps.tls import LiveContext, Stranger, SwitchTrust, TlsFiles, read_peer, told_of

Seconds = float

_log = structlog.get_logger("ryu_apps.switch.connections")
_PHASES = {HANDSHAKE_DISPATCHER: Phase.HELLO, CONFIG_DISPATCHER: Phase.FEATURES, MAIN_DISPATCHER: Phase.OPEN}
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
STRANGER, FLOOD = "stranger", "flood"
_FLOOD_TOLD_S = 5.0


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


def _turn_away(stranger: Stranger, peer: Any) -> None:
    _refuse(stranger.reason, peer, str(stranger))
    host = str(peer[0]) if peer else "local"
    refusals.strangers.append(Alert(STRANGER, stranger.reason, host, f"a peer at {host} was turned away: {stranger}"))


def _give_up(line: str) -> None:
    # In a green thread of the framework, where raising ends nobody.
    sys.stderr.write(f"ryu-manager: {line}\n")
    sys.stderr.flush()
    os._exit(EXIT_UNHEARD)


class GuardedDatapath(stock.Datapath):
    """The framework's connection with its receiving half replaced, and its echo loop by one that also closes."""

    bounds, trust = ConnectionsSection(), SwitchTrust()

    def __init__(self, socket: Any, address: Any) -> None:
        super().__init__(socket, address)
        self._since = self._heard = self._turn = time.monotonic()
        self._replies = OpenReplies(self.bounds.max_reply_bytes)
        self.gate, self._floods = FloodGate(), RateLimiter()

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
        except Stranger as error:
            _turn_away(error, self.address)
        finally:
            self.trust.live.pop(self, None)
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
        if data[1] == ofproto.OFPT_PACKET_IN and not self._may_tell(data):
            return
        columns = check(data, _PHASES[self.state])
        if data[1] == ofproto.OFPT_HELLO and ofproto.OFP_VERSION not in offered_versions(data):
            # The framework says no by itself, and hangs up.
            refusals.strangers.append(other_version(str(self.address[0]), offered_versions(data)))
        if data[1] == ofproto.OFPT_FEATURES_REPLY:
            self._admit(int.from_bytes(data[8:16]))
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

    def _may_tell(self, data: bytes) -> bool:
        # Before anything is decoded: the flood of one port must cost no more than this, and no other port its turn.
        port, is_lldp = frame_origin(data)
        now = time.monotonic()
        self._heard = now
        if self.gate.admits(port, is_lldp, self.bounds.port_packets_per_s, now):
            return True
        refusals.counts[FLOOD] += 1
        if self._floods.due(port, _FLOOD_TOLD_S, now) and self.id is not None:
            where = f"dpid:{self.id:016x}:{port}"
            detail = f"port {port} sends more than {self.bounds.port_packets_per_s:g} frames a second to the controller"
            refusals.strangers.append(Alert("packet_flood", where, f"dpid:{self.id:016x}", detail))
        return False

    def _admit(self, dpid: int) -> None:
        shown = getattr(self.socket, "getpeercert", None)
        peer = read_peer(shown() if shown else None)
        self.trust.admit(peer, dpid)
        if peer is not None:
            self.trust.live[self] = peer

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
            self.gate.release(now)
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

    def refuse_revoked(self) -> None:
        """Ends this connection: its certificate counts no more."""
        _turn_away(Stranger("certificate revoked", "its certificate has been revoked"), self.address)
        self._cut()

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

    bounds, trust = ConnectionsSection(), SwitchTrust()

    def __init__(self, listen_info: Any, handle: Any, **tls: Any) -> None:
        try:
            # The framework would share the port with any other that shares it, and each would get some switches.
            self.server = exclusive_listen(listen_info[0], listen_info[1])
        except OSError as error:
            _give_up(cannot_listen(listen_info[0], listen_info[1], error))
        self.handle = handle
        self._connected: Counter[str] = Counter()
        self._tls: LiveContext | None = None
        if tls:
            # The framework hands out its arguments to the first connection only: one context for all instead.
            files = TlsFiles(tls["certfile"], tls["keyfile"], tls.get("ca_certs"), self.trust.revoked)
            self._tls = LiveContext(files)
            try:
                self._tls.current()
            except SettingsError as error:
                _give_up(str(error))

    def _look_for_revoked(self) -> None:
        while True:
            hub.sleep(_WATCH_EVERY_S)
            for datapath in self.trust.newly_revoked():
                datapath.refuse_revoked()

    def serve_forever(self) -> None:
        """Accepts until the process ends; running out of file descriptors is waited out."""
        hub.spawn(self._look_for_revoked)
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
            if self._tls is not None:
                sock.settimeout(_TLS_HANDSHAKE_S)
                sock = self._tls.current().wrap_socket(sock, server_side=True)
            self.handle(sock, address)
        except OSError as error:
            stranger = told_of(error) if isinstance(error, ssl.SSLError) else None
            _turn_away(stranger, address) if stranger else _refuse("socket", address, str(error))
        finally:
            sock.close()
            self._connected[host] -= 1
            if not self._connected[host]:
                del self._connected[host]


def serve(sock: Any, address: Any) -> None:
    """Serves one connection until it ends."""
    with contextlib.closing(GuardedDatapath(sock, address)) as datapath:
        datapath.serve()


def harden(bounds: ConnectionsSection, trust: SwitchTrust | None = None) -> None:
    """Puts the guard before the framework. Before the first switch connects; safe to call twice."""
    GuardedDatapath.bounds = GuardedServer.bounds = bounds
    GuardedDatapath.trust = GuardedServer.trust = trust or SwitchTrust()
    stock.datapath_connection_factory = serve
    stock.StreamServer = GuardedServer

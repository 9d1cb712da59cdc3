"""A switch that says what is not so: it answers with absurd counters, and breaks the protocol when told to."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

HELLO, ERROR, ECHO, ECHO_REPLY, FEATURES, FEATURES_REPLY = 0, 1, 2, 3, 5, 6
MULTIPART, MULTIPART_REPLY, BARRIER, BARRIER_REPLY = 18, 19, 20, 21
FLOW, GROUP_FEATURES, METER_FEATURES = 1, 8, 11


class HostileSwitch:
    """Connects to the controller on loopback; `answers` counts the flow statistics that it made up for `cookie`."""

    def __init__(self, cookie: int, dpid: int = 0xBAD, port: int = 6653) -> None:
        self.answers = 0
        self._cookie, self._dpid = cookie, dpid
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._send(HELLO, 1)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=10)

    def spoil(self) -> None:
        """A flow statistics reply whose only entry says that it is 0 bytes long, and noise after it."""
        body = struct.pack("!HH4x", FLOW, 0) + bytes(56)
        with suppress(OSError):
            self._send(MULTIPART_REPLY, 99, body)
            self._socket.sendall(bytes(range(256)) * 20)

    def _send(self, kind: int, xid: int, body: bytes = b"") -> None:
        self._socket.sendall(struct.pack("!BBHI", 4, kind, 8 + len(body), xid) + body)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the controller hung up")
            data += more
        return data

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                _, kind, length, xid = struct.unpack("!BBHI", self._exactly(8))
                self._answer(kind, xid, self._exactly(length - 8))

    def _answer(self, kind: int, xid: int, body: bytes) -> None:
        if kind == ECHO:
            self._send(ECHO_REPLY, xid, body)
        elif kind == FEATURES:
            self._send(FEATURES_REPLY, xid, struct.pack("!QIBB2xII", self._dpid, 256, 254, 0, 0x4F, 0))
        elif kind == BARRIER:
            self._send(BARRIER_REPLY, xid)
        elif kind == MULTIPART:
            (part,) = struct.unpack_from("!H", body)
            self._send(MULTIPART_REPLY, xid, struct.pack("!HH4x", part, 0) + self._part(part, body))

    def _part(self, part: int, body: bytes) -> bytes:
        if part == METER_FEATURES:
            return bytes(16)
        if part == GROUP_FEATURES:
            return bytes(40)
        # Asked for the counters of the accounting table: table 0, with a mask for the cookie.
        if part != FLOW or body[8] != 0:
            return b""
        self.answers += 1
        seconds, grown = 10**6 + self.answers, self.answers * 10**12
        head = struct.pack("!HBxIIHHHH4xQQQ", 56, 0, seconds, 0, 20, 0, 0, 0, self._cookie, grown // 1000, grown)
        return head + struct.pack("!HH4x", 1, 4)

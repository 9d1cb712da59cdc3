"""A switch of bytes only: answers a controller like a real one, and all its counters grow between two polls.

Run beside a controller: `python -m tools.bench.replayed_switch PORT DPID FLOWS [COUNT]`; COUNT of them, from DPID on.
They end with their connections.
"""

import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

HELLO, ECHO_REQUEST, ECHO_REPLY, FEATURES_REQUEST, FEATURES_REPLY = 0, 2, 3, 5, 6
MULTIPART_REQUEST, MULTIPART_REPLY, BARRIER_REQUEST, BARRIER_REPLY = 18, 19, 20, 21
_FLOWS, _PORTS, _PORT_DESCRIPTIONS = 1, 4, 13
_MORE = 1
_ENTRY_BYTES = 104
# As many entries as Open vSwitch puts into one part: the most that a 16-bit length can say.
_A_PART = (65535 - 16) // _ENTRY_BYTES
_PACKETS, _BYTES = 10, 9_000
_HEAD = struct.Struct("!BBHI")


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    """One OpenFlow 1.3 message."""
    return _HEAD.pack(4, kind, 8 + len(body), xid) + body


def entry(number: int) -> bytes:
    """A flow entry of its own source: match on two IPv4 addresses, one output action; OpenFlow 1.3.5, 7.3.5.2."""
    source, to = 0x0A000000 + number, 0x0A630001
    match = struct.pack("!HHIHIIII6x", 1, 26, 0x80000A02, 0x0800, 0x80001604, source, 0x80001804, to)
    apply = struct.pack("!HH4xHHIH6x", 4, 24, 0, 16, 1, 0)
    head = struct.pack("!HBxIIHHHH4xQQQ", _ENTRY_BYTES, 0, 100, 0, 5, 0, 0, 0, number + 1, 0, 0)
    return head + match + apply


class ReplayedTable:
    """The flow entries, numbered from `first` on, kept as the parts of a reply; each poll finds every counter grown."""

    def __init__(self, flows: int, first: int = 0) -> None:
        numbers = range(first, first + flows)
        self._parts = [
            bytearray(b"".join(entry(number) for number in numbers[first : first + _A_PART]))
            for first in range(0, flows, _A_PART)
        ]

    def reply(self, xid: int) -> bytes:
        """All parts of the answer."""
        last = len(self._parts) - 1
        found = []
        for place, part in enumerate(self._parts):
            words = np.frombuffer(part, ">u8").reshape(-1, _ENTRY_BYTES // 8)
            words[:, 4] += _PACKETS
            words[:, 5] += _BYTES
            head = struct.pack("!HH4x", _FLOWS, _MORE if place < last else 0)
            found.append(message(MULTIPART_REPLY, xid, head + bytes(part)))
        return b"".join(found) or message(MULTIPART_REPLY, xid, struct.pack("!HH4x", _FLOWS, 0))


class ReplayedSwitch:
    """One connection to a controller."""

    def __init__(self, port: int, dpid: int, flows: int, first: int = 0) -> None:
        # Who is connected must answer soon, so what takes long comes first.
        self._dpid, self._table, self._rest = dpid, ReplayedTable(flows, first), b""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.address: tuple[str, int] = self._socket.getsockname()
        self._socket.sendall(message(HELLO, 1))

    def serve(self) -> None:
        """Answers until the controller hangs up."""
        while data := self._received():
            self._rest += data
            while len(self._rest) >= 8:
                _, kind, length, xid = _HEAD.unpack_from(self._rest)
                if len(self._rest) < length:
                    break
                body, self._rest = self._rest[8:length], self._rest[length:]
                if answer := self.answer(kind, xid, body):
                    self._socket.sendall(answer)

    def _received(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Ends the connection, also for who is waiting in `serve`."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def answer(self, kind: int, xid: int, body: bytes) -> bytes:
        """What a switch says to one message; nothing to most."""
        if kind == ECHO_REQUEST:
            return message(ECHO_REPLY, xid, body)
        if kind == FEATURES_REQUEST:
            return message(FEATURES_REPLY, xid, struct.pack("!QIBBxxII", self._dpid, 0, 254, 0, 7, 0))
        if kind == BARRIER_REQUEST:
            return message(BARRIER_REPLY, xid)
        if kind == MULTIPART_REQUEST:
            return self._statistics(int.from_bytes(body[:2]), xid)
        return b""

    def _statistics(self, kind: int, xid: int) -> bytes:
        if kind == _FLOWS:
            return self._table.reply(xid)
        body = b""
        if kind == _PORT_DESCRIPTIONS:
            body = struct.pack("!I4x6s2x16s8I", 1, bytes(6), b"eth1", *[0] * 8)
        elif kind == _PORTS:
            body = struct.pack("!I4x12Q2I", 1, *[0] * 12, 100, 0)
        return message(MULTIPART_REPLY, xid, struct.pack("!HH4x", kind, 0) + body)


def main(words: list[str]) -> None:
    """Entry point."""
    port, dpid, flows, *count = (int(word, 0) for word in words)
    try:
        # Each counts pairs of its own: of one that crosses several switches only one tells.
        many = range(dpid, dpid + (count or [1])[0])
        with ThreadPoolExecutor(len(many)) as pool:
            list(pool.map(lambda one: ReplayedSwitch(port, one, flows, (one * flows) % (1 << 22)).serve(), many))
    except (ConnectionError, TimeoutError) as error:
        sys.exit(f"replayed switch: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The length guard: only what an OpenFlow 1.3 switch may send, when it may send it, passes; OpenFlow 1.3.5, 7."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from ryu_apps.openflow.multipart import walk_body, walk_bundle_properties, walk_queues
from ryu_apps.openflow.statistics import StatisticsColumns
from ryu_apps.openflow.walks import MalformedMessage, MalformedReason, bad_length, padded, walk_match

VERSION = 4
HEADER_BYTES = 8
MULTIPART_HEADER_BYTES = 16
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, EXPERIMENTER = range(5)
FEATURES_REPLY, GET_CONFIG_REPLY = 6, 8
PACKET_IN, FLOW_REMOVED, PORT_STATUS = 10, 11, 12
MULTIPART_REPLY, BARRIER_REPLY, QUEUE_GET_CONFIG_REPLY, ROLE_REPLY, GET_ASYNC_REPLY = 19, 21, 23, 25, 27
_TYPE_LENGTH = struct.Struct("!HH").unpack_from
_HEAD = struct.Struct("!BBHI").unpack_from
# Hellos: one element with one word of versions is 16 bytes, nobody needs more than a few.
_BITMAP = 1
_MAX_HELLO_BYTES = 1024
_HELLO_FAILED, _EXPERIMENTER_ERROR = 0, 0xFFFF
_ONF, _BUNDLE_CONTROL = 0x4F4E4600, 2300
# Before the features are known there is nothing long to say.
_MAX_BEFORE_FEATURES = 4096
_MORE = 1
_FLOWS, _PORT_DESCRIPTIONS = 1, 13
# What all parts of one reply may hold together. Port descriptions: 65,536 ports.
_MAX_BYTES = {_PORT_DESCRIPTIONS: 4 << 20}
_MAX_BYTES_OF_OTHERS = 8 << 20
_MAX_OPEN = 64
# The head of a match field with the port that a frame came in at (7.2.3.7), and the type of LLDP frames
_IN_PORT, _LLDP = b"\x80\x00\x00\x04", b"\x88\xcc"


class Phase(IntEnum):
    """How far a connection has come; 6.3.1: hello first, then features, then everything."""

    HELLO = 0
    FEATURES = 1
    OPEN = 2


class Head(NamedTuple):
    """The header of every message; 7.1. `length` includes these 8 bytes."""

    version: int
    kind: int
    length: int
    xid: int


def read_head(data: bytes | bytearray, at: int = 0) -> Head:
    """The header at `at`; raises MalformedMessage on what no message may begin with. 7.1.

    A hello may name any version from 1 on, since it is there to find the common one; 6.3.1.
    """
    head = Head._make(_HEAD(data, at))
    if head.length < HEADER_BYTES:
        raise bad_length("message", head.length, 2)
    if head.kind not in _CHECKS:
        raise MalformedMessage(MalformedReason.TYPE, f"message type {head.kind} is none that a switch sends")
    if head.version != VERSION and (head.kind != HELLO or not head.version):
        raise MalformedMessage(
            MalformedReason.VERSION, f"version {head.version} in a message of type {head.kind}, only 4 is spoken"
        )
    return head


def check(message: bytes, phase: Phase) -> StatisticsColumns | None:
    """Checks one whole message; flow, port, queue, group and meter statistics come back decoded, in passing.

    Raises MalformedMessage unless every length in it, nested ones too, is exact and its type may come in this phase.
    """
    if len(message) < HEADER_BYTES:
        raise bad_length("message", len(message), 0)
    head = read_head(message)
    if head.length != len(message):
        raise bad_length("message", head.length, 2)
    if head.kind not in _ALLOWED[phase]:
        raise MalformedMessage(
            MalformedReason.PHASE, f"message type {head.kind} while waiting for {phase.name.lower()}"
        )
    if phase is not Phase.OPEN and head.length > _MAX_BEFORE_FEATURES and head.kind not in _LONG_BEFORE_FEATURES:
        raise MalformedMessage(
            MalformedReason.SIZE, f"message of {head.length} bytes while waiting for {phase.name.lower()}"
        )
    return _CHECKS[head.kind](message)


def _hello(message: bytes) -> None:
    # 7.5.1
    hello_versions(message)


def _error(message: bytes) -> None:
    # 7.4.4: type, code, and at least the beginning of what was wrong
    _at_least(12, message)
    (kind,) = struct.unpack_from("!H", message, 8)
    if kind == _EXPERIMENTER_ERROR:
        _at_least(16, message)
    if kind == _HELLO_FAILED and not message[12:].isascii():
        raise MalformedMessage(MalformedReason.VALUE, "the text of a hello-failed error is no ASCII")


def _echo(_message: bytes) -> None:
    """7.5.2, 7.5.3: anything may follow the header."""


def _experimenter(message: bytes) -> None:
    # 7.5.4
    _at_least(16, message)
    if struct.unpack_from("!II", message, 8) == (_ONF, _BUNDLE_CONTROL):
        _at_least(24, message)
        walk_bundle_properties(message, 24)


def _packet_in(message: bytes) -> None:
    # 7.4.1: 24 bytes, match, 2 bytes of padding, frame
    _at_least(34, message)
    if walk_match(message, 24, len(message), []) + 2 > len(message):
        raise bad_length("packet-in", len(message), 2)


def _flow_removed(message: bytes) -> None:
    # 7.4.2: 48 bytes, match
    _at_least(56, message)
    if walk_match(message, 48, len(message), []) != len(message):
        raise bad_length("flow-removed", len(message), 2)


def _multipart(message: bytes) -> StatisticsColumns | None:
    # 7.3.5
    _at_least(MULTIPART_HEADER_BYTES, message)
    return walk_body(int.from_bytes(message[8:10]), message[MULTIPART_HEADER_BYTES:])


def _queues(message: bytes) -> None:
    # 7.3.6
    _at_least(16, message)
    walk_queues(message, 16)


def _exactly(size: int) -> Callable[[bytes], None]:
    def check_size(message: bytes) -> None:
        if len(message) != size:
            raise bad_length(f"message of type {message[1]}", len(message), 2)

    return check_size


def _at_least(size: int, message: bytes) -> None:
    if len(message) < size:
        raise bad_length(f"message of type {message[1]}", len(message), 2)


_CHECKS: dict[int, Callable[[bytes], StatisticsColumns | None]] = {
    HELLO: _hello,
    ERROR: _error,
    ECHO_REQUEST: _echo,
    ECHO_REPLY: _echo,
    EXPERIMENTER: _experimenter,
    FEATURES_REPLY: _exactly(32),  # 7.3.1
    GET_CONFIG_REPLY: _exactly(12),  # 7.3.2
    PACKET_IN: _packet_in,
    FLOW_REMOVED: _flow_removed,
    PORT_STATUS: _exactly(80),  # 7.4.3
    MULTIPART_REPLY: _multipart,
    BARRIER_REPLY: _exactly(8),  # 7.3.8
    QUEUE_GET_CONFIG_REPLY: _queues,
    ROLE_REPLY: _exactly(24),  # 7.3.9
    GET_ASYNC_REPLY: _exactly(32),  # 7.3.10
}
_LATER = frozenset(_CHECKS) - {HELLO}
_ALLOWED = {
    Phase.HELLO: frozenset((HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY)),
    Phase.FEATURES: _LATER,
    Phase.OPEN: _LATER,
}
# A switch may report packets and its ports before it was asked for its features.
_LONG_BEFORE_FEATURES = (PACKET_IN, MULTIPART_REPLY)


def hello_versions(message: bytes) -> int | None:
    """The bitmap of versions below 32 in a hello, None when there is none. Raises MalformedMessage. 7.5.1."""
    end = len(message)
    if end > _MAX_HELLO_BYTES:
        raise MalformedMessage(MalformedReason.SIZE, f"hello of {end} bytes")
    at, versions = HEADER_BYTES, None
    while at < end:
        if at + 4 > end:
            raise bad_length("hello element", end - at, at)
        kind, length = _TYPE_LENGTH(message, at)
        if length < 4 or at + padded(length) > end:
            raise bad_length("hello element", length, at)
        if kind == _BITMAP:
            if length < 8 or length & 3:
                raise bad_length("hello's version bitmap", length, at)
            (versions,) = struct.unpack_from("!I", message, at + 4)
        at += padded(length)
    return versions


def offered_versions(message: bytes) -> tuple[int, ...]:
    """Versions that a sound hello offers: those of its bitmap, else all up to the one in its header. 6.3.1."""
    bits = hello_versions(message)
    if bits is None:
        return tuple(range(1, message[0] + 1))
    return tuple(version for version in range(32) if bits >> version & 1)


def plain_hello(message: bytes) -> bytes:
    """The same sound hello with nothing but its first word of versions, if it has one."""
    versions = hello_versions(message)
    body = b"" if versions is None else struct.pack("!HHI", _BITMAP, 8, versions)
    return message[:2] + struct.pack("!H", HEADER_BYTES + len(body)) + message[4:8] + body


class Inbox:
    """Bytes in, whole messages out. Never holds more than one message and what was just fed."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that `data` completes. Raises MalformedMessage as soon as a header is wrong.

        Take all of them before the next `feed`.
        """
        data = self._rest + data if self._rest else data
        self._rest = b""
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            stop = at + read_head(data, at).length
            if stop > end:
                break
            yield data[at:stop]
            at = stop
        self._rest = data[at:]


@dataclass(slots=True)
class OpenReplies:
    """Replies in several parts that have begun and not ended: their number and size are bounded."""

    max_flow_bytes: int
    _open: dict[int, tuple[int, int]] = field(default_factory=dict)

    def note(self, message: bytes) -> None:
        """Takes note of a sound message. Raises MalformedMessage when a reply has no end, or changes its kind."""
        if message[1] != MULTIPART_REPLY:
            return
        xid, kind = message[4:8], int.from_bytes(message[8:10])
        known, size = self._open.pop(int.from_bytes(xid), (kind, 0))
        size += len(message) - MULTIPART_HEADER_BYTES
        if known != kind:
            raise MalformedMessage(MalformedReason.VALUE, f"a reply of kind {known} goes on as kind {kind}")
        max_bytes = self.max_flow_bytes if kind == _FLOWS else _MAX_BYTES.get(kind, _MAX_BYTES_OF_OTHERS)
        if size > max_bytes:
            raise MalformedMessage(MalformedReason.SIZE, f"a reply of kind {kind} has {size} bytes and no end")
        if message[11] & _MORE:
            self._open[int.from_bytes(xid)] = (kind, size)
            if len(self._open) > _MAX_OPEN:
                raise MalformedMessage(MalformedReason.SIZE, f"{len(self._open)} replies have begun and not ended")


def frame_origin(data: bytes) -> tuple[int | None, bool]:
    """Of a packet-in: the port in its match, where that stands first, and whether its frame is LLDP. 7.4.1.

    It believes nothing: what is too short or otherwise made gives (None, False).
    """
    port = int.from_bytes(data[32:36]) if data[28:32] == _IN_PORT and len(data) >= 36 else None
    frame = 24 + (int.from_bytes(data[26:28]) + 7) // 8 * 8 + 2
    return port, data[frame + 12 : frame + 14] == _LLDP

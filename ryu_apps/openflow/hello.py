"""Reads a hello and writes it anew: a parser that forgets the padding of its elements finds a length of 0 there."""

import struct

from ryu_apps.openflow.malformed import MalformedMessage, Reason, bad_length
from ryu_apps.openflow.match import padded

_HEAD = struct.Struct("!HH").unpack_from
_BITMAP = 1
_HEADER_BYTES = 8
# One element with one word of versions is 16 bytes; nobody needs more than a few.
_MOST_BYTES = 1024


def hello_versions(message: bytes) -> int | None:
    """The bitmap of versions below 32 in a hello, None when there is none. Raises MalformedMessage. 7.5.1."""
    end = len(message)
    if end > _MOST_BYTES:
        raise MalformedMessage(Reason.SIZE, f"hello of {end} bytes")
    at, versions = _HEADER_BYTES, None
    while at < end:
        if at + 4 > end:
            raise bad_length("hello element", end - at, at)
        kind, length = _HEAD(message, at)
        if length < 4 or at + padded(length) > end:
            raise bad_length("hello element", length, at)
        if kind == _BITMAP:
            if length < 8 or length & 3:
                raise bad_length("hello's version bitmap", length, at)
            (versions,) = struct.unpack_from("!I", message, at + 4)
        at += padded(length)
    return versions


def plain_hello(message: bytes) -> bytes:
    """The same sound hello with nothing but its first word of versions, if it has one."""
    versions = hello_versions(message)
    body = b"" if versions is None else struct.pack("!HHI", _BITMAP, 8, versions)
    return message[:2] + struct.pack("!H", _HEADER_BYTES + len(body)) + message[4:8] + body

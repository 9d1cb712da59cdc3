"""Looks at a multipart reply's entry lengths before any parser does: one length of 0 would loop there for ever."""

import struct

from cpdb import ForepathError

HEADER_BYTES = 16
MULTIPART_REPLY = 19
# Kind of multipart reply -> (offset of an entry's length field, shortest sound entry); OpenFlow 1.3.5, 7.3.5
ENTRIES = {
    1: (0, 56),  # flow statistics
    6: (0, 40),  # group statistics
    7: (0, 8),  # group descriptions
    9: (4, 40),  # meter statistics
    10: (0, 8),  # meter configuration
    12: (0, 64),  # table features
}


class MalformedMessage(ForepathError):
    """A switch sent something that cannot be an OpenFlow message."""


def check_multipart(message: bytes | bytearray) -> None:
    """Raises MalformedMessage unless the entries of a multipart reply fill it exactly.

    Kinds whose entries have a fixed size, or that are not known here, pass: their parsers advance by themselves.
    """
    if len(message) < HEADER_BYTES:
        raise MalformedMessage(f"multipart reply of {len(message)} bytes is shorter than its header")
    (kind,) = struct.unpack_from("!H", message, 8)
    if kind not in ENTRIES:
        return
    field, least = ENTRIES[kind]
    at, end = HEADER_BYTES, len(message)
    while at < end:
        if at + field + 2 > end:
            raise MalformedMessage(f"multipart reply of kind {kind} ends inside an entry at byte {at}")
        (length,) = struct.unpack_from("!H", message, at + field)
        if length < least or at + length > end:
            raise MalformedMessage(f"multipart reply of kind {kind}: entry length {length} at byte {at}")
        at += length

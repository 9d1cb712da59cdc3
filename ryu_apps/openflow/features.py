"""Walks the properties of table features and of queues, lists within lists; OpenFlow 1.3.5, 7.3.5.5 and 7.3.6."""

import struct

from ryu_apps.openflow.malformed import MalformedMessage, Reason, bad_length, bad_value
from ryu_apps.openflow.match import padded

_HEAD = struct.Struct("!HH").unpack_from
_FIELD = struct.Struct("!I").unpack_from
_EXPERIMENTERS = (0xFFFE, 0xFFFF)
_EXPERIMENTER_FIELD = 0xFFFF
# Kinds of property by what they list; 7.3.5.5.2. A table lists instructions or actions, tables by number, or fields.
_LISTS_HEADS = frozenset((0, 1, 4, 5, 6, 7))
_LISTS_TABLES = frozenset((2, 3))
_LISTS_FIELDS = frozenset((8, 10, 12, 13, 14, 15))
# Ryu copies what is left for each item it reads: a long list costs it the square of its length.
_MOST_PROPERTY_BYTES = 4096
_MOST_PROPERTIES = 64
# Minimum and maximum rate of a queue; 7.2.2.2
_RATES = (1, 2)
_QUEUE_BYTES = 16


def walk_table_features(data: bytes, at: int, end: int) -> None:
    """Walks the properties that must fill [at, end) exactly, padding included. Raises MalformedMessage. 7.3.5.5.2."""
    count = 0
    while at < end:
        if at + 4 > end:
            raise bad_length("table property", end - at, at)
        kind, length = _HEAD(data, at)
        if not 4 <= length <= _MOST_PROPERTY_BYTES or at + padded(length) > end:
            raise bad_length("table property", length, at)
        _walk_property(data, kind, at, at + length)
        at += padded(length)
        count += 1
    if count > _MOST_PROPERTIES:
        raise MalformedMessage(Reason.VALUE, f"{count} properties in one table's features")


def _walk_property(data: bytes, kind: int, at: int, end: int) -> None:
    if kind in _LISTS_HEADS:
        _walk_heads(data, at + 4, end)
    elif kind in _LISTS_FIELDS:
        _walk_field_heads(data, at + 4, end)
    elif kind in _EXPERIMENTERS:
        if end - at < 12 or (end - at) & 3:
            raise bad_length("experimenter's table property", end - at, at)
    elif kind not in _LISTS_TABLES:
        raise bad_value("table property", kind, at)


def _walk_heads(data: bytes, at: int, end: int) -> None:
    # Types and lengths of instructions or actions, without their bodies
    while at < end:
        if at + 4 > end:
            raise bad_length("item of a table property", end - at, at)
        _, length = _HEAD(data, at)
        if length < 4 or at + length > end:
            raise bad_length("item of a table property", length, at)
        at += length


def _walk_field_heads(data: bytes, at: int, end: int) -> None:
    while at < end:
        if at + 4 > end:
            raise bad_length("field of a table property", end - at, at)
        (header,) = _FIELD(data, at)
        size = 8 if header >> 16 == _EXPERIMENTER_FIELD else 4
        if at + size > end:
            raise bad_length("field of a table property", end - at, at)
        at += size


def walk_queues(data: bytes, at: int) -> None:
    """Walks queues with their properties that must fill `data` from `at` on. Raises MalformedMessage. 7.3.6."""
    end = len(data)
    while at < end:
        if at + _QUEUE_BYTES > end:
            raise bad_length("queue", end - at, at)
        (length,) = struct.unpack_from("!H", data, at + 8)
        if length < _QUEUE_BYTES or at + length > end:
            raise bad_length("queue", length, at)
        _walk_queue_properties(data, at + _QUEUE_BYTES, at + length)
        at += length


def _walk_queue_properties(data: bytes, at: int, end: int) -> None:
    while at < end:
        if at + _QUEUE_BYTES > end:
            raise bad_length("queue property", end - at, at)
        kind, length = _HEAD(data, at)
        if kind not in _RATES and kind not in _EXPERIMENTERS[1:]:
            raise bad_value("queue property", kind, at)
        if length < _QUEUE_BYTES or at + length > end or (kind in _RATES and length != _QUEUE_BYTES):
            raise bad_length("queue property", length, at)
        at += length


def walk_bundle_properties(data: bytes, at: int) -> None:
    """Walks the properties of an ONF bundle message that must fill `data` from `at` on. Raises MalformedMessage.

    ONF extension 230 for OpenFlow 1.3; the properties are those of OpenFlow 1.4, 7.3.9.2.
    """
    end = len(data)
    if end - at > _MOST_PROPERTY_BYTES:
        raise bad_length("bundle message", end, 0)
    while at < end:
        if at + 4 > end:
            raise bad_length("bundle property", end - at, at)
        _, length = _HEAD(data, at)
        if length < 4 or at + padded(length) > end:
            raise bad_length("bundle property", length, at)
        at += padded(length)

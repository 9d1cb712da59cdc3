"""Walks the bodies of all kinds of multipart reply, down to the last nested length; OpenFlow 1.3.5, 7.3.5."""

import struct
from collections.abc import Callable

from ryu_apps.openflow.statistics import (
    StatisticsColumns,
    decode_flow_stats,
    decode_group_stats,
    decode_meter_stats,
    decode_port_stats,
    decode_queue_stats,
)
from ryu_apps.openflow.walks import MalformedMessage, MalformedReason, bad_length, bad_value, padded, walk_buckets

_HEAD = struct.Struct("!HH").unpack_from
_FIELD = struct.Struct("!I").unpack_from
_EXPERIMENTERS = (0xFFFE, 0xFFFF)
_EXPERIMENTER_FIELD = 0xFFFF
# Kinds of property by what they list; 7.3.5.5.2. A table lists instructions or actions, tables by number, or fields.
_LISTS_HEADS = frozenset((0, 1, 4, 5, 6, 7))
_LISTS_TABLES = frozenset((2, 3))
_LISTS_FIELDS = frozenset((8, 10, 12, 13, 14, 15))
# Ryu copies what is left for each item it reads: a long list costs it the square of its length.
_MAX_PROPERTY_BYTES = 4096
_MAX_PROPERTIES = 64
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
        if not 4 <= length <= _MAX_PROPERTY_BYTES or at + padded(length) > end:
            raise bad_length("table property", length, at)
        _walk_property(data, kind, at, at + length)
        at += padded(length)
        count += 1
    if count > _MAX_PROPERTIES:
        raise MalformedMessage(MalformedReason.VALUE, f"{count} properties in one table's features")


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
    if end - at > _MAX_PROPERTY_BYTES:
        raise bad_length("bundle message", end, 0)
    while at < end:
        if at + 4 > end:
            raise bad_length("bundle property", end - at, at)
        _, length = _HEAD(data, at)
        if length < 4 or at + padded(length) > end:
            raise bad_length("bundle property", length, at)
        at += padded(length)


_BAND = struct.Struct("!HH").unpack_from
_LENGTH = struct.Struct("!H").unpack_from
_BAND_BYTES = 16
_BANDS = (1, 2)
_EXPERIMENTER = 0xFFFF


def walk_body(kind: int, body: bytes) -> StatisticsColumns | None:
    """Walks the body (what follows the 16-byte header) of a multipart reply of this kind.

    Statistics of flows, ports, queues, groups and meters come back decoded. Raises MalformedMessage.
    """
    if kind in _DECODERS:
        return _DECODERS[kind](body)
    if kind in _EXACT:
        if len(body) != _EXACT[kind]:
            raise bad_length(f"multipart reply of kind {kind}", len(body), 0)
    elif kind in _REPEATED:
        if len(body) % _REPEATED[kind]:
            raise bad_length(f"multipart reply of kind {kind}", len(body), 0)
    elif kind in _WALKS:
        _WALKS[kind](body)
    else:
        raise bad_value("multipart kind", kind, 8)
    return None


def _group_descriptions(body: bytes) -> None:
    # 7.3.5.10: length, type, number, buckets
    at, end = 0, len(body)
    while at < end:
        length = _entry("group description", body, at, 8)
        walk_buckets(body, at + 8, at + length)
        at += length


def _meter_configurations(body: bytes) -> None:
    # 7.3.5.13: length, flags, number, bands
    at, end = 0, len(body)
    while at < end:
        length = _entry("meter configuration", body, at, 8)
        _walk_bands(body, at + 8, at + length)
        at += length


def _walk_bands(body: bytes, at: int, end: int) -> None:
    # 7.3.4.4: type, length, rate, burst
    while at < end:
        if at + _BAND_BYTES > end:
            raise bad_length("meter band", end - at, at)
        kind, length = _BAND(body, at)
        if kind not in _BANDS and kind != _EXPERIMENTER:
            raise bad_value("meter band", kind, at)
        if length < _BAND_BYTES or at + length > end or (kind != _EXPERIMENTER and length != _BAND_BYTES):
            raise bad_length("meter band", length, at)
        at += length


def _experimenter(body: bytes) -> None:
    # 7.3.5.15: experimenter, type, then whatever the experimenter likes
    if len(body) < 8:
        raise bad_length("experimenter's multipart reply", len(body), 0)


def _table_features(body: bytes) -> None:
    at, end = 0, len(body)
    while at < end:
        length = _entry("table features", body, at, 64)
        walk_table_features(body, at + 64, at + length)
        at += length


def _entry(what: str, body: bytes, at: int, min_bytes: int) -> int:
    left = len(body) - at
    if left < min_bytes:
        raise bad_length(what, left, at)
    length: int = _LENGTH(body, at)[0]
    if length < min_bytes or length > left:
        raise bad_length(what, length, at)
    return length


_DECODERS: dict[int, Callable[[bytes], StatisticsColumns]] = {
    1: decode_flow_stats,
    4: decode_port_stats,
    5: decode_queue_stats,
    6: decode_group_stats,
    9: decode_meter_stats,
}
# Description, aggregate, group features, meter features: one structure; 7.3.5.1, .3, .11, .14
_EXACT = {0: 1056, 2: 24, 8: 40, 11: 16}
# Tables, port descriptions: as many structures as there are; 7.3.5.4, .7
_REPEATED = {3: 24, 13: 64}
_WALKS: dict[int, Callable[[bytes], None]] = {
    7: _group_descriptions,
    10: _meter_configurations,
    12: _table_features,
    _EXPERIMENTER: _experimenter,
}
KINDS = frozenset({*_DECODERS, *_EXACT, *_REPEATED, *_WALKS})

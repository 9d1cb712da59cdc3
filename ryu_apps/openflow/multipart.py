"""Walks the bodies of all kinds of multipart reply, down to the last nested length; OpenFlow 1.3.5, 7.3.5."""

import struct
from collections.abc import Callable

from ryu_apps.openflow.actions import walk_buckets
from ryu_apps.openflow.features import walk_table_features
from ryu_apps.openflow.malformed import bad_length, bad_value
from ryu_apps.openflow.statistics import (
    Columns,
    decode_flow_stats,
    decode_group_stats,
    decode_meter_stats,
    decode_port_stats,
    decode_queue_stats,
)

_BAND = struct.Struct("!HH").unpack_from
_LENGTH = struct.Struct("!H").unpack_from
_BAND_BYTES = 16
_BANDS = (1, 2)
_EXPERIMENTER = 0xFFFF


def walk_body(kind: int, body: bytes) -> Columns | None:
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


def _entry(what: str, body: bytes, at: int, least: int) -> int:
    left = len(body) - at
    if left < least:
        raise bad_length(what, left, at)
    length: int = _LENGTH(body, at)[0]
    if length < least or length > left:
        raise bad_length(what, length, at)
    return length


_DECODERS: dict[int, Callable[[bytes], Columns]] = {
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

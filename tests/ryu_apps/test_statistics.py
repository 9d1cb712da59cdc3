"""Statistics in columns say exactly what the framework's own parser says, whatever the order of entries."""

import struct
from typing import Any

import openflow_corpus as corpus
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.framework import parser
from ryu_apps.openflow import (
    FlowColumns,
    MalformedMessage,
    decode_flow_stats,
    decode_group_stats,
    decode_meter_stats,
    decode_port_stats,
    decode_queue_stats,
    match_fields,
)

COUNTER = st.integers(0, 2**64 - 1)
ENTRY = st.builds(
    corpus.flow_entry,
    st.sampled_from(corpus.matches()),
    st.sampled_from(corpus.instructions()),
    COUNTER,
    COUNTER,
    COUNTER,
)


def by_framework(kind: Any, body: bytes) -> list[Any]:
    found, at = [], 0
    while at < len(body):
        found.append(kind.parser(body, at))
        at += found[-1].length if hasattr(found[-1], "length") else found[-1].len
    return found


@given(st.lists(st.tuples(ENTRY, st.integers(1, 4)), max_size=12))
def test_flow_columns_say_what_the_framework_says(entries: list[tuple[bytes, int]]) -> None:
    body = b"".join(entry * times for entry, times in entries)
    columns, wanted = decode_flow_stats(body, matches=True), by_framework(parser.OFPFlowStats, body)
    assert len(columns) == len(wanted)
    assert list(columns.cookie) == [one.cookie for one in wanted]
    assert list(columns.packets) == [one.packet_count for one in wanted]
    assert list(columns.bytes) == [one.byte_count for one in wanted]
    assert list(columns.age_s) == pytest.approx([one.duration_sec + one.duration_nsec / 1e9 for one in wanted])
    sizes = [(one.match.length + 7) // 8 * 8 for one in wanted]
    assert [len(match) for match in columns.matches] == sizes
    assert all(match in body for match in columns.matches)


def test_matches_stay_with_their_entries() -> None:
    entries = [corpus.flow_entry(match, b"", cookie) for cookie, match in enumerate(corpus.matches())]
    columns = decode_flow_stats(b"".join(entries * 2), matches=True)
    assert [corpus.matches()[cookie] for cookie in columns.cookie] == columns.matches
    assert decode_flow_stats(b"".join(entries)).matches == []


@given(st.lists(ENTRY, min_size=2, max_size=6), st.integers(0, 5), st.data())
def test_a_bad_entry_among_sound_ones_is_found(entries: list[bytes], place: int, data: st.DataObject) -> None:
    bad = bytearray(entries[place % len(entries)])
    at = data.draw(st.sampled_from((0, 50)))
    wrong = data.draw(st.sampled_from((0, 1, 47, 0xFFFF)))
    struct.pack_into("!H", bad, at, wrong)
    entries[place % len(entries)] = bytes(bad)
    with pytest.raises(MalformedMessage):
        decode_flow_stats(b"".join(entries))


def test_an_entry_that_differs_in_its_build_alone_is_walked() -> None:
    # Same length everywhere; the last one's instruction says 0.
    sound = corpus.flow_entry(corpus.matches()[2], struct.pack("!HH4x", 6, 8))
    hostile = corpus.flow_entry(corpus.matches()[2], struct.pack("!HH4x", 6, 0))
    assert len(decode_flow_stats(sound * 40)) == 40
    for number in (0, 1, 20, 39):
        with pytest.raises(MalformedMessage, match="instruction"):
            decode_flow_stats(sound * number + hostile + sound * (39 - number))


def test_parts_are_joined_in_order() -> None:
    one, two = (corpus.flow_entry(corpus.matches()[0], b"", cookie) for cookie in (1, 2))
    whole = FlowColumns.joined([decode_flow_stats(one * 2), decode_flow_stats(two), decode_flow_stats(b"")])
    assert list(whole.cookie) == [1, 1, 2]
    assert len(whole) == 3


@given(st.lists(st.tuples(*[COUNTER] * 8), max_size=5))
def test_port_columns(ports: list[tuple[int, ...]]) -> None:
    body = b"".join(struct.pack("!I4x12QII", n, *row, 0, 0, 0, 0, 9, 8) for n, row in enumerate(ports))
    columns, wanted = decode_port_stats(body), by_framework(parser.OFPPortStats, body)
    for name in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped", "rx_errors"):
        assert list(getattr(columns, name)) == [getattr(one, name) for one in wanted]
    assert list(columns.number) == [one.port_no for one in wanted]
    assert list(columns.seconds) == [9] * len(ports)
    assert list(columns.nanoseconds) == [8] * len(ports)


@given(st.lists(st.tuples(*[COUNTER] * 3), max_size=5))
def test_queue_columns(queues: list[tuple[int, ...]]) -> None:
    body = b"".join(struct.pack("!IIQQQII", n, n + 1, *row, 9, 8) for n, row in enumerate(queues))
    columns, wanted = decode_queue_stats(body), by_framework(parser.OFPQueueStats, body)
    pairs = {
        "port": "port_no",
        "queue": "queue_id",
        "bytes": "tx_bytes",
        "packets": "tx_packets",
        "errors": "tx_errors",
    }
    for ours, theirs in pairs.items():
        assert list(getattr(columns, ours)) == [getattr(one, theirs) for one in wanted]


@given(st.lists(st.tuples(COUNTER, COUNTER, st.lists(st.integers(0, 2**40), max_size=3)), max_size=6))
def test_meter_columns(meters: list[tuple[int, int, list[int]]]) -> None:
    body = b"".join(
        struct.pack("!IH6xIQQII", n, 40 + 16 * len(bands), 2, packets, size, 3, 4)
        + b"".join(struct.pack("!QQ", band, 2 * band) for band in bands)
        for n, (packets, size, bands) in enumerate(meters)
    )
    columns, wanted = decode_meter_stats(body), by_framework(parser.OFPMeterStats, body)
    assert list(columns.number) == [one.meter_id for one in wanted]
    assert list(columns.packets) == [one.packet_in_count for one in wanted]
    assert list(columns.bytes) == [one.byte_in_count for one in wanted]
    assert list(columns.band_packets) == [sum(b.packet_band_count for b in one.band_stats) for one in wanted]
    assert list(columns.band_bytes) == [sum(b.byte_band_count for b in one.band_stats) for one in wanted]


@given(st.lists(st.tuples(COUNTER, COUNTER, st.integers(0, 3)), max_size=6))
def test_group_columns(groups: list[tuple[int, int, int]]) -> None:
    body = b"".join(
        struct.pack("!H2xII4xQQII", 40 + 16 * buckets, n, 1, packets, size, 3, 4) + bytes(16 * buckets)
        for n, (packets, size, buckets) in enumerate(groups)
    )
    columns, wanted = decode_group_stats(body), by_framework(parser.OFPGroupStats, body)
    assert list(columns.number) == [one.group_id for one in wanted]
    assert list(columns.packets) == [one.packet_count for one in wanted]
    assert list(columns.bytes) == [one.byte_count for one in wanted]


def test_fields_of_a_match() -> None:
    fields = match_fields(corpus.matches()[2])
    assert fields == {0x8000 << 7 | 5: b"\x08\0", 0x8000 << 7 | 11: b"\n\0\0\1", 0x8000 << 7 | 12: b"\n\x09\x09\x09"}
    # A masked field names nobody.
    assert 0x8000 << 7 | 11 not in match_fields(corpus.matches()[3])

"""The length guard: sound replies pass, everything that would make a parser loop or run over does not."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.guard import ENTRIES, MalformedMessage, check_multipart


def reply(kind: int, *entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("!BBHIHH4x", 4, 19, 16 + len(body), 1, kind, 0) + body


def entry(kind: int, length: int, size: int) -> bytes:
    offset, _ = ENTRIES[kind]
    return (bytes(offset) + struct.pack("!H", length)).ljust(size, b"\0")[:size]


@given(st.sampled_from(sorted(ENTRIES)), st.lists(st.integers(0, 40), max_size=5))
def test_entries_that_fill_the_message_pass(kind: int, extra: list[int]) -> None:
    least = ENTRIES[kind][1]
    check_multipart(reply(kind, *(entry(kind, least + more, least + more) for more in extra)))


@given(st.sampled_from(sorted(ENTRIES)), st.integers(0, 65535))
def test_a_length_that_does_not_fit_is_refused(kind: int, length: int) -> None:
    least = ENTRIES[kind][1]
    size = least + 8
    if length == size:
        return
    with pytest.raises(MalformedMessage, match=r"length|ends inside"):
        # What follows a shorter first entry is no entry: its own length is 0.
        check_multipart(reply(kind, entry(kind, length, size)))


@given(st.binary(max_size=300))
def test_it_always_ends(data: bytes) -> None:
    try:
        check_multipart(data)
    except MalformedMessage as error:
        assert "\n" not in str(error)


def test_kinds_of_fixed_size_are_left_to_their_parsers() -> None:
    check_multipart(reply(4, bytes(112)))

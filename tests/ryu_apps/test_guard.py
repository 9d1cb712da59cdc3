"""The length guard: sound messages of every type pass, whatever would make a parser loop or run over does not."""

import struct

import openflow_corpus as corpus
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.openflow import MalformedMessage, MalformedReason, Phase, check, plain_hello

HELLO = 0


def phase_of(message: bytes) -> Phase:
    return Phase.HELLO if message[1] == HELLO else Phase.OPEN


def refused(message: bytes, phase: Phase = Phase.OPEN) -> MalformedReason:
    with pytest.raises(MalformedMessage) as caught:
        check(message, phase)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("message", corpus.corpus(), ids=lambda one: f"type{one[1]}-{one[8:10].hex()}-{len(one)}")
def test_what_a_switch_sends_passes(message: bytes) -> None:
    check(message, phase_of(message))


@pytest.mark.parametrize("message", corpus.corpus(), ids=lambda one: f"type{one[1]}-{one[8:10].hex()}-{len(one)}")
def test_a_message_cut_or_grown_by_four_bytes_is_refused(message: bytes) -> None:
    free = {2, 3, 4, 10}  # echo, experimenter and packet-in end in bytes of any number
    if message[1] in free or message[1] == 1 or (message[1] == 19 and message[8:10] == b"\xff\xff"):
        return
    for wrong in (message[:-4], message + bytes(4)):
        if len(wrong) < 8:
            continue
        again = wrong[:2] + struct.pack("!H", len(wrong)) + wrong[4:]
        assert refused(again, phase_of(again)) in (MalformedReason.LENGTH, MalformedReason.VALUE)


@pytest.mark.parametrize("message", corpus.hostile().values(), ids=corpus.hostile().keys())
def test_a_nested_length_of_zero_is_refused(message: bytes) -> None:
    assert refused(message, phase_of(message)) is MalformedReason.LENGTH


@given(st.binary(max_size=400), st.sampled_from(list(Phase)))
def test_it_ends_on_anything(data: bytes, phase: Phase) -> None:
    try:
        check(data, phase)
    except MalformedMessage as error:
        assert "\n" not in str(error)


@given(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xFFFF]), st.binary(max_size=300))
def test_it_ends_on_any_body(kind: int, body: bytes) -> None:
    try:
        check(corpus.multipart(kind, body), Phase.OPEN)
    except MalformedMessage as error:
        assert error.reason in (MalformedReason.LENGTH, MalformedReason.VALUE)


@pytest.mark.parametrize("kind", [5, 7, 9, 13, 14, 15, 16, 17, 18, 20, 22, 24, 26, 28, 29, 30, 255])
def test_what_only_a_controller_sends_is_refused(kind: int) -> None:
    assert refused(corpus.message(kind, bytes(64))) is MalformedReason.TYPE


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, 6, 255])
def test_other_versions_are_refused_except_in_a_hello(version: int) -> None:
    assert refused(corpus.message(3, version=version)) is MalformedReason.VERSION
    if version:
        check(corpus.message(0, version=version), Phase.HELLO)


def test_each_phase_has_its_messages() -> None:
    features, packet = (next(one for one in corpus.singles() if one[1] == kind) for kind in (6, 10))
    assert refused(features, Phase.HELLO) is MalformedReason.PHASE
    assert refused(corpus.message(0), Phase.FEATURES) is MalformedReason.PHASE
    assert refused(corpus.message(0), Phase.OPEN) is MalformedReason.PHASE
    check(features, Phase.FEATURES)
    check(packet, Phase.FEATURES)
    assert refused(corpus.message(2, bytes(60_000)), Phase.HELLO) is MalformedReason.SIZE
    check(corpus.message(2, bytes(60_000)), Phase.OPEN)


def test_a_header_must_say_the_true_length() -> None:
    assert refused(b"") is MalformedReason.LENGTH
    assert refused(struct.pack("!BBHI", 4, 3, 7, 1)) is MalformedReason.LENGTH
    assert refused(struct.pack("!BBHI", 4, 3, 9, 1)) is MalformedReason.LENGTH


def test_a_hello_with_padding_is_written_anew_without() -> None:
    # Two words of versions are 12 bytes, padded to 16: a parser that ignores the padding reads a length of 0 there.
    hello = corpus.message(0, struct.pack("!HHII4x", 1, 12, 0x12, 0), version=6)
    check(hello, Phase.HELLO)
    assert plain_hello(hello) == corpus.message(0, struct.pack("!HHI", 1, 8, 0x12), version=6)
    assert plain_hello(corpus.message(0)) == corpus.message(0)


def test_long_lists_that_only_keep_a_parser_busy_are_refused() -> None:
    many = struct.pack("!I", 0x80000004) * 2000
    features = struct.pack("!H62x", 64 + 8008) + struct.pack("!HH", 8, 4 + len(many)) + many + bytes(4)
    assert refused(corpus.multipart(12, features)) is MalformedReason.LENGTH
    fields = struct.pack("!IH", 0x80000A02, 0x800) * 300
    match = struct.pack("!HH", 1, 4 + len(fields)) + fields + bytes(4)
    assert refused(corpus.message(11, bytes(40) + match)) is MalformedReason.VALUE

"""The stream of a connection is cut into messages however it arrives, and what it can make us keep is bounded."""

import openflow_corpus as corpus
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.openflow import Inbox, MalformedMessage, MalformedReason, OpenReplies


@given(st.lists(st.sampled_from(corpus.corpus()), max_size=8), st.lists(st.integers(1, 700), max_size=40))
def test_messages_come_out_as_they_went_in(messages: list[bytes], cuts: list[int]) -> None:
    stream, inbox, found = b"".join(messages), Inbox(), []
    for cut in cuts:
        found += list(inbox.feed(stream[:cut]))
        stream = stream[cut:]
    found += list(inbox.feed(stream))
    assert found == messages
    assert list(inbox.feed(b"")) == []


def test_a_wrong_header_is_seen_before_its_message_is_there() -> None:
    with pytest.raises(MalformedMessage) as caught:
        list(Inbox().feed(b"\1\x0a\xff\xff\0\0\0\0"))
    assert caught.value.reason is MalformedReason.VERSION


def test_a_reply_is_bounded_over_all_its_parts() -> None:
    replies = OpenReplies(max_flow_bytes=1000)
    part = corpus.multipart(1, bytes(400), flags=1)
    replies.note(part)
    replies.note(part)
    # Others do not count with it, and one that has ended is forgotten.
    replies.note(corpus.multipart(1, bytes(900), flags=0, xid=8))
    replies.note(corpus.multipart(1, bytes(900), flags=0, xid=8))
    with pytest.raises(MalformedMessage) as caught:
        replies.note(part)
    assert caught.value.reason is MalformedReason.SIZE


def test_replies_that_only_begin_are_bounded() -> None:
    replies = OpenReplies(max_flow_bytes=1000)
    with pytest.raises(MalformedMessage) as caught:
        for xid in range(1000):
            replies.note(corpus.multipart(1, b"", flags=1, xid=xid))
    assert caught.value.reason is MalformedReason.SIZE


def test_a_reply_keeps_its_kind() -> None:
    replies = OpenReplies(max_flow_bytes=1000)
    replies.note(corpus.multipart(1, b"", flags=1))
    with pytest.raises(MalformedMessage) as caught:
        replies.note(corpus.multipart(4, b""))
    assert caught.value.reason is MalformedReason.VALUE

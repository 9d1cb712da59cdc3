"""Frames: what is built is read back, and nonsense from the wire is refused quietly."""

from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.rules import ETH_ARP, ETH_IPV4
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Arp

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    frames.parse(data)
    assert frames.parse(b"\xff" * 12 + ETH_ARP.to_bytes(2, "big") + data[:20]) is None


def test_an_answer_answers_its_question() -> None:
    question = Arp(frames.REQUEST, MAC, "10.0.0.1", "00:00:00:00:00:00", "10.0.0.2")
    parsed = frames.parse(frames.question_answer(question, OTHER))
    assert parsed is not None
    assert (parsed.eth_dst, parsed.eth_src, parsed.eth_type) == (MAC, OTHER, ETH_ARP)
    assert parsed.arp == Arp(frames.REPLY, OTHER, "10.0.0.2", MAC, "10.0.0.1")


def test_a_probe_claims_nobodys_address() -> None:
    parsed = frames.parse(frames.question("10.0.0.2"))
    assert parsed is not None
    assert parsed.arp is not None
    assert (parsed.arp.sender, parsed.arp.target) == (frames.NO_ADDRESSES[0], "10.0.0.2")


def test_ipv4_addresses_are_read() -> None:
    head = bytes.fromhex((OTHER + MAC).replace(":", "")) + ETH_IPV4.to_bytes(2, "big")
    body = bytes(12) + bytes([10, 0, 0, 1, 10, 0, 0, 2])
    parsed = frames.parse(head + body)
    assert parsed is not None
    assert (parsed.ip_src, parsed.ip_dst) == ("10.0.0.1", "10.0.0.2")
    assert frames.parse(head + body[:-1]) is None

"""NetFlow v9 and IPFIX: flows become samples; templates come late, wrong or never; nothing that is sent costs much."""

import random
import struct
import time
from socket import inet_aton

import pytest

from ryu_apps.telemetry.netflow import MAX_RATE, NetflowDecoder
from ryu_apps.telemetry.sampling import MalformedDatagram, Sampled, Sampling

EXPORTER, A, B = "leaf1", "10.0.0.1", "10.0.9.9"
# Information elements: octets, packets, source, destination, ports, TCP flags, input; RFC 7012
FIELDS = ((1, 8), (2, 8), (8, 4), (12, 4), (7, 2), (11, 2), (6, 1), (10, 4))
TEMPLATE, OPTIONS = 300, 301
VERSIONS = (9, 10)


def a_set(number: int, body: bytes) -> bytes:
    return struct.pack("!HH", number, 4 + len(body)) + body


def template(version: int, fields: tuple[tuple[int, int], ...] = FIELDS, number: int = TEMPLATE) -> bytes:
    body = struct.pack("!HH", number, len(fields)) + b"".join(struct.pack("!HH", *field) for field in fields)
    return a_set(0 if version == 9 else 2, body)


def sampling_template(version: int) -> bytes:
    # Scope: the exporting process; option: samplingInterval (34)
    if version == 9:
        return a_set(1, struct.pack("!HHHHHHH2x", OPTIONS, 4, 4, 1, 4, 34, 4))
    return a_set(3, struct.pack("!HHHHHHH2x", OPTIONS, 2, 1, 144, 4, 34, 4))


def sampling(rate: int) -> bytes:
    return a_set(OPTIONS, struct.pack("!II", 0, rate))


def flow(size: int = 1500, packets: int = 2, source: str = A, to: str = B, flags: int = 0x12) -> bytes:
    ends = inet_aton(source) + inet_aton(to)
    return struct.pack("!QQ", size, packets) + ends + struct.pack("!HHBI", 40_000, 443, flags, 7)


def flows(*own: bytes) -> bytes:
    body = b"".join(own)
    return a_set(TEMPLATE, body + bytes(-len(body) % 4 if own else 0))


def message(version: int, *sets: bytes, sequence: int = 1, domain: int = 5) -> bytes:
    body = b"".join(sets)
    if version == 9:
        return struct.pack("!HHIIII", 9, len(sets), 1000, 1_700_000_000, sequence, domain) + body
    return struct.pack("!HHIII", 10, 16 + len(body), 1_700_000_000, sequence, domain) + body


@pytest.mark.parametrize("version", VERSIONS)
def test_a_flow_is_a_sample_of_as_many_packets_as_the_options_say(version: int) -> None:
    decoder = NetflowDecoder()
    assert decoder(message(version, template(version), flows(flow())), EXPORTER).packets == [
        Sampled(A, B, 1500, 1, True, 7, 2)
    ]
    decoder(message(version, sampling_template(version), sampling(512), sequence=2), EXPORTER)
    (found,) = decoder(message(version, flows(flow(flags=0x10)), sequence=3), EXPORTER).packets
    assert (found.rate, found.opens) == (512, False)
    # Who says nothing is taken at the word of the settings; another domain is another exporter.
    (other,) = NetflowDecoder(64)(message(version, template(version), flows(flow())), EXPORTER).packets
    assert other.rate == 64
    assert decoder(message(version, flows(flow()), domain=6), EXPORTER).packets == []


@pytest.mark.parametrize("version", VERSIONS)
def test_flows_before_their_template_are_lost_and_counted_and_those_after_it_are_read(version: int) -> None:
    decoder = NetflowDecoder()
    early = decoder(message(version, flows(flow())), EXPORTER)
    assert (early.packets, early.lost) == ([], 1)
    assert len(decoder(message(version, template(version), sequence=2), EXPORTER).packets) == 0
    assert len(decoder(message(version, flows(flow(), flow()), sequence=3), EXPORTER).packets) == 2
    # A template that changes is the new one from then on.
    turned = tuple((other, size) for (_, size), other in zip(FIELDS, (1, 2, 12, 8, 7, 11, 6, 10), strict=True))
    (back,) = decoder(message(version, template(version, turned), flows(flow()), sequence=5), EXPORTER).packets
    assert (back.source, back.destination) == (B, A)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "body",
    [b"x", a_set(300, b"")[:3], struct.pack("!HH", 300, 3), struct.pack("!HH", 300, 100), struct.pack("!HH", 0, 0)],
)
def test_lengths_that_do_not_hold_are_refused(version: int, body: bytes) -> None:
    with pytest.raises(MalformedDatagram):
        NetflowDecoder()(message(version, template(version), body), EXPORTER)
    for data in (b"", b"\0\5" + bytes(60), message(version)[:10]):
        with pytest.raises(MalformedDatagram):
            NetflowDecoder()(data, EXPORTER)


def test_nonsense_in_sound_lengths_is_left_out() -> None:
    decoder = NetflowDecoder()
    nonsense = [flow(0, 0), flow(1, 2), flow(2**63, 5), flow(100, 2**62)]
    found = decoder(message(10, template(10), flows(*nonsense, flow())), EXPORTER)
    assert len(found.packets) == 1
    # An address of another length is no address; a rate that no exporter has is bounded.
    short = ((8, 3), *FIELDS[1:2], (1, 8), (12, 4))
    wrong = a_set(TEMPLATE, bytes(range(23)))
    assert NetflowDecoder()(message(10, template(10, short), wrong), EXPORTER).packets == []
    decoder(message(10, sampling_template(10), sampling(2**32 - 1)), EXPORTER)
    assert decoder(message(10, flows(flow())), EXPORTER).packets[0].rate <= MAX_RATE


def test_spoilt_messages_end_in_samples_or_one_error_and_soon() -> None:
    rng, started, sound, read = random.Random(11), time.process_time(), 0, 0
    good = [
        message(version, template(version), sampling_template(version), sampling(16), flows(flow(), flow()))
        for version in VERSIONS
    ]
    decoder = NetflowDecoder()
    for number in range(6_000):
        data = bytearray(good[number % 2])
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        try:
            read += len(
                decoder(bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data), "x").packets
            )
            sound += 1
        except MalformedDatagram:
            pass
    assert 0 < sound < 6_000 and read > 0
    assert time.process_time() - started < 60


def test_a_datagram_full_of_the_smallest_flows_and_one_of_many_templates_cost_little() -> None:
    decoder, started = NetflowDecoder(), time.process_time()
    tiny = template(9, ((4, 1),))
    with pytest.raises(MalformedDatagram):
        decoder(message(9, tiny, a_set(TEMPLATE, bytes(60_000))), EXPORTER)
    for domain in range(200):
        many = b"".join(template(9, ((4, 1),), 256 + number) for number in range(50))
        decoder(message(9, many, domain=domain), EXPORTER)
    assert len(decoder._decoder.templates) <= 10_001
    assert time.process_time() - started < 20


def test_strangers_are_refused_and_what_is_lost_makes_a_gap() -> None:
    taken = Sampling({"192.0.2.1": "leaf1"}, NetflowDecoder(), "netflow")
    taken.take(message(9, template(9), flows(flow())), "192.0.2.9", lambda *_: None, 10.0)
    taken.take(message(9, flows(flow())), "192.0.2.1", lambda *_: None, 10.0)
    assert taken.counts() == {("refused", "netflow"): 1, ("lost", "netflow datagrams"): 1}
    assert [one.complete for one in taken.make_batches(11.0)] == [False]

"""sFlow: sound datagrams become rows, everything else is refused by one error and costs nothing else."""

import random
import struct
import time
from math import isinf
from socket import AF_INET6, inet_aton, inet_pton

import pytest

from cpdb import FlowKey
from ryu_apps.telemetry.sampling import MalformedDatagram, Sampled, Sampling, relative_error
from ryu_apps.telemetry.sflow import SflowDecoder, decode

AGENT, C1, VIP = "127.0.0.1", "10.0.0.1", "10.0.0.100"


def opaque(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data + bytes(-len(data) % 4)


def frame(flags: int = 0x02, vlan: bool = False, options: int = 0) -> bytes:
    ip = struct.pack("!BBHHHBBH", 0x45 + options, 0, 60, 1, 0, 64, 6, 0) + inet_aton(C1) + inet_aton(VIP)
    tcp = struct.pack("!HHIIBBHHH", 1000, 80, 1, 0, 5 << 4, flags, 100, 0, 0)
    tag = struct.pack("!HH", 0x8100, 5) if vlan else b""
    return bytes(12) + tag + struct.pack("!H", 0x0800) + ip + bytes(4 * options) + tcp


def raw(data: bytes, size: int = 104, stripped: int = 4) -> bytes:
    return struct.pack("!I", 1) + opaque(struct.pack("!III", 1, size, stripped) + opaque(data))


def sampled_ipv4(size: int = 100) -> bytes:
    body = struct.pack("!II", size, 6) + inet_aton(C1) + inet_aton(VIP) + struct.pack("!IIII", 1000, 80, 0x12, 0)
    return struct.pack("!I", 3) + opaque(body)


def flow(records: list[bytes], rate: int = 100, expanded: bool = False) -> bytes:
    head = struct.pack("!10I", 1, 0, 7, rate, 1000, 0, 0, 7, 0, 8) if expanded else struct.pack(
        "!7I", 1, 7, rate, 1000, 0, 7, 8
    )  # fmt: skip
    return struct.pack("!I", 3 if expanded else 1) + opaque(head + struct.pack("!I", len(records)) + b"".join(records))


def counters() -> bytes:
    interface = struct.pack("!2IQ2IQ6IQ6I", 7, 6, 10**9, 1, 3, 12345, 10, 0, 0, 0, 0, 0, 54321, 20, 0, 0, 0, 0, 0)
    body = struct.pack("!2I", 1, 7) + struct.pack("!I", 1) + struct.pack("!I", 1) + opaque(interface)
    return struct.pack("!I", 2) + opaque(body)


def datagram(samples: list[bytes], sequence: int = 1, version: int = 5) -> bytes:
    head = struct.pack("!II", version, 1) + inet_aton(AGENT) + struct.pack("!IIII", 0, sequence, 1000, len(samples))
    return head + b"".join(samples)


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("vlan", [False, True])
def test_a_sampled_frame_is_read(expanded: bool, vlan: bool) -> None:
    found = decode(datagram([flow([raw(frame(vlan=vlan)), sampled_ipv4()], expanded=expanded), counters()]))
    assert found.packets == [Sampled(C1, VIP, 100, 100, True, 7)]
    assert [(one.index, one.rx_bytes, one.tx_bytes) for one in found.interfaces] == [(7, 12345, 54321)]


def test_a_sampled_frame_of_ipv6_is_read_and_so_is_its_record() -> None:
    ends = inet_pton(AF_INET6, "fd00::1") + inet_pton(AF_INET6, "fd00::100")
    head = struct.pack("!IHBB", 6 << 28, 20, 6, 64) + ends
    tcp = struct.pack("!HHIIBBHHH", 1000, 80, 1, 0, 5 << 4, 0x02, 100, 0, 0)
    whole = bytes(12) + struct.pack("!H", 0x86DD) + head + tcp
    record = struct.pack("!II", 100, 6) + ends + struct.pack("!IIII", 1000, 80, 0x02, 0)
    expected = [Sampled("fd00::1", "fd00::100", 100, 100, True, 7)]
    assert decode(datagram([flow([raw(whole)])])).packets == expected
    assert decode(datagram([flow([struct.pack("!I", 4) + opaque(record)])])).packets == expected
    assert decode(datagram([flow([raw(whole[: 14 + 39])])])).packets == []


def test_openings_are_found_behind_options_and_nowhere_else() -> None:
    assert [decode(datagram([flow([raw(data)])])).packets[0].opens for data in (frame(options=2), frame(0x12))] == [
        True,
        False,
    ]
    assert not decode(datagram([flow([sampled_ipv4()])])).packets[0].opens


def test_frames_that_are_no_ip_and_records_of_other_kinds_are_passed_over() -> None:
    arp = raw(bytes(12) + struct.pack("!H", 0x0806) + bytes(28))
    other = struct.pack("!I", 1001) + opaque(bytes(16))
    assert decode(datagram([flow([arp, other]), struct.pack("!I", 9 << 12 | 1) + opaque(b"x")])).packets == []


def test_a_header_that_was_cut_behind_its_addresses_is_read_and_one_cut_before_is_not() -> None:
    whole = 14 + 20
    assert decode(datagram([flow([raw(frame()[:whole])])])).packets == [Sampled(C1, VIP, 100, 100, False, 7)]
    assert decode(datagram([flow([raw(frame()[: whole - 1])])])).packets == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        datagram([], version=4),
        datagram([flow([raw(frame())])])[:-1],
        datagram([flow([raw(frame())])]) + b"x",
        datagram([flow([], rate=0)]),
        datagram([struct.pack("!II", 1, 2**32 - 1)]),
        struct.pack("!II", 5, 9) + bytes(40),
        datagram([])[:-4] + struct.pack("!I", 2**31),
    ],
)
def test_lengths_that_do_not_hold_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedDatagram):
        decode(data)


def test_spoilt_datagrams_end_in_rows_or_one_error_and_soon() -> None:
    rng, good = random.Random(7), datagram([flow([raw(frame()), sampled_ipv4()]), counters(), flow([], expanded=True)])
    started, sound = time.process_time(), 0
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        try:
            decode(bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data))
            sound += 1
        except MalformedDatagram:
            pass
    assert 0 < sound < 20_000
    assert time.process_time() - started < 60


# ---- rows


def talk_of(packet: Sampled, agent: str) -> FlowKey | None:
    return FlowKey(packet.source, packet.destination, None) if (packet.destination, agent) == (VIP, "leaf1") else None


def test_samples_are_scaled_up_and_marked_with_their_rate() -> None:
    sampling = Sampling({AGENT: "leaf1"}, SflowDecoder(), "sflow")
    sampling.take(datagram([flow([raw(frame())])] * 3), AGENT, talk_of, 10.0)
    sampling.take(datagram([flow([raw(frame(0x10))])], sequence=2), AGENT, talk_of, 10.5)
    (batch,) = sampling.make_batches(11.0)
    assert (batch.observer, batch.sampling, batch.t, batch.interval_s) == ("sflow/leaf1", 100, 11.0, 1.0)
    assert (list(batch.bytes), list(batch.packets), list(batch.connections)) == ([40_000], [400], [300])
    assert batch.complete
    assert relative_error(batch.packets[0] / 100) == pytest.approx(0.98)
    (silent,) = sampling.make_batches(12.0)
    assert (list(silent.flow_keys), silent.complete) == ([], True)


def test_lost_datagrams_and_dead_agents_make_gaps_not_silence() -> None:
    sampling = Sampling({AGENT: "leaf1"}, SflowDecoder(), "sflow")
    sampling.take(datagram([flow([raw(frame())])]), AGENT, talk_of, 10.0)
    sampling.take(datagram([flow([raw(frame())])], sequence=5), AGENT, talk_of, 10.2)
    (batch,) = sampling.make_batches(11.0)
    assert (batch.complete, sampling.lost) == (False, 3)
    assert sampling.make_batches(60.0) == []


def test_strangers_and_nonsense_are_counted_and_change_nothing() -> None:
    sampling = Sampling({AGENT: "leaf1"}, SflowDecoder(), "sflow")
    sampling.take(datagram([flow([raw(frame())])]), "192.0.2.1", talk_of, 10.0)
    sampling.take(b"\0\0\0\5", AGENT, talk_of, 10.0)
    assert sampling.refused == 2
    assert sampling.make_batches(11.0) == []


def test_absurd_sizes_fit_the_columns() -> None:
    sampling = Sampling({AGENT: "leaf1"}, SflowDecoder(), "sflow")
    for sequence in range(1, 5):
        data = datagram([flow([raw(frame(), size=2**32 - 1)], rate=2**31 - 1)] * 3, sequence)
        sampling.take(data, AGENT, talk_of, 10.0)
    (batch,) = sampling.make_batches(11.0)
    assert 2**60 < batch.bytes[0] < 2**63


def test_no_samples_no_certainty() -> None:
    assert isinf(relative_error(0))

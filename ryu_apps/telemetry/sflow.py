"""Reads sFlow version 5 datagrams, strictly: every length is checked before it is believed.

Structure as in "sFlow Version 5" (sflow.org, July 2004), section 5. Big-endian words of four bytes throughout.
"""

import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf, sqrt
from socket import inet_ntoa

import structlog

from cpdb import Batch, FlowKey, ForepathError, SettingsError
from ryu_apps.framework import sleep
from ryu_apps.pacing import RateLimiter
from ryu_apps.telemetry.rows import MAX_GROWTH

VERSION = 5
FLOW, COUNTERS, FLOW_EXPANDED, COUNTERS_EXPANDED = 1, 2, 3, 4
RAW_HEADER, SAMPLED_IPV4 = 1, 3
GENERIC_INTERFACE = 1
ETHERNET = 1
# A datagram is one UDP packet; nothing honest holds more records than this.
MAX_RECORDS = 512
PROTO_TCP, SYN, ACK = 6, 0x02, 0x10
_IPV4_TYPE, _VLAN_TYPE = b"\x08\x00", b"\x81\x00"

_WORD = struct.Struct("!I")
_IPV4 = struct.Struct("!2I4s4s4I")
_INTERFACE = struct.Struct("!2IQ2IQ6IQ6I")


class MalformedDatagram(ForepathError):
    """Something that cannot be an sFlow version 5 datagram."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled packet: it stands for `rate` packets of about its size."""

    source: str
    destination: str
    bytes: int
    rate: int
    opens: bool = False
    input: int = 0


@dataclass(frozen=True, slots=True)
class Interface:
    """Octets and packets that an interface counted, by its index."""

    index: int
    speed_bit_s: int
    rx_bytes: int
    rx_packets: int
    tx_bytes: int
    tx_packets: int


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram of one agent; `sequence` counts its datagrams, so that lost ones are noticed."""

    agent: str
    sub_agent: int
    sequence: int
    packets: list[Sampled] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)


class _Reader:
    """A cursor that cannot leave its bytes."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._at = memoryview(data), 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def word(self) -> int:
        return int(_WORD.unpack(self.take(4))[0])

    def take(self, size: int) -> memoryview:
        if size > self.left:
            raise MalformedDatagram(f"sFlow datagram ends {size - self.left} bytes too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def opaque(self) -> "_Reader":
        size = self.word()
        inner = _Reader(self.take(size))
        self.take(-size % 4)
        return inner

    def records(self) -> Iterator[tuple[int, "_Reader"]]:
        count = self.word()
        if count > MAX_RECORDS:
            raise MalformedDatagram(f"sFlow datagram claims {count} records")
        for _ in range(count):
            kind = self.word()
            yield kind, self.opaque()


def decode(data: bytes) -> Datagram:
    """A datagram. Records of other kinds are passed over; MalformedDatagram when a length does not hold."""
    reader = _Reader(data)
    version = reader.word()
    if version != VERSION:
        raise MalformedDatagram(f"sFlow version {version}, not {VERSION}")
    datagram = Datagram(_address(reader), reader.word(), reader.word())
    reader.word()
    for kind, sample in reader.records():
        if kind in (FLOW, FLOW_EXPANDED):
            datagram.packets.extend(_flow(sample, kind == FLOW_EXPANDED))
        elif kind in (COUNTERS, COUNTERS_EXPANDED):
            datagram.interfaces.extend(_counters(sample, kind == COUNTERS_EXPANDED))
    if reader.left:
        raise MalformedDatagram(f"{reader.left} bytes follow the last record of an sFlow datagram")
    return datagram


def _address(reader: _Reader) -> str:
    kind = reader.word()
    if kind not in (1, 2):
        raise MalformedDatagram(f"sFlow agent address of kind {kind}")
    raw = bytes(reader.take(4 if kind == 1 else 16))
    return inet_ntoa(raw) if kind == 1 else raw.hex()


def _flow(sample: _Reader, expanded: bool) -> Iterator[Sampled]:
    # sequence, source (one word or kind and index), rate, pool, drops, input, output
    words = [sample.word() for _ in range(10 if expanded else 7)]
    rate, input_ = (words[3], words[7]) if expanded else (words[2], words[5])
    if not 0 < rate < 2**31:
        raise MalformedDatagram(f"sFlow sampling rate {rate}")
    found = None
    for kind, record in sample.records():
        # Several records describe one and the same packet.
        if kind == RAW_HEADER:
            found = _raw(record, rate, input_) or found
        elif kind == SAMPLED_IPV4 and found is None:
            found = _ipv4(record, rate, input_)
    if found is not None:
        yield found


def _raw(record: _Reader, rate: int, input_: int) -> Sampled | None:
    protocol, size, stripped, header = record.word(), record.word(), record.word(), record.opaque()
    frame = bytes(header.take(header.left))
    if protocol != ETHERNET or len(frame) < 14 or size < stripped:
        return None
    at = 12
    while frame[at : at + 2] == _VLAN_TYPE and len(frame) >= at + 6:
        at += 4
    head = frame[at + 2 :]
    if frame[at : at + 2] != _IPV4_TYPE or len(head) < 20 or head[0] >> 4 != 4:
        return None
    source, destination = inet_ntoa(head[12:16]), inet_ntoa(head[16:20])
    return Sampled(source, destination, size - stripped, rate, _opens(head), input_)


def _opens(head: bytes) -> bool:
    size = (head[0] & 0xF) * 4
    first_fragment = not (head[6] & 0x1F or head[7])
    flags = head[size + 13] if head[9] == PROTO_TCP and first_fragment and len(head) > size + 13 else 0
    return flags & (SYN | ACK) == SYN


def _ipv4(record: _Reader, rate: int, input_: int) -> Sampled:
    size, protocol, source, destination, _, _, flags, _ = _IPV4.unpack(record.take(_IPV4.size))
    opens = protocol == PROTO_TCP and flags & (SYN | ACK) == SYN
    return Sampled(inet_ntoa(source), inet_ntoa(destination), size, rate, opens, input_)


def _counters(sample: _Reader, expanded: bool) -> Iterator[Interface]:
    for _ in range(3 if expanded else 2):
        sample.word()
    for kind, record in sample.records():
        if kind == GENERIC_INTERFACE:
            words = _INTERFACE.unpack(record.take(_INTERFACE.size))
            index, _, speed, _, _, rx_bytes, rx_packets, *_ = words
            tx_bytes, tx_packets = words[12], words[13]
            yield Interface(index, speed, rx_bytes, rx_packets, tx_bytes, tx_packets)


Seconds = float

# An agent that sends nothing for so long may be dead: its silence is no longer that of the pairs.
ALIVE_S = 30.0
MAX_FLOW_KEYS = 10_000
_REPORT_EVERY_S = 10.0
_log = structlog.get_logger("ryu_apps.telemetry.sflow")


def relative_error(samples: float) -> float:
    """Half the width of the 95 % interval of a row made of so many samples, relative to its value."""
    return 1.96 * sqrt(1 / samples) if samples > 0 else inf


@dataclass(slots=True)
class _Agent:
    """What one agent sent since the last rows."""

    since: Seconds
    heard: Seconds
    totals: dict[FlowKey, list[int]] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    rate: int = 0
    gap: bool = False


class Sampling:
    """Adds up samples by talk. `refused` counts datagrams of strangers or without sense, `lost` missing ones."""

    def __init__(self, agents: Mapping[str, str]) -> None:
        """`agents`: address -> name of the switch that sends from there; nobody else is listened to."""
        self._names = agents
        self._agents: dict[str, _Agent] = {}
        self._brake = RateLimiter()
        self.refused = 0
        self.lost = 0

    def take(self, data: bytes, peer: str, talk_of: Callable[[str, str], FlowKey | None], now: Seconds) -> None:
        """A datagram from `peer`. `talk_of(source, destination)` is None for packets that are no communication."""
        name = self._names.get(peer)
        if name is None:
            return self._refuse(peer, "not in the list of agents", now)
        try:
            datagram = decode(data)
        except MalformedDatagram as error:
            return self._refuse(peer, str(error), now)
        agent = self._agents.setdefault(name, _Agent(now, now))
        agent.heard = now
        self._count(agent, datagram)
        for packet in datagram.packets:
            talk = talk_of(packet.source, packet.destination)
            # Sources can be made up: there is room for so many at a time.
            if talk is not None and (talk in agent.totals or len(agent.totals) < MAX_FLOW_KEYS):
                total = agent.totals.setdefault(talk, [0, 0, 0])
                total[0] += packet.bytes * packet.rate
                total[1] += packet.rate
                total[2] += packet.rate if packet.opens else 0
            agent.rate = max(agent.rate, packet.rate)
        return None

    def _count(self, agent: _Agent, datagram: Datagram) -> None:
        before = agent.sequences.get(datagram.sub_agent)
        agent.sequences[datagram.sub_agent] = datagram.sequence
        missing = datagram.sequence - before - 1 if before is not None else 0
        # A restarted agent counts from the beginning.
        if missing > 0:
            self.lost += missing
            agent.gap = True

    def _refuse(self, peer: str, reason: str, now: Seconds) -> None:
        self.refused += 1
        if self._brake.due("refused", _REPORT_EVERY_S, now):
            _log.warning("sFlow datagram refused", peer=peer, reason=reason, refused_in_all=self.refused)

    def counts(self) -> dict[tuple[str, str], int]:
        """What went wrong so far, by kind and reason."""
        return {("refused", "sflow"): self.refused, ("lost", "sflow datagrams"): self.lost}

    def make_batches(self, now: Seconds) -> list[Batch]:
        """What was sampled since last time, a batch for each agent; silence counts only while nothing was lost."""
        batches = []
        for name, agent in self._agents.items():
            if now <= agent.since or (not agent.totals and now - agent.heard > ALIVE_S):
                continue
            sizes, packets, openings = (
                array("q", [min(row[n], MAX_GROWTH) for row in agent.totals.values()]) for n in range(3)
            )
            batches.append(
                Batch(
                    f"sflow/{name}", now, now - agent.since, list(agent.totals), sizes, packets, openings,
                    sampling=max(agent.rate, 1), complete=not agent.gap and now - agent.heard <= ALIVE_S,
                )
            )  # fmt: skip
            agent.since, agent.totals, agent.gap = now, {}, False
        return batches


_LARGEST = 65536
_BUFFER_BYTES = 4 << 20
# A flood of datagrams must not keep the switches waiting.
_TURN = 32

Take = Callable[[bytes, str, float], None]


def bound(listen: str) -> socket.socket:
    """A socket that receives on HOST:PORT. Raises SettingsError when that cannot be."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        receiver.bind((host.strip("[]") or "127.0.0.1", int(port)))
    except (OSError, OverflowError) as error:
        receiver.close()
        raise SettingsError(
            f"controller.sflow.listen = {listen!r}: {error}; name an address of this machine"
        ) from error
    return receiver


def receive(receiver: socket.socket, take: Take) -> None:
    """Hands every datagram to `take(data, address, now)`, for ever."""
    count = 0
    while True:
        data, peer = receiver.recvfrom(_LARGEST)
        take(data, str(peer[0]), time.time())
        count += 1
        if count % _TURN == 0:
            sleep(0)

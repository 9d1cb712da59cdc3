"""Reads sFlow version 5 datagrams, strictly: every length is checked before it is believed.

Structure as in "sFlow Version 5" (sflow.org, July 2004), section 5. Big-endian words of four bytes throughout.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cpdb import address_text
from ryu_apps.telemetry.sampling import MalformedDatagram, SampleBatch, Sampled

VERSION = 5
FLOW, COUNTERS, FLOW_EXPANDED, COUNTERS_EXPANDED = 1, 2, 3, 4
RAW_HEADER, SAMPLED_IPV4, SAMPLED_IPV6 = 1, 3, 4
GENERIC_INTERFACE = 1
ETHERNET = 1
# A datagram is one UDP packet; nothing honest holds more records than this.
MAX_RECORDS = 512
PROTO_TCP, SYN, ACK = 6, 0x02, 0x10
_IPV4_TYPE, _IPV6_TYPE, _VLAN_TYPE = b"\x08\x00", b"\x86\xdd", b"\x81\x00"

_WORD = struct.Struct("!I")
_SAMPLED_IP = {SAMPLED_IPV4: struct.Struct("!2I4s4s4I"), SAMPLED_IPV6: struct.Struct("!2I16s16s4I")}
_INTERFACE = struct.Struct("!2IQ2IQ6IQ6I")


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
    return address_text(raw)


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
        elif kind in _SAMPLED_IP and found is None:
            found = _ip(record, _SAMPLED_IP[kind], rate, input_)
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
    kind, head = frame[at : at + 2], frame[at + 2 :]
    if kind == _IPV4_TYPE and len(head) >= 20 and head[0] >> 4 == 4:
        ends, protocol, heads = (head[12:16], head[16:20]), head[9], (head[0] & 0xF) * 4
        later = bool(head[6] & 0x1F or head[7])
    elif kind == _IPV6_TYPE and len(head) >= 40 and head[0] >> 4 == 6:
        ends, protocol, heads, later = (head[8:24], head[24:40]), head[6], 40, False
    else:
        return None
    flags = head[heads + 13] if protocol == PROTO_TCP and not later and len(head) > heads + 13 else 0
    source, destination = map(address_text, ends)
    return Sampled(source, destination, size - stripped, rate, _opens(flags), input_)


def _opens(flags: int) -> bool:
    return flags & (SYN | ACK) == SYN


def _ip(record: _Reader, layout: struct.Struct, rate: int, input_: int) -> Sampled:
    size, protocol, source, destination, _, _, flags, _ = layout.unpack(record.take(layout.size))
    opens = protocol == PROTO_TCP and _opens(flags)
    return Sampled(address_text(source), address_text(destination), size, rate, opens, input_)


def _counters(sample: _Reader, expanded: bool) -> Iterator[Interface]:
    for _ in range(3 if expanded else 2):
        sample.word()
    for kind, record in sample.records():
        if kind == GENERIC_INTERFACE:
            words = _INTERFACE.unpack(record.take(_INTERFACE.size))
            index, _, speed, _, _, rx_bytes, rx_packets, *_ = words
            tx_bytes, tx_packets = words[12], words[13]
            yield Interface(index, speed, rx_bytes, rx_packets, tx_bytes, tx_packets)


class SflowDecoder:
    """Reads datagrams of many agents, and notices those that are missing."""

    def __init__(self) -> None:
        # (agent's name, sub-agent) -> number of its last datagram
        self._sequences: dict[tuple[str, int], int] = {}

    def __call__(self, data: bytes, agent: str) -> SampleBatch:
        """What a datagram tells. Raises MalformedDatagram."""
        datagram = decode(data)
        place = agent, datagram.sub_agent
        before = self._sequences.get(place)
        self._sequences[place] = datagram.sequence
        # A restarted agent counts from the beginning.
        lost = max(0, datagram.sequence - before - 1) if before is not None else 0
        return SampleBatch(datagram.packets, lost)

"""Reads NetFlow v9 and IPFIX: flows as samples, each of as many packets as its exporter says that one stands for.

The decoding is netflume's (templates of each exporter and domain, options, sequence numbers; all of it bounded): of the
packages that there are it is the one that applies sampling rates and is still released. Here is what of it is believed.
"""

from collections.abc import Mapping
from struct import unpack_from
from typing import Any

from netflume import Decoder as FlowDecoder

from cpdb import address_bytes, address_text
from ryu_apps.telemetry.sampling import MalformedDatagram, SampleBatch, Sampled

VERSIONS = (9, 10)
_HEADER_BYTES = {9: 20, 10: 16}
# A flow of more is nonsense, or somebody's counter since the beginning of time.
MAX_BYTES, MAX_RATE = 1 << 40, 1 << 24
# One datagram is a UDP packet: with templates of one byte it could claim tens of thousands of flows.
MAX_FLOWS = 2048
_SYN = 2


class NetflowDecoder:
    """Remembers each exporter's templates and sampling rate; `rate` is for those that never say theirs."""

    def __init__(self, rate: int = 1) -> None:
        self._rate = rate
        self._decoder: Any = FlowDecoder()  # type: ignore[no-untyped-call, unused-ignore]
        self.deferred = 0

    def __call__(self, data: bytes, exporter: str) -> SampleBatch:
        """What a datagram tells of IP; flows whose template has not come yet are lost, and counted so.

        Raises MalformedDatagram.
        """
        _check_lengths(data)
        message = self._decoder.decode(data, exporter)
        for event in self._decoder.take_events():
            if getattr(event, "reason", None):
                raise MalformedDatagram(str(event)[:200])
        if message is None:
            raise MalformedDatagram("no export message")
        if len(message.flows) > MAX_FLOWS:
            raise MalformedDatagram(f"{len(message.flows)} flows in one datagram")
        deferred = self._decoder.stats["deferred"]
        late, self.deferred = deferred - self.deferred, deferred
        stated = message.sampling_rate if message.sampling_rate > 1 else self._rate
        flows = (_sampled(record, stated) for record in message.flows)
        return SampleBatch([one for one in flows if one is not None], late + min(message.gap, MAX_FLOWS))


def _check_lengths(data: bytes) -> None:
    """Every set must fill the message exactly: a length that does not hold is no message. RFC 3954, 5; RFC 7011, 3."""
    version = int.from_bytes(data[:2])
    if version not in VERSIONS:
        raise MalformedDatagram(f"version {version} of NetFlow, neither 9 nor 10 (IPFIX)")
    at, end = _HEADER_BYTES[version], len(data)
    if end < at or (version == 10 and int.from_bytes(data[2:4]) != end):
        raise MalformedDatagram(f"a header that does not fit {end} bytes")
    while at < end:
        if at + 4 > end:
            raise MalformedDatagram(f"{end - at} bytes follow the last set")
        _, size = unpack_from("!HH", data, at)
        if size < 4 or at + size > end:
            raise MalformedDatagram(f"a set of {size} bytes where {end - at} are left")
        at += size


def _sampled(record: Mapping[str, Any], stated: int) -> Sampled | None:
    source, destination = _address(record.get("src_addr")), _address(record.get("dst_addr"))
    size, packets = record.get("octets"), record.get("packets")
    if not (isinstance(size, int) and isinstance(packets, int) and 0 < packets <= size <= MAX_BYTES):
        return None
    if source is None or destination is None:
        return None
    own = record.get("sampling_interval")
    rate = own if isinstance(own, int) and own > 0 else stated
    flags, ports = record.get("tcp_flags") or 0, (record.get("src_port") or 0, record.get("dst_port") or 0)
    # Both directions of a connection have SYN: whoever opens it comes from the higher port.
    opens = isinstance(flags, int) and bool(flags & _SYN) and ports[0] > ports[1]
    where = record.get("in_if")
    return Sampled(
        source, destination, size, min(rate, MAX_RATE), opens, where if isinstance(where, int) else 0, packets
    )


def _address(value: Any) -> str | None:
    try:
        return address_text(address_bytes(value)) if isinstance(value, str) else None
    except OSError:
        return None

"""Counters as a switch reported them, never interpreted here."""

from dataclasses import dataclass

Seconds = float


@dataclass(frozen=True, slots=True)
class FlowSample:
    """One flow entry's counters; `age_s` is how long the entry has existed."""

    dpid: int
    cookie: int
    t: Seconds
    age_s: Seconds
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PortSample:
    """One port's counters."""

    dpid: int
    port: int
    t: Seconds
    age_s: Seconds
    tx_packets: int
    tx_bytes: int
    tx_dropped: int
    rx_packets: int
    rx_bytes: int
    rx_dropped: int

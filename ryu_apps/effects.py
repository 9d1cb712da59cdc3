"""What the network decides to send, as data: the controller carries it out."""

from dataclasses import dataclass

from ryu_apps.finding.discovery import PortId


@dataclass(frozen=True, slots=True)
class Out:
    """Send a frame out of these ports of a switch."""

    dpid: int
    ports: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Put a frame through the tables of a switch as if it came in at `at`, once `after` hold their rules."""

    at: PortId
    data: bytes
    after: frozenset[int]


Effect = Out | Resubmit

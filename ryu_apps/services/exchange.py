"""One question to a service: a TCP connection opened by hand, with an HTTP request where a status is expected."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from ryu_apps.topology.frames import ACK, FIN, PROBE_PORT, RST, SYN, Segment

_PUSH = 0x08
_MASK = 0xFFFFFFFF
# "HTTP/1.1 200 "
_STATUS_AT, _HEAD_BYTES = 9, 12


class HttpCheck(NamedTuple):
    """What is asked for, and the status that is an answer; None: any of 200 to 299."""

    path: str
    status: int | None = None

    @classmethod
    def parse(cls, text: str) -> "HttpCheck":
        """From "/health" or "/health=204"."""
        path, _, status = text.rpartition("=") if "=" in text else (text, "", "")
        return cls(path, int(status) if status else None)

    def request(self, host: str) -> bytes:
        """One that is answered by one reply, and the end."""
        return f"GET {self.path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()

    def is_met(self, reply: bytes) -> bool:
        """Whether a reply begins with the status that is expected."""
        number = reply[_STATUS_AT:_HEAD_BYTES]
        if not reply.startswith(b"HTTP/1.") or not number.isdigit():
            return False
        return number.startswith(b"2") if self.status is None else int(number) == self.status


class ProbeVerdict(NamedTuple):
    """Whether the service is well, None while that is open, and what is sent next."""

    well: bool | None = None
    reply: Segment | None = None


@dataclass(slots=True)
class Exchange:
    """A question under way. `next` is the number of the next byte of ours."""

    opening: Segment
    check: HttpCheck | None = None
    asked: bool = False
    next: int = 0

    def hear(self, segment: Segment) -> ProbeVerdict:
        """Takes a segment of the service."""
        if not self.asked:
            return self._opened(segment)
        if segment.flags & RST:
            return ProbeVerdict(well=False)
        if not segment.data:
            return ProbeVerdict(False, self._reset(segment)) if segment.flags & FIN else ProbeVerdict()
        assert self.check is not None
        return ProbeVerdict(self.check.is_met(segment.data), self._reset(segment))

    def _opened(self, segment: Segment) -> ProbeVerdict:
        if segment.acknowledged != (self.opening.sequence + 1) & _MASK:
            return ProbeVerdict()
        if segment.flags & RST or not segment.flags & SYN:
            return ProbeVerdict(well=False)
        self.next = segment.acknowledged
        if self.check is None:
            return ProbeVerdict(True, self._reset(segment))
        request = self.check.request(self.opening.source)
        self.asked = True
        back = self._back(segment, ACK | _PUSH)
        self.next = (self.next + len(request)) & _MASK
        return ProbeVerdict(None, replace(back, data=request))

    def abandon(self) -> Segment | None:
        """What ends it before its answer: the same port cannot ask again while it is open."""
        return replace(self.opening, sequence=self.next, flags=RST) if self.asked else None

    def _back(self, segment: Segment, flags: int) -> Segment:
        taken = len(segment.data) + bool(segment.flags & (SYN | FIN))
        heard = (segment.sequence + taken) & _MASK
        return Segment(segment.to, PROBE_PORT, segment.source, segment.source_port, self.next, heard, flags)

    def _reset(self, segment: Segment) -> Segment:
        return self._back(segment, RST | ACK)

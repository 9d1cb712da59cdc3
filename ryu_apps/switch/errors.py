"""What switches refuse of us, and what we refuse of them: counted by reason, and logged at a bounded rate."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from ryu_apps.effects import Alert
from ryu_apps.pacing import RateLimiter

Seconds = float

_MAX_KINDS = 200
_LOG_EVERY_S = 10.0
# So many lines about connections in so many seconds; what is beyond is counted and told in the next line.
_MAX_LINES = 5
_SPAN_S = 10.0
_MAX_STRANGERS = 100
_log = structlog.get_logger("ryu_apps.switch.errors")
# Types of messages in the head that a switch sends back with its error, by OpenFlow 1.3.5, section 7.1
_TYPES = {2: "echo request", 9: "switch configuration", 13: "packet out", 14: "rule", 15: "group", 16: "port"}
_TYPES |= {17: "table", 18: "statistics", 20: "barrier", 24: "role", 26: "asynchronous configuration", 29: "meter"}


@dataclass(frozen=True, slots=True)
class SwitchError:
    """An error message: the transaction number of what was refused, why, and the beginning of what was refused."""

    xid: int
    reason: str
    data: bytes


@dataclass(slots=True)
class SwitchErrors:
    """Every error of every switch: what it was about, and the switch's reason; `counts` only grows."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _limiter: RateLimiter = field(default_factory=RateLimiter)

    def add(self, switch: str, about: str, reason: str, now: Seconds) -> None:
        """Counts an error, and logs it unless the same was logged a moment ago."""
        kind = (about, reason) if (about, reason) in self.counts or len(self.counts) < _MAX_KINDS else ("other", "")
        self.counts[kind] += 1
        if self._limiter.due((switch, kind), _LOG_EVERY_S, now):
            _log.warning("switch refused", switch=switch, about=about, reason=reason, times=self.counts[kind])

    def tallies(self) -> dict[tuple[str, str], int]:
        """Counts as the controller tells them."""
        return {("switch error", f"{about}: {reason}"[:128]): count for (about, reason), count in self.counts.items()}


def unmatched(error: SwitchError) -> str:
    """What an error is about that no request of ours explains, by the piece of the request that came with it."""
    data = error.data
    kind = _TYPES.get(data[1], f"message of type {data[1]}") if len(data) >= 2 else "unknown message"
    return f"unmatched {kind}"


@dataclass(slots=True)
class ConnectionRefusals:
    """`counts` only grows: reason -> how often. Reasons are those of the guard, and of the connections' own bounds."""

    counts: Counter[str] = field(default_factory=Counter)
    # Who was not let in, for alarms: a name or an address, and why. What nobody takes is not kept for ever.
    strangers: deque[Alert] = field(default_factory=lambda: deque(maxlen=_MAX_STRANGERS))
    _since: Seconds = float("-inf")
    _lines: int = 0
    _silent: int = 0

    def add(self, reason: str, now: Seconds) -> int | None:
        """Counts one. Returns how many were not logged since the last line, or None when this one must not be."""
        self.counts[reason] += 1
        if now - self._since >= _SPAN_S:
            self._since, self._lines = now, 0
        if self._lines >= _MAX_LINES:
            self._silent += 1
            return None
        self._lines += 1
        untold, self._silent = self._silent, 0
        return untold


def other_version(address: str, offered: Iterable[int]) -> Alert:
    """A switch that speaks none of our versions; 1 is OpenFlow 1.0."""
    versions = ", ".join(f"1.{version - 1}" for version in offered) or "none"
    detail = f"the switch at {address} offers OpenFlow {versions}, and 1.3 is spoken here: allow it at the switch"
    return Alert("openflow_version", address, address, detail)


# One for the process: connections come and go, what they did stays.
refusals = ConnectionRefusals()

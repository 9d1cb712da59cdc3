"""What was asked of a switch lately, by transaction number: a switch that refuses names no more than that."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import structlog

from ryu_apps.pacing import RateLimiter

Seconds = float

# Answered or not, what is older than so many requests is no longer refused.
_MOST = 8192
_KINDS_MOST = 200
_LOG_EVERY_S = 10.0
_log = structlog.get_logger("ryu_apps.switch.asked")
# Types of messages in the head that a switch sends back with its error, by OpenFlow 1.3.5, section 7.1
_TYPES = {2: "echo request", 9: "switch configuration", 13: "packet out", 14: "rule", 15: "group", 16: "port"}
_TYPES |= {17: "table", 18: "statistics", 20: "barrier", 24: "role", 26: "asynchronous configuration", 29: "meter"}


@dataclass(frozen=True, slots=True)
class SwitchError:
    """An error message: the transaction number of what was refused, why, and the beginning of what was refused."""

    xid: int
    reason: str
    data: bytes


class Asked:
    """The latest requests that are no changes: transaction number -> what it was."""

    def __init__(self) -> None:
        self._about: OrderedDict[int, str] = OrderedDict()

    def note(self, xid: int, about: str) -> None:
        """Remembers a request."""
        self._about[xid] = about
        if len(self._about) > _MOST:
            self._about.popitem(last=False)

    def take(self, xid: int) -> str | None:
        """What that request was; None for one that was never sent, or told before."""
        return self._about.pop(xid, None)


@dataclass(slots=True)
class Complaints:
    """Every error of every switch: what it was about, and the switch's reason; `counts` only grows."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _brake: RateLimiter = field(default_factory=RateLimiter)

    def add(self, switch: str, about: str, reason: str, now: Seconds) -> None:
        """Counts an error, and logs it unless the same was logged a moment ago."""
        kind = (about, reason) if (about, reason) in self.counts or len(self.counts) < _KINDS_MOST else ("other", "")
        self.counts[kind] += 1
        if self._brake.due((switch, kind), _LOG_EVERY_S, now):
            _log.warning("switch refused", switch=switch, about=about, reason=reason, times=self.counts[kind])

    def tallies(self) -> dict[tuple[str, str], int]:
        """Counts as the controller tells them."""
        return {("switch error", f"{about}: {reason}"[:128]): count for (about, reason), count in self.counts.items()}


def unmatched(error: SwitchError) -> str:
    """What an error is about that no request of ours explains, by the piece of the request that came with it."""
    data = error.data
    kind = _TYPES.get(data[1], f"message of type {data[1]}") if len(data) >= 2 else "unknown message"
    return f"unmatched {kind}"

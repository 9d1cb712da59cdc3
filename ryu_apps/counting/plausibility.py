"""What counters cannot truly say: more than the line carries, or bytes that only one end of a link has seen.

Such rows are kept and marked, so that nobody learns from them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cpdb import Talk
from ryu_apps.counting.counters import Growth
from ryu_apps.rules import PortId

Seconds = float
BytesPerS = float

# Counters come in lumps: one reading may hold what was sent while an earlier one was already on its way.
LUMP_S = 1.5
TOLERANCE = 1.1
WINDOW_S = 5.0
# So many windows in a row must disagree before a link is doubted.
STRIKES = 3
# Both ends are read at different moments: so many seconds of the highest rate may be missing at one of them.
APART_S = 2.0
LEAST_BYTES = 100_000


class LineSpeeds:
    """A leaky bucket for each source, drained at its line's speed: what overflows cannot have been sent."""

    def __init__(self) -> None:
        self._speeds: Mapping[str, BytesPerS] = {}
        # Source -> (bytes that its line cannot yet have carried, at)
        self._levels: dict[str, tuple[float, Seconds]] = {}

    def declare(self, speeds: Mapping[str, BytesPerS]) -> None:
        """Line speed of each source that has a known one."""
        self._speeds = speeds
        self._levels = {source: level for source, level in self._levels.items() if source in speeds}

    def impossible(self, talks: Sequence[Talk], sizes: Sequence[int], since: Seconds, now: Seconds) -> set[str]:
        """Sources that claim more than their line carries, given the bytes of each talk in (since, now]."""
        totals: dict[str, int] = {}
        for talk, size in zip(talks, sizes, strict=True):
            totals[talk.source] = totals.get(talk.source, 0) + size
        return {source for source, total in totals.items() if self._overflows(source, total, since, now)}

    def _overflows(self, source: str, total: int, since: Seconds, now: Seconds) -> bool:
        speed = self._speeds.get(source)
        if not speed:
            return False
        level, then = self._levels.get(source, (0.0, since))
        most = speed * LUMP_S
        level = max(0.0, level + total - speed * TOLERANCE * (now - min(then, since)))
        # A single lie must not stain what comes after it.
        self._levels[source] = min(level, most), now
        return level > most


@dataclass(slots=True)
class _End:
    """What a port sent and received in the present window."""

    sent: int = 0
    received: int = 0
    looks: int = 0
    fastest: BytesPerS = 0.0


@dataclass(slots=True)
class BothEnds:
    """Compares the two ends of every link between switches; `doubted` are the ports of links that disagree."""

    doubted: frozenset[PortId] = frozenset()
    _ends: dict[PortId, _End] = field(default_factory=dict)
    _strikes: dict[tuple[PortId, PortId], int] = field(default_factory=dict)
    _since: Seconds = 0.0

    def grew(self, at: PortId, growth: Growth) -> None:
        """A port's growth of (bytes, packets, drops) sent and received."""
        end, (sent, _, _, received, _, _) = self._ends.setdefault(at, _End()), growth.values
        end.sent, end.received, end.looks = end.sent + sent, end.received + received, end.looks + 1
        end.fastest = max(end.fastest, max(sent, received) / max(growth.interval_s, 0.1))

    def judge(self, peer_of: Callable[[PortId], PortId | None], now: Seconds) -> bool:
        """Closes the window when it is time; True when other links are doubted than before."""
        if now - self._since < WINDOW_S:
            return False
        ends, self._ends, self._since = self._ends, {}, now
        strikes = {}
        for at, end in ends.items():
            peer = peer_of(at)
            other = ends.get(peer) if peer is not None else None
            if peer is None or other is None or min(end.looks, other.looks) < 2:
                continue
            apart = abs(end.sent - other.received)
            if apart > _allowed(end, other):
                strikes[at, peer] = self._strikes.get((at, peer), 0) + 1
        self._strikes = strikes
        doubted = frozenset(at for pair, count in strikes.items() if count >= STRIKES for at in pair)
        changed, self.doubted = doubted != self.doubted, doubted
        return changed


def _allowed(end: _End, other: _End) -> float:
    most = max(end.sent, other.received)
    return (TOLERANCE - 1) * most + APART_S * min(max(end.fastest, other.fastest), most / 2) + LEAST_BYTES


def marked(talks: Sequence[Talk], sources: Collection[str], doubtful: Callable[[Talk], bool] | None) -> list[int]:
    """Places of the talks of these sources, and of those that are doubtful for another reason."""
    if not sources and doubtful is None:
        return []
    return [
        place for place, talk in enumerate(talks) if talk.source in sources or (doubtful is not None and doubtful(talk))
    ]

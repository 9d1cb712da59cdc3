"""Alarms of the controller itself: told at once, seldom while they go on, and cleared when it is over."""

from collections import Counter
from dataclasses import dataclass, field, replace

from cpdb import Alarm

Seconds = float

_AGAIN_S = 10.0
_OVER_S = 60.0
# A hostile peer must not be able to fill the memory.
_MOST = 1000


@dataclass(slots=True)
class _Open:
    alarm: Alarm
    told_at: Seconds | None = None
    untold: int = 1


@dataclass(slots=True)
class Watchman:
    """Counts by kind in `counts`, which only grows; remembers what is open."""

    counts: Counter[str] = field(default_factory=Counter)
    _open: dict[tuple[str, str, str], _Open] = field(default_factory=dict)

    def saw(self, kind: str, key: str, node: str, detail: str, now: Seconds) -> bool:
        """Something to look at happened; True when it is the first time in a while."""
        self.counts[kind] += 1
        known = self._open.get((kind, key, node))
        if known is None:
            if len(self._open) < _MOST:
                self._open[kind, key, node] = _Open(Alarm(kind, key, node, detail, now, now))
            return True
        known.alarm = replace(known.alarm, detail=detail, last_at=now)
        known.untold += 1
        return False

    def news(self, now: Seconds) -> list[Alarm]:
        """What is to be written now; `count` is how often it happened since it was written last."""
        found = []
        for place, one in list(self._open.items()):
            if now - one.alarm.last_at > _OVER_S:
                del self._open[place]
                found.append(replace(one.alarm, cleared_at=now))
            elif one.untold and (one.told_at is None or now - one.told_at >= _AGAIN_S):
                found.append(replace(one.alarm, count=one.untold))
                one.told_at, one.untold = now, 0
        return found

    def tallies(self) -> dict[tuple[str, str], int]:
        """Counts as the controller tells them."""
        return {("alarm", kind): count for kind, count in self.counts.items()}

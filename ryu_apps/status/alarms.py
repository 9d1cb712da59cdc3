"""Alarms of the controller itself: told at once, seldom while they go on, and cleared when it is over."""

from collections import Counter
from dataclasses import dataclass, field, replace

from cpdb import Alarm, Publisher

Seconds = float

_AGAIN_S = 10.0
_OVER_S = 60.0
# A hostile peer must not be able to fill the memory.
_MOST = 1000


def _always_news(_before: Alarm, _alarm: Alarm) -> bool:
    return False


@dataclass(slots=True)
class Watchman:
    """Counts by kind in `counts`, which only grows; remembers what is open, each with its count since it was told."""

    counts: Counter[str] = field(default_factory=Counter)
    _open: dict[tuple[str, str, str], Alarm] = field(default_factory=dict)
    _publisher: Publisher[tuple[str, str, str], Alarm] = field(
        default_factory=lambda: Publisher(pause_s=_AGAIN_S, same=_always_news)
    )

    def saw(self, kind: str, key: str, node: str, detail: str, now: Seconds) -> bool:
        """Something to look at happened; True when it is the first time in a while."""
        self.counts[kind] += 1
        place = kind, key, node
        before = self._open.get(place)
        if before is None:
            if len(self._open) < _MOST:
                self._open[place] = Alarm(kind, key, node, detail, now, now, count=1)
            return True
        self._open[place] = replace(before, detail=detail, last_at=now, count=before.count + 1)
        return False

    def news(self, now: Seconds) -> list[Alarm]:
        """What is to be written now; `count` is how often it happened since it was written last."""
        self._open = {place: alarm for place, alarm in self._open.items() if now - alarm.last_at <= _OVER_S}
        news = self._publisher.publish(
            {place: alarm if alarm.count else None for place, alarm in self._open.items()}, now
        )
        for place in news.said:
            self._open[place] = replace(self._open[place], count=0)
        return [*(replace(alarm, cleared_at=now) for alarm in news.gone.values()), *news.said.values()]

    def tallies(self) -> dict[tuple[str, str], int]:
        """Counts as the controller tells them."""
        return {("alarm", kind): count for kind, count in self.counts.items()}

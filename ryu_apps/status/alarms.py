"""Alarms of the controller itself: told at once, seldom while they go on, and cleared when it is over."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog

from cpdb import Alarm, EventCount, ObservedKind, Publisher
from ryu_apps.effects import Alert

Seconds = float

_AGAIN_S = 10.0
_OVER_S = 60.0
# A hostile peer must not be able to fill the memory.
_MAX_OPEN = 1000
_log = structlog.get_logger("ryu_apps.status.alarms")


def _always_news(_before: Alarm, _alarm: Alarm) -> bool:
    return False


@dataclass(slots=True)
class AlarmLog:
    """Counts by kind in `counts`, which only grows; remembers what is open, each with its count since it was told."""

    counts: Counter[str] = field(default_factory=Counter)
    _open: dict[tuple[str, str, str], Alarm] = field(default_factory=dict)
    _publisher: Publisher[tuple[str, str, str], Alarm] = field(
        default_factory=lambda: Publisher(pause_s=_AGAIN_S, same=_always_news)
    )

    def record(self, alert: Alert, now: Seconds) -> None:
        """Something to look at happened: it is logged when it is the first time in a while."""
        kind, key, node, detail = alert.kind, alert.key, alert.node, alert.detail
        self.counts[kind] += 1
        place = kind, key, node
        before = self._open.get(place)
        if before is None:
            if len(self._open) < _MAX_OPEN:
                self._open[place] = Alarm(kind, key, node, detail, now, now, count=1)
            _log.warning("alarm", kind=kind, at=key, why=detail)
            return
        self._open[place] = replace(before, detail=detail, last_at=now, count=before.count + 1)

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


class EventCountPublisher:
    """What was said of each count, by kind and reason."""

    def __init__(self) -> None:
        self._publisher: Publisher[tuple[str, str], EventCount] = Publisher()

    def news(self, counts: Mapping[tuple[str, str], int], now: Seconds) -> list[EventCount]:
        """A record for each count that is not 0 and not what it was."""
        facts = {
            (kind, reason): EventCount(ObservedKind(kind), reason, count, now)
            for (kind, reason), count in counts.items()
            if count
        }
        return list(self._publisher.publish(facts, now).said.values())

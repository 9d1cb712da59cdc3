"""Tells the database how each destination is: once per change, with an alarm while somebody must look at it."""

from collections.abc import Iterable
from dataclasses import replace

from cpdb import Alarm, HealthStatus, Observed
from ryu_apps.services.conflicts import DUPLICATE, MOVED
from ryu_apps.services.virtual_ips import Word

Seconds = float

KIND = "health"
NODE = "controller"
# An open alarm is confirmed no oftener than this.
AGAIN_S = 30.0


class Vitals:
    """Remembers what was said about each destination."""

    def __init__(self) -> None:
        self._said: dict[str, Word] = {}
        self._alarms: dict[str, Alarm] = {}

    def news(self, words: Iterable[Word], now: Seconds) -> list[Observed | Alarm]:
        """Rows for what changed since last time; destinations that are gone are said to be removed."""
        current = {f"{one.virtual_ip}/{one.name}": one for one in words}
        rows: list[Observed | Alarm] = []
        for key, word in current.items():
            if key not in self._said:
                # An earlier controller may have left alarms; if they still hold, they are raised anew.
                rows += [Alarm(kind, key, NODE, "", now, now, cleared_at=now) for kind in (DUPLICATE, MOVED)]
            if self._said.get(key) != word:
                rows.append(Observed(KIND, key, NODE, 0, word.status, word.detail, now))
            rows += self._alarm(key, word, now)
        for key in self._said.keys() - current.keys():
            rows.append(Observed(KIND, key, NODE, 0, "removed", "is no longer a destination", now))
            rows += self._cleared(key, now)
        self._said = current
        return rows

    def _alarm(self, key: str, word: Word, now: Seconds) -> list[Alarm]:
        open_one = self._alarms.get(key)
        if word.status is not HealthStatus.FROZEN:
            return self._cleared(key, now)
        if open_one is None or open_one.kind != word.alarm:
            made = Alarm(word.alarm, key, NODE, word.detail, now, now)
            rows = [*self._cleared(key, now), made]
        elif now - open_one.last_at >= AGAIN_S:
            made = replace(open_one, detail=word.detail, last_at=now)
            rows = [made]
        else:
            return []
        self._alarms[key] = made
        return rows

    def _cleared(self, key: str, now: Seconds) -> list[Alarm]:
        gone = self._alarms.pop(key, None)
        return [] if gone is None else [replace(gone, cleared_at=now)]

"""Turns counters that only grow into what happened since last time; no byte is lost or counted twice."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

Seconds = float

# A switch and this machine measure time apart: an entry this much older than the last look may still be new.
BIRTH_SLACK_S = 0.25


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of one thing at `t`; the thing is `age_s` old."""

    t: Seconds
    age_s: Seconds
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """What was added in (t - interval_s, t]."""

    t: Seconds
    interval_s: Seconds
    values: tuple[int, ...]


class Counters:
    """Remembers the last reading of each key and answers with the growth since.

    * A key seen for the first time counts fully if it was born after the key's `watched_since`; else its past is
      unknown and the first reading is only the base: missing is not zero.
    * A reading that is not newer than the last is a duplicate: nothing.
    * Counters that went back, or an age that did, mean a new start: all of the new value is growth.
    * A gap simply makes the interval longer.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, Reading] = {}

    def grow(self, key: Hashable, reading: Reading, watched_since: Seconds | None = None) -> Growth | None:
        """Growth since the last reading of `key`; None when there is nothing sound to say."""
        last = self._last.get(key)
        if last is not None and reading.t <= last.t:
            return None
        self._last[key] = reading
        if last is None:
            return _first(reading, watched_since)
        if _restarted(last, reading):
            return Growth(reading.t, reading.t - last.t, reading.values)
        values = tuple(new - old for new, old in zip(reading.values, last.values, strict=True))
        return Growth(reading.t, reading.t - last.t, values)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Keys that are gone for good."""
        for key in keys:
            self._last.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._last


def _first(reading: Reading, watched_since: Seconds | None) -> Growth | None:
    if watched_since is None or reading.t - reading.age_s < watched_since - BIRTH_SLACK_S:
        return None
    return Growth(reading.t, max(reading.t - watched_since, 1e-3), reading.values)


def _restarted(last: Reading, reading: Reading) -> bool:
    if any(new < old for new, old in zip(reading.values, last.values, strict=True)):
        return True
    # Born after the last reading: the old counters ended with the old entry, however small the new ones are.
    return reading.age_s + BIRTH_SLACK_S < reading.t - last.t

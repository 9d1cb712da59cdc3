"""Turns counters that only grow into what happened since last time; no byte is lost or counted twice."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from ryu_apps.counting.flow_counters import BIRTH_SLACK_S, TIME_WENT_BACK_S, UNAVAILABLE, grown

Seconds = float


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
    * Counters that went back, or an age that did, mean a new start: all of the new value is growth. Past the end of
      64 bits a counter wraps. A counter that the switch does not have (all ones) does not grow.
    * A gap simply makes the interval longer.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, Reading] = {}

    def grow(self, key: Hashable, reading: Reading, watched_since: Seconds | None = None) -> Growth | None:
        """Growth since the last reading of `key`; None when there is nothing sound to say."""
        last = self._last.get(key)
        reading = replace(reading, values=_available(reading.values, last))
        if last is not None and reading.t <= last.t:
            if reading.t < last.t - TIME_WENT_BACK_S:
                # The clock was set back: this is only a base.
                self._last[key] = reading
            return None
        self._last[key] = reading
        if last is None:
            return _first(reading, watched_since)
        # Born after the last reading: the old counters ended with the old thing, however small the new ones are.
        anew = reading.age_s + BIRTH_SLACK_S < reading.t - last.t
        return Growth(reading.t, reading.t - last.t, reading.values if anew else grown(reading.values, last.values))

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


def _available(values: tuple[int, ...], last: Reading | None) -> tuple[int, ...]:
    if UNAVAILABLE not in values:
        return values
    before = last.values if last else (0,) * len(values)
    return tuple(old if value == UNAVAILABLE else value for value, old in zip(values, before, strict=True))

"""Bounds work by time: what a burst of packets makes the controller compute, and how often something may happen."""

import time
from collections.abc import Callable, Iterable

from ryu_apps.effects import Effect

Seconds = float

# Working out what switches should hold takes no more than about a third of the time, but nobody waits longer than this.
_REST = 2.0
_MAX_REST_S = 0.25
_MAX_GATHERED = 10_000
# A rate limiter remembers so many keys, and forgets those of so long ago when there are more
_MAX_KEYS = 10_000
_KEYS_S = 10.0


class Pacing:
    """Gathers effects of packets; `settle` is called at once when there was rest enough, else once for many."""

    def __init__(self, settle: Callable[[list[Effect], Seconds], None]) -> None:
        self._settle = settle
        self._gathered: list[Effect] = []
        self._next: Seconds = float("-inf")
        self._promised = False

    def offer(self, effects: Iterable[Effect], now: Seconds) -> Seconds | None:
        """Takes a packet's effects. Returns the seconds after which `flush` has to be called; None: it need not be."""
        # What is beyond is as if the packet had been lost.
        self._gathered += list(effects)[: _MAX_GATHERED - len(self._gathered)]
        if self._promised:
            return None
        if now >= self._next:
            self.flush(now)
            return None
        self._promised = True
        return self._next - now

    def flush(self, now: Seconds) -> None:
        """Settles everything gathered so far."""
        effects, self._gathered, self._promised = self._gathered, [], False
        begun = time.monotonic()
        try:
            self._settle(effects, now)
        finally:
            took = time.monotonic() - begun
            self._next = now + took + min(_MAX_REST_S, _REST * took)


class RateLimiter:
    """Says whether something may happen again: not more often than every so many seconds for each key."""

    def __init__(self) -> None:
        self._last: dict[object, Seconds] = {}

    def due(self, key: object, every_s: Seconds, now: Seconds) -> bool:
        """True at most once in `every_s` for `key`."""
        if now - self._last.get(key, float("-inf")) < every_s:
            return False
        if len(self._last) > _MAX_KEYS:
            self._last = {one: t for one, t in self._last.items() if now - t < _KEYS_S}
        self._last[key] = now
        return True


class TokenBuckets:
    """A token bucket for each key: so many a second, and once a second's worth at once."""

    def __init__(self) -> None:
        self._left: dict[object, tuple[float, Seconds]] = {}

    def take(self, key: object, per_s: float, now: Seconds) -> bool:
        """True when `key` may do one thing more."""
        if len(self._left) > _MAX_KEYS:
            # Whoever invents keys gets no more by it than all that were forgotten begin anew.
            self._left.clear()
        left, since = self._left.get(key, (per_s, now))
        left = min(per_s, left + (now - since) * per_s)
        self._left[key] = (left - 1.0 if left >= 1.0 else left), now
        return left >= 1.0

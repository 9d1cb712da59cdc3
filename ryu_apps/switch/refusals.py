"""Counts what was refused, by reason, and says so in the log without letting a hostile peer fill it."""

from collections import Counter
from dataclasses import dataclass, field

Seconds = float

# So many lines in so many seconds; what is beyond is counted and told in the next line.
_LINES = 5
_SPAN_S = 10.0


@dataclass(slots=True)
class Refusals:
    """`counts` only grows: reason -> how often. Reasons are those of the guard, and of the connections' own bounds."""

    counts: Counter[str] = field(default_factory=Counter)
    _since: Seconds = float("-inf")
    _lines: int = 0
    _silent: int = 0

    def add(self, reason: str, now: Seconds) -> int | None:
        """Counts one. Returns how many were not logged since the last line, or None when this one must not be."""
        self.counts[reason] += 1
        if now - self._since >= _SPAN_S:
            self._since, self._lines = now, 0
        if self._lines >= _LINES:
            self._silent += 1
            return None
        self._lines += 1
        untold, self._silent = self._silent, 0
        return untold


# One for the process: connections come and go, what they did stays.
refusals = Refusals()

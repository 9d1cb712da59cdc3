"""How old a switch's counters may be: some renew them every second, some every half minute, whoever asks."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from cpdb import Observed

Seconds = float

NODE = "controller"


class Tallies:
    """Remembers what was told."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], int] = {}

    def news(self, counts: Mapping[tuple[str, str], int], now: Seconds) -> list[Observed]:
        """A record for each count, by (kind, key), that is not 0 and not what it was."""
        fresh = {name: count for name, count in counts.items() if count and self._told.get(name) != count}
        self._told |= fresh
        return [Observed(kind, key, NODE, 0, "counted", str(count), now) for (kind, key), count in fresh.items()]


KIND = "refresh"
# An entry that rested for longer says nothing about the switch.
LONGEST_S = 60.0
# So many times between distinct values are needed before anything is said, and so many are remembered.
LEAST, MOST = 20, 512
# Entries also rest by themselves, which makes times longer, never shorter: the low end belongs to the switch.
LOW = 0.1
_SAMPLE = 64
_TELL_EVERY_S = 30.0
_NEWS = 0.2


class Staleness:
    """Times between distinct values of busy entries, switch by switch."""

    def __init__(self) -> None:
        self._gaps: dict[int, deque[Seconds]] = {}
        self._told: dict[int, tuple[Seconds, Seconds]] = {}

    def add(self, dpid: int, gaps: Sequence[Seconds]) -> None:
        """Times between distinct values from one look, a bounded sample of them."""
        known = self._gaps.setdefault(dpid, deque(maxlen=MOST))
        busy = [gap for gap in gaps if gap <= LONGEST_S]
        known.extend(busy[:: max(1, len(busy) // _SAMPLE)])

    def refresh_s(self, dpid: int) -> Seconds | None:
        """Seconds between distinct values of the switch's counters; None while too little was seen.

        It is the low decile of the times seen, so it is never shorter than the time between two questions.
        """
        gaps = sorted(self._gaps.get(dpid, ()))
        return gaps[int(LOW * len(gaps))] if len(gaps) >= LEAST else None

    def news(self, name_of: Callable[[int], str], now: Seconds) -> list[Observed]:
        """A record for each switch whose refresh changed, or was not told for long."""
        rows = []
        for dpid in self._gaps:
            refresh = self.refresh_s(dpid)
            before, told = self._told.get(dpid, (0.0, 0.0))
            if refresh is None or (abs(refresh - before) <= _NEWS * before and now - told < _TELL_EVERY_S):
                continue
            self._told[dpid] = refresh, now
            name = name_of(dpid)
            rows.append(Observed(KIND, name, name, 0, "measured", f"{refresh:.2f}", now))
        return rows

"""How old a switch's counters may be: some renew them every second, some every half minute, whoever asks."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from cpdb import EventCount, ObservedKind, Publisher, RefreshReport

Seconds = float


class Tallies:
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
        self._publisher: Publisher[int, RefreshReport] = Publisher(_TELL_EVERY_S, same=_nearly_equal)

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

    def news(self, name_of: Callable[[int], str], now: Seconds) -> list[RefreshReport]:
        """A record for each switch whose refresh changed, or was not told for long."""
        facts: dict[int, RefreshReport | None] = {}
        for dpid in self._gaps:
            refresh_s = self.refresh_s(dpid)
            facts[dpid] = None if refresh_s is None else RefreshReport(name_of(dpid), refresh_s, now)
        return list(self._publisher.publish(facts, now).said.values())


def _nearly_equal(before: RefreshReport, report: RefreshReport) -> bool:
    return abs(report.refresh_s - before.refresh_s) <= _NEWS * before.refresh_s

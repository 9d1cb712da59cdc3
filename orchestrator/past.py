"""Keeps the durations of past actions between cycles, so that a restart forgets nothing and no cycle reads it all."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cpdb import ActionRecord, OutcomeKind, Seconds, Store
from orchestrator.lead import Lasted, LeadTimes, lasted, lead_times

# So much of the journal is read once, at the start.
PAST_S = 14 * 86_400.0
MOST_RECORDS = 2_000
AGAIN_S = 60.0


@dataclass(slots=True)
class LeadLedger:
    """Lead times from the journal: the past is read once, what ends later comes with each cycle's records."""

    store: Store
    _known: dict[int, Lasted] = field(default_factory=dict)
    _times: LeadTimes = field(default_factory=LeadTimes)
    _at: Seconds | None = None

    def times(self, recent: Sequence[ActionRecord], now: Seconds) -> LeadTimes:
        """Lead times at `now`; `recent` are the newest records. Raises StoreError."""
        fresh = recent if self._at is not None else self._past(now)
        news = {one.id: one for one in fresh if one.id is not None and one.id not in self._known and _done(one)}
        self._known.update(zip(news, lasted(news.values()), strict=True))
        while len(self._known) > MOST_RECORDS:
            del self._known[next(iter(self._known))]
        if news or self._at is None or now - self._at >= AGAIN_S:
            self._times, self._at = lead_times(self._known.values(), now), now
        return self._times

    def _past(self, now: Seconds) -> list[ActionRecord]:
        return self.store.journal.done(now - PAST_S, MOST_RECORDS)[::-1]


def _done(record: ActionRecord) -> bool:
    return record.outcome is OutcomeKind.DONE and record.ready_at is not None

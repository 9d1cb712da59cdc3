"""Holds actions and advice to what they promised, once their time has passed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache

from cpdb import ActionRecord, HostLoad, LinkLoad, OutcomeKind, Seconds, Store
from orchestrator.actions import ReserveBandwidth
from orchestrator.judge.shortages import about
from orchestrator.promises import WATCH_S, promise_of
from orchestrator.verdicts import BEFORE_S, NOTHING_MEASURED, Case, Measured, PromiseVerdict, RowsWhenAsked

# What is still in effect when its time has passed, or still advised, is watched on, but no longer than this.
LONGEST_WATCH_S = 120.0
# So far back a new process looks for what nobody has judged.
PAST_S = 6 * 3600.0
# Advice that asks for so many times as much is another piece of advice.
MORE = 1.25
DONE = OutcomeKind.DONE
OPEN = frozenset({OutcomeKind.PENDING, DONE, OutcomeKind.ADVISED})


@dataclass(slots=True)
class Judge:
    """Keeps what is still to be judged, which the journal knows as well: a restart forgets nothing."""

    store: Store
    _open: dict[int, ActionRecord] = field(default_factory=dict)
    # When each lease was last seen to be in effect.
    _held_at: dict[int, Seconds] = field(default_factory=dict)
    _looked_back: bool = False

    def note(self, records: Iterable[ActionRecord], now: Seconds) -> None:
        """Takes in new records, and news of known ones; at first, those of the past. Raises StoreError."""
        past = () if self._looked_back else self.store.journal.actions(since=now - PAST_S)
        self._looked_back = True
        for one in (*past, *records):
            if one.id is not None and is_open(one):
                self._open[one.id] = one
            elif one.id is not None:
                self._open.pop(one.id, None)

    def advised(self, news: ActionRecord) -> bool:
        """Whether this need has been told already; that it is much larger would be news."""
        same = (one for one in self._open.values() if _same(one, news))
        return any(_amount(news) <= MORE * _amount(one) for one in same)

    def foresaw(self, name: str, now: Seconds) -> ActionRecord | None:
        """What expected before `now` a need at this machine, host or link, and is not judged yet."""
        early = (one for one in self._open.values() if one.issued_at < now and name in about(one))
        ahead = (one for one in early if (one.timing.needed_at or 0.0) > one.issued_at)
        return min(ahead, key=lambda one: (one.target != name, one.issued_at), default=None)

    def judge(self, lasts: Callable[[ActionRecord], bool], now: Seconds) -> tuple[ActionRecord, ...]:
        """Those whose time has passed, with their verdicts, written down. Raises StoreError.

        `lasts` says whether an action is still in effect, or the advice would still be given.
        """
        leased = (one for one in self._open.values() if one.kind == ReserveBandwidth.kind and one.outcome is DONE)
        self._held_at |= {one.id or 0: now for one in leased if lasts(one)}
        ended = [one for one in self._open.values() if one.outcome is not OutcomeKind.PENDING and due(one, lasts, now)]
        if not ended:
            return ()
        measured = self._measured(min(one.issued_at for one in ended) - BEFORE_S, now)
        judged = tuple(replace(one, verdict=verdict(self._case(one, measured, now)).to_json()) for one in ended)
        for one in judged:
            self.store.journal.amend_action(one)
            self._open.pop(one.id or 0, None)
            self._held_at.pop(one.id or 0, None)
        return judged

    def _measured(self, since: Seconds, now: Seconds) -> Measured:
        facts = self.store.facts
        return Measured(
            RowsWhenAsked(lambda: facts.communications(since, now)),
            cache(lambda vm: facts.vm_loads(vm, since, now)),
            RowsWhenAsked(lambda: facts.loads(HostLoad, since, now)),
            RowsWhenAsked(lambda: facts.loads(LinkLoad, since, now)),
        )

    def _case(self, one: ActionRecord, measured: Measured, now: Seconds) -> Case:
        promise = promise_of(one)
        until = min(now, (promise.by if promise else now) + LONGEST_WATCH_S)
        # Advice answers for its need until there was better.
        later = (other for other in self._open.values() if _same(other, one) and other.issued_at > one.issued_at)
        better = (other.issued_at for other in later if one.outcome is OutcomeKind.ADVISED)
        return Case(one, measured, min((until, *better)), self._lapsed_at(one))

    def _lapsed_at(self, one: ActionRecord) -> Seconds | None:
        if one.kind != ReserveBandwidth.kind or one.outcome is not DONE:
            return None
        return self._held_at.get(one.id or 0, one.issued_at + float(one.body.get("lease_s", 0.0)))


def is_open(record: ActionRecord) -> bool:
    """Whether it has promised something and is still to be judged."""
    return record.outcome in OPEN and not record.verdict and promise_of(record) is not None


def due(record: ActionRecord, lasts: Callable[[ActionRecord], bool], now: Seconds) -> bool:
    """Whether the time of an open record has passed."""
    promise = promise_of(record)
    if promise is None or now < promise.by + WATCH_S:
        return False
    return now >= promise.by + LONGEST_WATCH_S or not lasts(record)


def verdict(case: Case) -> PromiseVerdict:
    """What came of the promise of a case's record."""
    promise = promise_of(case.record)
    return promise.judge(case) if promise else NOTHING_MEASURED


def _same(one: ActionRecord, other: ActionRecord) -> bool:
    return (one.kind, one.target, one.outcome) == (other.kind, other.target, other.outcome)


def _amount(record: ActionRecord) -> float:
    return float(getattr(promise_of(record), "value", 0.0))

"""Sums verdicts and shortages up by kind: what was promised, what came of it, and what nobody foresaw."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cpdb import ActionRecord, OutcomeKind, Seconds, ShortageKind, ShortageRecord
from orchestrator.judge.judge import is_open
from orchestrator.verdicts import PromiseVerdict, VerdictCode, verdict_from_json


@dataclass(frozen=True, slots=True)
class KindReport:
    """One kind of action: how many were done or advised, what came of them (`wasteful` ones were kept), and seconds.

    Without them `short_s` would have been short (of advice: were); `spared_s` of those were spared, or would have been;
    `cost_s` as in `PromiseVerdict`.
    """

    kind: str
    done: int
    advised: int
    still_open: int
    kept: int
    broken: int
    unneeded: int
    unknown: int
    wasteful: int
    short_s: Seconds
    spared_s: Seconds
    cost_s: Seconds

    @property
    def kept_share(self) -> float | None:
        """Of the promises of a need that was there; None where there was none."""
        known = self.kept + self.broken
        return self.kept / known if known else None


@dataclass(frozen=True, slots=True)
class MissedNeeds:
    """Shortages of one kind that nobody foresaw, beside those that somebody did; the longest of the missed ones."""

    kind: ShortageKind
    missed: int
    missed_s: Seconds
    foreseen: int
    foreseen_s: Seconds
    longest: ShortageRecord | None = None


@dataclass(frozen=True, slots=True)
class JudgementReport:
    """All of a stretch of time, the kinds in the order of their names."""

    kinds: Sequence[KindReport] = field(default_factory=tuple)
    shortages: Sequence[MissedNeeds] = field(default_factory=tuple)


def sum_up(records: Iterable[ActionRecord], shortages: Iterable[ShortageRecord]) -> JudgementReport:
    """The report about records and shortages in any order."""
    by_kind: dict[str, list[ActionRecord]] = defaultdict(list)
    for one in records:
        if one.outcome in (OutcomeKind.DONE, OutcomeKind.ADVISED):
            by_kind[one.kind].append(one)
    by_resource: dict[ShortageKind, list[ShortageRecord]] = defaultdict(list)
    for short in shortages:
        by_resource[short.kind].append(short)
    return JudgementReport(
        [_kind(kind, own) for kind, own in sorted(by_kind.items())],
        [_missed(kind, by_resource[kind]) for kind in ShortageKind if by_resource[kind]],
    )


def _kind(kind: str, own: Sequence[ActionRecord]) -> KindReport:
    found = [one for one in map(verdict_of, own) if one is not None]
    counts: Mapping[VerdictCode, int] = {code: sum(one.code is code for one in found) for code in VerdictCode}
    return KindReport(
        kind=kind,
        done=sum(one.outcome is OutcomeKind.DONE for one in own),
        advised=sum(one.outcome is OutcomeKind.ADVISED for one in own),
        still_open=sum(map(is_open, own)),
        kept=counts[VerdictCode.KEPT],
        broken=counts[VerdictCode.BROKEN],
        unneeded=counts[VerdictCode.UNNEEDED],
        unknown=counts[VerdictCode.UNKNOWN],
        wasteful=sum(one.wasteful for one in found),
        short_s=sum(one.short_s for one in found),
        spared_s=sum(one.spared_s for one in found),
        cost_s=sum(one.cost_s for one in found),
    )


def verdict_of(record: ActionRecord) -> PromiseVerdict | None:
    """The record's verdict, None while nobody has judged."""
    return verdict_from_json(record.verdict)


def _missed(kind: ShortageKind, own: Sequence[ShortageRecord]) -> MissedNeeds:
    missed = [one for one in own if one.foreseen_by is None]
    foreseen = [one for one in own if one.foreseen_by is not None]
    return MissedNeeds(
        kind,
        len(missed),
        sum(one.seconds for one in missed),
        len(foreseen),
        sum(one.seconds for one in foreseen),
        max(missed, key=lambda one: one.seconds, default=None),
    )

"""What came of a promise: the one form in which actions and advice of all kinds are judged, from measurements alone."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import takewhile
from typing import Any, TypeVar

from cpdb import (
    ActionRecord,
    Communication,
    HostLoad,
    Json,
    LinkLoad,
    OutcomeKind,
    Pair,
    Seconds,
    SettingsError,
    VmLoad,
)
from orchestrator.actions import Action, from_json
from orchestrator.relations import CpuRelation

Row = TypeVar("Row")
# What was usual before an action is read from so long before it.
BEFORE_S = 10.0
# From this share of a limit on, somebody is held back.
STARVED_SHARE = 0.95
# Shares of seconds short, and of a shortage that came before it was ready, that still count as kept.
TOLERATED = 0.25
# A shortage of less than a measured second is noise.
NEEDED_S = 0.99
# From this share of what was given, and not used, on, a promise was wasteful.
WASTE_SHARE = 0.5
# A gap between two rows is not judged beyond this.
LONGEST_ROW_S = 5.0


class VerdictCode(StrEnum):
    """In a word; broken: not enough, or too late for a need that was there."""

    KEPT = "kept"
    BROKEN = "broken"
    UNNEEDED = "unneeded"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PromiseVerdict:
    """What was measured of a promise; of advice: what acting would have done.

    `needed`, `enough` and `in_time` are None where nothing measured tells. `peak` is the largest need, in the promise's
    unit, `ahead_s` how long before the need it was (or would have been) ready. Of `watched_s` seconds, `short_s` would
    have been short without it, `spared_s` of those were not with it: below 0 it did harm. `cost_s` are seconds times
    the share of what it gave that nobody used, and what doing it cost. `eased`: for some time at least, what was short
    was less short with it.
    """

    code: VerdictCode
    sentence: str
    needed: bool | None = None
    enough: bool | None = None
    in_time: bool | None = None
    peak: float | None = None
    ahead_s: Seconds | None = None
    watched_s: Seconds = 0.0
    short_s: Seconds = 0.0
    spared_s: Seconds = 0.0
    cost_s: Seconds = 0.0
    eased: bool = False

    @property
    def waste(self) -> float:
        """The share of the watched time that it cost."""
        return min(1.0, self.cost_s / self.watched_s) if self.watched_s > 0 else 0.0

    @property
    def wasteful(self) -> bool:
        """Kept, but most of what it gave was not used."""
        return self.code is VerdictCode.KEPT and self.waste > WASTE_SHARE

    @property
    def in_words(self) -> str:
        """For tables."""
        return "kept, wasteful" if self.wasteful else self.code.value

    def gain_s(self, short_to_idle: float) -> Seconds:
        """Shortage seconds spared less what that cost, where a second short costs as much as so many that idle."""
        return self.spared_s - self.cost_s / short_to_idle

    def to_json(self) -> dict[str, Any]:
        """Plain data that `verdict_from_json` turns back."""
        return {key: value for key, value in asdict(self).items() if value is not None}


NOTHING_MEASURED = PromiseVerdict(VerdictCode.UNKNOWN, "nothing was measured in the promise's window")
_OLD_CODES = {True: VerdictCode.KEPT, False: VerdictCode.BROKEN, None: VerdictCode.UNKNOWN}


def verdict_from_json(body: Json) -> PromiseVerdict | None:
    """What `to_json` wrote; rows of older versions say only whether it was kept. None while nobody has judged."""
    if not body:
        return None
    if "code" not in body:
        return PromiseVerdict(_OLD_CODES[body.get("kept")], str(body.get("sentence", "")))
    known = {name: body[name] for name in PromiseVerdict.__dataclass_fields__ if name in body}
    return PromiseVerdict(**(known | {"code": VerdictCode(body["code"])}))


@dataclass(frozen=True, slots=True)
class Moment:
    """One measured row of a promise's window, `seconds` long.

    `without` and `after` are the load without the action and with it, as shares of what counts as full: from 1 on it
    is short. None where measurements do not tell. `used` is the need in the promise's unit, `idle` the share of what
    was given that nobody used, `harm` how much somebody else is short because of it alone, as a share of the second.
    """

    t: Seconds
    seconds: Seconds
    without: float | None
    after: float
    used: float = 0.0
    idle: float = 0.0
    harm: float = 0.0


class RowsWhenAsked(Sequence[Row]):
    """Rows that are read when somebody looks at them first: most promises are about rows of one kind."""

    def __init__(self, read: Callable[[], Sequence[Row]]) -> None:
        self._read = read

    @cached_property
    def _rows(self) -> Sequence[Row]:
        return self._read()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self._rows[place]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)


def _unknown_machine(_: str) -> Sequence[VmLoad]:
    return ()


@dataclass(frozen=True)
class Measured:
    """Rows of one stretch of time, each kind oldest first; those of a machine by its name."""

    communications: Sequence[Communication] = ()
    vm_loads: Callable[[str], Sequence[VmLoad]] = _unknown_machine
    host_loads: Sequence[HostLoad] = ()
    link_loads: Sequence[LinkLoad] = ()

    @cached_property
    def pairs(self) -> Mapping[str, list[tuple[Seconds, float]]]:
        """(t, bytes/s) by pair."""
        found: dict[str, list[tuple[Seconds, float]]] = defaultdict(list)
        for row in self.communications:
            if row.interval_s > 0:
                found[str(row.pair)].append((row.t, row.bytes / row.interval_s))
        return found

    @cached_property
    def links(self) -> Mapping[str, list[LinkLoad]]:
        """Loads by direction of a link, `from>to`."""
        found: dict[str, list[LinkLoad]] = defaultdict(list)
        for load in self.link_loads:
            if load.interval_s > 0:
                found[f"{load.from_node}>{load.to_node}"].append(load)
        return found

    @cached_property
    def served(self) -> Mapping[str, list[tuple[Seconds, Communication]]]:
        """(t, row) by destination."""
        found: dict[str, list[tuple[Seconds, Communication]]] = defaultdict(list)
        for row in self.communications:
            if row.destination and row.interval_s > 0:
                found[row.destination].append((row.t, row))
        return found

    def served_at(self, vm: str, t: Seconds, feature: str) -> float:
        """Bytes/s or connections/s that a machine served at about `t`, over all its pairs."""
        rows, name = self.served.get(vm, ()), "bytes" if feature == "bytes_per_s" else "new_connections"
        first = bisect_left(rows, t - 0.5, key=lambda row: row[0])
        near = takewhile(lambda row: row[0] <= t + 0.5, rows[first:])
        return sum(float(getattr(row, name)) / row.interval_s for _, row in near)

    def rate_at(self, pair: str, t: Seconds) -> float:
        """What a pair sent at about `t`, in bytes/s; 0 where nothing was measured."""
        return next((rate for at, rate in self._near(self.pairs.get(pair, ()), t)), 0.0)

    def cores_at(self, vm: str, t: Seconds) -> float:
        """What a machine used at about `t`, in cores; 0 where nothing was measured."""
        rows = [(load.t, load) for load in self.vm_loads(vm)]
        return next((load.cpu_cores_used for _, load in self._near(rows, t)), 0.0)

    @staticmethod
    def _near(rows: Sequence[tuple[Seconds, Any]], t: Seconds) -> Iterator[tuple[Seconds, Any]]:
        place = bisect_left(rows, t, key=lambda row: row[0])
        near = sorted(rows[max(0, place - 1) : place + 1], key=lambda row: abs(row[0] - t))
        yield from (row for row in near if abs(row[0] - t) <= 1.0)


@dataclass(frozen=True)
class Case:
    """One action that was done, or one piece of advice, and what was measured around it until `until`.

    A lease that was not renewed ended at `lapsed_at`, when that is known.
    """

    record: ActionRecord
    measured: Measured
    until: Seconds
    lapsed_at: Seconds | None = None

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """What was done or advised; () where another version wrote it."""
        try:
            return (from_json(self.record.kind, self.record.body),)
        except SettingsError:
            return ()

    @property
    def had(self) -> float | None:
        """How much there was of what it changed, where that is an amount."""
        return next((one.had for one in self.actions), None)

    @property
    def acted(self) -> bool:
        """Whether it was done; else everything is about what would have been."""
        return self.record.outcome is OutcomeKind.DONE

    @property
    def ready_at(self) -> Seconds:
        """From when on it was in effect, or would have been."""
        ready = self.record.timing.ready_at if self.acted else self.record.issued_at + self.record.timing.lead_s
        return self.record.issued_at if ready is None else ready

    @property
    def foreseen(self) -> bool:
        """Whether it was decided before it was needed."""
        return (self.record.timing.needed_at or 0.0) > self.record.issued_at

    def asked_cores(self, vm: str, t: Seconds) -> float:
        """Cores that the communications at about `t` ask for, by the relation that the plan used; 0 without one."""
        body = self.record.reason.get("relation")
        if not body:
            return 0.0
        relation = CpuRelation(**body)
        return relation.cores(self.measured.served_at(vm, t, relation.feature))

    def within(self, t: Seconds) -> bool:
        """Whether a row at `t` belongs to what is judged."""
        return self.record.issued_at < t <= self.until


@dataclass(frozen=True, slots=True)
class GivingWay:
    """Pairs that a reservation limits, in bytes/s: how much each may have, and what it usually sent before."""

    limits: Mapping[str, float]
    usual: Mapping[str, float]

    @classmethod
    def of(cls, case: Case) -> "GivingWay":
        """Of the reservation of a case."""
        rows = case.record.body.get("limits", ())
        limits = {str(Pair(row["source"], row["virtual_ip"])): float(row["bytes_per_s"]) for row in rows}
        since = case.record.issued_at - BEFORE_S
        before = {
            pair: [rate for t, rate in case.measured.pairs.get(pair, ()) if since < t <= case.record.issued_at]
            for pair in limits
        }
        return cls(limits, {pair: sum(rates) / len(rates) if rates else 0.0 for pair, rates in before.items()})

    def lost(self, case: Case, t: Seconds) -> float:
        """What they did not get, or would not have got, at about `t`."""
        if case.lapsed_at is not None and t > case.lapsed_at:
            return 0.0
        rates = {pair: case.measured.rate_at(pair, t) for pair in self.limits}
        if not case.acted:
            return sum(max(0.0, rate - self.limits[pair]) for pair, rate in rates.items())
        # Counted where they enter the network: what a limit takes off is in the rate of who does not adapt to it.
        held = (pair for pair, rate in rates.items() if rate >= STARVED_SHARE * self.limits[pair])
        return sum(max(self.usual[pair], rates[pair]) - min(self.limits[pair], rates[pair]) for pair in held)


def timed(rows: Sequence[Any], case: Case) -> Iterator[tuple[Any, Seconds]]:
    """The rows of one subject within a case, and how many seconds each speaks for."""
    before: Seconds | None = None
    for row in rows:
        if case.within(row.t):
            yield row, getattr(row, "interval_s", None) or (min(row.t - before, LONGEST_ROW_S) if before else 1.0)
        before = row.t


def weigh(case: Case, moments: Sequence[Moment], words: "Words") -> PromiseVerdict:
    """The verdict that follows from the moments; those before it was ready tell whether it came in time."""
    after = [one for one in moments if one.t > case.ready_at]
    watched = sum(one.seconds for one in after)
    if not after:
        return NOTHING_MEASURED
    told = all(one.without is not None for one in moments)
    short = [one for one in moments if (one.without or 0.0) >= 1]
    late_s = sum(one.seconds for one in short if one.t <= case.ready_at)
    short_s = sum(one.seconds for one in short)
    left_s = sum(one.seconds for one in after if one.after >= 1)
    harm_s = sum(one.seconds * one.harm for one in after if one.after < 1)
    began = short[0].t - short[0].seconds if short else None
    found = PromiseVerdict(
        VerdictCode.KEPT,
        "",
        needed=short_s >= NEEDED_S if told and words.grows else None,
        enough=left_s <= TOLERATED * watched,
        in_time=late_s <= TOLERATED * short_s if told and case.foreseen and short else None,
        peak=max(one.used for one in moments),
        ahead_s=began - case.ready_at if began is not None else None,
        watched_s=watched,
        short_s=short_s,
        spared_s=short_s - late_s - left_s - harm_s if told else 0.0,
        cost_s=sum(one.seconds * one.idle for one in after) + words.doing_s,
        eased=any(one.without is not None and one.without >= 1 and one.after < one.without for one in after),
    )
    return _coded(found, case, words)


@dataclass(frozen=True, slots=True)
class Words:
    """How a promise speaks: who it is about, its amount and how amounts are shown.

    `grows`: it gives something, so that it can be unneeded; `doing_s` are the seconds that carrying it out costs.
    """

    subject: str
    value: str = ""
    peak: str = ""
    grows: bool = True
    doing_s: Seconds = 0.0


def _coded(found: PromiseVerdict, case: Case, words: Words) -> PromiseVerdict:
    code = VerdictCode.KEPT
    if not found.enough or found.in_time is False:
        code = VerdictCode.BROKEN
    elif found.needed is False:
        code = VerdictCode.UNNEEDED
    return replace(found, code=code, sentence="; ".join(_said(found, case, words)) or "it held")


def _said(found: PromiseVerdict, case: Case, words: Words) -> Iterator[str]:
    used = f" at most {words.peak} of {words.value} were used" if words.value else ""
    if found.needed is False:
        yield f"the need did not come:{used}" if used else "the need did not come"
    elif found.needed:
        been, saved = ("would have been", "it spared") if case.acted else ("was", "acting would have spared")
        yield f"without it {words.subject} {been} short for {found.short_s:.0f} s; {saved} {found.spared_s:.0f} s"
    elif used:
        yield used.strip()
    if not found.enough:
        held = "was" if case.acted else "would have been"
        yield f"{words.subject} {held} short with it for more than {TOLERATED:.0%} of {found.watched_s:.0f} s"
    elif found.spared_s < 0:
        yield f"others lost {-found.spared_s:.0f} s to it"
    if found.ahead_s is not None and case.foreseen:
        yield f"ready {abs(found.ahead_s):.1f} s {'before' if found.ahead_s >= 0 else 'after'} the need"
    if found.waste > WASTE_SHARE:
        yield f"{found.waste:.0%} of what it gave was not used"

"""How long each kind of action takes here, learnt from outcomes: acting later than this is acting too late."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any, NamedTuple

from cpdb import GIB, ActionRecord, Json, OutcomeKind, Seconds, Store
from orchestrator.config import LEAD_PRIORS_S, OrchestratorConfig

# The one kind whose durations depend on how a machine rests.
SCALE_OUT = "scale_out"
MIN_SAMPLES = 5
# Of one group so many of the newest count; the rest of the past would only slow the answer down.
KEEP = 200
# A duration of this age counts half as much: hosts, links and guests change from day to day.
HALF_LIFE_S = 86_400.0
LEVEL = 0.95
ANY = -1
BUSY_FROM, FULL_FROM = 0.5, 0.85


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an action's duration may depend on.

    `host` is where it is carried out (the source of a move, the link of a reservation), `size_bytes` what it has to
    copy, `load` the share of that place's capacity that is in use; None is not known.
    """

    host: str = ""
    size_bytes: int = 0
    load: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data that `circumstances` turns back."""
        return {"host": self.host, "size_bytes": self.size_bytes, "load": self.load}


def circumstances(body: Json) -> Circumstances:
    """What `to_json` wrote; what is missing is not known."""
    return Circumstances(str(body.get("host") or ""), int(body.get("size_bytes") or 0), body.get("load"))


NOWHERE = Circumstances()


class LeadGroup(NamedTuple):
    """Actions that should take about equally long. Size is the power of two of GiB, load 0, 1, 2 (calm, busy, full)."""

    kind: str
    host: str = ""
    size: int = ANY
    load: int = ANY


def ladder(kind: str, about: Circumstances) -> tuple[LeadGroup, ...]:
    """The groups to ask, the narrowest first."""
    size, load = size_class(about.size_bytes), load_class(about.load)
    narrow = LeadGroup(kind, about.host, size)
    return (
        *((narrow._replace(load=load),) if load != ANY else ()),
        narrow,
        LeadGroup(kind, size=size),
        LeadGroup(kind),
    )


def size_class(size_bytes: int) -> int:
    """0 up to 1 GiB, 1 up to 2 GiB, 2 up to 4 GiB, ..."""
    return max(0, ceil(log2(size_bytes / GIB))) if size_bytes > 0 else 0


def load_class(load: float | None) -> int:
    """0 calm, 1 busy, 2 full; ANY when it is not known."""
    return ANY if load is None else int(load >= BUSY_FROM) + int(load >= FULL_FROM)


@dataclass(frozen=True, slots=True)
class Lasted:
    """One action that was done: how long that took, and when it ended."""

    kind: str
    about: Circumstances
    seconds: Seconds
    ended_at: Seconds


def lead_kind(kind: str, body: Json) -> str:
    """Under which name an action's durations are kept: coming in takes as long as the way a machine comes up."""
    return f"{kind}_{body.get('how', '')}" if kind == SCALE_OUT else kind


def lasted(records: Iterable[ActionRecord]) -> list[Lasted]:
    """Durations of the journal's records that were done, in their order."""
    return [
        Lasted(
            lead_kind(one.kind, one.body),
            circumstances(one.reason.get("circumstances") or {}),
            max(0.0, one.timing.ready_at - one.issued_at),
            one.timing.ready_at,
        )
        for one in records
        if one.outcome is OutcomeKind.DONE and one.timing.ready_at is not None
    ]


@dataclass(frozen=True, slots=True)
class LeadTimes:
    """Seconds from decision to effect: what 95 % of a group's actions need at most, where enough of them were seen.

    `longest_s` of a kind with too few samples only ever lengthens what is configured for it.
    """

    p95_s: Mapping[LeadGroup, Seconds] = field(default_factory=dict)
    longest_s: Mapping[str, Seconds] = field(default_factory=dict)
    # What verdicts have taught to add, by kind of action.
    earlier_s: Mapping[str, Seconds] = field(default_factory=dict)

    def p95(
        self, kind: str, about: Circumstances = NOWHERE, priors_s: Mapping[str, Seconds] = LEAD_PRIORS_S
    ) -> Seconds:
        """The narrowest group with enough samples, then the kind, then what is configured. In seconds."""
        for group in ladder(kind, about):
            if group in self.p95_s:
                return self.p95_s[group]
        return max(priors_s[kind], self.longest_s.get(kind, 0.0))

    def needed(self, kind: str, config: OrchestratorConfig, about: Circumstances = NOWHERE) -> Seconds:
        """p95, half a poll, the time to decide, and what verdicts have taught to add; no shorter horizon will do."""
        earlier_s = self.earlier_s.get(SCALE_OUT if kind.startswith(SCALE_OUT) else kind, 0.0)
        usual_s = self.p95(kind, about, config.timing.lead_priors_s)
        return usual_s + config.timing.poll_s / 2 + config.timing.decision_s + earlier_s

    def horizon_s(self, kind: str, config: OrchestratorConfig, about: Circumstances = NOWHERE) -> int | None:
        """The shortest forecast horizon that still leaves time for this kind of action; None when there is none."""
        return config.demand.horizon_for(self.needed(kind, config, about))


def lead_times(samples: Iterable[Lasted], now: Seconds) -> LeadTimes:
    """The distributions' 95 % points at `now`, from durations in any order."""
    groups = _grouped(samples)
    return LeadTimes(
        {group: quantile(own, now) for group, own in groups.items() if len(own) >= MIN_SAMPLES},
        {
            group.kind: max(one.seconds for one in own)
            for group, own in groups.items()
            if group == LeadGroup(group.kind)
        },
    )


def _grouped(samples: Iterable[Lasted]) -> dict[LeadGroup, list[Lasted]]:
    groups: dict[LeadGroup, list[Lasted]] = defaultdict(list)
    for one in sorted(samples, key=lambda one: -one.ended_at):
        for group in ladder(one.kind, one.about):
            if len(groups[group]) < KEEP:
                groups[group].append(one)
    return groups


def quantile(samples: Sequence[Lasted], now: Seconds, level: float = LEVEL) -> Seconds:
    """The duration that a share `level` of the samples did not exceed; older ones count less, by `HALF_LIFE_S`."""
    weights = [0.5 ** (max(0.0, now - one.ended_at) / HALF_LIFE_S) for one in samples]
    left = level * sum(weights)
    ascending = sorted(zip((one.seconds for one in samples), weights, strict=True))
    for seconds, weight in ascending:
        left -= weight
        if left < 0:
            return seconds
    return ascending[-1][0]


@dataclass(frozen=True, slots=True)
class LeadRow:
    """One line of the ledger for people: a group, how many samples it has, their middle and their 95 % point."""

    kind: str
    host: str
    size: str
    load: str
    samples: int
    p50_s: Seconds
    p95_s: Seconds
    used: bool


def lead_rows(records: Iterable[ActionRecord], now: Seconds) -> list[LeadRow]:
    """The whole ledger, by kind, the widest group first. `used`: it has samples enough to be believed."""
    return [
        LeadRow(
            group.kind,
            group.host or "any",
            "any" if group.size == ANY else f"<= {1 << group.size} GiB",
            "any" if group.load == ANY else ("calm", "busy", "full")[group.load],
            len(own),
            quantile(own, now, 0.5),
            quantile(own, now),
            len(own) >= MIN_SAMPLES,
        )
        for group, own in sorted(_grouped(lasted(records)).items())
    ]


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
    return record.outcome is OutcomeKind.DONE and record.timing.ready_at is not None

"""What verdicts change: by kind of action its margin, how early it is decided, and whether it may act at all.

Margin and earliness follow adaptive conformal inference (Gibbs and Candes, Adaptive Conformal Inference Under
Distribution Shift, NeurIPS 2021): after each promise x <- x + step * (broken - wanted share of broken ones), within
bounds. Until it meets a bound, the share of broken promises comes to the wanted one whatever the world does.
All of it is a fold over the journal, so a restart forgets nothing.
"""

import random
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import structlog

from cpdb import ActionRecord, Alarm, EvidenceReport, OutcomeKind, ReplayedMinute, Seconds, Store
from orchestrator.actions import Action
from orchestrator.config import OrchestratorConfig
from orchestrator.proposal import Step
from orchestrator.verdicts import PromiseVerdict, VerdictCode, verdict_from_json

LOG = structlog.get_logger(__name__)
BROKEN_PROMISES, NODE = "promises_broken", "orchestrator"
NOT_EARNED = "no_longer_earned"
PAST_S, MOST_RECORDS = 14 * 86_400.0, 2_000
# Margins are used in steps of this size, so that a single verdict does not move every plan.
GRAIN = 0.05
# Of so many of the newest promises of a need, and from so few on, a kind is judged as a whole.
WINDOW, FEWEST = 10, 6
BACK_SHARE = 0.2
# Bounds of the interval, and resamples of the bootstrap.
LOW, HIGH, RESAMPLES = 0.05, 0.95, 400
AGAIN_S, OPEN_S = 60.0, 600.0
# Kinds that take back what others gave promise nothing: they stand or fall with those.
TAKES_BACK: Mapping[str, str] = {"release_bandwidth": "reserve_bandwidth", "scale_in": "scale_out"}
KIND_WORDS: Mapping[str, str] = {
    "set_cpu_limit": "CPU limits", "set_vcpus": "virtual CPUs", "set_memory": "memory", "migrate_vm": "migrations",
    "reserve_bandwidth": "reservations", "set_weights": "weights", "scale_out": "more machines",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """One judged action or piece of advice."""

    number: int
    kind: str
    acted: bool
    issued_at: Seconds
    verdict: PromiseVerdict


@dataclass(frozen=True, slots=True)
class Earnings:
    """What acting spared, or would have, less its cost, in shortage seconds; with the interval of the sum."""

    judged: int
    gain_s: Seconds
    low_s: Seconds
    high_s: Seconds

    def describe(self) -> str:
        """For people."""
        return f"net {self.gain_s:.0f} shortage seconds spared (interval {self.low_s:.0f} to {self.high_s:.0f})"


@dataclass(frozen=True, slots=True)
class ReplayedGain:
    """What a kind of action was worth in replays of the recorded past; the interval is that of the seconds spared."""

    minutes: int
    short_s: Seconds
    spared_s: Seconds
    low_s: Seconds
    high_s: Seconds
    low_gain: float
    more_cores: float

    @property
    def pays(self) -> bool:
        """Whether it spares shortage for certain, and more than that costs."""
        return self.low_s > 0 and self.low_gain > 0

    def describe(self) -> str:
        """For people."""
        more = f"{abs(self.more_cores):.0%} {'more' if self.more_cores >= 0 else 'fewer'} core-seconds"
        return f"would have spared {self.spared_s:.0f} of {self.short_s:.0f} shortage seconds for {more}"


@dataclass(frozen=True, slots=True)
class KindStanding:
    """Where a kind of action stands; `why` says what that rests on.

    `margin` is a factor on the configured margin, `earlier_s` is added to its lead times; `keeps` says that its
    promises hold, `earned` that acting is measured to pay, `acted` that it has acted before. `replayed` is what replays
    of what was recorded say; where there is enough of that it decides what is earned, else verdicts do.
    """

    kind: str
    margin: float = 1.0
    earlier_s: Seconds = 0.0
    keeps: bool = True
    earned: bool = False
    acted: bool = False
    earnings: Earnings = field(default_factory=lambda: Earnings(0, 0.0, 0.0, 0.0))
    why: str = ""
    replayed: ReplayedGain | None = None


def standing(
    kind: str,
    own: Sequence[Judgement],
    config: OrchestratorConfig,
    now: Seconds,
    minutes: Sequence[ReplayedMinute] = (),
) -> KindStanding:
    """Where a kind stands after its judgements and replayed minutes, oldest first."""
    rules, margin, earlier_s, keeps = config.learning, 1.0, 0.0, True
    lately: deque[bool] = deque(maxlen=WINDOW)
    for one in own:
        found = one.verdict
        if found.code is VerdictCode.UNKNOWN:
            continue
        short, late = found.enough is False, found.in_time is False
        # What was decided when its need was there already tells how reacting lags, nothing of forecasts: to be late and
        # too small in each of its steps is still better than advice.
        ahead = found.in_time is not None
        if ahead or not found.needed:
            margin += rules.step * (short - rules.broken_share)
            margin = min(rules.margin_most, max(rules.margin_least, margin))
        if ahead:
            earlier_s += rules.step_s * (late - rules.broken_share)
            earlier_s = min(rules.earlier_most_s, max(0.0, earlier_s))
        if ahead and found.code is not VerdictCode.UNNEEDED:
            # Too little, where no more was to be had, is still better than advice.
            lately.append(found.code is VerdictCode.BROKEN and not found.eased)
            broken = sum(lately) / len(lately)
            # It comes back by other bounds than it falls: one verdict must not turn it to and fro.
            keeps = broken <= BACK_SHARE if not keeps and len(lately) == WINDOW else keeps
            keeps = keeps and not (len(lately) >= FEWEST and broken > rules.fall_back_share)
    recent = [one for one in own if one.issued_at > now - rules.earn_over_s]
    earnings = earned(recent, config)
    replayed = replayed_gain([one for one in minutes if one.at > now - rules.earn_over_s], rules.earn_least)
    pays = replayed.pays if replayed else earnings.judged >= rules.earn_least and earnings.low_s > 0
    margin = round(round(margin / GRAIN) * GRAIN, 6)
    acted = any(one.acted for one in own)
    found_standing = KindStanding(kind, margin, round(earlier_s, 3), keeps, pays, acted, earnings, replayed=replayed)
    return replace(found_standing, why=_why(found_standing, sum(lately), len(lately), config))


def _why(one: KindStanding, broken: int, of: int, config: OrchestratorConfig) -> str:
    if not one.keeps:
        return f"{broken} of its last {of} promises were broken and eased nothing"
    least, span = config.learning.earn_least, f"{config.learning.earn_over_s / 3600:g} h"
    if (told := one.replayed) is not None:
        return f"{told.describe()} in the last {span} (interval {told.low_s:.0f} to {told.high_s:.0f})"
    if one.earnings.judged < least:
        return f"not enough seen: {one.earnings.judged} of {least} judged in {span}"
    return f"{one.earnings.describe()} in the last {span}"


def earned(judged: Sequence[Judgement], config: OrchestratorConfig) -> Earnings:
    """The sum of what judgements gained, oldest first, with its interval."""
    level = config.demand.level
    told = [one.verdict for one in judged if one.verdict.code is not VerdictCode.UNKNOWN]
    gains = [one.gain_s(level / max(1e-9, 1 - level)) for one in told]
    return Earnings(len(gains), sum(gains), *sum_interval(gains))


def replayed_gain(minutes: Sequence[ReplayedMinute], least: int) -> ReplayedGain | None:
    """What replayed minutes come to; None while fewer than `least` of them tell anything of it."""
    if sum(one.short_s > 0 or one.spared_s != 0 or one.gain != 0 for one in minutes) < least:
        return None
    low_s, high_s = sum_interval([one.spared_s for one in minutes])
    low_gain, _ = sum_interval([one.gain for one in minutes])
    cores_s = sum(one.cores_s for one in minutes)
    more = sum(one.more_cores_s for one in minutes) / cores_s if cores_s > 0 else 0.0
    short_s, spared_s = sum(one.short_s for one in minutes), sum(one.spared_s for one in minutes)
    return ReplayedGain(len(minutes), short_s, spared_s, low_s, high_s, low_gain, more)


def sum_interval(gains: Sequence[float]) -> tuple[float, float]:
    """The 90 % interval of a sum of neighbours, by a circular block bootstrap.

    Blocks of about n^(1/3) neighbours keep what hangs together together (Politis and Romano, 1992).
    """
    if not gains:
        return 0.0, 0.0
    rng, size = random.Random(len(gains)), max(1, round(len(gains) ** (1 / 3)))
    ring = [*gains, *gains[:size]]
    blocks = [sum(ring[first : first + size]) for first in range(len(gains))]
    # A sum of whole blocks is brought to as many judgements as there are.
    count = -(-len(gains) // size)
    scale = len(gains) / (count * size)
    sums = sorted(scale * sum(rng.choices(blocks, k=count)) for _ in range(RESAMPLES))
    return sums[int(LOW * RESAMPLES)], sums[int(HIGH * RESAMPLES) - 1]


Minutes = Mapping[str, tuple[ReplayedMinute, ...]]
NOT_REPLAYED: Minutes = MappingProxyType({})


def standings(
    judged: Iterable[Judgement], config: OrchestratorConfig, now: Seconds, replayed: Minutes = NOT_REPLAYED
) -> Mapping[str, KindStanding]:
    """Where each kind stands that has ever been judged or replayed; judgements come in the journal's order."""
    by_kind: dict[str, list[Judgement]] = defaultdict(list)
    for one in sorted(judged, key=lambda one: one.number):
        by_kind[one.kind].append(one)
    kinds = sorted({*by_kind, *replayed})
    return {kind: standing(kind, by_kind[kind], config, now, replayed.get(kind, ())) for kind in kinds}


def read_minutes(store: Store) -> Minutes:
    """What replays have said so far, by kind of action. Raises StoreError."""
    return {one.action: one.minutes for one in store.wanted.observed_of(EvidenceReport)}


def judgements(records: Iterable[ActionRecord]) -> list[Judgement]:
    """What has been judged of the journal's records, in their order."""
    read = ((one, verdict_from_json(one.verdict)) for one in records)
    return [
        Judgement(one.id or 0, one.kind, one.outcome is OutcomeKind.DONE, one.issued_at, found)
        for one, found in read
        if found is not None
    ]


def objection(action: Action, known: Mapping[str, KindStanding], config: OrchestratorConfig) -> str | None:
    """Why an action of this kind stays advice, None when it may be done.

    What a kind gave is given back also after it fell: a machine returns to what was declared for it.
    """
    kind = TAKES_BACK.get(action.kind, action.kind)
    one = known.get(kind, KindStanding(kind, why="not enough seen: nothing of it was judged so far"))
    if action.shrinks and one.acted:
        return None
    if not one.keeps and config.learning.enabled:
        return f"{kind} fell back to advice: {one.why}"
    if config.act == "earned" and not one.earned:
        return f"{kind} has not earned to act: {one.why}"
    return None


def told_standing(one: KindStanding, config: OrchestratorConfig) -> str:
    """Whether it may act, and why, for people."""
    if config.learning.enabled and not one.keeps:
        return f"fell back to advice: {one.why}"
    if one.replayed is not None:
        return f"{KIND_WORDS.get(one.kind, one.kind)}: {one.why}: {'act' if one.earned else 'only advise'}"
    pays = "it pays to act" if one.earned else "it is not shown that acting pays"
    return f"{one.why}: {'act' if config.act == 'earned' and one.earned else pays}"


def read_standings(store: Store, config: OrchestratorConfig, now: Seconds) -> Mapping[str, KindStanding]:
    """Where each kind stands by the journal alone, as the orchestrator would find it. Raises StoreError."""
    return standings(judgements(store.journal.judged(now - PAST_S, MOST_RECORDS)), config, now, read_minutes(store))


def with_standing(step: Step, known: Mapping[str, KindStanding], config: OrchestratorConfig) -> Step:
    """The step, saying what verdicts of its kind have changed, and in which evidence it acts where that is earned."""
    one = known.get(step.action.kind)
    if one is None or not config.learning.enabled:
        return step
    facts: dict[str, Any] = {}
    if one.margin != 1.0 or one.earlier_s > 0:
        facts["learnt"] = {"margin": one.margin, "earlier_s": one.earlier_s}
    if config.act == "earned" and one.earned:
        facts["earned"] = one.why
    return replace(step, reason=replace(step.reason, facts={**step.reason.facts, **facts})) if facts else step


@dataclass(slots=True)
class StandingLedger:
    """Standings from the journal: the past is read once, what is judged later comes with each cycle's judgements."""

    store: Store
    config: OrchestratorConfig
    known: Mapping[str, KindStanding] = field(default_factory=dict)
    _judged: dict[int, Judgement] = field(default_factory=dict)
    _alarmed: dict[tuple[str, str], str] | None = None
    _at: Seconds | None = None

    @property
    def margins(self) -> Mapping[str, float]:
        """Factors on the margin by kind, where they are not 1."""
        known = self.known.values() if self.config.learning.enabled else ()
        return {one.kind: one.margin for one in known if one.margin != 1.0}

    @property
    def earlier_s(self) -> Mapping[str, Seconds]:
        """What is added to lead times by kind, where that is anything."""
        known = self.known.values() if self.config.learning.enabled else ()
        return {one.kind: one.earlier_s for one in known if one.earlier_s > 0}

    def learn(self, judged: Iterable[ActionRecord], now: Seconds) -> None:
        """Takes in what was just judged. Raises StoreError."""
        past = self.store.journal.judged(now - PAST_S, MOST_RECORDS)[::-1] if self._at is None else ()
        news = judgements((*past, *judged))
        if not news and self._at is not None and now - self._at < AGAIN_S:
            return
        self._judged |= {one.number: one for one in news}
        self._judged = {
            one.number: one
            for one in sorted(self._judged.values(), key=lambda one: one.number)[-MOST_RECORDS:]
            if one.issued_at > now - PAST_S
        }
        known = standings(self._judged.values(), self.config, now, read_minutes(self.store))
        # What was done just now has no verdict yet, and must be taken back all the same when its kind falls.
        done = (one.kind for one in self.store.journal.actions(since=now - OPEN_S) if one.outcome is OutcomeKind.DONE)
        acted = {kind: replace(known[kind], acted=True) for kind in {*done} & known.keys()}
        self.known, self._at = {**known, **acted}, now

    def alarm(self, now: Seconds) -> None:
        """Tells of kinds that fell back to advice, and takes it back when they return. Raises StoreError."""
        if self._alarmed is None:
            ours = (one for one in self.store.alarms.open() if one.kind in (BROKEN_PROMISES, NOT_EARNED))
            self._alarmed = {(one.kind, one.key): one.detail for one in ours}
        wanted = dict(_alarms(self.known, self.config))
        for place, text in wanted.items():
            if place not in self._alarmed:
                self.store.alarms.raise_([Alarm(*place, NODE, text, now, now)])
                LOG.warning("a kind of action falls back to advice", kind=place[1], because=text)
        for place in self._alarmed.keys() - wanted.keys():
            self.store.alarms.clear(*place, NODE, now)
            LOG.info("a kind of action may act again", kind=place[1])
        self._alarmed = wanted


def _alarms(known: Mapping[str, KindStanding], config: OrchestratorConfig) -> Iterable[tuple[tuple[str, str], str]]:
    for kind, one in known.items():
        if not one.keeps and config.learning.enabled:
            yield (BROKEN_PROMISES, kind), one.why
        elif config.act == "earned" and one.acted and not one.earned:
            yield (NOT_EARNED, kind), one.why

"""What actions promise: each kind says what it promises, and reads from what was measured whether it came to be.

What would have been without the action is measured where that can be and assumed where not; each kind names its
assumption. Advice is the mirror of this: measured is the world without it, assumed the one with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from cpdb import ActionRecord, Json, LinkLoad, Seconds, show_rate
from orchestrator.actions import MigrateVm, ScalingChange, moves_of, scalings_of
from orchestrator.declared import RUNNING
from orchestrator.verdicts import STARVED_SHARE, Case, GivingWay, Moment, PromiseVerdict, Words, timed, weigh

# After the time by which a need was expected, it is watched this long.
WATCH_S = 10.0
CAME_SHARE = 0.5
# From this share of a capacity on, somebody is held back.
FULL_SHARE = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise(ABC):
    """What shall hold from `by` on."""

    what: ClassVar[str]
    by: Seconds

    def to_json(self) -> dict[str, Any]:
        """Plain data that `promise_from_json` turns back into an equal promise."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {"what": self.what, **values}

    @abstractmethod
    def describe(self) -> str:
        """What is promised, for people, without its time."""

    def judge(self, case: Case, /) -> PromiseVerdict:
        """What came of it."""
        moments = sorted(self.moments(case), key=lambda one: one.t)
        return weigh(case, moments, self.words(case, max((one.used for one in moments), default=0.0)))

    def moments(self, _case: Case, /) -> Iterator[Moment]:
        """Each measured row of its window, with and without the action."""
        yield from ()

    def words(self, _case: Case, _peak: float, /) -> Words:
        """How its verdict is told."""
        return Words(self.describe(), grows=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRatePromise(Promise):
    """A pair can get `value` bytes/s before its rate rises.

    Without it, a limited pair found at its limit would have sent what it sent on average in the 10 s before; what then
    exceeds the link is a shortage. With it, who sends less than `value` is not short. Whoever is held back although
    the link would have had room for all is harmed.
    """

    what: ClassVar[str] = "pair_bytes_per_s"
    pair: str
    value: float

    def describe(self) -> str:
        return f"{self.pair} can get {show_rate(self.value)}"

    def words(self, _case: Case, peak: float, /) -> Words:
        return Words(self.pair, show_rate(self.value), show_rate(peak))

    def moments(self, case: Case, /) -> Iterator[Moment]:
        loads = case.measured.links.get(case.record.reason.get("where", {}).get("link", ""), ())
        if not case.record.reason.get("capacity") or not loads:
            # Where nobody measures the link, a need of half of what was promised counts as one that would be short.
            yield from _sent(case, self.pair, self.value)
            return
        giving = GivingWay.of(case)
        for load, seconds in timed(loads, case):
            yield self._on_link(case, load, seconds, giving)

    def _on_link(self, case: Case, load: LinkLoad, seconds: Seconds, giving: GivingWay) -> Moment:
        full = FULL_SHARE * case.record.reason["capacity"]
        rate, lost = case.measured.rate_at(self.pair, load.t), giving.lost(case, load.t)
        on_link = load.bytes / load.interval_s
        now = max(on_link / full, 1.0 if load.drops else 0.0)
        without = max(now, (on_link + lost) / full) if case.acted else now
        if rate <= 0:
            without = min(without, 0.0)  # who says nothing is not short
        # A queue keeps its part of a full link; without one, or where more is needed, full is full.
        marked = case.record.body.get("dscp") is not None
        after = now if case.acted and not marked else rate / self.value if now >= 1 else 0.0
        # Where the link has room for all, what they lose of what they would send is lost for nothing.
        harm = lost / max(lost, sum(giving.usual.values())) if lost > 0 and without < 1 else 0.0
        return Moment(load.t, seconds, without, after if rate > 0 else 0.0, rate, _idle(rate, 0.0, self.value), harm)


def _sent(case: Case, pair: str, value: float) -> Iterator[Moment]:
    """What a pair sent, as shares of what was promised to it."""
    rows = [row for row in case.measured.communications if str(row.pair) == pair and row.interval_s > 0]
    for row, seconds in timed(rows, case):
        rate = row.bytes / row.interval_s
        yield Moment(row.t, seconds, rate / (CAME_SHARE * value), 0.0, rate, _idle(rate, 0.0, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantPromise(Promise):
    """A pair can have the `value` bytes/s granted: that it was not used breaks no promise, and proves none."""

    what: ClassVar[str] = "granted_bytes_per_s"
    pair: str
    value: float

    def describe(self) -> str:
        return f"{self.pair} can have the {show_rate(self.value)} asked for"

    def words(self, _case: Case, peak: float, /) -> Words:
        return Words(self.pair, show_rate(self.value), show_rate(peak), grows=False)

    def moments(self, case: Case, /) -> Iterator[Moment]:
        found = list(_sent(case, self.pair, self.value))
        if any(one.used >= STARVED_SHARE * self.value for one in found):
            yield from (replace(one, without=None) for one in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadroomPromise(Promise):
    """None of these machines and links is short; `value` is the smallest headroom expected, as a share.

    New weights: a machine's or a link's load follows the shares of connections, as the plan expected it to. One more
    machine: what it serves would have been served by these, all together; advice expects it to be as large as they are
    on average.
    """

    what: ClassVar[str] = "headroom"
    vms: tuple[str, ...]
    value: float = 0.0
    links: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """All that it is about."""
        return (*self.vms, *self.links)

    def describe(self) -> str:
        return f"{' and '.join(self.places)} {'are' if len(self.places) > 1 else 'is'} not short"

    def words(self, case: Case, peak: float, /) -> Words:
        # Back to what was declared gives nothing: it can only be missed.
        return Words(" and ".join(self.places), "", f"{peak:.2f} cores", grows=case.record.body.get("to") != {})

    def moments(self, case: Case, /) -> Iterator[Moment]:
        coming = [one for one in scalings_of(case.actions) if one.comes]
        if coming:
            yield from self._joined(case, coming[0])
            return
        for name in self.vms:
            for load, seconds in timed(case.measured.vm_loads(name), case):
                now = _cpu_load(load.cpu_cores_used, load.cpu_cores_limit)
                yield self._shared(case, name, Moment(load.t, seconds, None, now, load.cpu_cores_used))
        for name, capacity in case.record.reason.get("capacities", {}).items():
            for load, seconds in timed(case.measured.links.get(name, ()), case):
                now = load.bytes / load.interval_s / (FULL_SHARE * capacity)
                yield self._shared(case, name, Moment(load.t, seconds, None, now))

    def _shared(self, case: Case, name: str, measured: Moment) -> Moment:
        """What was measured at one of several places, with the other weights beside it."""
        room, now = case.record.reason.get("headrooms", {}).get(name), measured.after
        part = replace(measured, seconds=measured.seconds / len(self.places))
        if room is None:
            return part
        more = (1 - room["now"]) / max(1e-9, 1 - room["then"])
        return (
            replace(part, without=now * more) if case.acted else replace(part, without=now, after=now / max(1e-9, more))
        )

    def _joined(self, case: Case, action: ScalingChange) -> Iterator[Moment]:
        others = {name: {load.t: load for load in case.measured.vm_loads(name)} for name in self.vms}
        # One that rests has no limit yet: it is as large as the others, like one of which there is no word.
        comer = {load.t: load for load in case.measured.vm_loads(action.vm) if load.state == RUNNING}
        first = next(iter(others.values()), {})
        for load, seconds in timed(list(first.values()), case):
            serving = [rows[load.t] for rows in others.values() if load.t in rows]
            own = [load.cpu_cores_limit for load in serving]
            more = comer[load.t].cpu_cores_limit if load.t in comer else 0.0 if case.acted else sum(own) / len(own)
            used = sum(one.cpu_cores_used for one in serving)
            new = comer[load.t].cpu_cores_used if load.t in comer else 0.0
            spread = _cpu_load(used + new, sum(own) + more)
            worst = max(_cpu_load(one.cpu_cores_used, one.cpu_cores_limit) for one in serving)
            idle = 1 - new / more if case.acted and more else 0.0
            yield Moment(
                load.t, seconds, _cpu_load(used + new, sum(own)), worst if case.acted else spread, used + new, idle
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoresPromise(Promise):
    """A machine is not held back with `value` cores.

    Without it, the machine would have been held back whenever it used what it might use before. What a machine that
    is held back would have used is what its communications ask for, where that was learnt; else what it used.
    """

    what: ClassVar[str] = "vm_not_starved"
    vm: str
    value: float

    def describe(self) -> str:
        return f"{self.vm} is not held back at {self.value:.2f} cores"

    def words(self, case: Case, peak: float, /) -> Words:
        grows = case.record.body.get("to", 0) > case.record.body.get("from", 0)
        return Words(self.vm, f"{self.value:.2f} cores", f"{peak:.2f}", grows)

    def moments(self, case: Case, /) -> Iterator[Moment]:
        before = case.had
        for load, seconds in timed(case.measured.vm_loads(self.vm), case):
            now, need = _cpu_load(load.cpu_cores_used, load.cpu_cores_limit), load.cpu_cores_used
            if now >= 1:
                need = max(need, case.asked_cores(self.vm, load.t))
            after = now if case.acted else _cpu_load(need, self.value)
            without = None if before is None else _cpu_load(need, before) if case.acted else now
            yield Moment(load.t, seconds, without, after, need, _idle(need, before or self.value, self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPromise(Promise):
    """A machine is not full with `value` bytes of memory; without it, it would have been where it uses what it had."""

    what: ClassVar[str] = "vm_memory"
    vm: str
    value: int

    def describe(self) -> str:
        return f"{self.vm} is not full with {self.value >> 20} MiB"

    def words(self, case: Case, peak: float, /) -> Words:
        grows = case.record.body.get("to", 0) > case.record.body.get("from", 0)
        return Words(self.vm, f"{self.value >> 20} MiB", f"{peak / (1 << 20):.0f}", grows)

    def moments(self, case: Case, /) -> Iterator[Moment]:
        before = case.had
        for load, seconds in timed(case.measured.vm_loads(self.vm), case):
            used = load.memory_bytes_used
            now = used / (FULL_SHARE * max(1, load.memory_bytes_limit))
            after = now if case.acted else used / (FULL_SHARE * self.value)
            without = None if before is None else used / (FULL_SHARE * max(1, before)) if case.acted else now
            yield Moment(load.t, seconds, without, after, used, _idle(used, before or self.value, self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePromise(Promise):
    """A machine runs on a host."""

    what: ClassVar[str] = "vm_on_host"
    vm: str
    host: str

    def describe(self) -> str:
        return f"{self.vm} runs on {self.host}"

    def moments(self, case: Case, /) -> Iterator[Moment]:
        for load, seconds in timed(case.measured.vm_loads(self.vm), case):
            yield Moment(load.t, seconds, None, float(case.acted and load.host != self.host))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRatePromise(Promise):
    """One direction of a link is not full at `value` bytes/s.

    Without a move, what the machine serves would have come over the link. What a split spared is not known.
    """

    what: ClassVar[str] = "link_bytes_per_s"
    link: str
    value: float

    def describe(self) -> str:
        return f"{self.link} is not full at {show_rate(self.value)}"

    def words(self, case: Case, peak: float, /) -> Words:
        return Words(self.link, show_rate(self.value), show_rate(peak), doing_s=_copying_s(case))

    def moments(self, case: Case, /) -> Iterator[Moment]:
        full, moving = FULL_SHARE * self.value, moves_of(case.actions)
        for load, seconds in timed(case.measured.links.get(self.link, ()), case):
            rate = load.bytes / load.interval_s
            if not moving:
                yield Moment(load.t, seconds, None, rate / full, rate)
                continue
            moved = case.measured.served_at(moving[0].vm, load.t, "bytes_per_s")
            with_it, without = (rate, rate + moved) if case.acted else (rate - moved, rate)
            yield Moment(load.t, seconds, without / full, with_it / full, without)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCoresPromise(Promise):
    """The machines of a host need less than its `value` cores.

    Without the move, what the machine uses would have been used there. A destination that is full only because of it
    is harmed.
    """

    what: ClassVar[str] = "host_cores_used"
    host: str
    value: float

    def describe(self) -> str:
        return f"{self.host} needs less than its {self.value:.2f} cores"

    def words(self, case: Case, peak: float, /) -> Words:
        return Words(self.host, f"{self.value:.2f} cores", f"{peak:.2f}", doing_s=_copying_s(case))

    def moments(self, case: Case, /) -> Iterator[Moment]:
        mover, goal = next(((one.vm, one.after) for one in moves_of(case.actions)), ("", ""))
        there = {load.t: load for load in case.measured.host_loads if load.host == goal}
        own = [load for load in case.measured.host_loads if load.host == self.host]
        for load, seconds in timed(own, case):
            used, moved = load.cpu_cores_used, case.measured.cores_at(mover, load.t)
            with_it, without = (used, used + moved) if case.acted else (used - moved, used)
            harm, full = 0.0, FULL_SHARE * self.value
            if other := there.get(load.t):
                most = FULL_SHARE * other.cpu_cores_capacity
                beside = other.cpu_cores_used - (moved if case.acted else 0.0)
                harm = float(beside < most <= beside + moved)
            yield Moment(load.t, seconds, without / full if mover else None, with_it / full, without, harm=harm)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownPromise(Promise):
    """What another version of forepath promised: shown by its name, never judged."""

    what: ClassVar[str] = "unknown"
    name: str

    def describe(self) -> str:
        return self.name


def _cpu_load(used: float, limit: float) -> float:
    return used / max(1e-9, STARVED_SHARE * limit)


def _idle(need: float, before: float, given: float) -> float:
    """Which share of what was given beyond `before` nobody used; 0 where nothing was given."""
    return 0.0 if given <= before else min(1.0, max(0.0, (given - max(need, before)) / (given - before)))


def _copying_s(case: Case) -> Seconds:
    """A copy loads links and hosts as long as it lasts."""
    return max(0.0, case.ready_at - case.record.issued_at) if case.record.kind == MigrateVm.kind else 0.0


PROMISES: Mapping[str, type[Promise]] = {
    kind.what: kind
    for kind in (
        PairRatePromise,
        GrantPromise,
        HeadroomPromise,
        CoresPromise,
        MemoryPromise,
        PlacePromise,
        LinkRatePromise,
        HostCoresPromise,
    )
}


def promise_from_json(body: Json | None) -> Promise | None:
    """The promise that `to_json` described; None where there is none."""
    if not body:
        return None
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in body.items() if key != "what"}
    try:
        return PROMISES[body["what"]](**values)  # type: ignore[arg-type]
    except (KeyError, TypeError):
        return UnknownPromise(by=float(body.get("by", 0.0)), name=str(body.get("what", "")))


def promise_of(record: ActionRecord) -> Promise | None:
    """What an action promised, None for nothing."""
    return promise_from_json(record.reason.get("promise"))


def clock_text(t: Seconds) -> str:
    """A moment for people, e.g. 12:00:00 UTC."""
    return datetime.fromtimestamp(t, UTC).strftime("%H:%M:%S UTC")

"""What actions promise: each kind says what it promises, and judges itself by what was measured afterwards."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from cpdb import ActionRecord, Communication, HostLoad, Json, LinkLoad, OutcomeKind, Seconds, VmLoad, show_rate

# After the time by which a need was expected, it is watched this long.
WATCH_S = 10.0
CAME_SHARE = 0.5
STARVED_SHARE = 0.95
# Shares of seconds at the limit that still count as kept.
TOLERATED_STARVED = 0.25
FULL_SHARE = 0.98
Verdict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured since an action was issued; `ready_at` is when it was done, None when that is not known."""

    communications: Sequence[Communication] = ()
    vm_loads: Sequence[VmLoad] = ()
    host_loads: Sequence[HostLoad] = ()
    link_loads: Sequence[LinkLoad] = ()
    issued_at: Seconds = 0.0
    ready_at: Seconds | None = None

    def of_record(self, record: ActionRecord, until: Seconds) -> "Measured":
        """What tells about one action: its loads since it was ready, communications since it was issued."""
        since = record.timing.ready_at or record.issued_at
        return replace(
            self,
            # Also what came before it was ready tells how early it was.
            communications=[row for row in self.communications if record.issued_at < row.t <= until],
            vm_loads=[load for load in self.vm_loads if since < load.t <= until],
            host_loads=[load for load in self.host_loads if since < load.t <= until],
            link_loads=[load for load in self.link_loads if since < load.t <= until],
            issued_at=record.issued_at,
            ready_at=record.timing.ready_at,
        )

    def rates(self, pair: str) -> list[tuple[Seconds, float]]:
        """When a pair sent how much, in bytes/s."""
        rows = (row for row in self.communications if str(row.pair) == pair and row.interval_s > 0)
        return [(row.t, row.bytes / row.interval_s) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise(ABC):
    """What shall hold from `by` on; a verdict is {kept, sentence, ...}, with `kept` None where nothing was measured."""

    what: ClassVar[str]
    by: Seconds

    def to_json(self) -> dict[str, Any]:
        """Plain data that `promise_from_json` turns back into an equal promise."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {"what": self.what, **values}

    @abstractmethod
    def describe(self) -> str:
        """What is promised, for people, without its time."""

    @abstractmethod
    def judge(self, measured: Measured, /) -> Verdict:
        """Whether it was kept; `measured` is of the time from the action to `WATCH_S` after `by`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRatePromise(Promise):
    """A pair can get `value` bytes/s before its rate rises."""

    what: ClassVar[str] = "pair_bytes_per_s"
    pair: str
    value: float

    def describe(self) -> str:
        return f"{self.pair} can get {show_rate(self.value)}"

    def judge(self, measured: Measured, /) -> Verdict:
        speeds = measured.rates(self.pair)
        if not speeds:
            return _unknown()
        peak = max(speed for _, speed in speeds)
        came_at = next((t for t, speed in speeds if speed >= CAME_SHARE * self.value), None)
        if came_at is None:
            text = f"the need did not come: at most {show_rate(peak)} of {show_rate(self.value)} were used"
            return {"kept": False, "came": False, "peak_bytes_per_s": peak, "sentence": text}
        ahead = came_at - (measured.ready_at or came_at)
        text = f"peak {show_rate(peak)} of {show_rate(self.value)} promised; ready {abs(ahead):.1f} s "
        text += "before it rose" if ahead >= 0 else "after it rose"
        return {"kept": ahead >= 0, "came": True, "peak_bytes_per_s": peak, "ahead_s": ahead, "sentence": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantPromise(Promise):
    """A pair can have the `value` bytes/s granted: that it was not used breaks no promise, and proves none."""

    what: ClassVar[str] = "granted_bytes_per_s"
    pair: str
    value: float

    def describe(self) -> str:
        return f"{self.pair} can have the {show_rate(self.value)} asked for"

    def judge(self, measured: Measured, /) -> Verdict:
        peak = max((speed for _, speed in measured.rates(self.pair)), default=0.0)
        used = peak >= STARVED_SHARE * self.value
        text = f"up to {show_rate(peak)} of the {show_rate(self.value)} granted were used"
        return {"kept": True if used else None, "came": used, "peak_bytes_per_s": peak, "sentence": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadroomPromise(Promise):
    """None of these machines is held back; `value` is the smallest headroom expected, as a share."""

    what: ClassVar[str] = "headroom"
    vms: tuple[str, ...]
    value: float = 0.0

    def describe(self) -> str:
        return f"{' and '.join(self.vms)} are not held back"

    def judge(self, measured: Measured, /) -> Verdict:
        return _judge_cores(self.vms, measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoresPromise(Promise):
    """A machine is not held back with `value` cores."""

    what: ClassVar[str] = "vm_not_starved"
    vm: str
    value: float

    def describe(self) -> str:
        return f"{self.vm} is not held back at {self.value:.2f} cores"

    def judge(self, measured: Measured, /) -> Verdict:
        return _judge_cores((self.vm,), measured)


def _judge_cores(names: Sequence[str], measured: Measured) -> Verdict:
    loads = [load for load in measured.vm_loads if load.vm in names]
    if not loads:
        return _unknown()
    peak = max(load.cpu_cores_used for load in loads)
    starved = sum(load.cpu_cores_used >= STARVED_SHARE * load.cpu_cores_limit for load in loads) / len(loads)
    text = f"{' and '.join(names)} used up to {peak:.2f} cores and was at its limit {starved:.0%} of the time"
    return {"kept": starved <= TOLERATED_STARVED, "peak_cores": peak, "starved_share": starved, "sentence": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPromise(Promise):
    """A machine is not full with `value` bytes of memory."""

    what: ClassVar[str] = "vm_memory"
    vm: str
    value: int

    def describe(self) -> str:
        return f"{self.vm} is not full with {self.value >> 20} MiB"

    def judge(self, measured: Measured, /) -> Verdict:
        loads = [load for load in measured.vm_loads if load.vm == self.vm]
        if not loads:
            return _unknown()
        peak = max(load.memory_bytes_used for load in loads)
        full = sum(load.memory_bytes_used >= FULL_SHARE * load.memory_bytes_limit for load in loads) / len(loads)
        of = f"{peak >> 20} of {self.value >> 20} MiB"
        text = f"{self.vm} used up to {of} and was full {full:.0%} of the time"
        return {"kept": full <= TOLERATED_STARVED, "peak_bytes": peak, "full_share": full, "sentence": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePromise(Promise):
    """A machine runs on a host."""

    what: ClassVar[str] = "vm_on_host"
    vm: str
    host: str

    def describe(self) -> str:
        return f"{self.vm} runs on {self.host}"

    def judge(self, measured: Measured, /) -> Verdict:
        loads = [load for load in measured.vm_loads if load.vm == self.vm]
        if not loads:
            return _unknown()
        away = sum(load.host != self.host for load in loads)
        text = f"{self.vm} was measured {len(loads) - away} of {len(loads)} times on {self.host}"
        return {"kept": away == 0, "sentence": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRatePromise(Promise):
    """One direction of a link is not full at `value` bytes/s."""

    what: ClassVar[str] = "link_bytes_per_s"
    link: str
    value: float

    def describe(self) -> str:
        return f"{self.link} is not full at {show_rate(self.value)}"

    def judge(self, measured: Measured, /) -> Verdict:
        loads = [load for load in measured.link_loads if f"{load.from_node}>{load.to_node}" == self.link]
        speeds = [load.bytes / load.interval_s for load in loads if load.interval_s > 0]
        if not speeds:
            return _unknown()
        full = sum(speed >= FULL_SHARE * self.value for speed in speeds) / len(speeds)
        text = f"{self.link} carried up to {show_rate(max(speeds))} and was full {full:.0%} of the time"
        kept = full <= TOLERATED_STARVED
        return {"kept": kept, "peak_bytes_per_s": max(speeds), "full_share": full, "sentence": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCoresPromise(Promise):
    """The machines of a host need less than its `value` cores."""

    what: ClassVar[str] = "host_cores_used"
    host: str
    value: float

    def describe(self) -> str:
        return f"{self.host} needs less than its {self.value:.2f} cores"

    def judge(self, measured: Measured, /) -> Verdict:
        loads = [load for load in measured.host_loads if load.host == self.host]
        if not loads:
            return _unknown()
        peak = max(load.cpu_cores_used for load in loads)
        text = f"{self.host} used up to {peak:.2f} of {self.value:.2f} cores afterwards"
        return {"kept": peak <= FULL_SHARE * self.value, "peak_cores": peak, "sentence": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownPromise(Promise):
    """What another version of forepath promised: shown by its name, never judged."""

    what: ClassVar[str] = "unknown"
    name: str

    def describe(self) -> str:
        return self.name

    def judge(self, _measured: Measured, /) -> Verdict:
        return _unknown()


def _unknown() -> Verdict:
    return {"kept": None, "sentence": "nothing was measured in the promise's window"}


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


def due(record: ActionRecord, now: Seconds) -> bool:
    """True when a finished action's promise can be judged and has not been."""
    promise = promise_from_json(record.reason.get("promise"))
    done = record.outcome is OutcomeKind.DONE and not record.verdict
    return done and promise is not None and now >= promise.by + WATCH_S


def verdict(record: ActionRecord, measured: Measured) -> Verdict:
    """{kept, sentence, ...}: the promise in `record.reason` compared with what was measured in its window."""
    promise = promise_from_json(record.reason.get("promise"))
    return promise.judge(measured.of_record(record, promise.by + WATCH_S)) if promise else _unknown()


def clock_text(t: Seconds) -> str:
    """A moment for people, e.g. 12:00:00 UTC."""
    return datetime.fromtimestamp(t, UTC).strftime("%H:%M:%S UTC")

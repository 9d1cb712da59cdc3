"""Holds every action to its promise: did the need come, and was it met? The answer goes back into the journal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cpdb import ActionRecord, Communication, HostLoad, Json, OutcomeKind, Seconds, VmLoad
from orchestrator.actions import megabits

# After the time by which a need was expected, it is watched this long.
WATCH_S = 10.0
CAME_SHARE = 0.5
STARVED_SHARE = 0.95
# Shares of seconds at the limit that still count as kept.
TOLERATED_STARVED = 0.25
FULL_SHARE = 0.98


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured since an action was issued."""

    communications: Sequence[Communication] = ()
    vm_loads: Sequence[VmLoad] = ()
    host_loads: Sequence[HostLoad] = ()


def due(record: ActionRecord, now: Seconds) -> bool:
    """True when a finished action's promise can be judged and has not been."""
    promise = record.reason.get("promise")
    done = record.outcome is OutcomeKind.DONE and not record.verdict
    return done and promise is not None and now >= promise["by"] + WATCH_S


def verdict(record: ActionRecord, measured: Measured) -> dict[str, Any]:
    """{kept, sentence, ...}: the promise in `record.reason` compared with what was measured in its window."""
    promise = record.reason["promise"]
    since, until = record.issued_at, promise["by"] + WATCH_S
    if promise["what"] == "pair_bytes_per_s":
        rows = [one for one in measured.communications if str(one.pair) == promise["pair"] and since < one.t <= until]
        return _bandwidth(record, promise, rows)
    since = record.ready_at or since
    if promise["what"] == "vm_not_starved":
        loads = [one for one in measured.vm_loads if one.vm == promise["vm"] and since < one.t <= until]
        return _compute(promise, loads)
    hosts = [one for one in measured.host_loads if one.host == promise["host"] and since < one.t <= until]
    return _placement(promise, hosts)


def _bandwidth(record: ActionRecord, promise: Json, rows: Iterable[Communication]) -> dict[str, Any]:
    speeds = [(one.t, one.bytes / one.interval_s) for one in rows if one.interval_s > 0]
    if not speeds:
        return _unknown()
    peak = max(speed for _, speed in speeds)
    came_at = next((t for t, speed in speeds if speed >= CAME_SHARE * promise["value"]), None)
    if came_at is None:
        text = f"the need did not come: at most {megabits(peak)} of {megabits(promise['value'])} were used"
        return {"kept": False, "came": False, "peak_bytes_per_s": peak, "sentence": text}
    ahead = came_at - (record.ready_at or came_at)
    text = f"peak {megabits(peak)} of {megabits(promise['value'])} promised; ready {abs(ahead):.1f} s "
    text += "before it rose" if ahead >= 0 else "after it rose"
    return {"kept": ahead >= 0, "came": True, "peak_bytes_per_s": peak, "ahead_s": ahead, "sentence": text}


def _compute(promise: Json, loads: Sequence[VmLoad]) -> dict[str, Any]:
    if not loads:
        return _unknown()
    peak = max(one.cpu_cores_used for one in loads)
    starved = sum(one.cpu_cores_used >= STARVED_SHARE * one.cpu_cores_limit for one in loads) / len(loads)
    kept = starved <= TOLERATED_STARVED
    text = f"{promise['vm']} used up to {peak:.2f} cores and was at its limit {starved:.0%} of the time"
    return {"kept": kept, "peak_cores": peak, "starved_share": starved, "sentence": text}


def _placement(promise: Json, loads: Sequence[HostLoad]) -> dict[str, Any]:
    if not loads:
        return _unknown()
    peak = max(one.cpu_cores_used for one in loads)
    kept = peak <= FULL_SHARE * promise["value"]
    text = f"{promise['host']} used up to {peak:.2f} of {promise['value']:.2f} cores afterwards"
    return {"kept": kept, "peak_cores": peak, "sentence": text}


def _unknown() -> dict[str, Any]:
    return {"kept": None, "sentence": "nothing was measured in the promise's window"}

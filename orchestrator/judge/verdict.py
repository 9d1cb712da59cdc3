"""Holds every action to its promise: did the need come, and was it met? The answer goes back into the journal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cpdb import ActionRecord, Communication, HostLoad, Json, LinkLoad, OutcomeKind, Seconds, VmLoad, show_rate

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
    link_loads: Sequence[LinkLoad] = ()


def due(record: ActionRecord, now: Seconds) -> bool:
    """True when a finished action's promise can be judged and has not been."""
    promise = record.reason.get("promise")
    done = record.outcome is OutcomeKind.DONE and not record.verdict
    return done and promise is not None and now >= promise["by"] + WATCH_S


def verdict(record: ActionRecord, measured: Measured) -> dict[str, Any]:
    """{kept, sentence, ...}: the promise in `record.reason` compared with what was measured in its window."""
    promise, until = record.reason["promise"], record.reason["promise"]["by"] + WATCH_S
    since = record.timing.ready_at or record.issued_at
    talk = [one for one in measured.communications if str(one.pair) == promise.get("pair") and one.t <= until]
    talk = [
        one for one in talk if one.t > record.issued_at
    ]  # also what came before it was ready tells how early it was
    names = promise.get("vms") or [promise.get("vm")]
    machines = [one for one in measured.vm_loads if one.vm in names and since < one.t <= until]
    hosts = [one for one in measured.host_loads if one.host == promise.get("host") and since < one.t <= until]
    links = [one for one in measured.link_loads if _name(one) == promise.get("link") and since < one.t <= until]
    judges: dict[str, Callable[[], dict[str, Any]]] = {
        "pair_bytes_per_s": lambda: _bandwidth(record, promise, talk),
        "granted_bytes_per_s": lambda: _granted(promise, talk),
        "vm_not_starved": lambda: _compute(names, machines),
        "headroom": lambda: _compute(names, machines),
        "vm_memory": lambda: _memory(promise, machines),
        "vm_on_host": lambda: _arrived(promise, machines),
        "link_bytes_per_s": lambda: _relieved(promise, links),
        "host_cores_used": lambda: _placement(promise, hosts),
    }
    return judges.get(promise["what"], _unknown)()


def _bandwidth(record: ActionRecord, promise: Json, rows: Iterable[Communication]) -> dict[str, Any]:
    speeds = [(one.t, one.bytes / one.interval_s) for one in rows if one.interval_s > 0]
    if not speeds:
        return _unknown()
    peak = max(speed for _, speed in speeds)
    came_at = next((t for t, speed in speeds if speed >= CAME_SHARE * promise["value"]), None)
    if came_at is None:
        text = f"the need did not come: at most {show_rate(peak)} of {show_rate(promise['value'])} were used"
        return {"kept": False, "came": False, "peak_bytes_per_s": peak, "sentence": text}
    ahead = came_at - (record.timing.ready_at or came_at)
    text = f"peak {show_rate(peak)} of {show_rate(promise['value'])} promised; ready {abs(ahead):.1f} s "
    text += "before it rose" if ahead >= 0 else "after it rose"
    return {"kept": ahead >= 0, "came": True, "peak_bytes_per_s": peak, "ahead_s": ahead, "sentence": text}


def _granted(promise: Json, rows: Iterable[Communication]) -> dict[str, Any]:
    """A grant is kept for its holder: that it was not used breaks no promise, and proves none."""
    peak = max((one.bytes / one.interval_s for one in rows if one.interval_s > 0), default=0.0)
    used = peak >= STARVED_SHARE * promise["value"]
    text = f"up to {show_rate(peak)} of the {show_rate(promise['value'])} granted were used"
    return {"kept": True if used else None, "came": used, "peak_bytes_per_s": peak, "sentence": text}


def _compute(names: Sequence[str], loads: Sequence[VmLoad]) -> dict[str, Any]:
    if not loads:
        return _unknown()
    peak = max(one.cpu_cores_used for one in loads)
    starved = sum(one.cpu_cores_used >= STARVED_SHARE * one.cpu_cores_limit for one in loads) / len(loads)
    kept = starved <= TOLERATED_STARVED
    text = f"{' and '.join(names)} used up to {peak:.2f} cores and was at its limit {starved:.0%} of the time"
    return {"kept": kept, "peak_cores": peak, "starved_share": starved, "sentence": text}


def _memory(promise: Json, loads: Sequence[VmLoad]) -> dict[str, Any]:
    if not loads:
        return _unknown()
    peak = max(one.memory_bytes_used for one in loads)
    full = sum(one.memory_bytes_used >= FULL_SHARE * one.memory_bytes_limit for one in loads) / len(loads)
    of = f"{peak >> 20} of {promise['value'] >> 20} MiB"
    text = f"{promise['vm']} used up to {of} and was full {full:.0%} of the time"
    return {"kept": full <= TOLERATED_STARVED, "peak_bytes": peak, "full_share": full, "sentence": text}


def _arrived(promise: Json, loads: Sequence[VmLoad]) -> dict[str, Any]:
    if not loads:
        return _unknown()
    away = sum(one.host != promise["host"] for one in loads)
    text = f"{promise['vm']} was measured {len(loads) - away} of {len(loads)} times on {promise['host']}"
    return {"kept": away == 0, "sentence": text}


def _name(load: LinkLoad) -> str:
    return f"{load.from_node}>{load.to_node}"


def _relieved(promise: Json, loads: Sequence[LinkLoad]) -> dict[str, Any]:
    speeds = [one.bytes / one.interval_s for one in loads if one.interval_s > 0]
    if not speeds:
        return _unknown()
    full = sum(one >= FULL_SHARE * promise["value"] for one in speeds) / len(speeds)
    text = f"{promise['link']} carried up to {show_rate(max(speeds))} and was full {full:.0%} of the time"
    return {"kept": full <= TOLERATED_STARVED, "peak_bytes_per_s": max(speeds), "full_share": full, "sentence": text}


def _placement(promise: Json, loads: Sequence[HostLoad]) -> dict[str, Any]:
    if not loads:
        return _unknown()
    peak = max(one.cpu_cores_used for one in loads)
    kept = peak <= FULL_SHARE * promise["value"]
    text = f"{promise['host']} used up to {peak:.2f} of {promise['value']:.2f} cores afterwards"
    return {"kept": kept, "peak_cores": peak, "sentence": text}


def _unknown() -> dict[str, Any]:
    return {"kept": None, "sentence": "nothing was measured in the promise's window"}

"""Answers 'why did it do that?' from the journal's record alone."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cpdb import ActionRecord, Json, OutcomeKind, Seconds, SettingsError, show_mebibytes, show_rate
from orchestrator.actions import from_json
from orchestrator.judge.verdict import WATCH_S


def explain(record: ActionRecord) -> list[str]:
    """Lines for people: what, why, the forecast, the deadline, what else was considered, what became of it."""
    return [
        *_what(record),
        *_evidence(record),
        *_routes(record.reason),
        *_timing(record),
        *_considered(record.reason),
        *_end(record),
    ]


def explained(record: ActionRecord) -> dict[str, Any]:
    """The same for programs."""
    return {
        "id": record.id,
        "kind": record.kind,
        "target": record.target,
        "policy": record.policy,
        "why": record.why,
        "what": described(record),
        "promise": promised(record),
        "reason": dict(record.reason),
        "issued_at": record.issued_at,
        "needed_at": record.timing.needed_at,
        "lead_s": record.timing.lead_s,
        "ready_at": record.timing.ready_at,
        "outcome": record.outcome.value,
        "sentence": record.sentence,
        "verdict": dict(record.verdict),
        "lines": explain(record),
    }


def described(record: ActionRecord) -> str:
    """What the action does, for people; kind and target where another version wrote it."""
    try:
        return from_json(record.kind, record.body).describe()
    except SettingsError:
        return f"{record.kind} {record.target}"


def promised(record: ActionRecord) -> str | None:
    """What the action promised, for people; None when it promised nothing."""
    promise = record.reason.get("promise")
    if not promise:
        return None
    texts = {
        "pair_bytes_per_s": lambda: f"{promise['pair']} can get {show_rate(promise['value'])}",
        "granted_bytes_per_s": lambda: f"{promise['pair']} can have the {show_rate(promise['value'])} asked for",
        "headroom": lambda: f"{' and '.join(promise['vms'])} are not held back",
        "vm_not_starved": lambda: f"{promise['vm']} is not held back at {promise['value']:.2f} cores",
        "vm_memory": lambda: f"{promise['vm']} is not full with {promise['value'] >> 20} MiB",
        "vm_on_host": lambda: f"{promise['vm']} runs on {promise['host']}",
        "link_bytes_per_s": lambda: f"{promise['link']} is not full at {show_rate(promise['value'])}",
        "host_cores_used": lambda: f"{promise['host']} needs less than its {promise['value']:.2f} cores",
    }
    text = texts.get(promise["what"], lambda: str(promise["what"]))()
    return f"{text} by {_clock(promise['by'])}"


def _what(record: ActionRecord) -> Iterator[str]:
    yield f"#{record.id} at {_clock(record.issued_at)} ({record.policy}): {described(record)}"
    yield f"why: {record.why}"


def _evidence(record: ActionRecord) -> Iterator[str]:
    reason = record.reason
    forecast = reason.get("forecast")
    if forecast:
        yield _forecast(forecast, record.issued_at)
    elif "need" in reason:
        yield "forecast: none was used, this rests on measurements"
    if "need" in reason:
        where = ", ".join(f"{kind} {name}" for kind, name in reason.get("where", {}).items())
        number = _number(reason.get("unit") or ("bytes_per_s" if "link" in reason.get("where", {}) else "cores"))
        yield (
            f"at {where}: need {number(reason['need'])}, available {number(reason['available'])}, "
            f"capacity {number(reason['capacity'])}"
        )


def _forecast(forecast: Json, decided_at: Seconds) -> str:
    number = _number(forecast["quantity"])
    age = f", {decided_at - forecast['issued_at']:.1f} s old" if "issued_at" in forecast else ""
    low = f"5 % below {number(forecast['q05'])}, " if "q05" in forecast else ""
    return (
        f"forecast: {forecast['pair']} {forecast['quantity']} within {forecast['horizon_s']} s "
        f"by {forecast['model']}{age}: median {number(forecast['q50'])}, {low}90 % below {number(forecast['q90'])}, "
        f"used {number(forecast['value'])} (level {forecast['level']:g})"
    )


def _routes(reason: Json) -> Iterator[str]:
    if "mean_max_utilisation" not in reason:
        return
    for title, name in (("on average", "mean_max_utilisation"), ("in the worst scenario", "worst_max_utilisation")):
        found = reason[name]
        yield f"fullest link {title}: {found['before']:.0%}, with these paths {found['after']:.0%}"
    for one in reason.get("fullest", ()):
        yield f"at link {one['link']}: {one['before']:.0%} before, {one['after']:.0%} after"


def _timing(record: ActionRecord) -> Iterator[str]:
    if record.timing.needed_at is not None:
        left = record.timing.needed_at - record.issued_at
        far = f"{_clock(record.timing.needed_at)}, {left:.1f} s after the decision"
        yield f"deadline: {far}" if left > 0 else "deadline: now, the need was already there"
    if record.timing.lead_s > 0:
        yield f"lead time: it takes up to {record.timing.lead_s:.1f} s from decision to effect"


def _considered(reason: Json) -> Iterator[str]:
    choice = reason.get("choice")
    if choice and choice.get("set"):
        parts = (f"{one['action']} (up to {one['lead_s']:.1f} s)" for one in choice["set"])
        lacking = f"; {choice['lacking']:.2f} cores remain lacking" if choice.get("lacking") else ""
        yield f"the cheapest set in time: {' and '.join(parts)}{lacking}"
    for one in reason.get("alternatives", ()):
        yield f"not: {one['action']}, because {one['why_not']}"


def _end(record: ActionRecord) -> Iterator[str]:
    ready = f" after {record.timing.ready_at - record.issued_at:.1f} s" if record.timing.ready_at is not None else ""
    yield f"outcome: {record.outcome.value}{ready}" + (f": {record.sentence}" if record.sentence else "")
    promise = promised(record)
    if promise is not None:
        yield f"promise: {promise}"
    if record.verdict:
        yield f"verdict: {kept(record)}: {record.verdict.get('sentence', '')}"
    elif promise is not None and record.outcome in (OutcomeKind.DONE, OutcomeKind.PENDING):
        yield f"verdict: open until {_clock(record.reason['promise']['by'] + WATCH_S)}"


def kept(record: ActionRecord) -> str:
    """Whether the promise was kept, in a word or two; "" while nobody has judged."""
    return {True: "kept", False: "not kept", None: "unknown"}[record.verdict.get("kept")] if record.verdict else ""


def _number(quantity: str) -> Any:
    if quantity == "bytes":
        return show_mebibytes
    if quantity.startswith("bytes"):
        return show_rate
    unit = "cores" if quantity == "cores" else "connections/s"
    return lambda value: f"{value:.2f} {unit}"


def _clock(t: Seconds) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%H:%M:%S UTC")

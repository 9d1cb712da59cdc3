"""Answers 'why did it do that?' from the journal's record alone."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cpdb import ActionRecord, Json, Seconds, SettingsError
from orchestrator.actions import from_json, megabits


def explain(record: ActionRecord) -> list[str]:
    """Lines for people: what, why, the forecast, the deadline, what else was considered, what became of it."""
    return [*_what(record), *_evidence(record.reason), *_timing(record), *_considered(record.reason), *_end(record)]


def explained(record: ActionRecord) -> dict[str, Any]:
    """The same for programs."""
    return {
        "id": record.id,
        "kind": record.kind,
        "target": record.target,
        "policy": record.policy,
        "why": record.why,
        "reason": dict(record.reason),
        "issued_at": record.issued_at,
        "needed_at": record.needed_at,
        "lead_s": record.lead_s,
        "ready_at": record.ready_at,
        "outcome": record.outcome.value,
        "sentence": record.sentence,
        "verdict": dict(record.verdict),
        "lines": explain(record),
    }


def _what(record: ActionRecord) -> Iterator[str]:
    try:
        done = from_json(record.kind, record.body).describe()
    except SettingsError:
        done = f"{record.kind} {record.target}"
    yield f"#{record.id} at {_clock(record.issued_at)} ({record.policy}): {done}"
    yield f"why: {record.why}"


def _evidence(reason: Json) -> Iterator[str]:
    forecast = reason.get("forecast")
    if forecast:
        number = _number(forecast["quantity"])
        yield (
            f"forecast: {forecast['pair']} {forecast['quantity']} within {forecast['horizon_s']} s "
            f"by {forecast['model']}: median {number(forecast['q50'])}, 90 % below {number(forecast['q90'])}, "
            f"used {number(forecast['value'])} (level {forecast['level']:g})"
        )
    elif "need" in reason:
        yield "forecast: none was used, this rests on measurements"
    if "need" in reason:
        where = ", ".join(f"{kind} {name}" for kind, name in reason.get("where", {}).items())
        number = _number("bytes_per_s" if "link" in reason.get("where", {}) else "cores")
        yield (
            f"at {where}: need {number(reason['need'])}, available {number(reason['available'])}, "
            f"capacity {number(reason['capacity'])}"
        )


def _timing(record: ActionRecord) -> Iterator[str]:
    if record.needed_at is None:
        return
    left = record.needed_at - record.issued_at
    text = (
        f"deadline: {_clock(record.needed_at)}, {left:.1f} s after the decision; it takes up to {record.lead_s:.1f} s"
    )
    yield text if left > 0 else "deadline: now, the need was already there"


def _considered(reason: Json) -> Iterator[str]:
    for one in reason.get("alternatives", ()):
        yield f"not: {one['action']}, because {one['why_not']}"


def _end(record: ActionRecord) -> Iterator[str]:
    ready = f" after {record.ready_at - record.issued_at:.1f} s" if record.ready_at is not None else ""
    yield f"outcome: {record.outcome.value}{ready}" + (f": {record.sentence}" if record.sentence else "")
    if record.verdict:
        kept = {True: "kept", False: "not kept", None: "unknown"}[record.verdict.get("kept")]
        yield f"promise: {kept}: {record.verdict.get('sentence', '')}"


def _number(quantity: str) -> Any:
    if quantity.startswith("bytes"):
        return megabits
    unit = "cores" if quantity == "cores" else "connections/s"
    return lambda value: f"{value:.2f} {unit}"


def _clock(t: Seconds) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%H:%M:%S UTC")

"""Answers 'why did it do that?' from the journal's record alone."""

from collections.abc import Iterator
from typing import Any

from cpdb import ActionRecord, Json, SettingsError
from orchestrator.actions import from_json
from orchestrator.judge.judge import OPEN
from orchestrator.promises import WATCH_S, clock_text, promise_of
from orchestrator.proposal import evidence_from_json, number_of
from orchestrator.verdicts import verdict_from_json


def explain(record: ActionRecord) -> list[str]:
    """Lines for people: what, why, the forecast, the deadline, what else was considered, what became of it."""
    return [
        *_what(record),
        *_evidence(record),
        *_routes(record.reason),
        *_timing(record),
        *_learnt(record.reason),
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
    promise = promise_of(record)
    return f"{promise.describe()} by {clock_text(promise.by)}" if promise else None


def _what(record: ActionRecord) -> Iterator[str]:
    yield f"#{record.id} at {clock_text(record.issued_at)} ({record.policy}): {described(record)}"
    yield f"why: {record.why}"


def _evidence(record: ActionRecord) -> Iterator[str]:
    reason = record.reason
    forecast = evidence_from_json(reason.get("forecast"))
    if forecast:
        yield forecast.describe(record.issued_at)
    elif "need" in reason:
        yield "forecast: none was used, this rests on measurements"
    if "need" in reason:
        where = ", ".join(f"{kind} {name}" for kind, name in reason.get("where", {}).items())
        number = number_of(reason.get("unit") or ("bytes_per_s" if "link" in reason.get("where", {}) else "cores"))
        yield (
            f"at {where}: need {number(reason['need'])}, available {number(reason['available'])}, "
            f"capacity {number(reason['capacity'])}"
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
        far = f"{clock_text(record.timing.needed_at)}, {left:.1f} s after the decision"
        yield f"deadline: {far}" if left > 0 else "deadline: now, the need was already there"
    if record.timing.lead_s > 0:
        yield f"lead time: it takes up to {record.timing.lead_s:.1f} s from decision to effect"


def _learnt(reason: Json) -> Iterator[str]:
    """What earlier verdicts have changed about it."""
    if learnt := reason.get("learnt"):
        earlier = f", decided {learnt['earlier_s']:.1f} s earlier" if learnt["earlier_s"] else ""
        yield f"learnt from verdicts: {learnt['margin']:.2f} times the margin{earlier}"
    if earned := reason.get("earned"):
        yield f"it may act: {earned}"


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
    found = verdict_from_json(record.verdict)
    if found is not None:
        yield f"verdict: {found.in_words}: {found.sentence}"
    elif promise is not None and record.outcome in OPEN:
        yield f"verdict: open until {clock_text(record.reason['promise']['by'] + WATCH_S)}"


def kept(record: ActionRecord) -> str:
    """What came of the promise, in a word or two; "" while nobody has judged."""
    found = verdict_from_json(record.verdict)
    return found.in_words if found else ""

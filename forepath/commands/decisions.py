"""Commands about decisions: what is planned, what was done, advised or refused, and why."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cpdb import ActionRecord, OutcomeKind, SettingsError, Store, open_store
from forepath import processes, routed
from forepath.moments import MomentOption, moment
from forepath.output import JsonOption, SettingsOption, SinceOption, ago, console, emit, on_one_line, span, table
from forepath.settings import declare, load_settings
from orchestrator import KINDS, LeadRow, described, explained, kept, lead_rows, passed, promised
from orchestrator import explain as explain_lines

FAILURES = (OutcomeKind.FAILED, OutcomeKind.SKIPPED, OutcomeKind.NOT_REVERTED)
JUDGED = (OutcomeKind.DONE, OutcomeKind.ADVISED)
TOLD = (OutcomeKind.DONE, OutcomeKind.FAILED, OutcomeKind.PENDING)


def plan(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """What would be done now, and why; nothing is touched. `forepath apply NUMBER` does it while it is fresh.

    Examples:
        forepath plan
        forepath plan --json -
    """
    effective = load_settings(settings)
    store = open_store(effective.database.url)
    declare(effective, store)
    config = processes.orchestrator_config(effective, act=False)
    approval = processes.make_approval(config, store, time.time)
    try:
        record = approval.propose(time.time())
    finally:
        approval.close()
    routing = routed.routing(effective, store)
    if emit(asdict(record) | {"routing": routing}, json):
        return
    _print_plan(dict(record.body), record.id, record.expires_at - record.created_at)
    console.print(f"routing: {routed.told_routing(routing)}", markup=False, soft_wrap=True)


def _print_plan(body: dict[str, Any], number: int | None, valid_s: float) -> None:
    if not body["steps"]:
        console.print("plan: nothing to do")
    else:
        rows = [(str(n), step["describe"], step["why"]) for n, step in enumerate(body["steps"], 1)]
        console.print(table(f"plan {number}, valid for {valid_s:.0f} s", ["step", "action", "why"], rows, left=3))
        console.print(f"forepath apply {number} carries it out")
    for refusal in body["refusals"]:
        console.print(f"not: {refusal['action']}, because {refusal['why_not']}", markup=False)


def apply(
    number: Annotated[int, typer.Argument(metavar="PLAN", help="Number that `forepath plan` printed")],
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Carry out a plan that a person has read. An expired or superseded plan is refused.

    Examples:
        forepath apply 12
    """
    effective = load_settings(settings)
    store = open_store(effective.database.url)
    config = processes.orchestrator_config(effective, act=True)
    approval = processes.make_approval(config, store, time.time)
    try:
        done = approval.carry_out(number, time.time, time.sleep)
    finally:
        approval.close()
    if not emit({"plan": number, "actions": [asdict(one) for one in done]}, json):
        for one in done:
            console.print(f"#{one.id} {one.kind} {one.target}: {one.outcome.value}: {one.sentence}", markup=False)
    if any(one.outcome is not OutcomeKind.DONE for one in done):
        raise typer.Exit(1)


def explain(
    action: Annotated[int | None, typer.Argument(help="Number of the action")] = None,
    last: Annotated[bool, typer.Option("--last", help="The last action that was tried")] = False,
    policy: Annotated[str | None, typer.Option("--policy", help="With --last: only actions of this policy")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every line, not only the first dozen that matter")] = False,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Why an action was taken: forecast, interval, deadline, what else was considered, and the verdict.

    Examples:
        forepath explain --last
        forepath explain 17 --all
        forepath explain 17 --json -
    """
    if (action is None) == (not last):
        raise typer.BadParameter("give an action's number, or --last")
    store = open_store(load_settings(settings).database.url, create=False)
    record = last_action(store, policy) if action is None else store.journal.action(action)
    if record is None:
        which = "no action was tried so far" if action is None else f"no action {action}"
        raise SettingsError(f"{which}; `forepath status` lists the last ones")
    steps = passed(store.workflow.steps_of(record.id or 0))
    if not emit(explained(record) | {"steps": steps}, json):
        lines = [*explain_lines(record), *(f"step: {one}" for one in steps)]
        text = "\n".join(lines if every else in_short(lines))
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def in_short(lines: Sequence[str], most: int = 12) -> list[str]:
    """At most so many lines: what else was considered goes first, then steps, and a last line says how many went."""
    if len(lines) <= most:
        return list(lines)
    # The sort keeps the order of lines that matter alike.
    ranked = sorted(
        range(len(lines)),
        key=lambda at: lines[at].startswith(("step: ", "at link ")) + 2 * lines[at].startswith("not: "),
    )
    shown = sorted(ranked[: most - 1])
    return [*(lines[at] for at in shown), f"and {len(lines) - most + 1} more lines: --all shows them"]


def last_action(store: Store, policy: str | None = None) -> ActionRecord | None:
    """The newest action that was tried (not merely advised or refused), of one policy if named."""
    tried = (one for one in store.journal.actions() if one.outcome in TOLD and policy in (None, one.policy))
    return next(tried, None)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise typer.BadParameter(f"{text!r} is unknown; write one of {', '.join(sorted(KINDS))}")
    return text


def actions(
    since: SinceOption = 3600.0,
    kind: Annotated[str | None, typer.Option("--kind", parser=_kind, metavar="KIND", help="Only of this kind")] = None,
    outcome: Annotated[
        OutcomeKind | None, typer.Option("--outcome", help="Only those that ended so", case_sensitive=False)
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many to show, newest first")] = 50,
    lead_times: Annotated[
        bool, typer.Option("--lead-times", help="How long each kind took, by host, size and load, instead")
    ] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Whole sentences, promises, and how early")] = False,
    at: MomentOption = None,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """What was done, advised or refused: outcome, promise, and what came of the promise.

    With --at: what was issued until then, with all that has become of it since.

    Examples:
        forepath actions --since 10m --outcome failed
        forepath actions --since 10m --at last --wide
        forepath actions --since 1d --kind migrate_vm --json -
    """
    store = open_store(load_settings(settings).database.url, create=False)
    now = moment(at, store)
    found = _chosen(store.journal.actions(since=now - since, until=now), kind, outcome)
    store.close()
    if lead_times:
        _show_leads(lead_rows(found, now), since, json)
        return
    counts = {"outcomes": Counter(one.outcome.value for one in found), "promises": Counter(_promises(found))}
    shown = [explained(one) for one in found[:top]]
    if emit({"since": now - since, "now": now, "total": len(found), **counts, "actions": shown}, json):
        return
    columns, rows = (_wide_rows if wide else _short_rows)(found[:top], now)
    console.print(table(f"actions of the last {span(since)}", columns, rows, texts=range(1, len(columns))))
    if found:
        console.print(_summed(found, counts, top), markup=False)


def _chosen(records: Iterable[ActionRecord], kind: str | None, outcome: OutcomeKind | None) -> Sequence[ActionRecord]:
    return [one for one in records if kind in (None, one.kind) and outcome in (None, one.outcome)]


def _wide_rows(found: Sequence[ActionRecord], now: float) -> tuple[list[str], Sequence[Sequence[str]]]:
    columns = ["no.", "issued", "action", "outcome", "ready", "promise", "verdict"]
    return columns, [_row(one, now) for one in found]


def _short_rows(found: Sequence[ActionRecord], now: float) -> tuple[list[str], Sequence[Sequence[str]]]:
    columns = ["no.", "issued", "action", "outcome", "verdict"]
    rows = [(str(one.id), ago(now, one.issued_at), described(one), one.outcome.value, kept(one)) for one in found]
    return columns, on_one_line(columns, rows, columns.index("action"), console.width)


def _show_leads(found: Sequence[LeadRow], since: float, json: str | None) -> None:
    if emit({"lead_times": [asdict(one) for one in found]}, json):
        return
    rows = [
        (
            *(one.kind, one.host, one.size, one.load, str(one.samples)),
            *(f"{one.p50_s:.1f} s", f"{one.p95_s:.1f} s", "yes" if one.used else "too few"),
        )
        for one in found
    ]
    columns = ["kind", "host", "size", "load", "samples", "middle", "95 % within", "used"]
    console.print(table(f"lead times of the last {span(since)}", columns, rows, left=4))


def _promises(found: Iterable[ActionRecord]) -> Iterable[str]:
    return (kept(one) or "open" for one in found if one.outcome in JUDGED and promised(one))


def _row(one: ActionRecord, now: float) -> tuple[str, ...]:
    ended, promise = _ended(one), promised(one) or "-"
    return str(one.id), ago(now, one.issued_at), described(one), ended, _ready(one), promise, kept(one)


def _ended(one: ActionRecord) -> str:
    return f"{one.outcome.value}: {one.sentence}" if one.outcome in FAILURES and one.sentence else one.outcome.value


def _ready(one: ActionRecord) -> str:
    """How long it took, and how long before the need it was there."""
    if one.timing.ready_at is None:
        return "-"
    took = f"after {one.timing.ready_at - one.issued_at:.1f} s"
    if one.timing.needed_at is None:
        return took
    left = one.timing.needed_at - one.timing.ready_at
    return f"{took}, {abs(left):.1f} s {'early' if left >= 0 else 'late'}"


def _summed(found: Sequence[ActionRecord], counts: dict[str, Counter[str]], top: int) -> str:
    said = {name: ", ".join(f"{count} {word}" for word, count in one.most_common()) for name, one in counts.items()}
    text = f"{len(found)} actions: {said['outcomes']}"
    text += f"; promises: {said['promises']}" if said["promises"] else ""
    more = f"; {len(found) - top} older ones are not shown, --top shows them" if len(found) > top else ""
    return f"{text}{more}; forepath explain NUMBER says why"

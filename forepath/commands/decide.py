"""Commands about decisions: plan, apply, explain."""

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cpdb import ActionRecord, OutcomeKind, SettingsError, Store, open_store
from forepath import processes
from forepath.inventory import declare
from forepath.output import JsonOption, SettingsOption, console, emit, table
from forepath.settings import load
from orchestrator import explain as explain_lines
from orchestrator import explained, passed

TOLD = (OutcomeKind.DONE, OutcomeKind.FAILED, OutcomeKind.PENDING)


def plan(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """What would be done now, and why; nothing is touched. `forepath apply NUMBER` does it while it is fresh.

    Examples:
        forepath plan
        forepath plan --json -
    """
    effective = load(settings)
    store = open_store(effective.database.url)
    declare(effective, store)
    config = processes.orchestrator_config(effective, act=False)
    approval = processes.make_approval(config, store, time.time)
    try:
        record = approval.propose(time.time())
    finally:
        approval.close()
    if emit(asdict(record), json):
        return
    _print_plan(dict(record.body), record.id, record.expires_at - record.created_at)


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
    effective = load(settings)
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
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Why an action was taken: forecast, interval, deadline, what else was considered, and the verdict.

    Examples:
        forepath explain --last
        forepath explain 17 --json -
    """
    if (action is None) == (not last):
        raise typer.BadParameter("give an action's number, or --last")
    store = open_store(load(settings).database.url, create=False)
    record = last_action(store, policy) if action is None else store.journal.action(action)
    if record is None:
        which = "no action was tried so far" if action is None else f"no action {action}"
        raise SettingsError(f"{which}; `forepath status` lists the last ones")
    steps = passed(store.progress.of(record.id or 0))
    if not emit(explained(record) | {"steps": steps}, json):
        lines = [*explain_lines(record), *(f"step: {one}" for one in steps)]
        console.print("\n".join(lines), markup=False, highlight=False)


def last_action(store: Store, policy: str | None = None) -> ActionRecord | None:
    """The newest action that was tried (not merely advised or refused), of one policy if named."""
    tried = (one for one in store.journal.actions() if one.outcome in TOLD and policy in (None, one.policy))
    return next(tried, None)

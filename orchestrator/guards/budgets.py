"""How much may be done in a minute, of each kind, on each host and for each tenant; and what turns round too often."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cpdb import ActionRecord, OutcomeKind, Seconds, SettingsError
from orchestrator.actions import Action, from_json
from orchestrator.config import GuardSettings
from orchestrator.context import PlanningContext
from orchestrator.machine_actions import Resize
from orchestrator.proposal import Objection, RefusalCode, Step

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """An earlier change of something."""

    t: Seconds
    action: Action


def over_budget(
    action: Action, allowed: Sequence[Step], context: PlanningContext, done: Sequence[ActionRecord]
) -> Objection | None:
    """Why `action` would be one too many: after what was `done` in the last minute and is `allowed` in this plan."""
    records = [record for record in done if record.issued_at > context.world.now - MINUTE_S]
    planned = [step.action for step in allowed if not step.renewal and not step.waits]
    spent = sum(kind == action.kind for kind in (*(item.kind for item in records), *(item.kind for item in planned)))
    budget = context.config.guard.budgets.per_minute.get(action.kind, 0)
    if spent >= budget:
        return _spent(spent, budget, action.kind)
    known = [earlier for earlier in map(read_action, records) if earlier is not None]
    return _for_groups(action, [*known, *planned], context)


def _spent(spent: int, budget: int, what: str) -> Objection:
    return Objection(RefusalCode.BUDGET, f"budget: {spent} of {budget} {what} in this minute are spent")


def _for_groups(action: Action, others: Sequence[Action], context: PlanningContext) -> Objection | None:
    budgets, tenants = context.config.guard.budgets, context.config.declared.tenants
    for host in sorted(action.hosts(context.world)):
        spent = sum(host in other.hosts(context.world) for other in others)
        if spent >= budgets.per_host:
            return _spent(spent, budgets.per_host, f"actions on {host}")
    tenant = tenants.get(action.benefits)
    spent = sum(tenants.get(other.benefits) == tenant for other in others) if tenant else 0
    return _spent(spent, budgets.per_tenant, f"actions for {tenant}") if spent >= budgets.per_tenant else None


def held_still(action: Action, done: Sequence[ActionRecord], now: Seconds, settings: GuardSettings) -> Objection | None:
    """Why `action` must wait because its target turned round `max_turns` times within `turns_window_s`.

    `done`: what was carried out lately, newest first. A size may still grow: that ends the turning as well, and
    nobody is starved by a guard.
    """
    sized = isinstance(action, Resize)
    if sized and not action.shrinks:
        return None
    turns = sorted(_turns(changes(action, done)))
    ending = (
        turns[last]
        for last in range(settings.max_turns - 1, len(turns))
        if turns[last] - turns[last - settings.max_turns + 1] <= settings.turns_window_s
    )
    until = max((t + settings.hold_still_s for t in ending), default=now)
    if until <= now:
        return None
    verb = "lowered" if sized else "changed"
    often = f"{settings.max_turns} times within {settings.turns_window_s:g} s"
    text = f"oscillation: {action.target} turned round {often}; it is not {verb} for another {until - now:.0f} s"
    return Objection(RefusalCode.OSCILLATION, text)


def changes(action: Action, done: Sequence[ActionRecord]) -> list[Change]:
    """Earlier changes of the same thing, oldest first; failed ones changed nothing."""
    same = [
        record
        for record in reversed(done)
        if (record.kind, record.target) == (action.kind, action.target) and record.outcome is not OutcomeKind.FAILED
    ]
    read = [(record.issued_at, read_action(record)) for record in same]
    return [Change(t, earlier) for t, earlier in read if earlier is not None]


def _turns(history: Sequence[Change]) -> Iterator[Seconds]:
    for before, after in pairwise(history):
        if after.action.turns(before.action):
            yield after.t


def read_action(record: ActionRecord) -> Action | None:
    """The recorded action; None when another version wrote it: it still counts for budgets."""
    try:
        return from_json(record.kind, record.body)
    except SettingsError:
        return None

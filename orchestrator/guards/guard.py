"""The guards: however good a plan looks, this is how much and how often may be done, and on how old a world."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

from cpdb import ActionRecord, OutcomeKind, Seconds, SettingsError
from orchestrator.actions import (
    Action,
    MigrateVm,
    ScaleIn,
    ScaleOut,
    SetCpuLimit,
    SetVcpus,
    SetWeights,
    from_json,
    moves_of,
    of_kind,
)
from orchestrator.config import GuardSettings
from orchestrator.context import PlanningContext, links_of
from orchestrator.machine_actions import Resize
from orchestrator.plan import Plan
from orchestrator.proposal import Objection, Refusal, RefusalCode, Step
from orchestrator.world import NO_FACTS_AGE_S

MINUTE_S = 60.0
UNSUCCESSFUL = frozenset({OutcomeKind.FAILED, OutcomeKind.REVERTED, OutcomeKind.NOT_REVERTED})
DID = frozenset({OutcomeKind.PENDING, OutcomeKind.DONE}) | UNSUCCESSFUL
# Twice as long after each failure in a row, but no longer than the journal is looked back at.
LONGEST_RETRY_S = 480.0
SCALING_KINDS = frozenset({ScaleOut.kind, ScaleIn.kind})


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


def hasty(action: Action, context: PlanningContext, done: Sequence[ActionRecord]) -> Objection | None:
    """Why a limit is not given back yet: of the turns that are allowed, forecasts may use up half.

    The rest is for what was measured calm since it was raised. What is held still costs more than giving back early
    has spared before.
    """
    vm, now, settings = context.world.vms.get(action.target), context.world.now, context.config.guard
    if not isinstance(action, SetCpuLimit) or not action.shrinks or vm is None:
        return None
    history = changes(action, done)
    turns = [t for t in _turns(history) if t > now - settings.turns_window_s]
    calm = vm.calm and now - history[-1].t >= context.config.cpu.calm_s if history else True
    if calm or 2 * len(turns) < settings.max_turns:
        return None
    text = f"oscillation: {action.target} turned round {len(turns)} times within {settings.turns_window_s:g} s already"
    return Objection(RefusalCode.OSCILLATION, f"{text}; what it has is kept until it is measured calm")


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


@dataclass(frozen=True, slots=True)
class Guarded:
    """What may be done now, and what may not with the reason."""

    allowed: tuple[Step, ...]
    refused: tuple[Refusal, ...]


def guard(plan: Plan, context: PlanningContext, recent: Sequence[ActionRecord]) -> Guarded:
    """Filters a plan by what was done lately (`recent`: journal records, newest first, at least the last minutes)."""
    everything = _whole_plan(context)
    done = [record for record in recent if record.outcome in DID]
    allowed: list[Step] = []
    refused: list[Refusal] = []
    for step in plan.steps:
        objection = everything or _objection(step, allowed, context, done)
        if objection is None:
            allowed.append(step)
        else:
            action = step.action
            refused.append(Refusal(objection.code, action.target, action.describe(), objection.text, action))
    return Guarded(tuple(allowed), tuple(refused))


def _whole_plan(context: PlanningContext) -> Objection | None:
    stop, max_s = context.config.guard.stop_file, context.config.guard.max_world_age_s
    if stop is not None and stop.exists():
        return Objection(RefusalCode.STOPPED, f"stopped by {stop}; remove that file to go on")
    age_s = context.world.age_s
    if age_s > max_s:
        return Objection(RefusalCode.STALE, f"stale: {_how_old(age_s)}, {max_s:g} s are allowed")
    return None


def _how_old(age_s: Seconds) -> str:
    if age_s >= NO_FACTS_AGE_S:
        return "nothing was measured yet (are switches connected, and do hosts answer? forepath check)"
    return f"the newest facts are {age_s:.1f} s old"


def _objection(
    step: Step, allowed: Sequence[Step], context: PlanningContext, done: Sequence[ActionRecord]
) -> Objection | None:
    action = step.action
    if any((other.kind, other.target) == (action.kind, action.target) for other in context.world.in_flight):
        return Objection(RefusalCode.UNDER_WAY, "the same is already under way")
    if step.renewal:
        return None  # a lease that is still needed must not end because of a budget
    return next(_objections(action, allowed, context, done), None)


def _objections(
    action: Action, allowed: Sequence[Step], context: PlanningContext, done: Sequence[ActionRecord]
) -> Iterator[Objection]:
    found = (
        over_budget(action, allowed, context, done),
        _failed_lately(action, context, done),
        *(_move(move, allowed, context) for move in moves_of([action])),
        _too_large(action, context) if isinstance(action, Resize) else None,
        _back_again(action, context, done),
        held_still(action, done, context.world.now, context.config.guard),
        hasty(action, context, done),
        *(scaled_lately(scaling, context, done) for scaling in of_kind(ScaleIn, [action])),
        *(_weighed_lately(weights, context, done) for weights in of_kind(SetWeights, [action])),
    )
    yield from (objection for objection in found if objection is not None)


def _failed_lately(action: Action, context: PlanningContext, done: Sequence[ActionRecord]) -> Objection | None:
    """Nothing is tried again blindly: after n failures in a row it rests for 2^(n-1) times the first rest."""
    same = [record for record in done if (record.kind, record.target) == (action.kind, action.target)]
    failed = list(takewhile(lambda record: record.outcome in UNSUCCESSFUL, same))
    if not failed:
        return None
    retry_s = context.config.guard.retry_s
    rest_s = min(retry_s * 2 ** (len(failed) - 1), max(LONGEST_RETRY_S, retry_s))
    ago_s = context.world.now - failed[0].issued_at
    if ago_s >= rest_s:
        return None
    times = "" if len(failed) == 1 else f" for the {len(failed)}. time"
    text = f"it failed{times} {ago_s:.0f} s ago ({failed[0].sentence}); next try after {rest_s:g} s"
    return Objection(RefusalCode.FAILED_LATELY, text)


def _move(action: MigrateVm, allowed: Sequence[Step], context: PlanningContext) -> Objection | None:
    host = context.world.hosts.get(action.after)
    if host is None or host.closed:
        text = f"{action.after} is cordoned" if host else f"{action.after} is not a host of ours"
        return Objection(RefusalCode.CLOSED, text)
    return crowded(context, action, [*context.world.in_flight, *(step.action for step in allowed)])


def crowded(context: PlanningContext, action: MigrateVm, others: Sequence[Action]) -> Objection | None:
    """Why one more copy would be too many at a time: in all, at one of its hosts, or on one of its links."""
    moves, most = moves_of(others), context.config.moves.at_once
    if len(moves) >= most:
        text = f"one migration at a time: {len(moves)} machines are moving, {most} may at once"
        return Objection(RefusalCode.MOVES_AT_ONCE, text)
    text = next(_crowds(context, action, moves), "")
    return Objection(RefusalCode.MOVES_AT_ONCE, f"one migration at a time: {text}") if text else None


def _crowds(context: PlanningContext, action: MigrateVm, moves: Sequence[MigrateVm]) -> Iterator[str]:
    for host in (action.before, action.after):
        busy = [move.vm for move in moves if host in (move.before, move.after)]
        if len(busy) >= context.config.moves.per_host:
            yield f"{', '.join(busy)} is moving from or to {host}"
    for link in sorted(set(links_of(context, action))):
        busy = [move.vm for move in moves if link in links_of(context, move)]
        if len(busy) >= context.config.moves.per_link:
            yield f"{', '.join(busy)} is moving over {'>'.join(link)}"


def _too_large(action: Resize[Any], context: PlanningContext) -> Objection | None:
    """The planner keeps to the largest step; a plan that a person changed or that waited may not."""
    low, high = sorted((action.before, action.after))
    max_step = context.config.guard.max_step
    # One vCPU more is the least that can be done.
    if high <= max_step * low + 1e-9 or (action.kind == SetVcpus.kind and high - low == 1):
        return None
    text = f"step too large: {max_step:g} times as much or as little is allowed in one go"
    return Objection(RefusalCode.TOO_LARGE, text)


def _back_again(action: Action, context: PlanningContext, done: Sequence[ActionRecord]) -> Objection | None:
    """Cooldown after the last change of the same thing, and no way back to where a machine just came from."""
    earlier = changes(action, done)[::-1]
    if not earlier:
        return None
    for move in moves_of([action]):
        return _move_again(move, earlier, context)
    ago = context.world.now - earlier[0].t
    turned = action.kind == SetCpuLimit.kind and action.turns(earlier[0].action)
    if not turned or ago >= context.config.guard.resize_cooldown_s:
        return None
    return Objection(RefusalCode.COOLDOWN, f"cooldown: its limit was changed the other way {ago:.0f} s ago")


def _weighed_lately(action: SetWeights, context: PlanningContext, done: Sequence[ActionRecord]) -> Objection | None:
    """New weights need time to be followed before anybody can say what they have done."""
    earlier, cooldown_s = changes(action, done), context.config.weights.cooldown_s
    ago = context.world.now - earlier[-1].t if earlier else cooldown_s
    if ago >= cooldown_s:
        return None
    return Objection(RefusalCode.COOLDOWN, f"cooldown: they were changed {ago:.0f} s ago, {cooldown_s:g} s must pass")


def _move_again(action: MigrateVm, earlier: Sequence[Change], context: PlanningContext) -> Objection | None:
    now, settings = context.world.now, context.config.guard
    ago = now - earlier[0].t
    if ago < settings.move_cooldown_s:
        text = f"cooldown: {action.vm} was moved {ago:.0f} s ago, {settings.move_cooldown_s:g} s must pass"
        return Objection(RefusalCode.COOLDOWN, text)
    for change in earlier:
        came_from = [move.before for move in moves_of([change.action])]
        if came_from == [action.after] and now - change.t < settings.oscillation_s:
            text = f"oscillation: {action.vm} came from {action.after} {now - change.t:.0f} s ago"
            return Objection(RefusalCode.OSCILLATION, text)
    return None


def scaled_lately(action: ScaleIn, context: PlanningContext, done: Sequence[ActionRecord]) -> Objection | None:
    """Why a machine may not leave yet; coming in is never held up by this. `done`: newest first."""
    pool = context.config.declared.pool(action.virtual_ip)
    cooldown_s = pool.manner.cooldown_s if pool else 0.0
    for record in done:
        same = record.kind in SCALING_KINDS and record.body.get("virtual_ip") == action.virtual_ip
        if same and record.outcome is OutcomeKind.DONE:
            ago = context.world.now - (record.timing.ready_at or record.issued_at)
            if ago >= cooldown_s:
                return None
            what = "came" if record.kind == ScaleOut.kind else "left"
            return Objection(RefusalCode.COOLDOWN, f"cooldown: {record.target} {what} {ago:.0f} s ago")
    return None

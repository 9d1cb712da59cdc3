"""How much may be done in a minute: of each kind, on each host, and for each tenant."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cpdb import ActionRecord, OutcomeKind, Seconds, SettingsError
from orchestrator.actions import (
    Action,
    MigrateVm,
    ReserveBandwidth,
    ScaleAction,
    SetCpuLimit,
    SetMemory,
    SetVcpus,
    SetWeights,
    VmAction,
    from_json,
)
from orchestrator.config import OrchestratorConfig
from orchestrator.steps import Step
from orchestrator.world import World

MINUTE_S = 60.0


def over_budget(
    action: Action, allowed: Sequence[Step], world: World, done: Sequence[ActionRecord], config: OrchestratorConfig
) -> str | None:
    """Why `action` would be one too many: after what was `done` in the last minute and is `allowed` in this plan."""
    records = [one for one in done if one.issued_at > world.now - MINUTE_S]
    planned = [one.action for one in allowed if not one.renewal and not one.waits]
    spent = sum(one.kind == action.kind for one in (*records, *planned))
    budget = config.guard.budgets.per_minute.get(action.kind, 0)
    if spent >= budget:
        return f"budget: {spent} of {budget} {action.kind} in this minute are spent"
    known = [one for one in map(read_action, records) if one is not None]
    return _for_groups(action, [*known, *planned], world, config)


def _for_groups(action: Action, others: Sequence[Action], world: World, config: OrchestratorConfig) -> str | None:
    for host in sorted(hosts_of(action, world)):
        spent = sum(host in hosts_of(one, world) for one in others)
        if spent >= config.guard.budgets.per_host:
            return f"budget: {spent} of {config.guard.budgets.per_host} actions on {host} in this minute are spent"
    tenant = tenant_of(action, config)
    spent = sum(tenant_of(one, config) == tenant for one in others) if tenant else 0
    if spent >= config.guard.budgets.per_tenant:
        return f"budget: {spent} of {config.guard.budgets.per_tenant} actions for {tenant} in this minute are spent"
    return None


def hosts_of(action: Action, world: World) -> frozenset[str]:
    """The hypervisors that an action keeps busy."""
    return frozenset(_hosts(action, world))


def _hosts(action: Action, world: World) -> Iterator[str]:
    if isinstance(action, MigrateVm):
        yield from (action.before, action.after)
    elif isinstance(action, VmAction) and action.vm in world.vms:
        yield world.vms[action.vm].host
    elif isinstance(action, ScaleAction):
        yield action.host


def tenant_of(action: Action, config: OrchestratorConfig) -> str | None:
    """For whom an action is done: the tenant declared for its machine or its virtual IP."""
    if isinstance(action, SetWeights | ScaleAction):
        return config.declared.tenants.get(action.virtual_ip)
    if isinstance(action, VmAction):
        return config.declared.tenants.get(action.vm)
    return config.declared.tenants.get(action.pair.virtual_ip) if isinstance(action, ReserveBandwidth) else None


Sized = SetCpuLimit | SetVcpus | SetMemory


def held_still(action: Action, done: Sequence[ActionRecord], now: Seconds, config: OrchestratorConfig) -> str | None:
    """Why `action` must wait because its target turned round `max_turns` times within `turns_window_s`.

    `done`: what was carried out lately, newest first. A size may still grow: that ends the turning as well, and
    nobody is starved by a brake.
    """
    if isinstance(action, Sized) and action.after > action.before:
        return None
    turns = sorted(_turns(changes(action, done)))
    ending = (
        turns[last]
        for last in range(config.guard.max_turns - 1, len(turns))
        if turns[last] - turns[last - config.guard.max_turns + 1] <= config.guard.turns_window_s
    )
    until = max((one + config.guard.hold_still_s for one in ending), default=now)
    if until <= now:
        return None
    verb = "lowered" if isinstance(action, Sized) else "changed"
    often = f"{config.guard.max_turns} times within {config.guard.turns_window_s:g} s"
    return f"oscillation: {action.target} turned round {often}; it is not {verb} for another {until - now:.0f} s"


def changes(action: Action, done: Sequence[ActionRecord]) -> list[tuple[Seconds, Action]]:
    """Earlier changes of the same thing (when, what), oldest first; failed ones changed nothing."""
    own = [
        one
        for one in reversed(done)
        if one.kind == action.kind and one.target == action.target and one.outcome is not OutcomeKind.FAILED
    ]
    read = [(one.issued_at, read_action(one)) for one in own]
    return [(t, one) for t, one in read if one is not None]


def _turns(history: Sequence[tuple[Seconds, Action]]) -> Iterator[Seconds]:
    for (_, before), (t, after) in pairwise(history):
        if _turned(before, after):
            yield t


def _turned(before: Action, after: Action) -> bool:
    if isinstance(before, Sized) and isinstance(after, Sized):
        return (before.after > before.before) != (after.after > after.before)
    if isinstance(before, MigrateVm | SetWeights) and isinstance(after, MigrateVm | SetWeights):
        return before.before == after.after
    return False


def read_action(record: ActionRecord) -> Action | None:
    """The recorded action; None when another version wrote it: it still counts for budgets."""
    try:
        return from_json(record.kind, record.body)
    except SettingsError:
        return None

"""Breaks oscillations: what turned round too often is left as it is for a while, on its more generous side."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cpdb import ActionRecord, OutcomeKind, Seconds, SettingsError
from orchestrator.actions import Action, MigrateVm, SetCpuLimit, SetMemory, SetVcpus, SetWeights, from_json
from orchestrator.config import OrchestratorConfig

Sized = SetCpuLimit | SetVcpus | SetMemory


def held_still(action: Action, done: Sequence[ActionRecord], now: Seconds, config: OrchestratorConfig) -> str | None:
    """Why `action` must wait because its target turned round `most_turns` times within `turns_window_s`.

    `done`: what was carried out lately, newest first. A size may still grow: that ends the turning as well, and
    nobody is starved by a brake.
    """
    if isinstance(action, Sized) and action.after > action.before:
        return None
    turns = sorted(_turns(changes(action, done)))
    ending = (
        turns[last]
        for last in range(config.most_turns - 1, len(turns))
        if turns[last] - turns[last - config.most_turns + 1] <= config.turns_window_s
    )
    until = max((one + config.hold_still_s for one in ending), default=now)
    if until <= now:
        return None
    verb = "lowered" if isinstance(action, Sized) else "changed"
    often = f"{config.most_turns} times within {config.turns_window_s:g} s"
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

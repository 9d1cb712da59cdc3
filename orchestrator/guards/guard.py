"""The brakes: however good a plan looks, this is how much and how often may be done, and on how old a world."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from cpdb import ActionRecord, OutcomeKind, Seconds
from orchestrator.actions import Action, MigrateVm, ScaleIn, ScaleOut, SetCpuLimit, SetMemory, SetVcpus, SetWeights
from orchestrator.config import OrchestratorConfig
from orchestrator.guards.budgets import changes, held_still, over_budget
from orchestrator.needs import crowded
from orchestrator.plan import Plan
from orchestrator.steps import Refusal, Step
from orchestrator.world import World

UNSUCCESSFUL = frozenset({OutcomeKind.FAILED, OutcomeKind.REVERTED, OutcomeKind.NOT_REVERTED})
DID = frozenset({OutcomeKind.PENDING, OutcomeKind.DONE}) | UNSUCCESSFUL
# Twice as long after each failure in a row, but no longer than the journal is looked back at.
LONGEST_RETRY_S = 480.0


@dataclass(frozen=True, slots=True)
class Guarded:
    """What may be done now, and what may not with the reason."""

    allowed: tuple[Step, ...]
    refused: tuple[Refusal, ...]


def guard(plan: Plan, world: World, recent: Sequence[ActionRecord], config: OrchestratorConfig) -> Guarded:
    """Filters a plan by what was done lately (`recent`: journal records, newest first, at least the last minutes)."""
    everything = _whole_plan(world, config)
    done = [one for one in recent if one.outcome in DID]
    allowed: list[Step] = []
    refused: list[Refusal] = []
    for step in plan.steps:
        why_not = everything or _why_not(step, allowed, world, done, config)
        if why_not:
            refused.append(Refusal(step.action.describe(), why_not, step.action))
        else:
            allowed.append(step)
    return Guarded(tuple(allowed), tuple(refused))


def _whole_plan(world: World, config: OrchestratorConfig) -> str | None:
    if config.guard.stop_file is not None and config.guard.stop_file.exists():
        return f"stopped by {config.guard.stop_file}; remove that file to go on"
    if world.age_s > config.guard.max_world_age_s:
        return f"stale: the newest facts are {world.age_s:.1f} s old, {config.guard.max_world_age_s:g} s are allowed"
    return None


def _why_not(
    step: Step, allowed: Sequence[Step], world: World, done: Sequence[ActionRecord], config: OrchestratorConfig
) -> str | None:
    action = step.action
    if any(one.kind == action.kind and one.target == action.target for one in world.in_flight):
        return "the same is already under way"
    if step.renewal:
        return None  # a lease that is still needed must not end because of a budget
    checks = (
        over_budget(action, allowed, world, done, config),
        _failed_lately(action, world, done, config),
        _move(action, allowed, world, config) if isinstance(action, MigrateVm) else None,
        _too_large(action, config),
        _back_again(action, world, done, config),
        held_still(action, done, world.now, config),
        scaled_lately(action, done, world.now, config),
        _weighed_lately(action, done, world.now, config),
    )
    return next((one for one in checks if one), None)


def _failed_lately(
    action: Action, world: World, done: Sequence[ActionRecord], config: OrchestratorConfig
) -> str | None:
    """Nothing is tried again blindly: after n failures in a row it rests for 2^(n-1) times the first rest."""
    same = [one for one in done if one.kind == action.kind and one.target == action.target]
    failed = list(takewhile(lambda one: one.outcome in UNSUCCESSFUL, same))
    if not failed:
        return None
    rest_s = min(config.guard.retry_s * 2 ** (len(failed) - 1), max(LONGEST_RETRY_S, config.guard.retry_s))
    ago_s = world.now - failed[0].issued_at
    if ago_s >= rest_s:
        return None
    times = "" if len(failed) == 1 else f" for the {len(failed)}. time"
    return f"it failed{times} {ago_s:.0f} s ago ({failed[0].sentence}); next try after {rest_s:g} s"


def _move(action: MigrateVm, allowed: Sequence[Step], world: World, config: OrchestratorConfig) -> str | None:
    host = world.hosts.get(action.after)
    if host is None or host.closed:
        return f"{action.after} is cordoned" if host else f"{action.after} is not a host of ours"
    under_way = [*world.in_flight, *(step.action for step in allowed)]
    return crowded(action, under_way, world, config)


def _too_large(action: Action, config: OrchestratorConfig) -> str | None:
    """The planner keeps to the largest step; a plan that a person changed or that waited may not."""
    if not isinstance(action, SetCpuLimit | SetVcpus | SetMemory):
        return None
    low, high = sorted((action.before, action.after))
    # One vCPU more is the least that can be done.
    if high <= config.guard.max_step * low + 1e-9 or (isinstance(action, SetVcpus) and high - low == 1):
        return None
    return f"step too large: {config.guard.max_step:g} times as much or as little is allowed in one go"


def _back_again(action: Action, world: World, done: Sequence[ActionRecord], config: OrchestratorConfig) -> str | None:
    """Cooldown after the last change of the same thing, and no way back to where a machine just came from."""
    earlier = changes(action, done)[::-1]
    if not earlier:
        return None
    at, previous = earlier[0]
    ago = world.now - at
    if isinstance(action, MigrateVm):
        return _move_again(action, earlier, world, config)
    if isinstance(action, SetCpuLimit) and isinstance(previous, SetCpuLimit):
        turned = (previous.after > previous.before) != (action.after > action.before)
        if turned and ago < config.guard.resize_cooldown_s:
            return f"cooldown: its limit was changed the other way {ago:.0f} s ago"
    return None


def _weighed_lately(
    action: Action, done: Sequence[ActionRecord], now: Seconds, config: OrchestratorConfig
) -> str | None:
    """New weights need time to be followed before anybody can say what they have done."""
    earlier = changes(action, done) if isinstance(action, SetWeights) else []
    ago = now - earlier[-1][0] if earlier else config.weights.cooldown_s
    if ago >= config.weights.cooldown_s:
        return None
    return f"cooldown: they were changed {ago:.0f} s ago, {config.weights.cooldown_s:g} s must pass"


def _move_again(
    action: MigrateVm, earlier: Sequence[tuple[Seconds, Action]], world: World, config: OrchestratorConfig
) -> str | None:
    ago = world.now - earlier[0][0]
    if ago < config.guard.move_cooldown_s:
        return f"cooldown: {action.vm} was moved {ago:.0f} s ago, {config.guard.move_cooldown_s:g} s must pass"
    for at, one in earlier:
        if isinstance(one, MigrateVm) and one.before == action.after and world.now - at < config.guard.oscillation_s:
            return f"oscillation: {action.vm} came from {action.after} {world.now - at:.0f} s ago"
    return None


KINDS = frozenset({ScaleOut.kind, ScaleIn.kind})


def scaled_lately(action: Action, done: Sequence[ActionRecord], now: Seconds, config: OrchestratorConfig) -> str | None:
    """Why a machine may not leave yet; coming in is never held up by this. `done`: newest first."""
    if not isinstance(action, ScaleIn):
        return None
    pool = config.declared.pool(action.virtual_ip)
    cooldown_s = pool.manner.cooldown_s if pool else 0.0
    for one in done:
        same = one.kind in KINDS and one.body.get("virtual_ip") == action.virtual_ip
        if same and one.outcome is OutcomeKind.DONE:
            ago = now - (one.timing.ready_at or one.issued_at)
            what = "came" if one.kind == ScaleOut.kind else "left"
            return f"cooldown: {one.target} {what} {ago:.0f} s ago" if ago < cooldown_s else None
    return None

"""What became of an action, judged by what can be seen of it: the switches' reports, the machines, the wanted state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cpdb import Observed, OutcomeKind, Seconds, WantedSplit, WantedWeights
from orchestrator.actions import (
    Action,
    MigrateVm,
    ReleaseBandwidth,
    ReserveBandwidth,
    SetCpuLimit,
    SetMemory,
    SetRoutes,
    SetVcpus,
    SetWeights,
    VmAction,
    split_key,
)
from orchestrator.drivers import Finished
from orchestrator.world import VmState, World

# How long the world may take to show what a dead process had begun.
ORPHAN_PATIENCE_S = 30.0
LIMIT_TOLERANCE = 0.02
ROUTES_PATIENCE_S = 30.0
# A balloon ends within a page or two of its target.
MEMORY_TOLERANCE_BYTES = 2 << 20
FOUND = "found done after a restart of the orchestrator"
# Kind of what the controller says of wanted weights: one row for each virtual IP
WEIGHTS = "weights"
NOT_SHOWN = "the orchestrator was restarted and the world does not show it"


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is looked at: the world, and what the database holds: weights by virtual IP, splits by their ends."""

    world: World
    weights: Mapping[str, WantedWeights] = field(default_factory=dict)
    splits: Mapping[tuple[str, str], WantedSplit] = field(default_factory=dict)


def installed(key: str, generation: int, seen: Sequence[Observed]) -> Finished | None:
    """What the switches say about a wanted thing: all hold it, one refused, or None while that is open."""
    # What a switch no longer holds says nothing about where the pair enters the network now.
    rows = [one for one in seen if one.key == key and one.status != "removed"]
    current = [one for one in rows if one.generation >= generation]
    refused = next((one for one in current if one.status == "refused"), None)
    if refused is not None:
        return Finished(0, False, f"{refused.node} refused: {refused.detail}", refused.observed_at)
    if not current or any(one.status != "installed" for one in current):
        return None
    nodes = ", ".join(sorted(one.node for one in current))
    return Finished(0, True, f"installed on {nodes}", max(one.observed_at for one in current))


def followed(virtual_ip: str, generation: int, seen: Sequence[Observed]) -> Finished | None:
    """What the controller says of wanted weights: whether new communications follow them; None while that is open."""
    word = _of_weights(virtual_ip, generation, seen)
    if word is None or word.status not in ("installed", "refused"):
        return None
    ok = word.status == "installed"
    return Finished(0, ok, f"{'followed' if ok else 'not followed'}: {word.detail}", word.observed_at)


def _of_weights(virtual_ip: str, generation: int, seen: Sequence[Observed]) -> Observed | None:
    own = (one for one in seen if (one.kind, one.key) == (WEIGHTS, virtual_ip) and one.status != "removed")
    return next((one for one in own if one.generation >= generation), None)


def all_installed(action: Action, generation: int, seen: Sequence[Observed]) -> Finished | None:
    """As `installed`, for everything that an action has written."""
    if isinstance(action, SetWeights):
        return followed(action.virtual_ip, generation, seen)
    if not isinstance(action, SetRoutes):
        return installed(action.target, generation, seen)
    found = [installed(split_key(one.ends), generation, seen) for one in action.changes if any(one.after)]
    refused = next((one for one in found if one is not None and not one.ok), None)
    if refused is not None:
        return refused
    ready = [one.ready_at for one in found if one is not None]
    if len(ready) < len(found):
        return None
    return Finished(0, True, f"in force between {len(found)} pairs of switches", max(ready, default=0.0))


def patience_s(action: Action, install_timeout_s: Seconds) -> Seconds:
    """How long the switches may take: traffic that never falls silent changes its path only after a while."""
    return max(ROUTES_PATIENCE_S, install_timeout_s) if isinstance(action, SetRoutes) else install_timeout_s


def overdue(action: Action, generation: int, seen: Sequence[Observed], limit_s: Seconds) -> str:
    """What to say of an action that nobody confirmed in time: the last word about it, if there is one."""
    if not isinstance(action, SetWeights):
        return f"no switch reported it within {limit_s:g} s"
    last = _of_weights(action.virtual_ip, generation, seen)
    return f"not known to be followed after {limit_s:g} s: {last.detail if last else 'the controller says nothing'}"


def became(action: Action, issued_at: Seconds, sight: Sight) -> tuple[OutcomeKind, str] | None:
    """What can be seen of an action that a dead process began; None while it may still come true."""
    world = sight.world
    shown = _shown(action, sight)
    if shown is not None:
        return (OutcomeKind.DONE, FOUND) if shown.ok else (OutcomeKind.FAILED, shown.sentence)
    if isinstance(action, VmAction) and action.vm not in world.vms and world.vms:
        return OutcomeKind.SKIPPED, f"{action.vm} is gone"
    if world.now - issued_at > ORPHAN_PATIENCE_S:
        return OutcomeKind.FAILED, f"{NOT_SHOWN}{_where(action, world)}"
    return None


def _where(action: Action, world: World) -> str:
    vm = world.vms.get(action.vm) if isinstance(action, MigrateVm) else None
    return f": {vm.name} runs on {vm.host}" if vm else ""


def _shown(action: Action, sight: Sight) -> Finished | None:
    world = sight.world
    if isinstance(action, ReserveBandwidth):
        held = world.reservations.get(action.key)
        return installed(action.key, held.generation, world.observed) if held else None
    if isinstance(action, ReleaseBandwidth):
        return None if action.key in world.reservations else _seen(world)
    if isinstance(action, SetWeights):
        wanted = sight.weights.get(action.virtual_ip)
        same = wanted is not None and dict(wanted.weights) == dict(action.after)
        return followed(action.virtual_ip, wanted.generation, world.observed) if wanted and same else None
    if isinstance(action, SetRoutes):
        return _routes_shown(action, sight)
    if isinstance(action, VmAction):
        vm = world.vms.get(action.vm)
        return _seen(world) if vm is not None and _machine_shows(action, vm) else None
    return None  # what is done in steps is carried on by who takes over, and says itself how it ended


def _routes_shown(action: SetRoutes, sight: Sight) -> Finished | None:
    generation = 0
    for one in action.changes:
        split = sight.splits.get(one.ends)
        if (split.ratios if split else ()) != (one.after if any(one.after) else ()):
            return None
        generation = min(generation or split.generation, split.generation) if split else generation
    return all_installed(action, generation, sight.world.observed)


def _seen(world: World) -> Finished:
    return Finished(0, True, FOUND, world.now)


def _machine_shows(action: VmAction, vm: VmState) -> bool:
    if isinstance(action, MigrateVm):
        return vm.host == action.after
    if isinstance(action, SetCpuLimit):
        return abs(vm.cores_limit - action.after) <= LIMIT_TOLERANCE
    if isinstance(action, SetMemory):
        return abs(vm.memory_bytes - action.after) <= MEMORY_TOLERANCE_BYTES
    return isinstance(action, SetVcpus) and vm.vcpus == action.after

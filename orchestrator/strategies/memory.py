"""Strategy: where predicted communications need more memory than a machine has, give it more; take back what is calm.

Only machines with a declared maximum are touched. A host's memory is never promised twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil

from cpdb import MIB
from orchestrator.actions import SetMemory, moves_of
from orchestrator.config import NOW, MemorySettings
from orchestrator.context import PlanningContext, evidence_of, propose_each, too_short, until_resized_back
from orchestrator.declared import VmSpec
from orchestrator.demand_table import PairDemand
from orchestrator.promises import MemoryPromise
from orchestrator.proposal import Evidence, Proposal, Reason, Refusal, RefusalCode, Step, known_by, on_host
from orchestrator.relations import MemoryRelation
from orchestrator.screens import to_fill
from orchestrator.strategies.services import memory_left
from orchestrator.world import VmState


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a machine needs within `horizon_s`; `rate` is of the relation's feature, `leading` asks for most."""

    vm: str
    horizon_s: int
    bytes: float
    rate: float = 0.0
    relation: MemoryRelation | None = None
    leading: PairDemand | None = None


def memory_need(context: PlanningContext, vm: VmState, horizon_s: int) -> MemoryNeed:
    """Through the learnt relations at the quantile that `cost_of_short` asks for; never below what is measured."""
    measured = float(vm.memory.used_bytes or 0)
    asked, place = context.needs(horizon_s), context.machines.places[vm.name]
    found, leading = MemoryNeed(vm.name, horizon_s, measured), asked.leading(place)
    for relation in vm.memory.relations if leading else ():
        rate = asked.rate_of(place, relation.feature)
        need = relation.bytes_at(rate, context.config.demand.level)
        if need > found.bytes:
            found = MemoryNeed(vm.name, horizon_s, need, rate, relation, leading)
    return found


def wanted_memory(need: MemoryNeed, spec: VmSpec, settings: MemorySettings) -> int:
    """The size in bytes that leaves the reserve beside a need, in whole steps, between floor and maximum."""
    steps = ceil((need.bytes + reserve_of(need, settings)) / settings.step_bytes - 1e-9)
    return min(max(steps * settings.step_bytes, spec.memory_bytes_min), spec.memory_bytes_max)


def reserve_of(need: MemoryNeed, settings: MemorySettings) -> float:
    """Bytes to be kept free beside a need."""
    return max(settings.reserve * need.bytes, float(settings.reserve_bytes))


def propose(context: PlanningContext) -> Proposal:
    """What is given back first, then the most important machines."""
    moving = {move.vm for move in moves_of(context.world.in_flight)}
    machines = [vm for vm in to_fill(context) if vm.name not in moving]
    machines.sort(key=lambda vm: (-vm.priority, vm.name))
    given_back = propose_each(context, machines, _down)
    for step in given_back.steps:
        context = context.after(step.action)
    given = propose_each(context, machines, _up)
    return Proposal((*given_back.steps, *given.steps), (*given_back.refusals, *given.refusals))


def _needs(context: PlanningContext, vm: VmState, horizons: Sequence[int]) -> MemoryNeed:
    found = [memory_need(context, vm, one) for one in horizons]
    return max(found, key=lambda one: (one.bytes, -one.horizon_s))


def _up(context: PlanningContext, vm: VmState) -> Iterator[Step | Refusal]:
    horizons = context.acting_horizons(SetMemory.kind, on_host(context.world, vm.host))
    need = _needs(context, vm, horizons)
    found = _more(context, vm, need)
    if isinstance(found, Step) and need.horizon_s != NOW and need.leading is not None:
        why_not = too_short(context, need.leading.pair, "more memory", found.lead_s)
        if why_not is not None:
            yield Refusal(RefusalCode.TOO_SHORT, vm.name, f"more memory for {vm.name}", why_not, found.action)
            found = _more(context, vm, memory_need(context, vm, NOW))
    if found is not None:
        yield found


def _more(context: PlanningContext, vm: VmState, need: MemoryNeed) -> Step | Refusal | None:
    spec = vm.spec
    wanted = wanted_memory(need, spec, context.config.memory) if spec else 0
    # Half the reserve is left before anything is done: needs that waver do not move the balloon each second.
    if wanted <= vm.memory.bytes or need.bytes + reserve_of(need, context.config.memory) / 2 <= vm.memory.bytes:
        return None
    # What paused machines of a pool hold, and what those on their way bring, is not free.
    free = int(memory_left(context, vm.host))
    after = min(wanted, int(context.config.guard.max_step * vm.memory.bytes), vm.memory.bytes + free)
    step_bytes = context.config.memory.step_bytes
    after = vm.memory.bytes + (after - vm.memory.bytes) // step_bytes * step_bytes
    if after <= vm.memory.bytes:
        text = f"{vm.host} has {max(0, free) // MIB} MiB left, {vm.name} would need {(wanted - vm.memory.bytes) // MIB}"
        return Refusal(RefusalCode.NO_ROOM, vm.name, f"more memory for {vm.name}", text)
    return _step(context, vm, SetMemory(vm.name, vm.memory.bytes, after), need, wanted)


def _down(context: PlanningContext, vm: VmState) -> Iterator[Step]:
    """Only measured calm takes away, and only what could be given back in time."""
    if not vm.memory.calm or vm.spec is None:
        return
    need = _needs(context, vm, until_resized_back(context, vm, SetMemory.kind))
    after = max(
        wanted_memory(need, vm.spec, context.config.memory), ceil(vm.memory.bytes / context.config.guard.max_step)
    )
    if after <= vm.memory.bytes * (1 - context.config.memory.deadband):
        yield _step(context, vm, SetMemory(vm.name, vm.memory.bytes, after), need, after)


def _step(context: PlanningContext, vm: VmState, action: SetMemory, need: MemoryNeed, wanted: int) -> Step:
    proof, about = _proof(context, need), on_host(context.world, vm.host)
    needed_at = context.world.now + need.horizon_s
    text = "its host or the largest step allow less"
    less = Refusal(RefusalCode.CEILING, vm.name, f"{wanted // MIB} MiB", text)
    reason = Reason(
        where={"vm": vm.name, "host": vm.host},
        need=need.bytes,
        available=vm.memory.bytes,
        capacity=context.world.hosts[vm.host].memory_bytes_capacity,
        unit="bytes",
        measured={"memory_bytes_used": vm.memory.used_bytes},
        forecast=proof,
        circumstances=about,
        alternatives=(less,) if action.after < wanted else (),
        promise=MemoryPromise(vm=vm.name, value=action.after, by=needed_at),
        facts={"relation": asdict(need.relation) if need.relation else None},
    )
    return Step(action, _why(vm, need, action, proof), reason, needed_at, context.lead_s(action.kind, about))


def _proof(context: PlanningContext, need: MemoryNeed) -> Evidence | None:
    if need.leading is None or need.relation is None:
        return None
    return evidence_of(context, need.leading.rate_of(need.relation.feature), need.horizon_s)


def _why(vm: VmState, need: MemoryNeed, action: SetMemory, proof: Evidence | None) -> str:
    used = (vm.memory.used_bytes or 0) // MIB
    if action.after < action.before:
        return f"{vm.name} has long used at most {used} of {action.before // MIB} MiB; {action.after // MIB} suffice"
    needs = f"{vm.name} needs {round(need.bytes / MIB)} MiB {known_by(need.horizon_s, proof)}, uses {used}"
    return f"{needs} and has {action.before // MIB}: give it {action.after // MIB}"

"""Strategy: where predicted communications need more memory than a machine has, give it more; take back what is calm.

Only machines with a declared maximum are touched. A host's memory is never promised twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from cpdb import MIB
from orchestrator.actions import MigrateVm, SetMemory
from orchestrator.config import NOW, OrchestratorConfig, VmSpec
from orchestrator.demand import Demand, PairDemand, serving, together
from orchestrator.needs import too_short, until_back
from orchestrator.relations import MemoryRelation
from orchestrator.steps import Refusal, Step, acting_horizons, evidence, foreseen, on_host, when
from orchestrator.strategies.services import memory_left
from orchestrator.world import VmState, World, apply


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a machine needs within `horizon_s`; `rate` is of the relation's feature, `leading` asks for most."""

    vm: str
    horizon_s: int
    bytes: float
    rate: float = 0.0
    relation: MemoryRelation | None = None
    leading: PairDemand | None = None


def memory_need(world: World, demand: Demand, vm: VmState, horizon_s: int, config: OrchestratorConfig) -> MemoryNeed:
    """Through the learnt relations at the quantile that `cost_of_short` asks for; never below what is measured."""
    measured = float(vm.memory_used_bytes or 0)
    talk = serving(world, demand, vm, horizon_s)
    found = MemoryNeed(vm.name, horizon_s, measured)
    for relation in vm.memory_relations if talk else ():
        by_connections = relation.feature == "connections_per_s"
        rate = together(one.connections if by_connections else one.bytes for one in talk)
        need = relation.bytes_at(rate, config.demand.level)
        if need > found.bytes:
            leading = max(talk, key=lambda one: one.bytes.need)
            found = MemoryNeed(vm.name, horizon_s, need, rate, relation, leading)
    return found


def wanted_memory(need: MemoryNeed, spec: VmSpec, config: OrchestratorConfig) -> int:
    """The size in bytes that leaves the reserve beside a need, in whole steps, between floor and maximum."""
    steps = ceil((need.bytes + reserve_of(need, config)) / config.memory.step_bytes - 1e-9)
    return min(max(steps * config.memory.step_bytes, spec.memory_bytes_min), spec.memory_bytes_max)


def reserve_of(need: MemoryNeed, config: OrchestratorConfig) -> float:
    """Bytes to be kept free beside a need."""
    return max(config.memory.reserve * need.bytes, float(config.memory.reserve_bytes))


def plan_memory(world: World, demand: Demand, config: OrchestratorConfig) -> tuple[list[Step], list[Refusal], World]:
    """Steps (what is given back first, then the most important machines), refusals, and the world that results."""
    steps: list[Step] = []
    refusals: list[Refusal] = []
    machines = sorted(world.vms.values(), key=lambda one: (-one.priority, one.name))
    for decide in (_down, _up):
        for vm in machines:
            for found in decide(world, demand, vm, config) if _ours(world, vm) else ():
                if isinstance(found, Refusal):
                    refusals.append(found)
                else:
                    steps.append(found)
                    world = apply(world, found.action)
    return steps, refusals, world


def _ours(world: World, vm: VmState) -> bool:
    """Declared with a maximum, on a declared host, telling what it uses, and not being copied just now."""
    moving = any(isinstance(one, MigrateVm) and one.vm == vm.name for one in world.in_flight)
    planned = vm.spec is not None and vm.spec.memory_bytes_max > 0
    return planned and vm.host in world.hosts and vm.memory_used_bytes is not None and not moving


def _needs(
    world: World, demand: Demand, vm: VmState, horizons: Sequence[int], config: OrchestratorConfig
) -> MemoryNeed:
    found = [memory_need(world, demand, vm, one, config) for one in horizons]
    return max(found, key=lambda one: (one.bytes, -one.horizon_s))


def _up(world: World, demand: Demand, vm: VmState, config: OrchestratorConfig) -> Iterator[Step | Refusal]:
    horizons = acting_horizons(world, SetMemory.kind, config, on_host(world, vm.host))
    need = _needs(world, demand, vm, horizons, config)
    found = _more(world, vm, need, config)
    if isinstance(found, Step) and need.horizon_s != NOW and need.leading is not None:
        why_not = too_short(world, need.leading.pair, ("more memory", found.lead_s), config)
        if why_not is not None:
            yield Refusal(f"more memory for {vm.name}", why_not, found.action)
            found = _more(world, vm, memory_need(world, demand, vm, NOW, config), config)
    if found is not None:
        yield found


def _more(world: World, vm: VmState, need: MemoryNeed, config: OrchestratorConfig) -> Step | Refusal | None:
    spec = vm.spec
    wanted = wanted_memory(need, spec, config) if spec else 0
    # Half the reserve is left before anything is done: needs that waver do not move the balloon each second.
    if wanted <= vm.memory_bytes or need.bytes + reserve_of(need, config) / 2 <= vm.memory_bytes:
        return None
    # What paused machines of a pool hold, and what those on their way bring, is not free.
    free = int(memory_left(world, vm.host, config))
    after = min(wanted, int(config.guard.max_step * vm.memory_bytes), vm.memory_bytes + free)
    after = vm.memory_bytes + (after - vm.memory_bytes) // config.memory.step_bytes * config.memory.step_bytes
    if after <= vm.memory_bytes:
        text = f"{vm.host} has {max(0, free) // MIB} MiB left, {vm.name} would need {(wanted - vm.memory_bytes) // MIB}"
        return Refusal(f"more memory for {vm.name}", text)
    return _step(world, vm, SetMemory(vm.name, vm.memory_bytes, after), (need, wanted), config)


def _down(world: World, demand: Demand, vm: VmState, config: OrchestratorConfig) -> Iterator[Step]:
    """Only measured calm takes away, and only what could be given back in time."""
    if not vm.memory_calm or vm.spec is None:
        return
    need = _needs(world, demand, vm, until_back(world, vm, SetMemory.kind, config), config)
    after = max(wanted_memory(need, vm.spec, config), ceil(vm.memory_bytes / config.guard.max_step))
    if after <= vm.memory_bytes * (1 - config.memory.deadband):
        yield _step(world, vm, SetMemory(vm.name, vm.memory_bytes, after), (need, after), config)


def _step(
    world: World, vm: VmState, action: SetMemory, asked: tuple[MemoryNeed, int], config: OrchestratorConfig
) -> Step:
    need, wanted = asked
    proof = _proof(need, config)
    needed_at = world.now + need.horizon_s
    less = [{"action": f"{wanted // MIB} MiB", "why_not": "its host or the largest step allow less"}]
    reason: dict[str, Any] = {
        "forecast": proof,
        "where": {"vm": vm.name, "host": vm.host},
        "unit": "bytes",
        "measured": {"memory_bytes_used": vm.memory_used_bytes},
        "need": need.bytes,
        "available": vm.memory_bytes,
        "capacity": world.hosts[vm.host].memory_bytes_capacity,
        "relation": asdict(need.relation) if need.relation else None,
        "circumstances": on_host(world, vm.host).to_json(),
        "alternatives": less if action.after < wanted else [],
        "promise": {"what": "vm_memory", "vm": vm.name, "value": action.after, "by": needed_at},
    }
    lead_s = world.leads.needed(action.kind, config, on_host(world, vm.host))
    return Step(action, _why(vm, need, action, proof), reason, needed_at, lead_s)


def _proof(need: MemoryNeed, config: OrchestratorConfig) -> dict[str, Any] | None:
    if need.leading is None or need.relation is None:
        return None
    by_connections = need.relation.feature == "connections_per_s"
    return evidence(need.leading.connections if by_connections else need.leading.bytes, need.horizon_s, config)


def _why(vm: VmState, need: MemoryNeed, action: SetMemory, proof: dict[str, Any] | None) -> str:
    used = (vm.memory_used_bytes or 0) // MIB
    if action.after < action.before:
        return f"{vm.name} has long used at most {used} of {action.before // MIB} MiB; {action.after // MIB} suffice"
    needs = f"{vm.name} needs {round(need.bytes / MIB)} MiB {when(need.horizon_s)} ({foreseen(proof)}), uses {used}"
    return f"{needs} and has {action.before // MIB}: give it {action.after // MIB}"

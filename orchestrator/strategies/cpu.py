"""Strategy: where predicted load exceeds a machine's CPU limit, give it more; take it back after measured calm."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from cpdb import show_rate
from orchestrator.actions import Action, SetCpuLimit, SetVcpus
from orchestrator.config import NOW, OrchestratorConfig
from orchestrator.demand import Demand, serving
from orchestrator.needs import VmNeed, load_now, most, residents, too_short, until_back, vm_need, wanted_limit
from orchestrator.steps import Refusal, Step, acting_horizons, evidence, foreseen, on_host, when
from orchestrator.strategies.cpu_options import Choice, Lack, choose
from orchestrator.world import VmState, World, apply


@dataclass(frozen=True, slots=True)
class _Grant:
    """Cores: `wanted` would leave headroom, `left` is what the host can still give, `after` is what is given."""

    need: VmNeed
    wanted: float
    left: float
    after: float
    choice: Choice | None = None


def plan_compute(world: World, demand: Demand, config: OrchestratorConfig) -> tuple[list[Step], list[Refusal], World]:
    """Resizes, most important machines first, refusals, and the world that results."""
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for vm in sorted(world.vms.values(), key=lambda one: (-one.priority, one.name)):
        if vm.spec is None or vm.host not in world.hosts:
            continue
        for found in _for_vm(world, demand, vm, config):
            if isinstance(found, Refusal):
                refusals.append(found)
            else:
                steps.append(found)
                world = apply(world, found.action)
    return steps, refusals, world


def _need(world: World, demand: Demand, vm: VmState, config: OrchestratorConfig) -> VmNeed:
    horizons = acting_horizons(world, SetCpuLimit.kind, config, on_host(world, vm.host))
    return most(vm_need(world, demand, vm, one) for one in horizons)


def _for_vm(world: World, demand: Demand, vm: VmState, config: OrchestratorConfig) -> Iterator[Step | Refusal]:
    spec = vm.spec
    if spec is None:
        return
    need = _need(world, demand, vm, config)
    found = list(_considered(world, demand, vm, need, config))
    brief = _too_short(world, need, found, config)
    if brief is not None:
        yield brief
        found = list(_considered(world, demand, vm, vm_need(world, demand, vm, NOW), config))
    yield from found
    if not any(isinstance(one, Step) for one in found):
        yield from _plug_ahead(world, demand, vm, found, config)


def _too_short(world: World, need: VmNeed, found: list[Step | Refusal], config: OrchestratorConfig) -> Refusal | None:
    """Refuses what would be given for a foreseen need that has passed before the change pays."""
    step = next((one for one in found if isinstance(one, Step)), None)
    if step is None or need.horizon_s == NOW or need.leading is None or _lowers(step.action):
        return None
    why_not = too_short(world, need.leading.pair, ("a resize", step.lead_s), config)
    return Refusal(f"more CPU for {need.vm}", why_not, step.action) if why_not else None


def _lowers(action: Action) -> bool:
    return isinstance(action, SetCpuLimit | SetVcpus) and action.after < action.before


def _considered(
    world: World, demand: Demand, vm: VmState, need: VmNeed, config: OrchestratorConfig
) -> Iterator[Step | Refusal]:
    spec = vm.spec
    if spec is None:
        return
    wanted = wanted_limit(need, config)
    if wanted >= spec.cpu_cores_min * (1 + config.cpu.min_gain) and wanted > vm.cores_limit:
        yield from _up(world, demand, vm, _Grant(need, wanted, 0.0, 0.0), config)
    elif vm.cores_limit > spec.cpu_cores_min and _calm(world, demand, vm, config):
        yield from _down(world, vm, need, _kept(world, demand, vm, config), config)


def _up(
    world: World, demand: Demand, vm: VmState, asked: _Grant, config: OrchestratorConfig
) -> Iterator[Step | Refusal]:
    spec = vm.spec
    if spec is None or vm.cores_limit >= min(asked.wanted, spec.cpu_cores_max):
        return
    left = _left(world, demand, vm, config)
    most_cores = min(asked.wanted, spec.cpu_cores_max, float(spec.vcpus_max), config.guard.max_step * vm.cores_limit)
    steps_left = _steps(left, config)
    after = round(min(most_cores, steps_left), 6)
    gain = after - vm.cores_limit
    if gain < max(config.cpu.step_cores, config.cpu.deadband * vm.cores_limit) - 1e-9:
        if steps_left < most_cores:
            text = f"{vm.host} has {max(0.0, left):.2f} cores for {vm.name}, which has {vm.cores_limit:.2f} already"
            yield Refusal(f"more CPU for {vm.name}", text)
        return
    lack = Lack(vm, asked.need, asked.wanted, steps_left)
    grant = replace(asked, left=left, after=after, choice=choose(world, demand, lack, config))
    yield from _given(world, vm, grant, config)


def _given(world: World, vm: VmState, grant: _Grant, config: OrchestratorConfig) -> Iterator[Step]:
    """The quota at once as far as the vCPUs reach; then another vCPU, and then the rest, which waits for it."""
    vcpus = ceil(grant.after - 1e-9)
    if vcpus <= vm.vcpus:
        step = _step(world, vm, SetCpuLimit(vm.name, vm.cores_limit, grant.after), grant, config)
        # Plugging in ends with the quotas that it found: one changed meanwhile would be lost.
        yield replace(step, waits=_plugging(world, vm))
        return
    reached = max(vm.cores_limit, float(vm.vcpus))
    at_once = reached - vm.cores_limit >= config.cpu.step_cores - 1e-9
    if at_once:
        first = replace(grant, after=reached)
        yield _step(world, vm, SetCpuLimit(vm.name, vm.cores_limit, reached), first, config)
    reached = reached if at_once else vm.cores_limit
    yield replace(_step(world, vm, SetVcpus(vm.name, vm.vcpus, vcpus), grant, config), waits=at_once)
    yield replace(_step(world, vm, SetCpuLimit(vm.name, reached, grant.after), grant, config), waits=True)


def _plug_ahead(
    world: World, demand: Demand, vm: VmState, found: list[Step | Refusal], config: OrchestratorConfig
) -> Iterator[Step | Refusal]:
    """Another vCPU takes longer than a quota: it is plugged in for a need that only a farther horizon shows."""
    spec = vm.spec
    planned = any(isinstance(one, Step) and isinstance(one.action, SetVcpus) for one in found)
    if spec is None or planned or spec.vcpus_max <= vm.vcpus or _plugging(world, vm):
        return
    horizons = acting_horizons(world, SetVcpus.kind, config, on_host(world, vm.host))
    need = most(vm_need(world, demand, vm, one) for one in horizons)
    if need.horizon_s == NOW or need.leading is None:
        return
    wanted = wanted_limit(need, config)
    if wanted <= vm.vcpus or wanted < spec.cpu_cores_min * (1 + config.cpu.min_gain):
        return
    lack = Lack(vm, need, wanted, _steps(_left(world, demand, vm, config), config))
    vcpus = ceil(lack.level(spec.vcpus_max, config) - 1e-9)
    if vcpus <= vm.vcpus:
        return
    grant = _Grant(need, lack.wanted, lack.left, float(vcpus), choose(world, demand, lack, config))
    step = _step(world, vm, SetVcpus(vm.name, vm.vcpus, vcpus), grant, config)
    why_not = too_short(world, need.leading.pair, ("another vCPU", step.lead_s), config)
    yield Refusal(f"another vCPU for {vm.name}", why_not, step.action) if why_not else step


def _plugging(world: World, vm: VmState) -> bool:
    return any(isinstance(one, SetVcpus) and one.vm == vm.name for one in world.in_flight)


def _steps(cores: float, config: OrchestratorConfig) -> float:
    """What remains of so many cores in whole steps."""
    return int(cores / config.cpu.step_cores + 1e-9) * config.cpu.step_cores


def _left(world: World, demand: Demand, vm: VmState, config: OrchestratorConfig) -> float:
    """Cores of the host within headroom that the others will not use under their present limits."""
    others = (one for one in residents(world, vm.host) if one.name != vm.name)
    used = sum(load_now(one, _need(world, demand, one, config)) for one in others)
    return config.cpu.host_headroom * world.hosts[vm.host].cpu_cores_capacity - used


def _calm(world: World, demand: Demand, vm: VmState, config: OrchestratorConfig) -> bool:
    """Measured calm for long, or for some seconds where trusted forecasts of all its pairs see nothing coming."""
    return vm.calm or (vm.lately_calm and _foreseen(world, demand, vm, config))


def _foreseen(world: World, demand: Demand, vm: VmState, config: OrchestratorConfig) -> bool:
    horizons = [one for one in until_back(world, vm, SetCpuLimit.kind, config) if one != NOW]
    talk = [one for horizon_s in horizons for one in serving(world, demand, vm, horizon_s)]
    return bool(talk) and all(one.connections.forecast or one.bytes.forecast for one in talk)


def _kept(world: World, demand: Demand, vm: VmState, config: OrchestratorConfig) -> float:
    """What a calm machine keeps: all that any demand may need before the limit could be raised again.

    Looking further would keep, from one surge to the next, what nobody uses in between.
    """
    base = vm.spec.cpu_cores_min if vm.spec else 0.0
    horizons = until_back(world, vm, SetCpuLimit.kind, config)
    most_cores = max(wanted_limit(vm_need(world, demand, vm, one), config) for one in horizons)
    return base if most_cores < base * (1 + config.cpu.min_gain) else most_cores


def _down(world: World, vm: VmState, need: VmNeed, kept: float, config: OrchestratorConfig) -> Iterator[Step]:
    after = max(kept, vm.cores_limit / config.guard.max_step)
    everyday = vm.spec is not None and after <= vm.spec.cpu_cores_min
    if not everyday and vm.cores_limit - after < config.cpu.min_gain * after:
        return  # what little may be spared is not worth an action
    grant = _Grant(need, after, 0.0, after)
    yield _step(world, vm, SetCpuLimit(vm.name, vm.cores_limit, after), grant, config)
    if vm.vcpus > max(1, ceil(after)):
        fewer = SetVcpus(vm.name, vm.vcpus, max(1, ceil(after)))
        yield replace(_step(world, vm, fewer, grant, config), waits=True)


def _why_down(vm: VmState, after: float) -> str:
    everyday = vm.spec is None or after <= vm.spec.cpu_cores_min
    to = "back to its limit" if everyday else f"{after:.2f} are enough for what may come"
    return f"{vm.name} has been calm at {vm.cores_used:.2f} cores; {to}"


def _step(world: World, vm: VmState, action: Action, grant: _Grant, config: OrchestratorConfig) -> Step:
    need = grant.need
    proof = _proof(need, config)
    up = grant.after > vm.cores_limit
    why = _why_up(vm, grant, proof) if up else _why_down(vm, grant.after)
    needed_at = world.now + need.horizon_s
    promise = {"what": "vm_not_starved", "vm": vm.name, "value": grant.after, "by": needed_at}
    reason: dict[str, Any] = {
        "forecast": proof,
        "where": {"vm": vm.name, "host": vm.host},
        "measured": {"cores_used": vm.cores_used},
        "need": need.cores,
        "available": vm.cores_limit,
        "capacity": world.hosts[vm.host].cpu_cores_capacity,
        "relation": _relation(need),
        "circumstances": on_host(world, vm.host).to_json(),
        "choice": grant.choice.to_json() if grant.choice else None,
        "alternatives": [*_alternatives(grant), *(grant.choice.alternatives() if grant.choice else ())],
        "promise": promise,
    }
    lead_s = world.leads.needed(action.kind, config, on_host(world, vm.host))
    return Step(action, why, reason, needed_at, lead_s)


def _proof(need: VmNeed, config: OrchestratorConfig) -> dict[str, Any] | None:
    if need.leading is None or need.relation is None:
        return None
    by_connections = need.relation.feature == "connections_per_s"
    return evidence(need.leading.connections if by_connections else need.leading.bytes, need.horizon_s, config)


def _why_up(vm: VmState, grant: _Grant, proof: dict[str, Any] | None) -> str:
    asked = _asked(grant.need)
    rest = (
        ""
        if grant.after >= grant.wanted
        else f"; {grant.wanted:.2f} would be wanted, its host, its ceiling or the largest step allow less"
    )
    return (
        f"{vm.name} needs {grant.need.cores:.2f} cores{asked} {when(grant.need.horizon_s)} ({foreseen(proof)}) and may "
        f"use {vm.cores_limit:.2f}: give it {grant.after:.2f}{rest}"
    )


def _asked(need: VmNeed) -> str:
    if need.relation is None:
        return ""
    by_connections = need.relation.feature == "connections_per_s"
    return f" for {need.rate:.1f} connections/s" if by_connections else f" for {show_rate(need.rate)}"


def _relation(need: VmNeed) -> dict[str, Any] | None:
    return asdict(need.relation) if need.relation else None


def _alternatives(grant: _Grant) -> list[dict[str, str]]:
    if grant.after >= grant.wanted:
        return []
    short = grant.left < grant.wanted
    why_not = f"the host has {grant.left:.2f} cores left" if short else "its ceiling or the largest step allow less"
    return [{"action": f"limit of {grant.wanted:.2f} cores", "why_not": why_not}]

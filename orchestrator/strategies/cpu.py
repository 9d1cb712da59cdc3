"""Strategy: where predicted load exceeds a machine's CPU limit, give it more; take it back after measured calm."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil

from orchestrator.actions import MigrateVm, SetCpuLimit, SetVcpus, of_kind
from orchestrator.config import NOW, CpuSettings
from orchestrator.context import (
    PlanningContext,
    VmNeed,
    evidence_of,
    load_now,
    most,
    propose_each,
    residents,
    served_demands,
    too_short,
    until_resized_back,
    vm_need,
    wanted_limit,
)
from orchestrator.onset import FIFTHS, Reading, rise_share
from orchestrator.promises import CoresPromise
from orchestrator.proposal import (
    Evidence,
    Proposal,
    Reason,
    Refusal,
    RefusalCode,
    Step,
    known_by,
    number_of,
    on_host,
)
from orchestrator.screens import to_resize
from orchestrator.strategies.cpu_options import CpuChoice, Lack, choose
from orchestrator.world import VmState, World

# What is given back before measured calm must cost less than this share of what it spares: it cannot be raised again
# for a cooldown, while what is kept can still be given back in the next second.
EARLY_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class _Grant:
    """Cores: `wanted` would leave headroom, `left` is what the host can still give, `after` is what is given."""

    need: VmNeed
    wanted: float
    left: float
    after: float
    choice: CpuChoice | None = None


def propose(context: PlanningContext) -> Proposal:
    """Resizes, the most important machines first, and why others are not made."""
    return propose_each(context, sorted(to_resize(context), key=lambda vm: (-vm.priority, vm.name)), _for_vm)


def propose_after_moves(context: PlanningContext) -> Proposal:
    """CPU that only the plan's migrations free: it waits for them, and for whatever is under way."""
    if not any(action.kind == MigrateVm.kind for action in context.planned):
        return Proposal()
    found = propose(replace(context, world=context.world.changed(in_flight=())))
    return Proposal(tuple(replace(step, waits=True) for step in found.steps), found.refusals)


def _need(context: PlanningContext, vm: VmState) -> VmNeed:
    """What the second needs in which a limit decided now, or in the next cycle, takes effect."""
    about, known = on_host(context.world, vm.host), context.machines.kept
    key = context.demand, SetCpuLimit.kind, vm.name, about
    if key not in known:
        soon = Reading(within_s=context.lead_s(SetCpuLimit.kind, about) + context.config.timing.cycle_s)
        needs = [vm_need(context, vm, one, soon) for one in context.acting_horizons(SetCpuLimit.kind, about)]
        known[key] = max(needs, key=lambda one: (wanted_limit(one, context.config.cpu), -one.horizon_s))
    found: VmNeed = known[key]
    return found


def _peak(context: PlanningContext, vm: VmState) -> VmNeed:
    """The most that it may need within the same horizons: a neighbour's foreseen peak is not given away."""
    about, known = on_host(context.world, vm.host), context.machines.kept
    key = context.demand, "peak", vm.name, about
    if key not in known:
        known[key] = most(vm_need(context, vm, one) for one in context.acting_horizons(SetCpuLimit.kind, about))
    found: VmNeed = known[key]
    return found


def _for_vm(context: PlanningContext, vm: VmState) -> Iterator[Step | Refusal]:
    spec = vm.spec
    if spec is None:
        return
    need = _need(context, vm)
    found = list(_considered(context, vm, need))
    brief = _too_short(context, need, found)
    if brief is not None:
        yield brief
        found = list(_considered(context, vm, vm_need(context, vm, NOW)))
    raised = [one.action for one in found if isinstance(one, Step) and not one.action.shrinks]
    for action in raised:
        context = context.after(action)
    ahead = list(_plug_ahead(context, context.world.vms[vm.name]))
    if raised:
        # It waits for the quota; that there is no reason for it is no news.
        ahead = [replace(one, waits=True) for one in ahead if isinstance(one, Step)]
    # What is plugged in soon is not first made smaller.
    plugged = any(isinstance(one, Step) for one in ahead)
    yield from ahead if plugged and not raised else (*found, *ahead)


def _too_short(context: PlanningContext, need: VmNeed, found: list[Step | Refusal]) -> Refusal | None:
    """Refuses what would be given for a foreseen need that has passed before the change pays."""
    step = next((one for one in found if isinstance(one, Step)), None)
    if step is None or need.horizon_s == NOW or need.about is None or step.action.shrinks:
        return None
    why_not = too_short(context, need.about, "a resize", step.lead_s)
    subject = f"more CPU for {need.vm}"
    return Refusal(RefusalCode.TOO_SHORT, need.vm, subject, why_not, step.action) if why_not else None


def _considered(context: PlanningContext, vm: VmState, need: VmNeed) -> Iterator[Step | Refusal]:
    spec = vm.spec
    if spec is None:
        return
    wanted = wanted_limit(need, context.config.cpu)
    if wanted >= spec.cpu_cores_min * (1 + context.config.cpu.min_gain) and wanted > vm.cores_limit:
        yield from _up(context, vm, _Grant(need, wanted, 0.0, 0.0))
    elif vm.cores_limit > spec.cpu_cores_min:
        kept = max(spec.cpu_cores_min, wanted)
        if _idle(context, vm, kept):
            yield from _down(context, vm, need, kept)


def _up(context: PlanningContext, vm: VmState, asked: _Grant) -> Iterator[Step | Refusal]:
    spec = vm.spec
    if spec is None or vm.cores_limit >= min(asked.wanted, spec.cpu_cores_max):
        return
    left = _left(context, vm)
    most_cores = min(
        asked.wanted, spec.cpu_cores_max, float(spec.vcpus_max), context.config.guard.max_step * vm.cores_limit
    )
    steps_left = _whole_steps(left, context.config.cpu)
    after = round(min(most_cores, steps_left), 6)
    gain = after - vm.cores_limit
    if gain < max(context.config.cpu.step_cores, context.config.cpu.deadband * vm.cores_limit) - 1e-9:
        if steps_left < most_cores:
            text = f"{vm.host} has {max(0.0, left):.2f} cores for {vm.name}, which has {vm.cores_limit:.2f} already"
            yield Refusal(RefusalCode.NO_ROOM, vm.name, f"more CPU for {vm.name}", text)
        return
    lack = Lack(vm, asked.need, asked.wanted, steps_left)
    grant = replace(asked, left=left, after=after, choice=choose(context, lack))
    yield from _given(context, vm, grant)


def _given(context: PlanningContext, vm: VmState, grant: _Grant) -> Iterator[Step]:
    """The quota at once as far as the vCPUs reach; then another vCPU, and then the rest, which waits for it."""
    vcpus = ceil(grant.after - 1e-9)
    if vcpus <= vm.vcpus:
        step = _step(context, vm, SetCpuLimit(vm.name, vm.cores_limit, grant.after), grant)
        # Plugging in ends with the quotas that it found: one changed meanwhile would be lost.
        yield replace(step, waits=_plugging(context.world, vm))
        return
    reached = max(vm.cores_limit, float(vm.vcpus))
    at_once = reached - vm.cores_limit >= context.config.cpu.step_cores - 1e-9
    if at_once:
        first = replace(grant, after=reached)
        yield _step(context, vm, SetCpuLimit(vm.name, vm.cores_limit, reached), first)
    reached = reached if at_once else vm.cores_limit
    yield replace(_step(context, vm, SetVcpus(vm.name, vm.vcpus, vcpus), grant), waits=at_once)
    yield replace(_step(context, vm, SetCpuLimit(vm.name, reached, grant.after), grant), waits=True)


def _plug_ahead(context: PlanningContext, vm: VmState) -> Iterator[Step | Refusal]:
    """Another vCPU takes longer than a quota: it is plugged in for a need that only a farther horizon shows."""
    spec = vm.spec
    if spec is None or spec.vcpus_max <= vm.vcpus or _plugging(context.world, vm):
        return
    horizons = context.acting_horizons(SetVcpus.kind, on_host(context.world, vm.host))
    if horizons == (NOW,):
        return
    need = most(vm_need(context, vm, one) for one in horizons)
    wanted = wanted_limit(need, context.config.cpu)
    # Less than a limit would be raised for is no reason for another vCPU either.
    worth = max(context.config.cpu.step_cores, context.config.cpu.deadband * vm.vcpus)
    if wanted - vm.vcpus < worth - 1e-9 or wanted < spec.cpu_cores_min * (1 + context.config.cpu.min_gain):
        return
    if need.horizon_s == NOW or need.about is None:
        return
    lack = Lack(vm, need, wanted, _whole_steps(_left(context, vm), context.config.cpu))
    vcpus = ceil(lack.level(spec.vcpus_max, context.config.guard.max_step) - 1e-9)
    if vcpus <= vm.vcpus:
        return
    grant = _Grant(need, lack.wanted, lack.left, float(vcpus), choose(context, lack))
    step = _step(context, vm, SetVcpus(vm.name, vm.vcpus, vcpus), grant)
    why_not = too_short(context, need.about, "another vCPU", step.lead_s)
    if why_not:
        yield Refusal(RefusalCode.TOO_SHORT, vm.name, f"another vCPU for {vm.name}", why_not, step.action)
    else:
        yield step


def _plugging(world: World, vm: VmState) -> bool:
    return any(change.vm == vm.name for change in of_kind(SetVcpus, world.in_flight))


def _whole_steps(cores: float, settings: CpuSettings) -> float:
    """What remains of so many cores in whole steps."""
    return int(cores / settings.step_cores + 1e-9) * settings.step_cores


def _left(context: PlanningContext, vm: VmState) -> float:
    """Cores of the host within headroom that the others will not use at their peaks under their present limits."""
    others = (one for one in residents(context.world, vm.host) if one.name != vm.name)
    used = sum(load_now(one, _peak(context, one)) for one in others)
    return context.config.cpu.host_headroom * context.world.hosts[vm.host].cpu_cores_capacity - used


def _idle(context: PlanningContext, vm: VmState, kept: float) -> bool:
    """Whether what is above `kept` is given back: after measured calm, as reacting does, or earlier where that is sure.

    Trusted forecasts of all its pairs, or of itself where it serves nobody, say how long it will be needed before it
    could be raised again: so many core-s short, at `cost_of_short`, against a share of those that idle.
    """
    horizon_s = until_resized_back(context, vm, SetCpuLimit.kind)[-1]
    if vm.calm or horizon_s == NOW or not _foretold(context, vm, horizon_s):
        return vm.calm
    short, idle, now = 0.0, 0.0, vm_need(context, vm, NOW).cores
    for level in FIFTHS:
        peak = vm_need(context, vm, horizon_s, Reading(level=level)).cores
        mean = vm_need(context, vm, horizon_s, Reading(level=level, mean=True)).cores
        above = float(rise_share(peak, mean, now)) if peak > kept else 0.0
        short += above * (min(peak, vm.cores_limit) - kept) + (1.0 - above) * max(0.0, now - kept)
        idle += (1.0 - above) * (vm.cores_limit - max(now, kept))
    return context.config.demand.cost_of_short * short < EARLY_SHARE * idle


def _foretold(context: PlanningContext, vm: VmState, horizon_s: int) -> bool:
    served = served_demands(context, vm, horizon_s)
    by_pairs = all(one.connections.forecast or one.bytes.forecast for one in served)
    return by_pairs and (bool(served) or vm_need(context, vm, horizon_s).own is not None)


def _down(context: PlanningContext, vm: VmState, need: VmNeed, kept: float) -> Iterator[Step]:
    after = max(kept, vm.cores_limit / context.config.guard.max_step)
    everyday = vm.spec is not None and after <= vm.spec.cpu_cores_min
    if not everyday and vm.cores_limit - after < context.config.cpu.min_gain * after:
        return  # what little may be spared is not worth an action
    grant = _Grant(need, after, 0.0, after)
    yield _step(context, vm, SetCpuLimit(vm.name, vm.cores_limit, after), grant)
    if vm.vcpus > max(1, ceil(after)):
        fewer = SetVcpus(vm.name, vm.vcpus, max(1, ceil(after)))
        yield replace(_step(context, vm, fewer, grant), waits=True)


def _why_down(vm: VmState, after: float) -> str:
    everyday = vm.spec is None or after <= vm.spec.cpu_cores_min
    to = "back to its limit" if everyday else f"{after:.2f} are enough for what may come"
    if vm.calm:
        return f"{vm.name} has been calm at {vm.cores_used:.2f} cores; {to}"
    return f"{vm.name} uses {vm.cores_used:.2f} cores, and keeping more would cost more than it may spare; {to}"


def _step(context: PlanningContext, vm: VmState, action: SetCpuLimit | SetVcpus, grant: _Grant) -> Step:
    need, about = grant.need, on_host(context.world, vm.host)
    proof = _proof(context, need)
    up = grant.after > vm.cores_limit
    needed_at = context.world.now + need.horizon_s
    choice = grant.choice
    reason = Reason(
        where={"vm": vm.name, "host": vm.host},
        need=need.cores,
        available=vm.cores_limit,
        capacity=context.world.hosts[vm.host].cpu_cores_capacity,
        measured={"cores_used": vm.cores_used},
        forecast=proof,
        circumstances=about,
        alternatives=(*_alternatives(vm, grant), *(choice.alternatives(vm.name) if choice else ())),
        promise=CoresPromise(vm=vm.name, value=grant.after, by=needed_at),
        facts={"relation": asdict(need.relation) if need.relation else None, "choice": choice and choice.to_json()},
    )
    why = _why_up(vm, grant, proof) if up else _why_down(vm, grant.after)
    return Step(action, why, reason, needed_at, context.lead_s(action.kind, about))


def _proof(context: PlanningContext, need: VmNeed) -> Evidence | None:
    return evidence_of(context, need.proof, need.horizon_s) if need.proof else None


def _why_up(vm: VmState, grant: _Grant, proof: Evidence | None) -> str:
    asked = _asked(grant.need)
    rest = (
        ""
        if grant.after >= grant.wanted
        else f"; {grant.wanted:.2f} would be wanted, its host, its ceiling or the largest step allow less"
    )
    return (
        f"{vm.name} needs {grant.need.cores:.2f} cores{asked} {known_by(grant.need.horizon_s, proof)} and may "
        f"use {vm.cores_limit:.2f}: give it {grant.after:.2f}{rest}"
    )


def _asked(need: VmNeed) -> str:
    if need.by_itself:
        return f", of which {need.own.need:.2f} for itself" if need.own else ""
    return f" for {number_of(need.relation.feature)(need.rate)}" if need.relation else ""


def _alternatives(vm: VmState, grant: _Grant) -> Iterator[Refusal]:
    if grant.after < grant.wanted:
        short = grant.left < grant.wanted
        text = f"the host has {grant.left:.2f} cores left" if short else "its ceiling or the largest step allow less"
        code = RefusalCode.NO_ROOM if short else RefusalCode.CEILING
        yield Refusal(code, vm.name, f"limit of {grant.wanted:.2f} cores", text)

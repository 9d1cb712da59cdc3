"""A plan is a fold: each strategy proposes in the context that the proposals before it leave; every step is checked.

Every prefix of a plan keeps each host within what it has, or no worse than it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from orchestrator.actions import MigrateVm, ReserveBandwidth, ScaleOut, SetCpuLimit, SetMemory, SetWeights
from orchestrator.config import NOW, OrchestratorConfig, RouteSettings
from orchestrator.context import PlanningContext, load_now, vm_need
from orchestrator.demand import demands
from orchestrator.machine_actions import Resize
from orchestrator.proposal import Proposal, Refusal, RefusalCode, Step, when
from orchestrator.strategies import (
    bandwidth,
    cpu,
    link_relief,
    memory,
    placement,
    rearrange,
    requests,
    scaling,
    weights,
)
from orchestrator.strategies.requests import HandledRequest

LOG = structlog.get_logger(__name__)
Strategy = Callable[[PlanningContext], Proposal]
# In this order: what was asked for counts for all after it; CPU that only a migration frees is planned after it.
STRATEGIES: tuple[Strategy, ...] = (
    bandwidth.propose,
    cpu.propose,
    memory.propose,
    weights.propose,
    scaling.propose,
    placement.propose,
    link_relief.propose,
    rearrange.propose,
    cpu.propose_after_moves,
)
# Whose verdicts move the margin of what a strategy asks for.
MARGIN_OF: Mapping[Strategy, str] = {
    bandwidth.propose: ReserveBandwidth.kind,
    cpu.propose: SetCpuLimit.kind,
    cpu.propose_after_moves: SetCpuLimit.kind,
    memory.propose: SetMemory.kind,
    weights.propose: SetWeights.kind,
    scaling.propose: ScaleOut.kind,
    placement.propose: MigrateVm.kind,
    link_relief.propose: MigrateVm.kind,
}
# A solver's own tolerance is a millionth of a core for each machine.
TOLERANCE_CORES = 1e-4


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they may be carried out, each prefix of which is safe, and refusals.

    `requests`: what becomes of the bandwidth that was asked for.
    """

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    requests: tuple[HandledRequest, ...] = ()


def strategies_for(config: OrchestratorConfig) -> tuple[Strategy, ...]:
    """The strategies in their order; routes come last, unless traffic is not routed at all."""
    return (*STRATEGIES, _routing(config.routing)) if config.routing.enabled else STRATEGIES


def _routing(settings: RouteSettings) -> Strategy:
    """Routes, from the moment on at which a link is expected to run full: until then nothing is worked out."""
    begun: list[Strategy] = []

    def propose(context: PlanningContext) -> Proposal:
        fabric = context.world.network.fabric
        if not begun:
            if not fabric.splits and all(one.fullest < settings.trigger for one in fabric.matrices):
                return Proposal()
            from orchestrator.strategies.routes import Router  # only here: it brings scipy with it

            begun.append(Router(settings).propose)
        return begun[0](context)

    return propose


def plan(context: PlanningContext, strategies: Sequence[Strategy] = STRATEGIES) -> Plan:
    """What should be done about the demand, with reasons; an empty plan is an answer."""
    found = _planned(context, strategies)
    refusals = tuple(dict.fromkeys((*found.refusals, *_not_trusted(context, found.steps))))
    return Plan(tuple(_with_alternatives(step, refusals) for step in found.steps), refusals, found.requests)


def _planned(context: PlanningContext, strategies: Sequence[Strategy]) -> Plan:
    for action in context.world.in_flight:
        if isinstance(action, Resize):
            context = context.after(action)
    start = context = replace(context, planned=())
    asked = requests.propose(context)
    context, steps, refusals = _applied(start, context, asked)
    context = replace(context, granted=asked.granted)
    for propose in strategies:
        tuned = context.tuned(MARGIN_OF.get(propose, ""))
        context, more, refused = _applied(start, context, propose(tuned))
        steps, refusals = [*steps, *more], [*refusals, *refused]
    return Plan(tuple(steps), tuple(refusals), asked.handled)


def _not_trusted(context: PlanningContext, planned: Sequence[Step]) -> Iterator[Refusal]:
    """What would be done if every forecast were trusted, and is not: each with how far its forecast is trusted.

    Routes are left out: they are hedged against forecasts that err, and what is learnt for them is learnt once.
    """
    if not context.demand.doubted:
        return
    done = {(step.action.kind, step.action.target) for step in planned}
    believing = replace(context, demand=demands(context.world, context.config, believing=True))
    for step in _planned(believing, STRATEGIES).steps:
        action, proof = step.action, step.reason.forecast
        known = step.renewal or (action.kind, action.target) in done
        if proof is not None and proof.doubt and not known:
            subject = f"{action.describe()} for what {proof.pair} may need {when(proof.horizon_s)}"
            about = step.reason.where.get("link", action.target)
            yield Refusal(RefusalCode.NOT_TRUSTED, about, subject, proof.doubt, action, step.lead_s)


def _applied(
    start: PlanningContext, context: PlanningContext, proposal: Proposal
) -> tuple[PlanningContext, list[Step], list[Refusal]]:
    """The context after a proposal; a step that would break the law of prefixes is refused instead."""
    steps, refusals = [], list(proposal.refusals)
    for step in proposal.steps:
        after = context.after(step.action)
        broken = broken_host(start, after, step)
        if broken is None:
            context = after
            steps.append(step)
            continue
        LOG.error("a strategy proposed too much", action=step.action.describe(), broken=broken)
        refusals.append(Refusal(RefusalCode.NO_ROOM, step.action.target, step.why, broken, step.action))
    return context, steps, refusals


def broken_host(start: PlanningContext, after: PlanningContext, step: Step) -> str | None:
    """Which host would have less than its machines take after a step, and did not before the plan."""
    for name in sorted(step.action.hosts(after.world)):
        host = after.world.hosts.get(name)
        if host is None:
            continue
        memory, before = _memory(after, name), _memory(start, name)
        if memory > max(host.memory_bytes_capacity, before):
            return f"{name} would hold {memory >> 20} of {host.memory_bytes_capacity >> 20} MiB"
        allowed = max(after.config.cpu.host_headroom * host.cpu_cores_capacity, _cores(start, name))
        if (cores := _cores(after, name)) > allowed + TOLERANCE_CORES:
            return f"{name} would need {cores:.2f} of {host.cpu_cores_capacity:.2f} cores"
    return None


def _memory(context: PlanningContext, host: str) -> int:
    return sum(vm.memory.bytes for vm in context.world.on_host(host))


def _cores(context: PlanningContext, host: str) -> float:
    return sum(load_now(vm, vm_need(context, vm, NOW)) for vm in context.world.on_host(host))


def _with_alternatives(step: Step, refusals: Sequence[Refusal]) -> Step:
    """A step can say what else was considered about the same machine, host, link or service, and why not."""
    about = [refusal for refusal in refusals if refusal.about in step.about]
    return replace(step, reason=replace(step.reason, alternatives=(*step.reason.alternatives, *about)))

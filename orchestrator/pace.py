"""How soon to decide again: not each second where everything is steady and known far enough ahead."""

from cpdb import Seconds
from orchestrator.actions import ReserveBandwidth, SetCpuLimit, SetVcpus
from orchestrator.context import PlanningContext, fits_link
from orchestrator.plan import Plan

# What is done first against a need: whoever decides again in time for these is in time for all.
FIRST = (ReserveBandwidth.kind, SetCpuLimit.kind, SetVcpus.kind)


def planning_interval_s(context: PlanningContext, planned: Plan) -> Seconds:
    """Until the next decision: `timing.cycle_s`, or more where nothing is needed as far as all pairs are trusted.

    No more than `timing.steady_cycle_s`, and no more than leaves the slowest of the first actions its lead time before
    that horizon ends: nothing that is foreseen beyond it could be met later than by deciding each cycle.
    """
    timing = context.config.timing
    lead_s = max(context.lead_s(kind) for kind in FIRST)
    horizon_s = context.config.demand.horizon_for(lead_s + timing.steady_cycle_s)
    if horizon_s is None or _busy(context, planned) or not _trusted(context, horizon_s) or _needy(context, horizon_s):
        return timing.cycle_s
    return max(timing.cycle_s, min(timing.steady_cycle_s, horizon_s - lead_s))


def _busy(context: PlanningContext, planned: Plan) -> bool:
    """Whether anything is to be done, under way, held or asked for."""
    world = context.world
    return bool(
        planned.steps or planned.refusals or world.in_flight or world.wanted.reservations or world.wanted.requests
    )


def _trusted(context: PlanningContext, horizon_s: int) -> bool:
    """Whether forecasts of all pairs, and there are some, are trusted that far."""
    table = context.demand.table(horizon_s)
    return bool(len(context.world.pairs) and (table.bytes.far_s > 0).all() and (table.connections.far_s > 0).all())


def _needy(context: PlanningContext, horizon_s: int) -> bool:
    """Whether a machine, a host or a link will come near what it has by then."""
    world, cpu = context.world, context.config.cpu
    return (
        any(context.cores(vm, horizon_s) > cpu.headroom * vm.cores_limit or not vm.calm for vm in world.vms.values())
        or any(
            context.served(one.name, horizon_s) > cpu.host_headroom * one.cpu_cores_capacity
            for one in world.hosts.values()
        )
        or not all(fits_link(context, link, horizon_s) for link in world.links.values() if link.capacity_bytes_per_s)
    )

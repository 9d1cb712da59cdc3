"""Strategy: where a link will run short, move the less important machines behind it to where their pairs take another.

Reservations keep the important pairs whole by limiting the others; a move leaves nobody limited, where there is time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from cpdb import show_rate
from orchestrator.actions import MigrateVm, moves_of
from orchestrator.context import PlanningContext, evidence_of, fits_link, needed_on
from orchestrator.demand_table import PairDemand, together
from orchestrator.expected_short import link_short_cost
from orchestrator.pair_table import LinkKey
from orchestrator.promises import LinkRatePromise
from orchestrator.proposal import Proposal, Reason, Refusal, Step, known_by
from orchestrator.strategies.destinations import (
    Cause,
    detour,
    judged,
    lasting_room,
    leaving,
    movable,
    move_horizon_s,
    no_room,
    nowhere,
    rerouted,
)
from orchestrator.world import LinkState, VmState


@dataclass(frozen=True, slots=True)
class _Short:
    """A link that will have to carry more than it should; `leader` needs most of those that matter most."""

    link: LinkState
    capacity: float
    horizon_s: int
    needed: float
    leader: PairDemand
    priority: int


def propose(context: PlanningContext) -> Proposal:
    """Moves, link by link, until each fits its headroom or nobody is left who could go."""
    context = context.arrived()
    found: list[Step | Refusal] = []
    for key in _close(context):
        short = _short(context, context.world.links[key])
        for item in _relieve(context, short) if short else ():
            found.append(item)
            for move in moves_of([item.action]) if isinstance(item, Step) else ():
                context = rerouted(context, move)
    return Proposal.of(found)


def _close(context: PlanningContext) -> list[LinkKey]:
    """Links that may run short, by name, over which a machine that may move is called: others cannot be helped here."""
    trigger, horizons_s = context.config.bandwidth.trigger, context.config.horizons_s
    found = {key for one in horizons_s for key in context.bounds(one).above(trigger)}
    if not found:
        return []
    movable = (vm for vm in context.world.vms.values() if vm.spec is not None and vm.spec.movable)
    return sorted({key for vm in movable for one in context.world.pairs_to(vm.name) for key in one.links} & found)


def _short(context: PlanningContext, link: LinkState) -> _Short | None:
    """The nearest horizon at which the link is short, as far as the slowest machine that could leave needs."""
    if not link.capacity_bytes_per_s or all(fits_link(context, link, one) for one in context.config.horizons_s):
        return None  # most links most of the time
    states = [context.world.pairs[pair] for pair in context.world.pairs_on(link.key)]
    if not states:
        return None
    loading = sorted({one.destination or "" for one in states})
    able = movable(context.world, (context.world.vms[name] for name in loading if name in context.world.vms))
    farthest_s = max((move_horizon_s(context, vm) for vm in able), default=0)
    for horizon_s in context.config.horizons_up_to(farthest_s):
        needed = needed_on(context, link, horizon_s)
        if needed > context.config.bandwidth.trigger * link.capacity_bytes_per_s:
            priority = max(one.priority for one in states)
            first = sorted((one.pair for one in states if one.priority == priority), key=str)
            leader = max(context.demand.at(horizon_s, first), key=lambda one: one.bytes.need)
            return _Short(link, link.capacity_bytes_per_s, horizon_s, needed, leader, priority)
    return None


def _relieve(context: PlanningContext, short: _Short) -> Iterator[Step | Refusal]:
    target = context.config.bandwidth.headroom * short.capacity
    for vm in _candidates(context, short):
        if _needed(context, short) <= target:
            return
        found = _move(context, vm, short)
        yield found
        for move in leaving(found):
            context = rerouted(context, move)


def _candidates(context: PlanningContext, short: _Short) -> list[VmState]:
    """Less important than the link's leader and loading the link: the least important first, then who loads it most."""
    floor = context.config.bandwidth.floor * short.capacity
    able = [vm for vm in movable(context.world, context.world.vms.values()) if vm.host in context.world.hosts]
    found = [vm for vm in able if vm.priority < short.priority and _brings(context, vm, short) >= floor]
    return sorted(found, key=lambda vm: (vm.priority, -_brings(context, vm, short), vm.name))


def _brings(context: PlanningContext, vm: VmState, short: _Short) -> float:
    """Bytes/s that the machine's pairs bring to the link."""
    own = [one.pair for one in context.world.pairs_to(vm.name) if short.link.key in one.links]
    return together(one.bytes for one in context.demand.at(short.horizon_s, own)) if own else 0.0


def _needed(context: PlanningContext, short: _Short) -> float:
    """What the link would carry now that some have left it."""
    return needed_on(context, context.world.links[short.link.key], short.horizon_s)


def _move(context: PlanningContext, vm: VmState, short: _Short) -> Step | Refusal:
    refused, fitting = [], {}
    for name, host in sorted(context.world.hosts.items()):
        if name != vm.host:
            found = _stays(context, vm, name, short) or lasting_room(context, host, vm)
            if isinstance(found, str):
                refused.append(no_room(name, found))
            else:
                fitting[name] = found
    if not fitting:
        return nowhere(vm, f"migrate {vm.name} to relieve {short.link.name}", refused)
    best = min(fitting, key=lambda name: (detour(context, vm, name, short.horizon_s), -fitting[name], name))
    action = MigrateVm(vm.name, vm.host, best)
    cause = Cause(
        _why(context, vm, short, best), short.horizon_s, _reason(context, vm, short), short.leader.pair,
        refused=tuple(refused), short_cost=partial(link_short_cost, short.link.key),
    )  # fmt: skip
    return judged(context, action, cause)


def _stays(context: PlanningContext, vm: VmState, host: str, short: _Short) -> str | None:
    """Why a move there would not take its pairs off the link."""
    for one in context.world.pairs_to(vm.name):
        if short.link.key in one.links:
            way = context.world.network.ways(one.pair.source, host)
            if not way:
                return f"no way from {one.pair.source} to {host} is known"
            if short.link.key in way:
                return f"{one.pair} would still go over {short.link.name}"
    return None


def _why(context: PlanningContext, vm: VmState, short: _Short, best: str) -> str:
    proof = evidence_of(context, short.leader.bytes, short.horizon_s)
    return (
        f"{short.link.name} will have to carry {show_rate(short.needed)} of {show_rate(short.capacity)} "
        f"{known_by(short.horizon_s, proof)}, most of all for {short.leader.pair}; {vm.name} brings "
        f"{show_rate(_brings(context, vm, short))} of it and matters less, on {best} it is out of the way"
    )


def _reason(context: PlanningContext, vm: VmState, short: _Short) -> Reason:
    by = context.world.now + short.horizon_s
    return Reason(
        where={"link": short.link.name, "vm": vm.name},
        need=short.needed,
        available=context.config.bandwidth.headroom * short.capacity,
        capacity=short.capacity,
        measured={"bytes_per_s": short.link.bytes_per_s},
        forecast=evidence_of(context, short.leader.bytes, short.horizon_s),
        promise=LinkRatePromise(link=short.link.name, value=short.capacity, by=by),
    )

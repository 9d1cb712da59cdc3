"""Strategy: hosts under maintenance are left, who belongs together or apart gets there, and machines follow callers.

Nothing here is urgent: it goes only where there is room at every horizon, and makes no host short.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cpdb import show_rate
from orchestrator.actions import MigrateVm
from orchestrator.config import NOW
from orchestrator.context import PlanningContext
from orchestrator.promises import PlacePromise
from orchestrator.proposal import Proposal, Reason, Refusal, Step
from orchestrator.strategies.destinations import (
    Cause,
    apart,
    closed_to,
    detour,
    groups,
    judged,
    lasting_room,
    movable,
    no_room,
    nowhere,
    rivals_on,
)
from orchestrator.world import VmState

TIME_LIMIT_S = 0.3
# A machine follows its callers only where this share of what it costs the network is saved.
SAVED_SHARE = 0.25


def propose(context: PlanningContext) -> Proposal:
    """Moves for which nothing is short, and why others are not made."""
    context = context.arrived()
    found: list[Step | Refusal] = []
    for decide in (_maintenance, _apart, _together, _follow):
        for item in decide(context):
            found.append(item)
            if isinstance(item, Step):
                context = context.after(item.action)
    return Proposal.of(found)


def _maintenance(context: PlanningContext) -> Iterator[Step | Refusal]:
    """The optimiser says where to; what does not stand every check goes where there is most room, or stays."""
    leaving = [
        vm
        for _, host in sorted(context.world.hosts.items())
        if host.maintenance
        for vm in movable(context.world, context.world.on_host(host.name))
    ]
    if not leaving:
        return
    context = replace(context, together=frozenset(vm.name for vm in leaving))
    wanted = _optimised(context, leaving)
    for vm in leaving:
        hosts = sorted(context.world.hosts, key=lambda name: (name != wanted.get(vm.name), name))
        found = _best(context, vm, [name for name in hosts if name != vm.host], wanted.get(vm.name))
        why = f"{vm.host} is under maintenance; {vm.name} may move"
        step = _step(context, vm, found, why) if not isinstance(found, Refusal) else found
        yield step
        if isinstance(step, Step):
            # Its mates follow it to where it went, or stay.
            rest = context.together - {vm.name}
            context = replace(context.after(step.action), together=rest)


def _best(context: PlanningContext, vm: VmState, hosts: Sequence[str], wished: str | None = None) -> str | Refusal:
    """The wished host if it has room, else the one with most; a refusal with every host's reason."""
    rooms = {name: lasting_room(context, context.world.hosts[name], vm) for name in hosts}
    able = {name: left for name, left in rooms.items() if isinstance(left, float)}
    if wished in able:
        return str(wished)
    if able:
        return max(able, key=lambda name: (able[name], name))
    refused = [no_room(name, str(why_not)) for name, why_not in rooms.items()]
    return nowhere(vm, f"migrate {vm.name} away from {vm.host}", refused)


def _optimised(context: PlanningContext, leaving: Sequence[VmState]) -> dict[str, str]:
    """Machine -> host, all at once: least important moves cheapest, near to callers, no host made short."""
    # numpy and scipy take half a second to import, which most cycles need not spend.
    import numpy as np

    from orchestrator.optimise import Problem, solve

    guests = [vm for _, vm in sorted(context.world.vms.items()) if vm.host in context.world.hosts]
    hosts = [one for _, one in sorted(context.world.hosts.items())]
    place = {one.name: number for number, one in enumerate(hosts)}
    now = np.array([place[vm.host] for vm in guests], dtype=np.int64)
    need = np.array([[[context.cores(vm, horizon_s) for vm in guests]] for horizon_s in context.config.horizons_s])
    free = context.config.cpu.host_headroom * np.array([one.cpu_cores_capacity for one in hosts])
    held = np.max([np.bincount(now, weights=one[0], minlength=len(hosts)) for one in need], axis=0)
    names = {vm.name for vm in leaving}
    moving = np.full((len(guests), len(hosts)), np.inf)
    moving[np.arange(len(guests)), now] = 0.0
    for number, vm in enumerate(guests):
        far = {one.name: detour(context, vm, one.name, NOW) for one in hosts} if vm.name in names else {}
        farthest = max(far.values(), default=0.0) or 1.0
        for one in hosts if vm.name in names else ():
            if one.name != vm.host and closed_to(context, one, vm, NOW) is None:
                moving[number, place[one.name]] = 1.0 + vm.priority / 100.0 + far[one.name] / farthest
    problem = Problem(
        need=need,
        capacity=np.maximum(free, held)[None, :],
        memory=np.array([float(vm.memory.bytes) for vm in guests]),
        memory_capacity=np.array([float(one.memory_bytes_capacity) for one in hosts]),
        price=np.array([1000.0]),
        moving=moving,
        now=now,
        movable=np.array([vm.name in names for vm in guests]),
        apart=np.array(apart(guests), dtype=np.int64),
        closed=np.array([one.closed for one in hosts]),
    )
    where = solve(problem, TIME_LIMIT_S).where
    return {vm.name: hosts[where[number]].name for number, vm in enumerate(guests) if where[number] != now[number]}


def _apart(context: PlanningContext) -> Iterator[Step | Refusal]:
    """Of machines that should not share a host, the least important that may move goes."""
    for _, host in sorted(context.world.hosts.items()):
        for vm in movable(context.world, context.world.on_host(host.name)):
            here = context.world.vms[vm.name]
            rivals = rivals_on(context.world, here.host, here)
            if not rivals:
                continue
            found = _best(context, here, [name for name in sorted(context.world.hosts) if name != here.host])
            why = f"{vm.name} should not share {here.host} with {rivals[0].name}"
            step = found if isinstance(found, Refusal) else _step(context, here, found, why)
            yield step
            if isinstance(step, Step):
                context = context.after(step.action)


def _together(context: PlanningContext) -> Iterator[Step | Refusal]:
    """A group that is scattered meets where those are that cannot move, else where most of its memory is."""
    for name, own in groups(context.world.vms.values()).items():
        homes = sorted({vm.host for vm in own if vm.host in context.world.hosts})
        if len(homes) < 2:
            continue
        able = {vm.name for vm in movable(context.world, own)}
        weights = {
            home: (sum(vm.name not in able for vm in own if vm.host == home),
                   sum(vm.memory.bytes for vm in own if vm.host == home))
            for home in homes if not context.world.hosts[home].closed
        }  # fmt: skip
        meeting = max(weights, key=lambda home: (weights[home], home), default=None)
        for vm in movable(context.world, [one for one in own if one.host != meeting]) if meeting else ():
            group = replace(context, together=frozenset(one.name for one in own))
            found = _best(group, vm, [str(meeting)])
            why = f"{vm.name} belongs together with the others of {name} on {meeting}"
            step = found if isinstance(found, Refusal) else _step(group, vm, found, why)
            yield step
            if isinstance(step, Step):
                context = context.after(step.action)


def _follow(context: PlanningContext) -> Iterator[Step | Refusal]:
    """Machines go nearer to those who call them now and as foreseen, where that was asked for."""
    if not context.config.moves.follow_sources:
        return
    for vm in movable(context.world, list(context.world.vms.values())):
        if vm.host not in context.world.hosts:
            continue
        saved = {name: _saved(context, vm, name) for name in sorted(context.world.hosts) if name != vm.host}
        nearer = [name for name, (least, now) in saved.items() if now > 0 and least >= SAVED_SHARE * now]
        able = [name for name in nearer if isinstance(lasting_room(context, context.world.hosts[name], vm), float)]
        if not able:
            continue
        best = max(able, key=lambda name: (saved[name][0], name))
        why = (
            f"{vm.name} is nearer to its callers on {best}: {show_rate(saved[best][0])} less on links, summed over them"
        )
        found = _step(context, vm, best, why)
        yield found
        if isinstance(found, Step):
            context = context.after(found.action)


def _saved(context: PlanningContext, vm: VmState, host: str) -> tuple[float, float]:
    """(What is saved at the horizon that saves least, what it costs there today), in bytes/s times links."""
    found = []
    for horizon_s in context.config.horizons_s:
        now, there = detour(context, vm, vm.host, horizon_s), detour(context, vm, host, horizon_s)
        # No way known costs nothing, which must not look near.
        found.append((now - there if there > 0 else 0.0, now))
    return min(found)


def _step(context: PlanningContext, vm: VmState, host: str, why: str) -> Step | Refusal:
    reason = Reason(
        where={"host": vm.host, "vm": vm.name},
        measured={"cores_used": vm.cores_used},
        promise=PlacePromise(vm=vm.name, host=host, by=context.world.now),
    )
    return judged(context, MigrateVm(vm.name, vm.host, host), Cause(why, NOW, reason, urgent=False))

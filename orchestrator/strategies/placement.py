"""Strategy: where a host will run short, move its least important machines to hosts that have room."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from cpdb import Seconds
from orchestrator.actions import MigrateVm
from orchestrator.context import PlanningContext, evidence_of, vm_need
from orchestrator.declared import HostSpec
from orchestrator.expected_short import host_short_cost
from orchestrator.promises import HostCoresPromise
from orchestrator.proposal import Proposal, Reason, Refusal, RefusalCode, Step, known_by, when
from orchestrator.regions import between, part_of, regions_of, with_shares
from orchestrator.screens import crowded_hosts
from orchestrator.strategies.destinations import (
    Cause,
    apart,
    closed_to,
    detour,
    judged,
    lasting_room,
    leaving,
    mates,
    movable,
    move_horizon_s,
    no_room,
    nowhere,
    units,
)
from orchestrator.world import VmState, World

if TYPE_CHECKING:
    from orchestrator.optimise import Problem


@dataclass(frozen=True, slots=True)
class Shortage:
    """A host whose machines will together need more cores than it has; `needy` is the one that matters most."""

    host: HostSpec
    horizon_s: int
    cores: float
    needy: VmState


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """A move that the optimiser chose, and the shortage that it is for."""

    action: MigrateVm
    shortage: Shortage


# A core short weighs so many times the dearest move: shortage comes first, moves are counted second.
SHORT_TO_MOVE = 100.0
TIME_LIMIT_S = 0.3
# What the farthest host costs more than one next to the sources: less than half a rank of importance.
NEARNESS = 0.25


@dataclass(frozen=True, slots=True)
class MoveSearch:
    """At which horizons the optimiser counts what is short - all at which any host is - and for how long it looks."""

    horizons_s: tuple[int, ...]
    limit_s: Seconds = TIME_LIMIT_S


def propose(context: PlanningContext) -> Proposal:
    """Migrations away from hosts that will be short, and why others are not made.

    Each region by itself where there are several; what is left short then goes to the roomiest hosts of all.
    """
    context = context.arrived()
    crowded = crowded_hosts(context, context.config.cpu.host_headroom + context.config.cpu.host_deadband)
    short = (_shortage(context, context.world.hosts[name]) for name in crowded)
    search = MoveSearch(tuple(sorted({one.horizon_s for one in short if one is not None})))
    regions = regions_of(context) if crowded else []
    if not regions:
        return Proposal.of(_relieved(context, crowded, search))
    shared, found = with_shares(context, len(regions)), list[Step | Refusal]()
    own = [[name for name in crowded if name in region] for region in regions]
    each = replace(search, limit_s=search.limit_s / max(1, sum(map(bool, own))))
    for region, names in zip(regions, own, strict=True):
        found += _relieved(part_of(shared, region), names, each) if names else ()
    for step in Proposal.of(found).steps:
        context = context.after(step.action)
    left = [name for name in crowded if _shortage(context, context.world.hosts[name]) is not None]
    if not left:
        return Proposal.of(found)
    about = {*left, *(vm.name for name in left for vm in context.world.on_host(name))}
    kept = [one for one in found if isinstance(one, Step) or one.about not in about]
    return Proposal.of([*kept, *_relieved(part_of(context, between(context, left)), left, search)])


def _relieved(context: PlanningContext, crowded: Sequence[str], search: MoveSearch) -> Iterator[Step | Refusal]:
    for step in _optimised(context, crowded, search):
        yield step
        context = context.after(step.action)
    # Host by host, what is still short: the only way where there is no choice, and the one that says why not.
    for name in crowded:
        shortage = _shortage(context, context.world.hosts[name])
        for item in _relieve(context, shortage) if shortage else ():
            yield item
            if isinstance(item, Step):
                context = context.after(item.action)


def cost_of(context: PlanningContext, moves: Iterable[MigrateVm]) -> float:
    """What moves would come to by the optimiser's own measure, all hosts and machines of the context counted."""
    import numpy as np

    from orchestrator.optimise import cost

    context = context.arrived()
    hosts = crowded_hosts(context, context.config.cpu.host_headroom + context.config.cpu.host_deadband)
    shortages = [one for name in hosts if (one := _shortage(context, context.world.hosts[name])) is not None]
    if not shortages:
        return 0.0
    candidates = {one.host.name: _candidates(context, one) for one in shortages}
    guests = [vm for _, vm in sorted(context.world.vms.items()) if vm.host in context.world.hosts]
    horizons = sorted({one.horizon_s for one in shortages})
    problem = _problem(context, guests, shortages, horizons, _prices(context, shortages, candidates))
    goes, place = {one.vm: one.after for one in moves}, {name: n for n, name in enumerate(sorted(context.world.hosts))}
    return cost(problem, np.array([place[goes.get(vm.name, vm.host)] for vm in guests], dtype=np.int64)).total


def _optimised(context: PlanningContext, crowded: Sequence[str], search: MoveSearch) -> Iterator[Step]:
    """What the optimiser chooses where there is a choice of machines or of hosts, as far as it stands every check."""
    hosts = (_shortage(context, context.world.hosts[name]) for name in crowded)
    shortages = [one for one in hosts if one is not None]
    candidates = {one.host.name: _candidates(context, one) for one in shortages}
    count = sum(map(len, candidates.values()))
    if not count or (count == 1 and len(context.world.hosts) < 3):
        return
    for moves in _units(context.world, best_moves(context, shortages, candidates, search)):
        steps = _all_of(replace(context, together=frozenset(move.action.vm for move in moves)), moves)
        yield from steps
        for step in steps:
            context = context.after(step.action)


def _units(world: World, moves: Iterable[PlannedMove]) -> list[list[PlannedMove]]:
    """Machines that stay together are moved together or not at all."""
    found: dict[tuple[str | None, str], list[PlannedMove]] = {}
    for move in moves:
        spec = world.vms[move.action.vm].spec
        group = spec.affinity if spec else None
        found.setdefault((group, "" if group else move.action.vm), []).append(move)
    return list(found.values())


def _all_of(context: PlanningContext, moves: Iterable[PlannedMove]) -> list[Step]:
    """Each of these moves as a step, one after the other; [] when one of them does not stand every check."""
    steps: list[Step] = []
    for move in moves:
        action = move.action
        vm, host = context.world.vms[action.vm], context.world.hosts[action.after]
        fits = isinstance(lasting_room(context, host, vm), float)
        found = _judged(context, action, move.shortage) if fits else None
        if not isinstance(found, Step):
            return []
        steps.append(found)
        context = context.after(action)
    return steps


def _shortage(context: PlanningContext, host: HostSpec) -> Shortage | None:
    """The nearest horizon at which the host is short: the further away it shows, the more time is left.

    No farther than the slowest machine that could leave needs: the copy of a large one is begun minutes ahead.
    """
    limit = (context.config.cpu.host_headroom + context.config.cpu.host_deadband) * host.cpu_cores_capacity
    if all(context.served(host.name, one) <= limit for one in context.config.horizons_s):
        return None  # most hosts most of the time
    if not context.world.on_host(host.name):
        return None  # its own forecast is still of machines that are gone, or not known just now
    able = movable(context.world, context.world.on_host(host.name))
    farthest_s = max((move_horizon_s(context, vm) for vm in able), default=context.config.demand.horizons_s[-1])
    for horizon_s in context.config.horizons_up_to(farthest_s):
        cores = context.served(host.name, horizon_s)
        if cores > limit:
            return Shortage(host, horizon_s, cores, _needy(context, host.name, horizon_s))
    return None


def _needy(context: PlanningContext, host: str, horizon_s: int) -> VmState:
    def wish(vm: VmState) -> tuple[bool, int, float, str]:
        lack = context.cores(vm, horizon_s) - vm.cores_used
        return lack > 0, vm.priority, lack, vm.name

    return max(context.world.on_host(host), key=wish)


def _relieve(context: PlanningContext, shortage: Shortage) -> Iterator[Step | Refusal]:
    """Moves until the host fits its headroom again or nobody is left who could go."""
    host, horizon_s = shortage.host, shortage.horizon_s
    target = context.config.cpu.host_headroom * host.cpu_cores_capacity
    candidates = _candidates(context, shortage)
    if not candidates:
        text = f"{host.name} will be short {when(horizon_s)}, but no movable machine there matters less than "
        yield Refusal(RefusalCode.NO_CANDIDATE, host.name, f"relieve {host.name}", text + shortage.needy.name)
    for vm in candidates:
        if context.served(host.name, horizon_s) <= target:
            return
        found = _move(context, vm, shortage)
        yield found
        for move in leaving(found):
            context = context.after(move)


def _candidates(context: PlanningContext, shortage: Shortage) -> list[VmState]:
    """Least important first; among equals the one that is cheapest to copy."""
    able = movable(context.world, context.world.on_host(shortage.host.name))
    return [vm for vm in able if vm.priority < shortage.needy.priority and context.cores(vm, shortage.horizon_s) > 0]


def _move(context: PlanningContext, vm: VmState, shortage: Shortage) -> Step | Refusal:
    others = [host for host in context.world.hosts.values() if host.name != shortage.host.name]
    rooms = {host.name: lasting_room(context, host, vm) for host in others}
    fitting = {name: left for name, left in rooms.items() if isinstance(left, float)}
    refused = tuple(no_room(name, left) for name, left in rooms.items() if isinstance(left, str))
    if not fitting:
        return nowhere(vm, f"migrate {vm.name} away from {shortage.host.name}", refused)
    near = {name: -detour(context, vm, name, shortage.horizon_s) for name in fitting}
    destination = max(fitting, key=lambda name: (near[name], fitting[name], name))
    return _judged(context, MigrateVm(vm.name, shortage.host.name, destination), shortage, refused)


def _judged(
    context: PlanningContext, action: MigrateVm, shortage: Shortage, refused: tuple[Refusal, ...] = ()
) -> Step | Refusal:
    """The move as a step, or why it would come too late or not pay."""
    needy, horizon_s, capacity = shortage.needy, shortage.horizon_s, shortage.host.cpu_cores_capacity
    need = vm_need(context, needy, horizon_s)
    proof = evidence_of(context, need.proof, horizon_s) if need.proof else None
    why = (
        f"{shortage.host.name} will need {shortage.cores:.2f} of {capacity:.2f} cores "
        f"{known_by(horizon_s, proof)}, most of all for {needy.name}; {action.vm} matters least there, "
        f"{action.after} has room"
    )
    used = sum(vm.cores_used for vm in context.world.on_host(shortage.host.name))
    reason = Reason(
        where={"host": shortage.host.name, "vm": needy.name},
        need=shortage.cores,
        available=context.config.cpu.host_headroom * capacity,
        capacity=capacity,
        measured={"cores_used": used},
        forecast=proof,
        promise=HostCoresPromise(host=shortage.host.name, value=capacity, by=context.world.now + horizon_s),
    )
    short_cost = partial(host_short_cost, shortage.host.name)
    return judged(context, action, Cause(why, horizon_s, reason, need.about, refused=refused, short_cost=short_cost))


def best_moves(
    context: PlanningContext,
    shortages: Sequence[Shortage],
    candidates: Mapping[str, Sequence[VmState]],
    search: MoveSearch,
) -> list[PlannedMove]:
    """The cheapest set of moves, least important machines first; [] when nothing helps.

    `candidates` are the machines that may leave each short host. Memory, CPU at every horizon at which a host will be
    short, cordons and ways are kept; hosts that are not short today need not be relieved, and are not made short.
    """
    # numpy and scipy take half a second to import, which most commands need not spend.
    import numpy as np

    from orchestrator.optimise import merged, solve

    guests = [vm for _, vm in sorted(context.world.vms.items()) if vm.host in context.world.hosts]
    problem = _problem(context, guests, shortages, search.horizons_s, _prices(context, shortages, candidates))
    small, unit = merged(problem, np.array(units(guests), dtype=np.int64))
    where = solve(small, search.limit_s).where[unit]
    hosts, by_host = sorted(context.world.hosts), {one.host.name: one for one in shortages}
    moved = [(guests[number], hosts[where[number]]) for number in np.flatnonzero(where != problem.now)]
    moved.sort(key=lambda one: (one[0].priority, one[0].memory.bytes, one[0].name))
    return [PlannedMove(MigrateVm(vm.name, vm.host, after), by_host[vm.host]) for vm, after in moved]


def _problem(
    context: PlanningContext,
    guests: Sequence[VmState],
    shortages: Sequence[Shortage],
    horizons: Sequence[int],
    prices: Mapping[tuple[str, str], float],
) -> "Problem":
    import numpy as np

    from orchestrator.optimise import Problem

    hosts = [one for _, one in sorted(context.world.hosts.items())]
    place = {one.name: number for number, one in enumerate(hosts)}
    now = np.array([place[vm.host] for vm in guests], dtype=np.int64)
    need = np.array([[[context.cores(vm, horizon_s) for vm in guests]] for horizon_s in horizons])
    room = context.config.cpu.host_headroom * np.array([one.cpu_cores_capacity for one in hosts])
    sums = np.array([np.bincount(now, weights=one[0], minlength=len(hosts)) for one in need])
    held = sums.max(axis=0)
    # The optimiser adds up what each machine needs; not all of it is needed at once.
    together = np.array([[context.served(one.name, horizon_s) for one in hosts] for horizon_s in horizons])
    room = room + (sums - together).min(axis=0)
    short = np.isin([one.name for one in hosts], [one.host.name for one in shortages])
    moving = np.full((len(guests), len(hosts)), np.inf)
    moving[np.arange(len(guests)), now] = 0.0
    for number, vm in enumerate(guests):
        for host in hosts:
            moving[number, place[host.name]] = prices.get((vm.name, host.name), moving[number, place[host.name]])
    return Problem(
        need=need,
        capacity=np.where(short, room, np.maximum(room, held))[None, :],
        memory=np.array([float(vm.memory.bytes) for vm in guests]),
        memory_capacity=np.array([float(one.memory_bytes_capacity) for one in hosts]),
        price=np.array([SHORT_TO_MOVE * max(prices.values(), default=1.0)]),
        moving=moving,
        now=now,
        movable=np.isfinite(moving).sum(axis=1) > 1,
        apart=np.array(apart(guests), dtype=np.int64),
        closed=np.zeros(len(hosts), dtype=bool),
    )


def _prices(
    context: PlanningContext, shortages: Sequence[Shortage], candidates: Mapping[str, Sequence[VmState]]
) -> dict[tuple[str, str], float]:
    """(machine, host) -> what that move costs; the more important the machine, and among equals the larger, the dearer.

    Moves that are out of the question are not in it.
    """
    found = {}
    for shortage in shortages:
        own = candidates.get(shortage.host.name, ())
        ranks = sorted({vm.priority for vm in own})
        largest = max((vm.memory.bytes for vm in own), default=1)
        for vm in own:
            # Whoever stays with it is taken to come along: the optimiser moves them as one.
            group = replace(context, together=frozenset(one.name for one in mates(context.world, vm)))
            able = [
                host.name
                for host in context.world.hosts.values()
                if host.name != vm.host and closed_to(group, host, vm, shortage.horizon_s) is None
            ]
            far = {name: detour(context, vm, name, shortage.horizon_s) for name in able}
            farthest = max(far.values(), default=0.0) or 1.0
            for name in able:
                price = 1.0 + ranks.index(vm.priority) + 0.5 * vm.memory.bytes / largest
                found[vm.name, name] = price + NEARNESS * far[name] / farthest
    return found

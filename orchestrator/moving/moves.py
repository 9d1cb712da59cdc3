"""Asks the optimiser which machines should leave short hosts and where to, when there is more than one way to do it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.actions import MigrateVm
from orchestrator.moving.destination import Scene, Shortage, closed_to, detour
from orchestrator.moving.rules import apart, mates, units
from orchestrator.world import VmState

if TYPE_CHECKING:
    from orchestrator.placing import Problem

# A core short weighs so many times the dearest move: shortage comes first, moves are counted second.
SHORT_TO_MOVE = 100.0
TIME_LIMIT_S = 0.3
# What the farthest host costs more than one next to the sources: less than half a rank of importance.
NEARNESS = 0.25


def best_moves(
    scene: Scene, shortages: Sequence[Shortage], candidates: Mapping[str, Sequence[VmState]]
) -> list[tuple[MigrateVm, Shortage]]:
    """The cheapest set of moves, least important machines first; [] when nothing helps.

    `candidates` are the machines that may leave each short host. Memory, CPU at every horizon at which a host will be
    short, cordons and ways are kept; hosts that are not short today need not be relieved, and are not made short.
    """
    # numpy and scipy take half a second to import, which most commands need not spend.
    import numpy as np

    from orchestrator.placing import merged, solve

    guests = [vm for _, vm in sorted(scene.world.vms.items()) if vm.host in scene.world.hosts]
    problem = _problem(scene, guests, shortages, _prices(scene, shortages, candidates))
    small, unit = merged(problem, np.array(units(guests), dtype=np.int64))
    where = solve(small, TIME_LIMIT_S).where[unit]
    hosts, by_host = sorted(scene.world.hosts), {one.host.name: one for one in shortages}
    moved = [(guests[number], hosts[where[number]]) for number in np.flatnonzero(where != problem.now)]
    moved.sort(key=lambda one: (one[0].priority, one[0].memory_bytes, one[0].name))
    return [(MigrateVm(vm.name, vm.host, after), by_host[vm.host]) for vm, after in moved]


def _problem(
    scene: Scene, guests: Sequence[VmState], shortages: Sequence[Shortage], prices: Mapping[tuple[str, str], float]
) -> "Problem":
    import numpy as np

    from orchestrator.placing import Problem

    hosts = [one for _, one in sorted(scene.world.hosts.items())]
    place = {one.name: number for number, one in enumerate(hosts)}
    now = np.array([place[vm.host] for vm in guests], dtype=np.int64)
    horizons = sorted({one.horizon_s for one in shortages})
    need = np.array([[[scene.cores(vm, horizon_s) for vm in guests]] for horizon_s in horizons])
    room = scene.config.host_headroom * np.array([one.cpu_cores_capacity for one in hosts])
    held = np.max([np.bincount(now, weights=one[0], minlength=len(hosts)) for one in need], axis=0)
    short = np.isin([one.name for one in hosts], [one.host.name for one in shortages])
    moving = np.full((len(guests), len(hosts)), np.inf)
    moving[np.arange(len(guests)), now] = 0.0
    for number, vm in enumerate(guests):
        for host in hosts:
            moving[number, place[host.name]] = prices.get((vm.name, host.name), moving[number, place[host.name]])
    return Problem(
        need=need,
        capacity=np.where(short, room, np.maximum(room, held))[None, :],
        memory=np.array([float(vm.memory_bytes) for vm in guests]),
        memory_capacity=np.array([float(one.memory_bytes_capacity) for one in hosts]),
        price=np.array([SHORT_TO_MOVE * max(prices.values(), default=1.0)]),
        moving=moving,
        now=now,
        movable=np.isfinite(moving).sum(axis=1) > 1,
        apart=np.array(apart(guests), dtype=np.int64),
        closed=np.zeros(len(hosts), dtype=bool),
    )


def _prices(
    scene: Scene, shortages: Sequence[Shortage], candidates: Mapping[str, Sequence[VmState]]
) -> dict[tuple[str, str], float]:
    """(machine, host) -> what that move costs; the more important the machine, and among equals the larger, the dearer.

    Moves that are out of the question are not in it.
    """
    found = {}
    for shortage in shortages:
        own = candidates.get(shortage.host.name, ())
        ranks = sorted({vm.priority for vm in own})
        largest = max((vm.memory_bytes for vm in own), default=1)
        for vm in own:
            # Whoever stays with it is taken to come along: the optimiser moves them as one.
            group = replace(scene, together=frozenset(one.name for one in mates(scene.world, vm)))
            able = [
                host.name
                for host in scene.world.hosts.values()
                if host.name != vm.host and closed_to(group, host, vm, shortage.horizon_s) is None
            ]
            far = {name: detour(scene, vm, name, shortage.horizon_s) for name in able}
            farthest = max(far.values(), default=0.0) or 1.0
            for name in able:
                price = 1.0 + ranks.index(vm.priority) + 0.5 * vm.memory_bytes / largest
                found[vm.name, name] = price + NEARNESS * far[name] / farthest
    return found

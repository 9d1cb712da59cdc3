"""Strategy: where a host will run short, move its least important machines to hosts that have room."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.actions import MigrateVm
from orchestrator.config import HostSpec, OrchestratorConfig
from orchestrator.demand import Demand
from orchestrator.needs import vm_need
from orchestrator.steps import Refusal, Step, evidence, foreseen, when
from orchestrator.strategies.destinations import (
    Cause,
    Scene,
    Shortage,
    apart,
    closed_to,
    detour,
    judged,
    lasting_room,
    mates,
    units,
)
from orchestrator.strategies.link_relief import relieve_links
from orchestrator.strategies.rearrange import rearrange
from orchestrator.world import VmState, World, apply

if TYPE_CHECKING:
    from orchestrator.optimise import Problem


def plan_placement(world: World, demand: Demand, config: OrchestratorConfig) -> tuple[list[Step], list[Refusal], World]:
    """Migrations, refusals, and the world that results."""
    scene = Scene(world, demand, config)
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for found in _optimised(scene):
        steps.append(found)
        scene = replace(scene, world=apply(scene.world, found.action))
    # Host by host, what is still short: the only way where there is no choice, and the one that says why not.
    for name in sorted(world.hosts):
        shortage = _shortage(scene, world.hosts[name])
        for one in _relieve(scene, shortage) if shortage else ():
            if isinstance(one, Refusal):
                refusals.append(one)
            else:
                steps.append(one)
                scene = replace(scene, world=apply(scene.world, one.action))
    for decide in (relieve_links, rearrange):
        for one in decide(scene):
            if isinstance(one, Refusal):
                refusals.append(one)
            else:
                steps.append(one)
                scene = replace(scene, world=apply(scene.world, one.action))
    return steps, refusals, scene.world


def _optimised(scene: Scene) -> Iterator[Step]:
    """What the optimiser chooses where there is a choice of machines or of hosts, as far as it stands every check."""
    hosts = (_shortage(scene, host) for _, host in sorted(scene.world.hosts.items()))
    shortages = [one for one in hosts if one is not None]
    candidates = {one.host.name: _candidates(scene, one) for one in shortages}
    count = sum(map(len, candidates.values()))
    if not count or (count == 1 and len(scene.world.hosts) < 3):
        return
    for moves in _units(scene.world, best_moves(scene, shortages, candidates)):
        steps = _all_of(replace(scene, together=frozenset(action.vm for action, _ in moves)), moves)
        yield from steps
        for step in steps:
            scene = replace(scene, world=apply(scene.world, step.action))


Moves = list[tuple[MigrateVm, Shortage]]


def _units(world: World, moves: Moves) -> list[Moves]:
    """Machines that stay together are moved together or not at all."""
    found: dict[tuple[str | None, str], Moves] = {}
    for one in moves:
        spec = world.vms[one[0].vm].spec
        group = spec.affinity if spec else None
        found.setdefault((group, "" if group else one[0].vm), []).append(one)
    return list(found.values())


def _all_of(scene: Scene, moves: Moves) -> list[Step]:
    """Each of these moves as a step, one after the other; [] when one of them does not stand every check."""
    steps: list[Step] = []
    for action, shortage in moves:
        vm, host = scene.world.vms[action.vm], scene.world.hosts[action.after]
        fits = isinstance(lasting_room(scene, host, vm), float)
        found = _judged(scene, action, shortage, []) if fits else None
        if not isinstance(found, Step):
            return []
        steps.append(found)
        scene = replace(scene, world=apply(scene.world, action))
    return steps


def _shortage(scene: Scene, host: HostSpec) -> Shortage | None:
    """The nearest horizon at which the host is short: the further away it shows, the more time is left."""
    config = scene.config
    limit = (config.cpu.host_headroom + config.cpu.host_deadband) * host.cpu_cores_capacity
    for horizon_s in config.horizons_s:
        cores = scene.served(host.name, horizon_s)
        if cores > limit:
            return Shortage(host, horizon_s, cores, _needy(scene, host.name, horizon_s))
    return None


def _needy(scene: Scene, host: str, horizon_s: int) -> VmState:
    def wish(vm: VmState) -> tuple[bool, int, float, str]:
        lack = scene.cores(vm, horizon_s) - vm.cores_used
        return lack > 0, vm.priority, lack, vm.name

    return max(scene.world.on_host(host), key=wish)


def _relieve(scene: Scene, shortage: Shortage) -> Iterator[Step | Refusal]:
    """Moves until the host fits its headroom again or nobody is left who could go."""
    host, horizon_s = shortage.host, shortage.horizon_s
    target = scene.config.cpu.host_headroom * host.cpu_cores_capacity
    candidates = _candidates(scene, shortage)
    if not candidates:
        text = f"{host.name} will be short {when(horizon_s)}, but no movable machine there matters less than "
        yield Refusal(f"relieve {host.name}", text + shortage.needy.name)
    for vm in candidates:
        if scene.served(host.name, horizon_s) <= target:
            return
        found = _move(scene, vm, shortage)
        yield found
        if isinstance(found, Step):
            scene = replace(scene, world=apply(scene.world, found.action))


def _candidates(scene: Scene, shortage: Shortage) -> list[VmState]:
    """Least important first; among equals the one that is cheapest to copy."""
    moving = {one.vm for one in scene.world.in_flight if isinstance(one, MigrateVm)}
    found = [
        vm
        for vm in scene.world.on_host(shortage.host.name)
        if vm.name not in moving and vm.spec is not None and vm.spec.movable and vm.priority < shortage.needy.priority
        if scene.cores(vm, shortage.horizon_s) > 0
    ]
    return sorted(found, key=lambda vm: (vm.priority, vm.memory_bytes, vm.name))


def _move(scene: Scene, vm: VmState, shortage: Shortage) -> Step | Refusal:
    others = [host for host in scene.world.hosts.values() if host.name != shortage.host.name]
    rooms = {host.name: lasting_room(scene, host, vm) for host in others}
    fitting = {name: left for name, left in rooms.items() if isinstance(left, float)}
    refused = [{"action": f"move to {name}", "why_not": left} for name, left in rooms.items() if isinstance(left, str)]
    if not fitting:
        text = "; ".join(one["why_not"] for one in refused) or "there is no other host"
        return Refusal(f"migrate {vm.name} away from {shortage.host.name}", f"no room: {text}")
    near = {name: -detour(scene, vm, name, shortage.horizon_s) for name in fitting}
    destination = max(fitting, key=lambda name: (near[name], fitting[name], name))
    return _judged(scene, MigrateVm(vm.name, shortage.host.name, destination), shortage, refused)


def _judged(scene: Scene, action: MigrateVm, shortage: Shortage, refused: list[dict[str, str]]) -> Step | Refusal:
    """The move as a step, or why it would come too late or not pay."""
    needy, horizon_s, capacity = shortage.needy, shortage.horizon_s, shortage.host.cpu_cores_capacity
    need = vm_need(scene.world, scene.demand, needy, horizon_s)
    proof = evidence(need.leading.connections, horizon_s, scene.config) if need.leading else None
    why = (
        f"{shortage.host.name} will need {shortage.cores:.2f} of {capacity:.2f} cores {when(horizon_s)} "
        f"({foreseen(proof)}), most of all for {needy.name}; {action.vm} matters least there, {action.after} has room"
    )
    used = sum(vm.cores_used for vm in scene.world.on_host(shortage.host.name))
    by = scene.world.now + horizon_s
    reason: dict[str, Any] = {
        "forecast": proof,
        "where": {"host": shortage.host.name, "vm": needy.name},
        "measured": {"cores_used": used},
        "need": shortage.cores,
        "available": scene.config.cpu.host_headroom * capacity,
        "capacity": capacity,
        "promise": {"what": "host_cores_used", "host": shortage.host.name, "value": capacity, "by": by},
    }
    leading = need.leading.pair if need.leading else None
    return judged(scene, action, Cause(why, horizon_s, reason, leading, refused=tuple(refused)))


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

    from orchestrator.optimise import merged, solve

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

    from orchestrator.optimise import Problem

    hosts = [one for _, one in sorted(scene.world.hosts.items())]
    place = {one.name: number for number, one in enumerate(hosts)}
    now = np.array([place[vm.host] for vm in guests], dtype=np.int64)
    horizons = sorted({one.horizon_s for one in shortages})
    need = np.array([[[scene.cores(vm, horizon_s) for vm in guests]] for horizon_s in horizons])
    room = scene.config.cpu.host_headroom * np.array([one.cpu_cores_capacity for one in hosts])
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

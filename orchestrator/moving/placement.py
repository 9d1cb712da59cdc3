"""Strategy: where a host will run short, move its least important machines to hosts that have room."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from orchestrator.actions import MigrateVm
from orchestrator.config import HostSpec, OrchestratorConfig
from orchestrator.demand import NOW, Demand
from orchestrator.moving.departure import Cause, judged
from orchestrator.moving.destination import Scene, Shortage, detour, lasting_room
from orchestrator.moving.link_relief import relieve_links
from orchestrator.moving.moves import best_moves
from orchestrator.moving.rearrange import rearrange
from orchestrator.needs import vm_need
from orchestrator.steps import Refusal, Step, evidence, foreseen, when
from orchestrator.world import VmState, World, apply


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
    horizons = (NOW, *config.horizons_s) if config.policy == "predictive" else (NOW,)
    limit = (config.host_headroom + config.host_deadband) * host.cpu_cores_capacity
    for horizon_s in horizons:
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
    target = scene.config.host_headroom * host.cpu_cores_capacity
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
        "available": scene.config.host_headroom * capacity,
        "capacity": capacity,
        "promise": {"what": "host_cores_used", "host": shortage.host.name, "value": capacity, "by": by},
    }
    leading = need.leading.pair if need.leading else None
    return judged(scene, action, Cause(why, horizon_s, reason, leading, refused=tuple(refused)))

"""Strategy: where a host will run short, move its least important machines to hosts that have room."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from cpdb import Seconds
from orchestrator.actions import MigrateVm
from orchestrator.config import HostSpec, OrchestratorConfig
from orchestrator.demand import NOW, Demand
from orchestrator.destination import Scene, Shortage, copy_of, move_s, room
from orchestrator.moves import best_moves
from orchestrator.needs import too_short, vm_need
from orchestrator.steps import Refusal, Step, evidence, foreseen, on_host, when
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
    return steps, refusals, scene.world


def _optimised(scene: Scene) -> Iterator[Step]:
    """What the optimiser chooses where there is a choice of machines or of hosts, as far as it stands every check."""
    hosts = (_shortage(scene, host) for _, host in sorted(scene.world.hosts.items()))
    shortages = [one for one in hosts if one is not None]
    candidates = {one.host.name: _candidates(scene, one) for one in shortages}
    count = sum(map(len, candidates.values()))
    if not count or (count == 1 and len(scene.world.hosts) < 3):
        return
    for action, shortage in best_moves(scene, shortages, candidates):
        vm, host = scene.world.vms[action.vm], scene.world.hosts[action.after]
        fits = isinstance(room(scene, host, vm, shortage.horizon_s), float)
        found = _judged(scene, action, shortage, []) if fits else None
        if isinstance(found, Step):
            yield found
            scene = replace(scene, world=apply(scene.world, action))


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
    rooms = {host.name: room(scene, host, vm, shortage.horizon_s) for host in others}
    fitting = {name: left for name, left in rooms.items() if isinstance(left, float)}
    refused = [{"action": f"move to {name}", "why_not": left} for name, left in rooms.items() if isinstance(left, str)]
    if not fitting:
        text = "; ".join(one["why_not"] for one in refused) or "there is no other host"
        return Refusal(f"migrate {vm.name} away from {shortage.host.name}", f"no room: {text}")
    destination = max(fitting, key=lambda name: (fitting[name], name))
    return _judged(scene, MigrateVm(vm.name, shortage.host.name, destination), shortage, refused)


def _judged(scene: Scene, action: MigrateVm, shortage: Shortage, refused: list[dict[str, str]]) -> Step | Refusal:
    """The move as a step, or why it would come too late or not pay."""
    subject = f"migrate {action.vm} away from {shortage.host.name}"
    vm, host = scene.world.vms[action.vm], scene.world.hosts[action.after]
    copied = copy_of(scene, host, vm, shortage.horizon_s)
    if isinstance(copied, str):
        return Refusal(subject, copied, action)
    lead_s = move_s(scene, vm, copied)
    if shortage.horizon_s != NOW and lead_s > shortage.horizon_s:
        text = f"too late: it takes up to {lead_s:.1f} s, the shortage is expected {when(shortage.horizon_s)}"
        return Refusal(subject, text, action)
    brief = _too_short(scene, shortage, lead_s)
    if brief is not None:
        return Refusal(subject, brief, action)
    step = _step(scene, action, shortage, lead_s)
    return replace(step, reason={**step.reason, "alternatives": refused, "pre_copy": asdict(copied)})


def _too_short(scene: Scene, shortage: Shortage, lead_s: Seconds) -> str | None:
    """Why a move would not pay: it must be in effect for a while before the need has passed."""
    leading = vm_need(scene.world, scene.demand, shortage.needy, shortage.horizon_s).leading
    if shortage.horizon_s == NOW or leading is None:
        return None
    return too_short(scene.world, leading.pair, ("a move", lead_s), scene.config)


def _step(scene: Scene, action: MigrateVm, shortage: Shortage, lead_s: Seconds) -> Step:
    needy, horizon_s, capacity = shortage.needy, shortage.horizon_s, shortage.host.cpu_cores_capacity
    need = vm_need(scene.world, scene.demand, needy, horizon_s)
    proof = evidence(need.leading.connections, horizon_s, scene.config) if need.leading else None
    why = (
        f"{shortage.host.name} will need {shortage.cores:.2f} of {capacity:.2f} cores {when(horizon_s)} "
        f"({foreseen(proof)}), most of all for {needy.name}; {action.vm} matters least there, {action.after} has room"
    )
    needed_at = scene.world.now + horizon_s
    used = sum(vm.cores_used for vm in scene.world.on_host(shortage.host.name))
    reason: dict[str, Any] = {
        "forecast": proof,
        "where": {"host": shortage.host.name, "vm": needy.name},
        "measured": {"cores_used": used},
        "need": shortage.cores,
        "available": scene.config.host_headroom * capacity,
        "capacity": capacity,
        "circumstances": on_host(scene.world, action.before, scene.world.vms[action.vm].memory_bytes).to_json(),
        "promise": {"what": "host_cores_used", "host": shortage.host.name, "value": capacity, "by": needed_at},
    }
    return Step(action, why, reason, needed_at, lead_s)

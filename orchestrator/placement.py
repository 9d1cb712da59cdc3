"""Strategy: where a host will run short, move its least important machines to hosts that have room."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cpdb import Seconds
from orchestrator.actions import MigrateVm
from orchestrator.config import HostSpec, OrchestratorConfig
from orchestrator.demand import NOW, Demand
from orchestrator.needs import lasting_s, load_served, vm_need
from orchestrator.steps import Refusal, Step, evidence, foreseen, when
from orchestrator.world import VmState, World, apply


@dataclass(frozen=True, slots=True)
class _Scene:
    """What every decision here looks at."""

    world: World
    demand: Demand
    config: OrchestratorConfig

    def cores(self, vm: VmState, horizon_s: int) -> float:
        """What the machine would take if it got what it needs."""
        return load_served(vm, vm_need(self.world, self.demand, vm, horizon_s))

    def served(self, host: str, horizon_s: int) -> float:
        """The same for all machines on a host."""
        return sum(self.cores(vm, horizon_s) for vm in self.world.on_host(host))


@dataclass(frozen=True, slots=True)
class _Shortage:
    """A host whose machines will together need more cores than it has; `needy` is the one that matters most."""

    host: HostSpec
    horizon_s: int
    cores: float
    needy: VmState


def plan_placement(world: World, demand: Demand, config: OrchestratorConfig) -> tuple[list[Step], list[Refusal], World]:
    """Migrations, refusals, and the world that results."""
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for name in sorted(world.hosts):
        scene = _Scene(world, demand, config)
        shortage = _shortage(scene, world.hosts[name])
        for found in _relieve(scene, shortage) if shortage else ():
            if isinstance(found, Refusal):
                refusals.append(found)
            else:
                steps.append(found)
                world = apply(world, found.action)
    return steps, refusals, world


def _shortage(scene: _Scene, host: HostSpec) -> _Shortage | None:
    """The nearest horizon at which the host is short: the further away it shows, the more time is left."""
    config = scene.config
    horizons = (NOW, *config.horizons_s) if config.policy == "predictive" else (NOW,)
    limit = (config.host_headroom + config.host_deadband) * host.cpu_cores_capacity
    for horizon_s in horizons:
        cores = scene.served(host.name, horizon_s)
        if cores > limit:
            return _Shortage(host, horizon_s, cores, _needy(scene, host.name, horizon_s))
    return None


def _needy(scene: _Scene, host: str, horizon_s: int) -> VmState:
    def wish(vm: VmState) -> tuple[bool, int, float, str]:
        lack = scene.cores(vm, horizon_s) - vm.cores_used
        return lack > 0, vm.priority, lack, vm.name

    return max(scene.world.on_host(host), key=wish)


def _relieve(scene: _Scene, shortage: _Shortage) -> Iterator[Step | Refusal]:
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


def _candidates(scene: _Scene, shortage: _Shortage) -> list[VmState]:
    """Least important first; among equals the one that is cheapest to copy."""
    moving = {one.vm for one in scene.world.in_flight if isinstance(one, MigrateVm)}
    found = [
        vm
        for vm in scene.world.on_host(shortage.host.name)
        if vm.name not in moving and vm.spec is not None and vm.spec.movable and vm.priority < shortage.needy.priority
        if scene.cores(vm, shortage.horizon_s) > 0
    ]
    return sorted(found, key=lambda vm: (vm.priority, vm.memory_bytes, vm.name))


def _move(scene: _Scene, vm: VmState, shortage: _Shortage) -> Step | Refusal:
    others = [host for host in scene.world.hosts.values() if host.name != shortage.host.name]
    rooms = {host.name: _room(scene, host, vm, shortage) for host in others}
    fitting = {name: room for name, room in rooms.items() if isinstance(room, float)}
    subject = f"migrate {vm.name} away from {shortage.host.name}"
    refused = [{"action": f"move to {name}", "why_not": room} for name, room in rooms.items() if isinstance(room, str)]
    if not fitting:
        return Refusal(
            subject, "no room: " + ("; ".join(one["why_not"] for one in refused) or "there is no other host")
        )
    destination = max(fitting, key=lambda name: (fitting[name], name))
    action = MigrateVm(vm.name, shortage.host.name, destination)
    lead_s = scene.world.leads.needed(action.kind, scene.config)
    if shortage.horizon_s != NOW and lead_s > shortage.horizon_s:
        text = f"too late: it takes up to {lead_s:.1f} s, the shortage is expected {when(shortage.horizon_s)}"
        return Refusal(subject, text, action)
    too_short = _too_short(scene, shortage, lead_s)
    if too_short is not None:
        return Refusal(subject, too_short, action)
    return _step(scene, action, shortage, refused)


def _too_short(scene: _Scene, shortage: _Shortage, lead_s: Seconds) -> str | None:
    """Why a move would not pay: it must be in effect for a while before the need has passed."""
    leading = vm_need(scene.world, scene.demand, shortage.needy, shortage.horizon_s).leading
    if shortage.horizon_s == NOW or leading is None:
        return None
    lasts_s = lasting_s(scene.world, leading.pair, scene.config)
    least_s = lead_s + scene.config.min_hold_s
    if lasts_s is None or lasts_s >= least_s:
        return None
    longest = max(scene.config.horizons_s)
    return f"too short: about {lasts_s:.1f} s of the need lie within {longest} s, a move pays from {least_s:.1f} s"


def _room(scene: _Scene, host: HostSpec, vm: VmState, shortage: _Shortage) -> float | str:
    """Cores left on `host` with the machine there, or why it cannot go there. Hypervisors do not check this."""
    if host.cordoned:
        return f"{host.name} is cordoned"
    memory = sum(one.memory_bytes for one in scene.world.on_host(host.name)) + vm.memory_bytes
    if memory > host.memory_bytes_capacity:
        return f"{host.name} would need {memory >> 20} of {host.memory_bytes_capacity >> 20} MiB memory"
    left = scene.config.host_headroom * host.cpu_cores_capacity
    left -= scene.cores(vm, shortage.horizon_s) + scene.served(host.name, shortage.horizon_s)
    return left if left >= -1e-9 else f"{host.name} would be {-left:.2f} cores short itself"


def _step(scene: _Scene, action: MigrateVm, shortage: _Shortage, refused: list[dict[str, str]]) -> Step:
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
        "alternatives": refused,
        "promise": {"what": "host_cores_used", "host": shortage.host.name, "value": capacity, "by": needed_at},
    }
    return Step(action, why, reason, needed_at, scene.world.leads.needed(action.kind, scene.config))

"""Strategy: hosts under maintenance are left, who belongs together or apart gets there, and machines follow callers.

Nothing here is urgent: it goes only where there is room at every horizon, and makes no host short.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from cpdb import show_rate
from orchestrator.actions import MigrateVm
from orchestrator.config import NOW
from orchestrator.steps import Refusal, Step
from orchestrator.strategies.destinations import (
    Cause,
    Scene,
    apart,
    closed_to,
    detour,
    groups,
    horizons,
    judged,
    lasting_room,
    rivals_on,
)
from orchestrator.world import VmState, World, apply

TIME_LIMIT_S = 0.3
# A machine follows its callers only where this share of what it costs the network is saved.
SAVED_SHARE = 0.25


def rearrange(scene: Scene) -> Iterator[Step | Refusal]:
    """Moves for which nothing is short, and why others are not made."""
    for decide in (_maintenance, _apart, _together, _follow):
        for found in decide(scene):
            yield found
            if isinstance(found, Step):
                scene = replace(scene, world=apply(scene.world, found.action))


def _movable(world: World, vms: Sequence[VmState]) -> list[VmState]:
    """Those that may move and are not moving, the least important first, then the quickest to copy."""
    moving = {one.vm for one in world.in_flight if isinstance(one, MigrateVm)}
    own = [vm for vm in vms if vm.spec is not None and vm.spec.movable and vm.name not in moving]
    return sorted(own, key=lambda vm: (vm.priority, vm.memory_bytes, vm.name))


def _maintenance(scene: Scene) -> Iterator[Step | Refusal]:
    """The optimiser says where to; what does not stand every check goes where there is most room, or stays."""
    leaving = [
        vm
        for _, host in sorted(scene.world.hosts.items())
        if host.maintenance
        for vm in _movable(scene.world, scene.world.on_host(host.name))
    ]
    if not leaving:
        return
    scene = replace(scene, together=frozenset(vm.name for vm in leaving))
    wanted = _optimised(scene, leaving)
    for vm in leaving:
        hosts = sorted(scene.world.hosts, key=lambda name: (name != wanted.get(vm.name), name))
        found = _best(scene, vm, [name for name in hosts if name != vm.host], wanted.get(vm.name))
        why = f"{vm.host} is under maintenance; {vm.name} may move"
        step = _step(scene, vm, found, why) if not isinstance(found, Refusal) else found
        yield step
        if isinstance(step, Step):
            # Its mates follow it to where it went, or stay.
            rest = scene.together - {vm.name}
            scene = replace(scene, world=apply(scene.world, step.action), together=rest)


def _best(scene: Scene, vm: VmState, hosts: Sequence[str], wished: str | None = None) -> str | Refusal:
    """The wished host if it has room, else the one with most; a refusal with every host's reason."""
    rooms = {name: lasting_room(scene, scene.world.hosts[name], vm) for name in hosts}
    able = {name: left for name, left in rooms.items() if isinstance(left, float)}
    if wished in able:
        return str(wished)
    if able:
        return max(able, key=lambda name: (able[name], name))
    text = "; ".join(str(left) for left in rooms.values()) or "there is no other host"
    return Refusal(f"migrate {vm.name} away from {vm.host}", f"no room: {text}")


def _optimised(scene: Scene, leaving: Sequence[VmState]) -> dict[str, str]:
    """Machine -> host, all at once: least important moves cheapest, near to callers, no host made short."""
    # numpy and scipy take half a second to import, which most cycles need not spend.
    import numpy as np

    from orchestrator.optimise import Problem, solve

    guests = [vm for _, vm in sorted(scene.world.vms.items()) if vm.host in scene.world.hosts]
    hosts = [one for _, one in sorted(scene.world.hosts.items())]
    place = {one.name: number for number, one in enumerate(hosts)}
    now = np.array([place[vm.host] for vm in guests], dtype=np.int64)
    need = np.array([[[scene.cores(vm, horizon_s) for vm in guests]] for horizon_s in horizons(scene.config)])
    free = scene.config.cpu.host_headroom * np.array([one.cpu_cores_capacity for one in hosts])
    held = np.max([np.bincount(now, weights=one[0], minlength=len(hosts)) for one in need], axis=0)
    names = {vm.name for vm in leaving}
    moving = np.full((len(guests), len(hosts)), np.inf)
    moving[np.arange(len(guests)), now] = 0.0
    for number, vm in enumerate(guests):
        far = {one.name: detour(scene, vm, one.name, NOW) for one in hosts} if vm.name in names else {}
        farthest = max(far.values(), default=0.0) or 1.0
        for one in hosts if vm.name in names else ():
            if one.name != vm.host and closed_to(scene, one, vm, NOW) is None:
                moving[number, place[one.name]] = 1.0 + vm.priority / 100.0 + far[one.name] / farthest
    problem = Problem(
        need=need,
        capacity=np.maximum(free, held)[None, :],
        memory=np.array([float(vm.memory_bytes) for vm in guests]),
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


def _apart(scene: Scene) -> Iterator[Step | Refusal]:
    """Of machines that should not share a host, the least important that may move goes."""
    for _, host in sorted(scene.world.hosts.items()):
        for vm in _movable(scene.world, scene.world.on_host(host.name)):
            here = scene.world.vms[vm.name]
            rivals = rivals_on(scene.world, here.host, here)
            if not rivals:
                continue
            found = _best(scene, here, [name for name in sorted(scene.world.hosts) if name != here.host])
            why = f"{vm.name} should not share {here.host} with {rivals[0].name}"
            step = found if isinstance(found, Refusal) else _step(scene, here, found, why)
            yield step
            if isinstance(step, Step):
                scene = replace(scene, world=apply(scene.world, step.action))


def _together(scene: Scene) -> Iterator[Step | Refusal]:
    """A group that is scattered meets where those are that cannot move, else where most of its memory is."""
    for name, own in groups(scene.world.vms.values()).items():
        homes = sorted({vm.host for vm in own if vm.host in scene.world.hosts})
        if len(homes) < 2:
            continue
        able = {vm.name for vm in _movable(scene.world, own)}
        weights = {
            home: (sum(vm.name not in able for vm in own if vm.host == home),
                   sum(vm.memory_bytes for vm in own if vm.host == home))
            for home in homes if not scene.world.hosts[home].closed
        }  # fmt: skip
        meeting = max(weights, key=lambda home: (weights[home], home), default=None)
        for vm in _movable(scene.world, [one for one in own if one.host != meeting]) if meeting else ():
            group = replace(scene, together=frozenset(one.name for one in own))
            found = _best(group, vm, [str(meeting)])
            why = f"{vm.name} belongs together with the others of {name} on {meeting}"
            step = found if isinstance(found, Refusal) else _step(group, vm, found, why)
            yield step
            if isinstance(step, Step):
                scene = replace(scene, world=apply(scene.world, step.action))


def _follow(scene: Scene) -> Iterator[Step | Refusal]:
    """Machines go nearer to those who call them now and as foreseen, where that was asked for."""
    if not scene.config.moves.follow_sources:
        return
    for vm in _movable(scene.world, list(scene.world.vms.values())):
        if vm.host not in scene.world.hosts:
            continue
        saved = {name: _saved(scene, vm, name) for name in sorted(scene.world.hosts) if name != vm.host}
        nearer = [name for name, (least, now) in saved.items() if now > 0 and least >= SAVED_SHARE * now]
        able = [name for name in nearer if isinstance(lasting_room(scene, scene.world.hosts[name], vm), float)]
        if not able:
            continue
        best = max(able, key=lambda name: (saved[name][0], name))
        why = (
            f"{vm.name} is nearer to its callers on {best}: {show_rate(saved[best][0])} less on links, summed over them"
        )
        found = _step(scene, vm, best, why)
        yield found
        if isinstance(found, Step):
            scene = replace(scene, world=apply(scene.world, found.action))


def _saved(scene: Scene, vm: VmState, host: str) -> tuple[float, float]:
    """(What is saved at the horizon that saves least, what it costs there today), in bytes/s times links."""
    found = []
    for horizon_s in horizons(scene.config):
        now, there = detour(scene, vm, vm.host, horizon_s), detour(scene, vm, host, horizon_s)
        # No way known costs nothing, which must not look near.
        found.append((now - there if there > 0 else 0.0, now))
    return min(found)


def _step(scene: Scene, vm: VmState, host: str, why: str) -> Step | Refusal:
    now = scene.world.now
    reason: dict[str, Any] = {
        "forecast": None,
        "where": {"host": vm.host, "vm": vm.name},
        "measured": {"cores_used": vm.cores_used},
        "promise": {"what": "vm_on_host", "vm": vm.name, "host": host, "by": now},
    }
    return judged(scene, MigrateVm(vm.name, vm.host, host), Cause(why, NOW, reason, urgent=False))

"""Strategy: where a link will run short, move the less important machines behind it to where their pairs take another.

The fast lane keeps the important pairs whole by limiting the others; a move leaves nobody limited, where there is time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cpdb import show_rate
from orchestrator.actions import MigrateVm
from orchestrator.demand import PairDemand, together
from orchestrator.needs import needed_on
from orchestrator.steps import Refusal, Step, evidence, foreseen, when
from orchestrator.strategies.destinations import Cause, Scene, detour, judged, lasting_room
from orchestrator.world import LinkKey, LinkState, VmState, World, apply


@dataclass(frozen=True, slots=True)
class _Short:
    """A link that will have to carry more than it should; `leader` needs most of those that matter most."""

    link: LinkState
    capacity: float
    horizon_s: int
    needed: float
    leader: PairDemand
    priority: int


def relieve_links(scene: Scene) -> Iterator[Step | Refusal]:
    """Moves, link by link, until each fits its headroom or nobody is left who could go."""
    for key in sorted(_loaded(scene)):
        short = _short(scene, scene.world.links[key])
        for found in _relieve(scene, short) if short else ():
            yield found
            if isinstance(found, Step):
                scene = replace(scene, world=_rerouted(scene, found))


def _loaded(scene: Scene) -> set[LinkKey]:
    """The links over which a machine that may move is called: about others nothing could be done here."""
    movable = (vm for vm in scene.world.vms.values() if vm.spec is not None and vm.spec.movable)
    keys = {key for vm in movable for one in scene.world.pairs_to(vm.name) for key in one.links}
    return keys & set(scene.world.links)


def _short(scene: Scene, link: LinkState) -> _Short | None:
    """The nearest horizon at which the link is short."""
    config, world = scene.config, scene.world
    states = [one for one in world.pairs.values() if link.key in one.links]
    if not states or not link.capacity_bytes_per_s:
        return None
    for horizon_s in config.horizons_s:
        needed = needed_on(world, scene.demand, link, horizon_s)
        if needed > config.bandwidth.trigger * link.capacity_bytes_per_s:
            priority = max(one.priority for one in states)
            first = sorted((one.pair for one in states if one.priority == priority), key=str)
            leader = max(scene.demand.at(horizon_s, first), key=lambda one: one.bytes.need)
            return _Short(link, link.capacity_bytes_per_s, horizon_s, needed, leader, priority)
    return None


def _relieve(scene: Scene, short: _Short) -> Iterator[Step | Refusal]:
    target = scene.config.bandwidth.headroom * short.capacity
    for vm in _candidates(scene, short):
        if _needed(scene, short) <= target:
            return
        found = _move(scene, vm, short)
        yield found
        if isinstance(found, Step):
            scene = replace(scene, world=_rerouted(scene, found))


def _candidates(scene: Scene, short: _Short) -> list[VmState]:
    """Less important than the link's leader and loading the link: the least important first, then who loads it most."""
    moving = {one.vm for one in scene.world.in_flight if isinstance(one, MigrateVm)}
    found = [
        vm
        for vm in scene.world.vms.values()
        if vm.spec is not None and vm.spec.movable and vm.priority < short.priority
        if vm.name not in moving and vm.host in scene.world.hosts
        if _brings(scene, vm, short) >= scene.config.bandwidth.floor * short.capacity
    ]
    return sorted(found, key=lambda vm: (vm.priority, -_brings(scene, vm, short), vm.name))


def _brings(scene: Scene, vm: VmState, short: _Short) -> float:
    """Bytes/s that the machine's pairs bring to the link."""
    own = [one.pair for one in scene.world.pairs_to(vm.name) if short.link.key in one.links]
    return together(one.bytes for one in scene.demand.at(short.horizon_s, own)) if own else 0.0


def _needed(scene: Scene, short: _Short) -> float:
    """What the link would carry now that some have left it."""
    return needed_on(scene.world, scene.demand, scene.world.links[short.link.key], short.horizon_s)


def _rerouted(scene: Scene, step: Step) -> World:
    """The world after a move, with the pairs of the machine on their new ways and off the links they leave."""
    world, action = scene.world, step.action
    if not isinstance(action, MigrateVm):
        return world
    pairs, links = dict(world.pairs), dict(world.links)
    for one in world.pairs_to(action.vm):
        way = world.ways(one.pair.source, action.after)
        for key in set(one.links) - set(way) if way else ():
            if key in links:
                rest = max(0.0, links[key].bytes_per_s - one.bytes_per_s)
                links[key] = replace(links[key], bytes_per_s=rest)
        pairs[one.pair] = replace(one, links=way or one.links)
    return replace(apply(world, action), pairs=pairs, links=links)


def _move(scene: Scene, vm: VmState, short: _Short) -> Step | Refusal:
    subject = f"migrate {vm.name} to relieve {short.link.name}"
    refused, fitting = [], {}
    for name, host in sorted(scene.world.hosts.items()):
        if name != vm.host:
            found = _stays(scene, vm, name, short) or lasting_room(scene, host, vm)
            if isinstance(found, str):
                refused.append({"action": f"move to {name}", "why_not": found})
            else:
                fitting[name] = found
    if not fitting:
        text = "; ".join(one["why_not"] for one in refused) or "there is no other host"
        return Refusal(subject, f"no room: {text}")
    best = min(fitting, key=lambda name: (detour(scene, vm, name, short.horizon_s), -fitting[name], name))
    action = MigrateVm(vm.name, vm.host, best)
    cause = Cause(
        _why(scene, vm, short, best), short.horizon_s, _reason(scene, vm, short), short.leader.pair,
        refused=tuple(refused),
    )  # fmt: skip
    return judged(scene, action, cause)


def _stays(scene: Scene, vm: VmState, host: str, short: _Short) -> str | None:
    """Why a move there would not take its pairs off the link."""
    for one in scene.world.pairs_to(vm.name):
        if short.link.key in one.links:
            way = scene.world.ways(one.pair.source, host)
            if not way:
                return f"no way from {one.pair.source} to {host} is known"
            if short.link.key in way:
                return f"{one.pair} would still go over {short.link.name}"
    return None


def _why(scene: Scene, vm: VmState, short: _Short, best: str) -> str:
    proof = evidence(short.leader.bytes, short.horizon_s, scene.config)
    return (
        f"{short.link.name} will have to carry {show_rate(short.needed)} of {show_rate(short.capacity)} "
        f"{when(short.horizon_s)} ({foreseen(proof)}), most of all for {short.leader.pair}; {vm.name} brings "
        f"{show_rate(_brings(scene, vm, short))} of it and matters less, on {best} it is out of the way"
    )


def _reason(scene: Scene, vm: VmState, short: _Short) -> dict[str, Any]:
    by = scene.world.now + short.horizon_s
    return {
        "forecast": evidence(short.leader.bytes, short.horizon_s, scene.config),
        "where": {"link": short.link.name, "vm": vm.name},
        "measured": {"bytes_per_s": short.link.bytes_per_s},
        "need": short.needed,
        "available": scene.config.bandwidth.headroom * short.capacity,
        "capacity": short.capacity,
        "promise": {"what": "link_bytes_per_s", "link": short.link.name, "value": short.capacity, "by": by},
    }

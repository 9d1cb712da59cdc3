"""Reads from the loads of the last seconds how each machine is: what it uses, whether it is starved or long calm."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from cpdb import Seconds, VirtualIp, VmLoad
from orchestrator.config import CpuSettings, OrchestratorConfig
from orchestrator.declared import VmSpec
from orchestrator.observe.learn import Learnt
from orchestrator.relations import CpuRelation, MemoryRelation
from orchestrator.world import MemoryState, VmState

# What was learnt elsewhere is less certain here.
WIDER = 2.0


class Counted(Protocol):
    """Something learnt, and from how many samples."""

    @property
    def samples(self) -> int:
        """How many."""


Relation = TypeVar("Relation", bound=Counted)


def cpu_relations(vm: str, learnt: Learnt, services: Iterable[VirtualIp]) -> tuple[CpuRelation, ...]:
    """The machine's own relations, or those of the peer that knows most, with a wider spread; () when nobody knows."""
    known, peer = _nearest(vm, learnt.relations, services)
    if peer is None:
        return known
    return tuple(replace(one, spread_cores=WIDER * one.spread_cores, peer=peer) for one in known)


def memory_relations(vm: str, learnt: Learnt, services: Iterable[VirtualIp]) -> tuple[MemoryRelation, ...]:
    """The same for memory."""
    known, peer = _nearest(vm, learnt.memory, services)
    if peer is None:
        return known
    return tuple(replace(one, spread_bytes=WIDER * one.spread_bytes, peer=peer) for one in known)


def _nearest(
    vm: str, learnt: Mapping[str, tuple[Relation, ...]], services: Iterable[VirtualIp]
) -> tuple[tuple[Relation, ...], str | None]:
    """What the machine itself has learnt (None), or what a peer has, and that peer."""
    own = learnt.get(vm, ())
    if own:
        return own, None
    peer = _best(vm, {name: sum(one.samples for one in known) for name, known in learnt.items()}, services)
    return learnt.get(peer or "", ()), peer


def _best(vm: str, samples: Mapping[str, int], services: Iterable[VirtualIp]) -> str | None:
    found = {
        one.name
        for service in services
        if any(one.name == vm for one in service.destinations)
        for one in service.destinations
        if one.name != vm and samples.get(one.name, 0) > 0
    }
    return max(found, key=lambda name: (samples[name], name), default=None)


RUNNING = "running"
RECENT_S = 3.0
TYPICAL_S = 12.0
STARVED_S = 5.0
STARVED_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What machines are judged by besides their loads."""

    learnt: Learnt
    services: tuple[VirtualIp, ...]
    config: OrchestratorConfig


def vm_states(now: Seconds, loads: Iterable[VmLoad], known: MachineFacts) -> dict[str, VmState]:
    """The machines by name, from loads of about the last `TYPICAL_S` seconds, oldest first."""
    by_vm: dict[str, list[VmLoad]] = defaultdict(list)
    for one in loads:
        by_vm[one.vm].append(one)
    newest = max((own[-1].t for own in by_vm.values()), default=now)
    # A machine that was not in the newest answers is gone, or its host is; one that was stopped is told as such.
    alive = {
        name: [one for one in own if one.state == RUNNING]
        for name, own in by_vm.items()
        if own[-1].t >= newest - RECENT_S and own[-1].state == RUNNING
    }
    return {name: _vm(now, own, known) for name, own in alive.items()}


def _vm(now: Seconds, loads: Sequence[VmLoad], known: MachineFacts) -> VmState:
    last = loads[-1]
    spec = known.config.declared.vm(last.vm)
    recent = [one for one in loads if one.t > now - RECENT_S] or [last]
    return VmState(
        name=last.vm,
        host=last.host,
        cores_used=_mean_used(recent),
        cores_limit=last.cpu_cores_limit,
        vcpus=last.vcpus,
        memory=MemoryState(
            last.memory_bytes_limit,
            used_bytes=_memory_used(loads),
            dirty_bytes_per_s=last.dirty_bytes_per_s,
            relations=memory_relations(last.vm, known.learnt, known.services),
            calm=_memory_calm(now, loads, known.config),
        ),
        spec=spec,
        relations=cpu_relations(last.vm, known.learnt, known.services),
        calm=spec is not None and _calm(now, loads, spec, known.config.cpu.calm_s, known.config.cpu),
        lately_calm=spec is not None and _calm(now, loads, spec, known.config.cpu.calm_foreseen_s, known.config.cpu),
        starved=_starved(now, loads),
        seen_at=last.t,
    )


def _calm(now: Seconds, loads: Sequence[VmLoad], spec: VmSpec, calm_s: Seconds, settings: CpuSettings) -> bool:
    """For so long well below the everyday limit on average, and not rising: single seconds may exceed it by chance."""
    recent = [one for one in loads if one.t > now - RECENT_S] or loads[-1:]
    window = _window(now, loads, calm_s)
    quiet = bool(window) and _mean_used(window) < settings.calm_share * spec.cpu_cores_min
    return quiet and _mean_used(recent) < settings.headroom * spec.cpu_cores_min


def _window(now: Seconds, loads: Sequence[VmLoad], calm_s: Seconds) -> Sequence[VmLoad]:
    """The loads by which calm is judged; none when they do not reach back far enough."""
    window = [one for one in loads if one.t > now - calm_s - 1]
    return window if window and window[-1].t - window[0].t >= 0.8 * calm_s else ()


def _mean_used(loads: Sequence[VmLoad]) -> float:
    return sum(one.cpu_cores_used for one in loads) / len(loads)


def _starved(now: Seconds, loads: Sequence[VmLoad]) -> bool:
    window = [one for one in loads if one.t > now - STARVED_S]
    limit = sum(one.cpu_cores_limit for one in window)
    return len(window) >= 3 and limit > 0 and sum(one.cpu_cores_used for one in window) >= STARVED_SHARE * limit


def _memory_used(loads: Sequence[VmLoad]) -> int | None:
    """The most that was used; a guest that seems to use everything all the time does not tell what it uses."""
    told = any(one.memory_bytes_used < one.memory_bytes_limit for one in loads)
    return max(one.memory_bytes_used for one in loads) if told else None


def _memory_calm(now: Seconds, loads: Sequence[VmLoad], config: OrchestratorConfig) -> bool:
    window = _window(now, loads, config.cpu.calm_s)
    return bool(window) and all(
        one.memory_bytes_used < config.cpu.calm_share * one.memory_bytes_limit for one in window
    )

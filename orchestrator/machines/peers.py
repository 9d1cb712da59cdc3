"""Lends a machine without a history what its service's other machines have learnt: they do the same work."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from cpdb import VirtualIp
from orchestrator.learn import Learnt
from orchestrator.relation import CpuRelation, MemoryRelation

# What was learnt elsewhere is less certain here.
WIDER = 2.0


class Counted(Protocol):
    """Something learnt, and from how many samples."""

    @property
    def samples(self) -> int:
        """How many."""


Known = TypeVar("Known", bound=Counted)


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
    vm: str, learnt: Mapping[str, tuple[Known, ...]], services: Iterable[VirtualIp]
) -> tuple[tuple[Known, ...], str | None]:
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

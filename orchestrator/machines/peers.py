"""Lends a machine without a history what its service's other machines have learnt: they do the same work."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cpdb import VirtualIP
from orchestrator.learn import Learnt
from orchestrator.relation import CpuRelation, MemoryRelation

# What was learnt elsewhere is less certain here.
WIDER = 2.0


def cpu_relations(vm: str, learnt: Learnt, services: Iterable[VirtualIP]) -> tuple[CpuRelation, ...]:
    """The machine's own relations, or those of the peer that knows most, with a wider spread; () when nobody knows."""
    own = learnt.relations.get(vm, ())
    if own:
        return own
    peer = _best(vm, {name: sum(one.samples for one in known) for name, known in learnt.relations.items()}, services)
    lent = learnt.relations.get(peer or "", ())
    return tuple(replace(one, spread_cores=WIDER * one.spread_cores, peer=peer) for one in lent)


def memory_relations(vm: str, learnt: Learnt, services: Iterable[VirtualIP]) -> tuple[MemoryRelation, ...]:
    """The same for memory."""
    own = learnt.memory.get(vm, ())
    if own:
        return own
    peer = _best(vm, {name: sum(one.samples for one in known) for name, known in learnt.memory.items()}, services)
    lent = learnt.memory.get(peer or "", ())
    return tuple(replace(one, spread_bytes=WIDER * one.spread_bytes, peer=peer) for one in lent)


def _best(vm: str, samples: Mapping[str, int], services: Iterable[VirtualIP]) -> str | None:
    found = {
        one.name
        for service in services
        if any(one.name == vm for one in service.destinations)
        for one in service.destinations
        if one.name != vm and samples.get(one.name, 0) > 0
    }
    return max(found, key=lambda name: (samples[name], name), default=None)

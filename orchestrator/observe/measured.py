"""Reads from the loads of the last seconds how each machine is: what it uses, whether it is starved or long calm."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from cpdb import Forecast, Seconds, VirtualIp
from orchestrator.config import CpuSettings, OrchestratorConfig
from orchestrator.declared import VmSpec
from orchestrator.foreseen import Cell
from orchestrator.observe.learn import Learnt
from orchestrator.observe.window import Bools, Floats, Ints, LoadRows, MachineWindow, sum_by
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


def cpu_relations(learnt: Learnt, services: Sequence[VirtualIp]) -> dict[str, tuple[CpuRelation, ...]]:
    """Each machine's own relations, or those of the peer that knows most, with a wider spread."""
    found: dict[str, tuple[CpuRelation, ...]] | None = _lent(learnt, "cpu", services)
    if found is not None:
        return found
    found = dict(learnt.relations)
    for vm, peer in _peers(learnt.relations, services).items():
        known = learnt.relations[peer]
        found[vm] = tuple(replace(one, spread_cores=WIDER * one.spread_cores, peer=peer) for one in known)
    learnt.lent["cpu"] = services, found
    return found


def memory_relations(learnt: Learnt, services: Sequence[VirtualIp]) -> dict[str, tuple[MemoryRelation, ...]]:
    """The same for memory."""
    found: dict[str, tuple[MemoryRelation, ...]] | None = _lent(learnt, "memory", services)
    if found is not None:
        return found
    found = dict(learnt.memory)
    for vm, peer in _peers(learnt.memory, services).items():
        known = learnt.memory[peer]
        found[vm] = tuple(replace(one, spread_bytes=WIDER * one.spread_bytes, peer=peer) for one in known)
    learnt.lent["memory"] = services, found
    return found


def _lent(learnt: Learnt, kind: str, services: Sequence[VirtualIp]) -> Any:
    """What was found for the same services; None when they are others."""
    before, found = learnt.lent.get(kind, (None, None))
    return found if before == services else None


def _peers(learnt: Mapping[str, tuple[Relation, ...]], services: Iterable[VirtualIp]) -> dict[str, str]:
    """Machines that have learnt nothing themselves, and of those that serve with them the one that knows most."""
    samples = {name: sum(one.samples for one in known) for name, known in learnt.items() if known}
    found: dict[str, str] = {}
    for service in services:
        able = [one.name for one in service.destinations if one.name in samples]
        best = max(able, key=lambda name: (samples[name], name), default=None)
        for one in service.destinations if best is not None else ():
            if one.name not in samples and best is not None:
                found[one.name] = max(found.get(one.name, best), best, key=lambda name: (samples[name], name))
    return found


RECENT_S = 3.0
TYPICAL_S = 12.0
STARVED_S = 5.0
STARVED_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What machines are judged by besides their loads."""

    relations: Mapping[str, tuple[CpuRelation, ...]]
    memory: Mapping[str, tuple[MemoryRelation, ...]]
    config: OrchestratorConfig
    beside: Mapping[str, Mapping[Cell, Forecast]] = field(default_factory=dict)


class _Loads:
    """Rows of machines by number, oldest first; everything told of a machine is an array by its number."""

    def __init__(self, rows: LoadRows, count: int) -> None:
        self.rows, self.count = rows, count
        self.vm = rows["vm"].astype(np.int64)
        self.last = self._row_of(np.arange(len(rows)))
        self.first = self._row_of(np.arange(len(rows))[::-1])

    def _row_of(self, order: Ints) -> Ints:
        found = np.full(self.count, -1)
        found[self.vm[order]] = order  # of several the one written last stands
        return found

    def where(self, which: Bools) -> "_Loads":
        """These rows alone."""
        return _Loads(self.rows[which], self.count)

    def after(self, since: Seconds) -> "_Loads":
        """What was measured later."""
        return self.where(self.rows["t"] > since)

    def sums(self, name: str) -> Floats:
        """By machine."""
        return sum_by(self.vm, self.rows[name], self.count)

    @property
    def seen(self) -> Ints:
        """Rows by machine."""
        return np.bincount(self.vm, minlength=self.count)

    def means(self, name: str, otherwise: Floats) -> Floats:
        """By machine; where nothing was measured, `otherwise`."""
        return np.where(self.seen > 0, self.sums(name) / np.maximum(1, self.seen), otherwise)

    def reach_back(self, least_s: Seconds) -> Bools:
        """Whether there are rows, so far apart."""
        if not len(self.rows):
            return np.zeros(self.count, dtype=np.bool_)
        t = self.rows["t"]
        found: Bools = (self.last >= 0) & (t[self.last] - t[self.first] >= least_s)
        return found

    def most(self, name: str) -> Ints:
        """The largest value by machine."""
        found = np.zeros(self.count, dtype=np.int64)
        np.maximum.at(found, self.vm, self.rows[name])
        return found


def vm_states(now: Seconds, rows: LoadRows, window: MachineWindow, known: MachineFacts) -> dict[str, VmState]:
    """The machines by name, from loads of about the last `TYPICAL_S` seconds, oldest first."""
    if not len(rows):
        return {}
    every = _Loads(rows, len(window.names))
    newest = rows[every.last]
    # A machine that was not in the newest answers is gone, or its host is; one that was stopped is told as such.
    alive = (every.last >= 0) & (newest["t"] >= rows["t"].max() - RECENT_S) & newest["running"]
    if not alive.any():
        return {}
    specs = [known.config.declared.vm(name) for name in window.names]
    told = _told(now, every.where(rows["running"] & alive[every.vm]), specs, known.config.cpu)
    names = [name for name, number in window.names.items() if alive[number]]
    columns = (column[alive].tolist() for column in (newest["host"], newest["limit"], newest["vcpus"], newest["t"]))
    lines = zip(names, *columns, *(column[alive].tolist() for column in told), strict=True)
    dirty = dict(zip(names, newest["dirty"][alive].tolist(), strict=True))
    limits = dict(zip(names, newest["memory_limit"][alive].tolist(), strict=True))
    return {
        name: VmState(
            name,
            window.hosts[host],
            used,
            limit,
            vcpus,
            MemoryState(
                limits[name],
                memory_used if memory_told else None,
                None if isnan(dirty[name]) else dirty[name],
                known.memory.get(name, ()),
                memory_calm,
            ),
            specs[window.names[name]],
            known.relations.get(name, ()),
            calm,
            starved,
            t,
            known.beside.get(name, {}),
        )
        for name, host, limit, vcpus, t, used, calm, starved, memory_used, memory_told, memory_calm in lines
    }


class _Told(NamedTuple):
    """By machine: cores lately used, whether it is calm and starved; the same of memory, if it tells."""

    used: Floats
    calm: Bools
    starved: Bools
    memory_used: Ints
    memory_told: Bools
    memory_calm: Bools


def _told(now: Seconds, own: _Loads, specs: Sequence[VmSpec | None], settings: CpuSettings) -> _Told:
    last = own.rows[own.last]
    used = own.after(now - RECENT_S).means("used", last["used"])
    least = np.array([-np.inf if one is None else one.cpu_cores_min for one in specs])
    # Well below the everyday limit on average, and not rising: single seconds may exceed it by chance.
    rising = used >= settings.headroom * least
    long = own.after(now - settings.calm_s - 1)
    calm = ~rising & long.reach_back(0.8 * settings.calm_s) & (long.means("used", used) < settings.calm_share * least)
    lately_own = own.after(now - STARVED_S)
    limit = lately_own.sums("limit")
    starved = (lately_own.seen >= 3) & (limit > 0) & (lately_own.sums("used") >= STARVED_SHARE * limit)
    full = long.rows["memory_used"] >= settings.calm_share * long.rows["memory_limit"]
    # A guest that seems to use everything all the time does not tell what it uses.
    tells = own.where(own.rows["memory_used"] < own.rows["memory_limit"]).seen > 0
    roomy = long.reach_back(0.8 * settings.calm_s) & (long.where(full).seen == 0)
    return _Told(used, calm, starved, own.most("memory_used"), tells, roomy)

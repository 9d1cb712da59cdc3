"""Rows as tests write them, in the arrays that the looking side learns from."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from cpdb import Communication, FlowKey, LinkLoad, StoredBatch, VmLoad
from cpdb.telemetry.batches import as_batches
from orchestrator import OrchestratorConfig, VmState
from orchestrator.observe.learn import Past
from orchestrator.observe.measured import MachineFacts, vm_states
from orchestrator.observe.window import FlowNames, LinkWindow, MachineWindow, Traffic
from orchestrator.relations import CpuRelation, MemoryRelation, Samples, fit_all, fit_memory

LONG_S = 1e6


@dataclass(frozen=True)
class LoadSample:
    """One moment of one machine."""

    x: float
    used: float
    limit: float


def traffic_of(rows: Sequence[Communication]) -> Traffic:
    names, numbers = FlowNames(), dict[FlowKey, int]()
    batches = []
    for n, one in enumerate(sorted(as_batches(rows), key=lambda one: one.t), 1):
        keys = np.array([numbers.setdefault(key, len(numbers)) for key in one.flow_keys], dtype=np.uint32)
        names.observers.setdefault(one.observer, 0)
        columns = (memoryview(keys), *map(memoryview, (one.bytes, one.packets, one.connections)))
        batches.append(StoredBatch(n, one.observer, one.t, one.interval_s, *columns, None, None, False))
    names.learn({number: key for key, number in numbers.items()}, len(numbers) - 1)
    return Traffic.of(batches, names)


def window_of(loads: Iterable[VmLoad]) -> MachineWindow:
    window = MachineWindow(LONG_S)
    window.take([(n, *astuple(one)) for n, one in enumerate(loads, 1)])
    return window


def past(
    rows: Sequence[Communication], loads: Iterable[VmLoad] = (), links: Iterable[LinkLoad] = (), **more: Any
) -> Past:
    carried = LinkWindow(LONG_S)
    carried.take([(n, *astuple(one)) for n, one in enumerate(links, 1)])
    machines = window_of(loads)
    return Past(
        traffic_of(rows), machines.between(0, LONG_S), carried.between(0, LONG_S), machines.names, carried.names, **more
    )


def states_of(now: float, loads: Sequence[VmLoad], config: OrchestratorConfig) -> dict[str, VmState]:
    window = window_of(loads)
    return vm_states(now, window.between(0, LONG_S), window, MachineFacts({}, {}, config))


def _samples(found: Sequence[LoadSample]) -> Samples:
    x, used, limit = np.array([[one.x, one.used, one.limit] for one in found], dtype=np.float64).T[:, None]
    return Samples(x, used, limit, np.ones(x.shape, dtype=np.bool_))


def fit(feature: str, found: Sequence[LoadSample]) -> CpuRelation | None:
    return fit_all(feature, _samples(found))[0]


def fit_bytes(feature: str, found: Sequence[LoadSample]) -> MemoryRelation | None:
    return fit_memory(feature, _samples(found))[0]

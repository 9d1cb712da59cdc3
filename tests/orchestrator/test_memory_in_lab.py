"""A real guest gives back the memory that it does not use, and gets it again when it does."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from failing_hosts import FailingHosts

from cpdb import Communication, OutcomeKind, Store, VmLoad, open_store
from forepath.demo.layout import LabVm
from orchestrator import LibvirtHypervisors, Orchestrator, OrchestratorConfig, VmSpec

pytestmark = pytest.mark.vm
MIB = 1 << 20
GUESTS = (LabVm("web", "hA", "10.77.0.51", "52:54:00:77:00:33", 0.8),)
SPEC = VmSpec("web", 10, 0.8, 0.8, memory_bytes_min=64 * MIB, memory_bytes_max=128 * MIB)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[FailingHosts]:
    with FailingHosts(tmp_path, GUESTS) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path}/cpdb.db")
    yield made
    made.close()


def sizes(store: Store) -> list[tuple[int, int]]:
    """(from, to) in MiB of every change of memory that was carried out, oldest first."""
    rows = [one for one in store.journal.actions() if one.kind == "set_memory" and one.outcome is OutcomeKind.DONE]
    return [(one.body["from"] // MIB, one.body["to"] // MIB) for one in reversed(rows)]


def seen(store: Store) -> list[tuple[int, int]]:
    """(used, had) in MiB, oldest first."""
    return [(one.memory_bytes_used // MIB, one.memory_bytes_limit // MIB) for one in store.facts.loads(VmLoad, 0.0)]


def cycles(orchestrator: Orchestrator, store: Store, until: Callable[[], bool], limit_s: float = 40.0) -> None:
    """One cycle a second, with some talk so that the facts are fresh, until it is so."""
    end = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < end, seen(store)[-20:]
        now = time.time()
        store.facts.add_communications([Communication("c1", "10.77.0.101", "web", now, 1.0, 1000, 2, 1)])
        orchestrator.observe(now)
        orchestrator.cycle(now)
        time.sleep(1.0)


def test_what_is_not_used_goes_back_and_returns_when_it_is(hosts: FailingHosts, store: Store) -> None:
    config = OrchestratorConfig(
        act=True, policy="reactive", declared={"hosts": tuple(hosts.specs()), "vms": (SPEC,)}, cpu={"calm_s": 4.0}
    )
    hypervisors = LibvirtHypervisors(config.declared.hosts, vms=config.declared.vms)
    orchestrator = Orchestrator(config, store, hypervisors, lambda _source, _end: ())
    try:
        cycles(orchestrator, store, lambda: bool(sizes(store)))
        before, after = sizes(store)[0]
        assert before > after >= 64
        alive = hosts.answers("web")
        # It begins to use all but 8 MiB of what was left to it.
        more = after - seen(store)[0][0] - 8
        hosts.machines.get("web", f"/dirty?kib={more * 1024}&kib_per_s=20000", timeout_s=5.0)
        cycles(orchestrator, store, lambda: len(sizes(store)) > 1)
        again = sizes(store)[1]
        assert again[1] > again[0] == after
        assert hosts.answers("web") == alive
    finally:
        orchestrator.close()

"""The real programs are killed while a real machine is being moved: the copy goes on, and its end is written down."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from failing_hosts import FailingHosts, guest, until

from cpdb import ActionRecord, ActionTiming, OutcomeKind, PlanRecord, Store, open_store
from orchestrator import MigrateVm

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(240),
]
HOST = """[[host]]
name = "{0.name}"
uri = "{0.uri}"
migration_uri = "{0.migration_uri}"
cpu_cores = 2
memory_mib = 2048
"""
VM = '[[vm]]\nname = "g1"\ncpu_cores_base = 0.5\ncpu_cores_max = 1.0\nvcpus_max = 2\nmovable = true\n'
Begin = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingHosts]:
    with FailingHosts(tmp_path_factory.mktemp("hosts"), (guest("g1", 31),)) as made:
        yield made


@pytest.fixture
def settings(hosts: FailingHosts, tmp_path: Path) -> Path:
    path = tmp_path / "forepath.toml"
    first = f'database.url = "sqlite:///{tmp_path}/lab.db"\norchestrator.moves.limit_s = 90\n'
    path.write_text(first + "".join(HOST.format(one) for one in hosts.specs()) + VM)
    return path


@pytest.fixture
def store(settings: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{settings.parent}/lab.db")
    yield opened
    opened.close()


@pytest.fixture
def begin(settings: Path) -> Iterator[Begin]:
    """Starts `forepath ...`; what still runs at the end is ended."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-m", "forepath", *words, "--settings", str(settings)]
        with (settings.parent / "log").open("ab") as log:
            begun.append(subprocess.Popen(argv, cwd=settings.parent, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        return begun[-1]

    yield start
    for one in begun:
        if one.poll() is None:
            one.kill()
        one.wait(10)


def proposed(store: Store, action: MigrateVm) -> str:
    """A plan that a person could apply."""
    now = time.time()
    step = {
        "action": {"kind": action.kind, "body": action.to_json()}, "describe": action.describe(), "why": "asked for",
        "reason": {}, "needed_at": now, "lead_s": 5.0, "renewal": False, "waits": False,
    }  # fmt: skip
    return str(store.journal.add_plan(PlanRecord(now, now + 60, "open", {"steps": [step], "refusals": []})))


def killed(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL


def only(store: Store) -> ActionRecord:
    (row,) = store.journal.actions()
    return row


def over(store: Store) -> ActionRecord | None:
    row = only(store)
    return row if row.outcome is not OutcomeKind.PENDING else None


def moved(hosts: FailingHosts, row: ActionRecord, to: str, boot: str) -> None:
    """It runs there, undisturbed, once; and the journal says so."""
    assert row.outcome is OutcomeKind.DONE, row.sentence
    assert "after a restart of the orchestrator" in row.sentence
    assert row.timing.ready_at is None or row.timing.ready_at >= row.issued_at
    assert hosts.answers("g1", to) == boot
    assert hosts.defined("g1") == {to: True}


def test_a_killed_apply_is_followed_up(hosts: FailingHosts, store: Store, begin: Begin) -> None:
    here = hosts.machines.host_of("g1")
    there, boot = ("hB" if here == "hA" else "hA"), hosts.answers("g1")
    with hosts.slow(40):
        applying = begin("apply", proposed(store, MigrateVm("g1", here, there)))
        until("the copy is under way", lambda: hosts.moving("g1"), 60)
        killed(applying)
        assert only(store).outcome is OutcomeKind.PENDING
        begin("orchestrate", "--act")
        row = until("the journal has its end", lambda: over(store), 90)
    moved(hosts, row, there, boot)


@pytest.mark.long
def test_whoever_takes_over_may_be_killed_as_well(hosts: FailingHosts, store: Store, begin: Begin) -> None:
    here = hosts.machines.host_of("g1")
    there, boot = ("hB" if here == "hA" else "hA"), hosts.answers("g1")
    with hosts.slow(12):
        applying = begin("apply", proposed(store, MigrateVm("g1", here, there)))
        until("the copy is under way", lambda: hosts.moving("g1"), 60)
        killed(applying)
        first = begin("orchestrate", "--act")
        until("it is on duty", lambda: store.leases.holder("orchestrator", time.time()), 60)
        time.sleep(7)  # it waits for the lease of the one that applied, then takes over
        killed(first)
        assert only(store).outcome is OutcomeKind.PENDING
        begin("orchestrate", "--act")
        row = until("the journal has its end", lambda: over(store), 120)
    moved(hosts, row, there, boot)


def test_what_is_never_carried_out_ends_as_failed(hosts: FailingHosts, store: Store, begin: Begin) -> None:
    """Killed between the journal and the deed: nothing happens any more, and that is what is written."""
    here = hosts.machines.host_of("g1")
    there, boot = ("hB" if here == "hA" else "hA"), hosts.answers("g1")
    action, now = MigrateVm("g1", here, there), time.time()
    store.journal.add_action(
        ActionRecord(action.kind, "g1", action.to_json(), "", {}, "predictive", now, ActionTiming(None, 1.0))
    )
    begin("orchestrate", "--act")
    row = until("the journal has its end", lambda: over(store), 90)
    assert row.outcome is OutcomeKind.FAILED
    assert f"g1 still runs on {here}" in row.sentence
    assert hosts.answers("g1", here) == boot
    assert hosts.defined("g1") == {here: True}

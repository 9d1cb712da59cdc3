"""What hangs, lags or was left behind: one silent host costs nobody else, and what is pending is looked at again."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cpdb import ActionRecord, ActionTiming, DriverError, OutcomeKind, Store
from orchestrator import FakeHypervisors, FakeVm, HostSpec, OrchestratorConfig, SetNetworkRate
from orchestrator.act.executor import Executor
from orchestrator.act.libvirt import domain as domain_module
from orchestrator.act.libvirt import measuring
from orchestrator.act.libvirt.connections import Connections
from orchestrator.act.libvirt.domain import Domain
from orchestrator.act.libvirt.measuring import MachineMeter

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
GIB = 1 << 30
LIVE, GUEST = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_VCPU_GUEST


def problem(code: int, text: str) -> Exception:
    error = libvirt.libvirtError(text)
    error.err = (code, 0, text, 2, text, None, None, 0, 0)
    found: Exception = error
    return found


@dataclass
class Raw:
    """A running machine: unplugging takes `looks` more looks (None: for ever) and ends in libvirt's error 68 meanwhile.

    With an `agent` vCPUs can be taken offline; `deaf`: it does not answer.
    """

    plugged: int = 1
    most: int = 4
    online: int = 1
    agent: bool = True
    looks: int | None = 3
    wanted: int = 0
    cpu_ns: int = 0
    named: str = "vm1"

    def name(self) -> str:
        return self.named

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return "4a3b0000-0000-4000-8000-000000000001"

    def vcpusFlags(self, flags: int) -> int:  # noqa: N802 - libvirt's name
        if flags & GUEST:
            if not self.agent:
                raise problem(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured")
            return self.online
        if self.wanted and self.wanted < self.plugged and self.looks is not None:
            self.looks -= 1
            self.plugged = self.wanted if self.looks <= 0 else self.plugged
        return self.plugged

    def setVcpusFlags(self, count: int, flags: int) -> None:  # noqa: N802 - libvirt's name
        if count > self.most:
            raise problem(libvirt.VIR_ERR_INVALID_ARG, "more than the maximum")
        if flags & GUEST:
            if not self.agent:
                raise problem(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured")
            self.online = count
        elif count > self.plugged:
            self.plugged = self.online = count
        else:
            self.wanted = count
            raise problem(libvirt.VIR_ERR_OPERATION_TIMEOUT, "vcpu unplug request timed out")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of patience become tenths."""
    monkeypatch.setattr(domain_module, "ONLINE_S", 0.4)
    monkeypatch.setattr(domain_module, "SETTLE_S", 1.0)
    monkeypatch.setattr(measuring, "ANSWER_S", 0.3)


def test_the_guests_agent_takes_vcpus_back_without_unplugging() -> None:
    raw = Raw()
    machine = Domain(raw, "vm1")
    assert machine.set_vcpus(3) is None
    assert machine.set_vcpus(1) is None
    assert (raw.plugged, raw.online) == (3, 1)


def test_an_unplug_that_lags_is_pending_and_then_done() -> None:
    raw = Raw(plugged=3, online=3, agent=False, looks=4)
    assert Domain(raw, "vm1").set_vcpus(1) is None
    assert raw.plugged == 1


def test_an_unplug_that_never_ends_says_pending_instead_of_error_68() -> None:
    text = Domain(Raw(plugged=3, online=3, agent=False, looks=None), "vm1").set_vcpus(1)
    assert text is not None
    assert text.startswith("pending: 3 vCPUs are in use")


def test_other_errors_are_errors() -> None:
    with pytest.raises(DriverError, match="more than the maximum"):
        Domain(Raw(), "vm1").set_vcpus(9)


# -- hosts that do not answer


@dataclass
class Answering:
    """A connection with one machine; while `held`, nobody gets an answer."""

    held: threading.Event = field(default_factory=threading.Event)
    cpu_ns: int = 0
    # What it answers to who does not want to wait
    refusing: Exception | None = None
    machine: str = "vm1"

    def getAllDomainStats(self, _wanted: int, flags: int) -> list[tuple[Any, dict[str, Any]]]:  # noqa: N802
        if self.refusing is not None and flags & libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT:
            raise self.refusing
        if self.held.is_set():
            while self.held.is_set():
                time.sleep(0.01)
        self.cpu_ns += 500_000_000
        stats = {"cpu.time": self.cpu_ns, "vcpu.current": 1, "balloon.current": 131_072}
        return [(Measured(named=self.machine), stats)]


class Measured(Raw):
    """What is asked of a machine beside bulk statistics."""

    def schedulerParameters(self) -> dict[str, int]:  # noqa: N802 - libvirt's name
        return {"vcpu_quota": 50_000, "vcpu_period": 100_000}

    def agentSetResponseTimeout(self, _seconds: int, _flags: int) -> None:  # noqa: N802 - libvirt's name
        return None

    def setMemoryStatsPeriod(self, _seconds: int, _flags: int) -> None:  # noqa: N802 - libvirt's name
        return None


class Ready(Connections):
    """Connections that are there already."""

    def __init__(self, known: dict[str, Answering]) -> None:
        super().__init__([HostSpec(name, "", "", 2.0, GIB) for name in known])
        self.known = known

    def of(self, host: str) -> Any:
        return self.known[host]


@pytest.fixture
def two() -> Iterator[dict[str, Answering]]:
    made = {"h1": Answering(), "h2": Answering(machine="vm2")}
    yield made
    for one in made.values():
        one.held.clear()


def test_a_host_that_hangs_costs_neither_time_nor_the_others_loads(two: dict[str, Answering]) -> None:
    meter = MachineMeter(Ready(two), {})
    meter.loads(100.0)
    hosts, machines = meter.loads(101.0)
    assert {one.host for one in hosts} == {"h1", "h2"}
    assert {(one.cpu_cores_used, one.cpu_cores_limit) for one in machines} == {(0.5, 0.5)}
    two["h1"].held.set()
    began = time.monotonic()
    for second in range(6):
        hosts, machines = meter.loads(102.0 + second)
        assert [one.host for one in hosts] == ["h2"]
    # Three looks wait for an answer, then the host is not asked any more until one of them comes back.
    assert time.monotonic() - began < 6 * 0.3 + 5
    assert len(meter._open["h1"]) == measuring.MOST_UNANSWERED
    two["h1"].held.clear()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not all(one.wait(0) for one in meter._open["h1"]):
        time.sleep(0.02)
    meter.loads(110.0)
    hosts, _ = meter.loads(111.0)
    assert {one.host for one in hosts} == {"h1", "h2"}


@pytest.mark.parametrize("code", [libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED])
def test_a_libvirt_that_cannot_answer_without_waiting_is_asked_to_wait(two: dict[str, Answering], code: int) -> None:
    two["h1"].refusing = problem(code, "unsupported flags")
    two["h2"].refusing = problem(libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported")
    meter = MachineMeter(Ready(two), {})
    meter.loads(100.0)
    hosts, _ = meter.loads(101.0)
    assert [load.host for load in hosts] == ["h1"]


# -- what a dead process began


@pytest.mark.parametrize(("carried_out", "expected"), [(True, OutcomeKind.DONE), (False, OutcomeKind.FAILED)])
def test_a_followed_action_ends_by_what_is_found_and_teaches_no_lead_time(
    store: Store, carried_out: bool, expected: OutcomeKind
) -> None:
    action = SetNetworkRate("vm1", 0.0, 1e6)
    store.journal.add_action(
        ActionRecord(action.kind, "vm1", action.to_json(), "", {}, "predictive", 100.0, ActionTiming(None, 0.5, None))
    )
    machine = FakeVm("vm1", "h1", network_bytes_per_s=1e6 if carried_out else 0.0)
    hosts = {"h1": HostSpec("h1", "", "", 2.0, GIB)}
    executor = Executor(
        OrchestratorConfig(act=True), store, FakeHypervisors(hosts, {"vm1": machine}, lambda _vm, _now: 0.0)
    )
    executor.adopt(store.journal.actions(), 200.0)
    (ended,) = executor.settle(201.0)
    assert ended.outcome is expected
    assert ended.timing.ready_at is None
    assert executor.in_flight() == ()

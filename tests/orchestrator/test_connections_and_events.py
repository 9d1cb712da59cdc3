"""A lost connection is opened again, a hung one holds nobody up, and what libvirt tells by itself counts at once."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpdb import DriverError
from orchestrator import Finished, HostSpec, LibvirtHypervisors, SetMemory, SetNetworkRate, SetVcpus, VmAction
from orchestrator.act.libvirt.connections import Connections, MachineEvent
from orchestrator.act.libvirt.domain import interfaces, network_rate, until, within
from orchestrator.act.libvirt.measuring import ANSWER_AFTER_S, EVERY_S, Dirtying

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
GIB = 1 << 30
MIB = 1 << 20
NODE = """<node><domain type='test'><name>vm1</name><memory unit='MiB'>256</memory>
<currentMemory unit='MiB'>256</currentMemory><vcpu current='1'>2</vcpu><os><type>hvm</type></os>
<devices><interface type='network'><source network='default'/><mac address='52:54:00:00:00:01'/></interface></devices>
</domain><network><name>default</name></network></node>"""


@pytest.fixture
def host(tmp_path: Path) -> HostSpec:
    node = tmp_path / "h1.xml"
    node.write_text(NODE)
    return HostSpec("h1", f"test://{node}", "", 1.0, GIB)


@pytest.fixture
def hypervisors(host: HostSpec) -> Iterator[LibvirtHypervisors]:
    made = LibvirtHypervisors([host])
    yield made
    made.close()


def done(hypervisors: LibvirtHypervisors, action: VmAction) -> Finished:
    found: list[Finished] = []
    hypervisors.start(1, action, time.time())
    assert until(lambda: bool(found.extend(hypervisors.finished(time.time())) or found), 20.0, every_s=0.02)
    return found[0]


# -- patience


def test_an_answer_in_time_is_the_answer_and_an_error_is_the_error() -> None:
    assert within(5.0, lambda: 3, "counting") == 3
    with pytest.raises(ValueError, match="five"):
        within(5.0, lambda: int("five"), "counting")


def test_who_does_not_answer_is_not_waited_for() -> None:
    never = threading.Event()
    with pytest.raises(DriverError, match=r"asking: no answer within 0\.05 s"):
        within(0.05, never.wait, "asking")
    never.set()


def test_looking_again_ends_when_it_holds_or_when_patience_ends() -> None:
    answers = iter([False, False, True])
    assert until(lambda: next(answers), 5.0, every_s=0.0)
    assert not until(lambda: False, 0.05, every_s=0.01)


# -- connections


def test_a_connection_is_kept_and_a_lost_one_is_opened_again(host: HostSpec) -> None:
    connections = Connections([host])
    first = connections.of("h1")
    assert connections.of("h1") is first
    first.close()
    again = connections.of("h1")
    assert again is not first
    assert [one.name() for one in again.listAllDomains()] == ["vm1"]
    connections.close()


def test_an_absent_host_is_one_line_and_not_asked_again_by_everyone(tmp_path: Path) -> None:
    connections = Connections([HostSpec("h9", f"test://{tmp_path / 'absent.xml'}", "", 1.0, GIB)])
    lines = []
    for _ in range(2):
        with pytest.raises(DriverError) as caught:
            connections.of("h9")
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]
    with pytest.raises(DriverError, match="no such host"):
        connections.of("h7")


# -- events


def test_a_machine_that_stops_or_pauses_is_told_once_and_counted_no_more(hypervisors: LibvirtHypervisors) -> None:
    now = time.time()
    hypervisors.loads(now)
    domain = hypervisors.connections.of("h1").lookupByName("vm1")
    told: list[str] = []

    def states() -> list[str]:
        nonlocal now
        now += 1.0
        return [one.state for one in hypervisors.loads(now)[1]]

    for change, state in ((domain.suspend, "paused"), (domain.resume, "running"), (domain.destroy, "stopped")):
        change()
        assert until(lambda state=state: state in told + (told.extend(states()) or told), 10.0, every_s=0.02)  # type: ignore[misc]
        told.clear()
    assert states() == []


def test_everything_that_changes_a_machine_is_heard(host: HostSpec) -> None:
    heard: list[MachineEvent] = []
    connections = Connections([host], heard.append)
    domain = connections.of("h1").lookupByName("vm1")
    domain.destroy()
    domain.create()
    assert until(lambda: [one.what for one in heard] == ["stopped", "started"], 10.0, every_s=0.02)
    assert {(one.host, one.vm) for one in heard} == {("h1", "vm1")}
    connections.close()


# -- changes


def test_a_network_rate_is_set_read_back_and_lifted(hypervisors: LibvirtHypervisors) -> None:
    domain = hypervisors.connections.domain("h1", "vm1")
    assert interfaces(domain) == ["52:54:00:00:00:01"]
    for before, after in ((0.0, 1.25e6), (1.25e6, 0.0)):
        found = done(hypervisors, SetNetworkRate("vm1", before, after))
        assert found.ok, found.sentence
        assert network_rate(domain) == after


def test_actions_on_one_machine_come_one_after_the_other(hypervisors: LibvirtHypervisors) -> None:
    for number, action in enumerate([SetMemory("vm1", 256 * MIB, 200 * MIB), SetVcpus("vm1", 1, 2)] * 3):
        hypervisors.start(number, action, time.time())
    ended: list[Finished] = []
    assert until(lambda: len(ended.extend(hypervisors.finished(time.time())) or ended) == 6, 30.0, every_s=0.02)
    assert sorted(one.number for one in ended) == list(range(6))
    assert all(one.ok for one in ended), [one.sentence for one in ended]


# -- dirty rates


class Guest:
    """Counts how often it was asked; a deaf one cannot measure."""

    def __init__(self, name: str, deaf: bool = False) -> None:
        self.name, self.deaf, self.asked = name, deaf, 0

    def startDirtyRateCalc(self, seconds: int, flags: int) -> None:  # noqa: N802 - libvirt's name
        self.asked += 1
        if self.deaf:
            error = libvirt.libvirtError("not here")
            error.err = (libvirt.VIR_ERR_NO_SUPPORT, 0, "not here", 0, "", None, None, 0, 0)
            raise error


def measured(mib_per_s: int, started: float) -> dict[str, Any]:
    return {
        "dirtyrate.calc_status": 2,
        "dirtyrate.calc_start_time": int(started),
        "dirtyrate.megabytes_per_second": mib_per_s,
    }


Asking = Callable[[float], None]


@pytest.fixture
def guests() -> list[Guest]:
    return [Guest("a"), Guest("b"), Guest("c", deaf=True)]


def test_one_guest_of_a_host_is_measured_at_a_time_and_each_in_its_turn(guests: list[Guest]) -> None:
    dirtying = Dirtying()
    for second in range(60):
        dirtying.ask("h1", [(one, one.name) for one in guests], 100.0 + second)
    asked = {one.name: one.asked for one in guests}
    assert asked["c"] == 1  # it cannot, so it is not asked again
    assert 4 <= asked["a"] <= 6
    assert 4 <= asked["b"] <= 6


def test_a_rate_is_known_for_a_while_and_the_newest_counts() -> None:
    dirtying = Dirtying()
    assert dirtying.rate("a", 100.0) is None
    dirtying.note("a", measured(20, 99.0), 100.0)
    assert dirtying.rate("a", 101.0) == 20 * MIB
    dirtying.learnt("a", 5e6, 110.0)
    dirtying.learnt("a", None, 111.0)
    assert dirtying.rate("a", 112.0) == 5e6
    # The emulator repeats its last result for ever; that does not make it new.
    dirtying.note("a", measured(20, 99.0), 130.0)
    assert dirtying.rate("a", 131.0) == 5e6
    assert dirtying.rate("a", 200.0) is None
    # One that was begun when the guest's turn came may arrive as late as the next turn.
    dirtying.note("b", measured(20, 99.0), 99.0 + EVERY_S + ANSWER_AFTER_S)
    assert dirtying.rate("b", 113.0) == 20 * MIB


def test_a_measurement_that_is_not_done_says_nothing() -> None:
    dirtying = Dirtying()
    dirtying.note("a", {"dirtyrate.calc_status": 1, "dirtyrate.calc_start_time": 100}, 100.5)
    assert dirtying.rate("a", 101.0) is None

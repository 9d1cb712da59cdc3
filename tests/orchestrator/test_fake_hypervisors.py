"""The fake behaves as hypervisors do where that hurts: guests write too fast, do not follow, or would starve."""

import pytest

from orchestrator import FakeHypervisors, FakeVm, Finished, HostSpec, MigrateVm, SetMemory, SetNetworkRate, SetVcpus
from orchestrator.actions import VmAction

GIB, MIB = 1 << 30, 1 << 20
HOSTS = {name: HostSpec(name, "", "", 1.0, 4 * GIB) for name in ("h1", "h2")}


def fake(**more: object) -> FakeHypervisors:
    machine = FakeVm("vm1", "h1", 0.5, vcpus_max=2, **more)  # type: ignore[arg-type]
    return FakeHypervisors(HOSTS, {"vm1": machine}, lambda _vm, _now: 0.3)


def ended(hypervisors: FakeHypervisors, action: VmAction, at: float) -> list[Finished]:
    hypervisors.start(1, action, 0.0)
    return hypervisors.finished(at)


def test_a_copy_takes_as_long_as_its_memory_and_its_rate_ask_for() -> None:
    slow = MigrateVm("vm1", "h1", "h2", 64e6)
    hypervisors = fake(memory_bytes=256 * MIB, dirty_bytes_per_s=0.0)
    assert ended(hypervisors, slow, 3.9) == []
    (found,) = hypervisors.finished(4.5)
    assert found.ok
    assert hypervisors.machines["vm1"].host == "h2"


@pytest.mark.parametrize(
    ("size", "dirty", "expected_s", "words"),
    [(GIB, 200e6, 2.0, "does not converge"), (4 * GIB - 1, 1e6, 3.0, "took longer than 15 s")],
)
def test_a_copy_that_gets_nowhere_is_broken_off_and_the_machine_stays(
    size: int, dirty: float, expected_s: float, words: str
) -> None:
    hypervisors = fake(memory_bytes=size, dirty_bytes_per_s=dirty)
    (found,) = ended(hypervisors, MigrateVm("vm1", "h1", "h2", 125e6, expected_s), 31.0)
    assert not found.ok
    assert words in found.sentence
    assert hypervisors.machines["vm1"].host == "h1"


def test_a_guest_may_follow_late_or_not_within_all_patience() -> None:
    hypervisors = fake()
    hypervisors.pending["set_vcpus", "vm1"] = 8.0
    assert ended(hypervisors, SetVcpus("vm1", 1, 2), 8.0) == []
    assert hypervisors.finished(9.0)[0].ok
    hypervisors.pending["set_vcpus", "vm1"] = 100.0
    (found,) = ended(hypervisors, SetVcpus("vm1", 2, 1), 40.0)
    assert not found.ok
    assert "pending" in found.sentence
    assert hypervisors.machines["vm1"].vcpus == 2


def test_no_guest_is_left_with_less_than_it_uses() -> None:
    hypervisors = fake(memory_bytes=512 * MIB, memory_used_bytes=300 * MIB)
    (found,) = ended(hypervisors, SetMemory("vm1", 512 * MIB, 310 * MIB), 5.0)
    assert "below the floor of 330 MiB" in found.sentence
    assert ended(hypervisors, SetMemory("vm1", 512 * MIB, 340 * MIB), 5.0)[0].ok
    # What it has too little of already may still grow, by however little.
    assert ended(hypervisors, SetMemory("vm1", 340 * MIB, 345 * MIB), 5.0)[0].ok


def test_a_network_rate_is_kept() -> None:
    hypervisors = fake()
    assert ended(hypervisors, SetNetworkRate("vm1", 0.0, 1e6), 1.0)[0].ok
    assert hypervisors.machines["vm1"].network_bytes_per_s == 1e6

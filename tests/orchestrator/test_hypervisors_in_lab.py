"""The contract on real QEMU machines of the lab: limits bite, machines move with them, nothing is lost."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import Finished, HostSpec, LibvirtHypervisors, MigrateVm, SetCpuLimit, SetMemory, SetVcpus, VmAction

pytestmark = pytest.mark.vm
MIB = 1 << 20
Do = Callable[[VmAction], Finished]


@pytest.fixture(scope="module")
def hypervisors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtHypervisors]:
    """The lab's two hosts with all their machines running."""
    from tools.lab.lab import Lab

    run: Path = tmp_path_factory.mktemp("lab")
    with Lab(run_directory=run) as lab:
        lab.start()
        hosts = [
            HostSpec(one.name, lab.uris[one.name], lab.migration_uris[one.name], one.cpu_cores, one.memory_bytes)
            for one in lab.layout.hypervisors
        ]
        made = LibvirtHypervisors(hosts)
        yield made
        made.close()


@pytest.fixture
def do(hypervisors: LibvirtHypervisors) -> Do:
    def wait(action: VmAction) -> Finished:
        hypervisors.start(1, action, time.time())
        until = time.monotonic() + 40
        while time.monotonic() < until:
            if found := hypervisors.finished(time.time()):
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"{action.describe()} did not end")

    return wait


def load(hypervisors: LibvirtHypervisors, vm: str, seconds: float = 0.5):  # type: ignore[no-untyped-def]
    """The machine's load over the next `seconds`."""
    hypervisors.loads(time.time())
    time.sleep(seconds)
    return {one.vm: one for one in hypervisors.loads(time.time())[1]}[vm]


def test_every_machine_is_measured_with_its_quota(hypervisors: LibvirtHypervisors) -> None:
    for vm, host, limit in (("shop1", "hA", 0.2), ("batch1", "hA", 0.25), ("shop2", "hB", 0.2)):
        found = load(hypervisors, vm)
        assert found.host == host
        assert found.cpu_cores_limit == pytest.approx(limit, abs=0.02)
        assert found.memory_bytes_limit == pytest.approx(128 * MIB, rel=0.1)


def test_a_limit_bites(hypervisors: LibvirtHypervisors, do: Do) -> None:
    assert 0.15 < load(hypervisors, "batch1", 3.0).cpu_cores_used < 0.4  # it burns all that it may
    assert do(SetCpuLimit("batch1", 0.25, 0.1)).ok
    time.sleep(0.5)
    assert load(hypervisors, "batch1", 3.0).cpu_cores_used < 0.18
    assert load(hypervisors, "batch1").cpu_cores_limit == pytest.approx(0.1, abs=0.02)
    assert do(SetCpuLimit("batch1", 0.1, 0.25)).ok


def test_a_machine_moves_there_and_back_with_its_limit(hypervisors: LibvirtHypervisors, do: Do) -> None:
    for before, after in (("hA", "hB"), ("hB", "hA")):
        found = do(MigrateVm("batch1", before, after))
        assert found.ok, found.sentence
        seen = load(hypervisors, "batch1")
        assert seen.host == after
        assert seen.cpu_cores_limit == pytest.approx(0.25, abs=0.02)


def test_vcpus_go_up_and_down_and_the_limit_stays(hypervisors: LibvirtHypervisors, do: Do) -> None:
    up = do(SetVcpus("shop1", 1, 2))
    assert up.ok, up.sentence
    seen = load(hypervisors, "shop1")
    assert seen.cpu_cores_limit == pytest.approx(0.2, abs=0.03)
    time.sleep(2)  # the guest brings a new vCPU online in its own time
    down = do(SetVcpus("shop1", 2, 1))
    assert down.ok, down.sentence
    assert load(hypervisors, "shop1").vcpus == 1


def test_memory_shrinks_and_comes_back(hypervisors: LibvirtHypervisors, do: Do) -> None:
    assert do(SetMemory("search2", 128 * MIB, 112 * MIB)).ok
    time.sleep(1)
    assert load(hypervisors, "search2").memory_bytes_limit == pytest.approx(112 * MIB, rel=0.05)
    assert do(SetMemory("search2", 112 * MIB, 128 * MIB)).ok


def test_what_cannot_be_done_is_one_clear_line(do: Do) -> None:
    for action in (SetCpuLimit("nobody", 1.0, 0.5), MigrateVm("batch1", "hB", "hA"), MigrateVm("batch1", "hA", "hC")):
        found = do(action)
        assert not found.ok
        assert "\n" not in found.sentence
        assert found.sentence

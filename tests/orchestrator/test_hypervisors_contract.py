"""One contract for all hypervisors: the fake, libvirt's test driver, and real QEMU hosts in the lab."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cpdb import DriverError, HostLoad, VmLoad
from orchestrator import (
    FakeHypervisors,
    FakeVm,
    Finished,
    HostSpec,
    Hypervisors,
    LibvirtHypervisors,
    MigrateVm,
    SetCpuLimit,
    SetMemory,
    SetVcpus,
    VmAction,
)

if TYPE_CHECKING:
    from failing_hosts import FailingHosts

GIB = 1 << 30
MIB = 1 << 20
NODE = """<node><domain type='test'><name>{vm}</name><memory unit='MiB'>256</memory>
<currentMemory unit='MiB'>256</currentMemory><vcpu current='1'>2</vcpu><os><type>hvm</type></os></domain></node>"""


@dataclass
class Bench:
    """Hypervisors with a machine `vm` on `host`, and another host. With `virtual` time nothing has to be waited for."""

    hypervisors: Hypervisors
    virtual: bool = False
    limits: bool = True
    moves: bool = True
    vm: str = "vm1"
    host: str = "h1"
    other: str = "h2"
    number: int = 0
    passed_s: float = 0.0

    def now(self) -> float:
        return self.passed_s if self.virtual else time.time()

    def let_pass(self, seconds: float) -> None:
        self.passed_s += seconds
        time.sleep(0.0 if self.virtual else seconds)

    def do(self, action: VmAction) -> Finished:
        """Starts the action and waits for its end."""
        self.number += 1
        try:
            self.hypervisors.start(self.number, action, self.now())
        except DriverError as error:
            return Finished(self.number, False, str(error), self.now())
        for _ in range(1200):
            if found := self.hypervisors.finished(self.now()):
                assert [one.number for one in found] == [self.number]
                return found[0]
            self.let_pass(0.05)
        raise AssertionError(f"{action.describe()} did not end")

    def loads(self) -> tuple[dict[str, HostLoad], dict[str, VmLoad]]:
        """Two samples, of which the second has something to be compared with."""
        self.hypervisors.loads(self.now())
        self.let_pass(0.05)
        hosts, machines = self.hypervisors.loads(self.now())
        return {one.host: one for one in hosts}, {one.vm: one for one in machines}

    def shows(self, true: Callable[[VmLoad], bool]) -> bool:
        """Whether it can be measured; a busy guest is a few looks late."""
        for _ in range(20):
            if true(self.loads()[1][self.vm]):
                return True
            self.let_pass(0.5)
        return False


def fake(_tmp: Path) -> Bench:
    hosts = {name: HostSpec(name, "", "", 1.0, GIB) for name in ("h1", "h2")}
    vms = {"vm1": FakeVm("vm1", "h1", 0.5, vcpus_max=2, memory_bytes=256 * MIB)}
    return Bench(FakeHypervisors(hosts, vms, lambda _vm, _now: 0.3), virtual=True)


def libvirt_test_driver(tmp: Path) -> Bench:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    specs = []
    for name, vm in (("h1", "vm1"), ("h2", "vm2")):
        node = tmp / f"{name}.xml"
        node.write_text(NODE.format(vm=vm))
        specs.append(HostSpec(name, f"test://{node}", f"test://{node}", 1.0, GIB))
    return Bench(LibvirtHypervisors(specs), limits=False, moves=False)


REAL = [
    pytest.mark.vm,
    pytest.mark.timeout(120),
]
MAKERS = [
    pytest.param(fake, id="fake"),
    pytest.param(libvirt_test_driver, id="libvirt-test"),
    pytest.param(None, id="qemu", marks=REAL),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[FailingHosts]":
    """Two hosts with their own libvirtd, and a guest."""
    from failing_hosts import FailingHosts, guest

    with FailingHosts(tmp_path_factory.mktemp("hosts"), (replace(guest("vm1", 31), memory_bytes=256 * MIB),)) as made:
        yield made


def real_hosts(hosts: "FailingHosts") -> Bench:
    from failing_hosts import until

    hosts.machines.reset()
    until("it has all its memory back", lambda: hosts.machines.domain("vm1").info()[2] << 10 >= 255 * MIB)
    specs = [replace(one, cpu_cores_capacity=1.0, memory_bytes_capacity=GIB) for one in hosts.specs()]
    return Bench(LibvirtHypervisors(specs), host="hA", other="hB")


@pytest.fixture(params=MAKERS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    make: Callable[[Path], Bench] | None = request.param
    made = make(tmp_path) if make else real_hosts(request.getfixturevalue("real"))
    yield made
    made.hypervisors.close()


def test_loads_name_every_machine_with_its_host_and_limits(bench: Bench) -> None:
    hosts, machines = bench.loads()
    own = machines[bench.vm]
    assert own.host == bench.host
    assert own.vcpus >= 1
    assert 0 < own.cpu_cores_limit <= own.vcpus
    assert own.cpu_cores_used >= 0
    assert 0 < own.memory_bytes_limit <= GIB
    assert hosts[bench.host].cpu_cores_capacity == 1.0
    assert hosts[bench.host].memory_bytes_capacity == GIB


def test_a_machine_that_is_gone_is_one_clear_line(bench: Bench) -> None:
    found = bench.do(SetCpuLimit("nobody", 1.0, 0.5))
    assert not found.ok
    assert "nobody" in found.sentence
    assert "\n" not in found.sentence


def test_memory_follows_and_has_a_floor(bench: Bench) -> None:
    done = bench.do(SetMemory(bench.vm, 256 * MIB, 192 * MIB))
    assert done.ok, done.sentence
    assert bench.loads()[1][bench.vm].memory_bytes_limit == pytest.approx(192 * MIB, rel=0.03)
    refused = bench.do(SetMemory(bench.vm, 192 * MIB, 1 * MIB))
    assert not refused.ok
    assert "floor" in refused.sentence


def test_vcpus_go_up_and_not_beyond_the_maximum(bench: Bench) -> None:
    done = bench.do(SetVcpus(bench.vm, 1, 2))
    assert done.ok, done.sentence
    assert bench.shows(lambda own: own.vcpus == 2)
    refused = bench.do(SetVcpus(bench.vm, 2, 9))
    assert not refused.ok
    assert bench.loads()[1][bench.vm].vcpus == 2


def test_a_cpu_limit_holds_or_is_refused_in_one_line(bench: Bench) -> None:
    found = bench.do(SetCpuLimit(bench.vm, 1.0, 0.3))
    assert found.ok is bench.limits, found.sentence
    limit = bench.loads()[1][bench.vm].cpu_cores_limit
    assert (limit == pytest.approx(0.3, abs=0.02)) is bench.limits
    assert "\n" not in found.sentence


def test_a_machine_moves_with_its_limit_or_stays_where_it_is(bench: Bench) -> None:
    before = bench.loads()[1][bench.vm].cpu_cores_limit
    found = bench.do(MigrateVm(bench.vm, bench.host, bench.other))
    assert found.ok is bench.moves, found.sentence
    after = bench.loads()[1][bench.vm]
    assert after.host == (bench.other if bench.moves else bench.host)
    assert after.cpu_cores_limit == pytest.approx(before, abs=0.02)


def test_a_move_to_an_unknown_host_is_refused(bench: Bench) -> None:
    found = bench.do(MigrateVm(bench.vm, bench.host, "nowhere"))
    assert not found.ok
    assert "nowhere" in found.sentence
    assert bench.loads()[1][bench.vm].host == bench.host


def test_nothing_is_reported_twice(bench: Bench) -> None:
    bench.do(SetMemory(bench.vm, 256 * MIB, 192 * MIB))
    assert bench.hypervisors.finished(bench.now() + 100) == []


def test_a_host_that_is_away_costs_only_its_own_loads(tmp_path: Path) -> None:
    good = libvirt_test_driver(tmp_path)
    assert isinstance(good.hypervisors, LibvirtHypervisors)
    here = HostSpec("h1", f"test://{tmp_path / 'h1.xml'}", "", 1.0, GIB)
    away = HostSpec("h3", f"test://{tmp_path / 'absent.xml'}", "", 1.0, GIB)
    both = LibvirtHypervisors([away, here])
    both.loads(time.time())
    hosts, machines = both.loads(time.time() + 1)
    assert [one.host for one in hosts] == ["h1"]
    assert [one.vm for one in machines] == ["vm1"]
    both.close()
    good.hypervisors.close()


def test_closed_hypervisors_begin_nothing(tmp_path: Path) -> None:
    bench = libvirt_test_driver(tmp_path)
    bench.hypervisors.close()
    with pytest.raises(DriverError):
        bench.hypervisors.start(1, SetMemory(bench.vm, 1, 2), 0.0)

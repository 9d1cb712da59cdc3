"""Live migration, memory and rates on two real hosts: throttled, broken off in time, and believed only when seen."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from failing_hosts import FailingHosts, until

from forepath.demo.layout import LabVm
from orchestrator import (
    Finished,
    LibvirtHypervisors,
    MigrateVm,
    SetMemory,
    SetNetworkRate,
    VmAction,
    VmSpec,
)

pytestmark = pytest.mark.vm
MIB = 1 << 20
BUSY, LARGE = "busy", "large"
# busy writes memory when it is told to; large has a device that adds memory.
GUESTS = (
    LabVm(BUSY, "hA", "10.77.0.41", "52:54:00:77:00:29", 0.8),
    LabVm(LARGE, "hA", "10.77.0.42", "52:54:00:77:00:2a", 0.6, memory_bytes=256 * MIB, plug_bytes=256 * MIB),
)
CAREFUL = VmSpec(BUSY, movable=True)
RUN = """
import sys, time
from orchestrator import HostSpec, LibvirtHypervisors, MigrateVm
hosts = [HostSpec(name, uri, to, 2.0, 1 << 31) for name, uri, to in zip(*[iter(sys.argv[1:])] * 3)]
LibvirtHypervisors(hosts).start(1, MigrateVm("busy", "hA", "hB", 4e6, 60.0), time.time())
time.sleep(600)
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingHosts]:
    with FailingHosts(tmp_path_factory.mktemp("hosts"), GUESTS) as made:
        yield made


def driver(hosts: FailingHosts, spec: VmSpec = CAREFUL, limit_s: float = 30.0) -> LibvirtHypervisors:
    machines = [spec, VmSpec(LARGE, movable=True, memory_bytes_min=128 * MIB)]
    return LibvirtHypervisors(hosts.specs(), migration_limit_s=limit_s, vms=machines)


@pytest.fixture(scope="module")
def hypervisors(hosts: FailingHosts) -> Iterator[LibvirtHypervisors]:
    made = driver(hosts)
    yield made
    made.close()


def done(hypervisors: LibvirtHypervisors, action: VmAction, limit_s: float = 60.0) -> Finished:
    return ended(hypervisors, lambda: hypervisors.start(1, action, time.time()), limit_s)


def ended(hypervisors: LibvirtHypervisors, begin: Callable[[], object], limit_s: float = 60.0) -> Finished:
    begin()
    found: list[Finished] = until("it ended", lambda: hypervisors.finished(time.time()), limit_s)
    return found[0]


def write(hosts: FailingHosts, kib_per_s: int, kib: int = 40 * 1024) -> None:
    """Makes the guest write so much memory over and over."""
    hosts.machines.get("busy", f"/dirty?kib={kib}&kib_per_s={kib_per_s}", timeout_s=5.0)


@pytest.fixture(autouse=True)
def _bring_home(hosts: FailingHosts) -> Iterator[None]:
    yield
    write(hosts, 0, 0)
    hosts.machines.migrate("busy", "hA")


def test_what_a_guest_writes_is_measured_before_anybody_decides(hosts: FailingHosts) -> None:
    write(hosts, 20 * 1024)
    time.sleep(2.0)
    looking = driver(hosts)

    def rate() -> float | None:
        found = {one.vm: one.dirty_bytes_per_s for one in looking.loads(time.time())[1]}
        return found.get(BUSY)

    assert 5 * MIB < until("it is measured", rate, look_every_s=0.5) < 40 * MIB
    looking.close()


def test_a_copy_keeps_to_its_rate_and_tells_what_it_took(hosts: FailingHosts, hypervisors: LibvirtHypervisors) -> None:
    boot = hosts.machines.get("busy", "/stat", 5.0)["boot_id"]
    found = done(hypervisors, MigrateVm("busy", "hA", "hB", 32 * MIB, 4.0))
    assert found.ok, found.sentence
    assert "rounds" in found.sentence
    assert "stopped for" in found.sentence
    took_s, sent_mb = (float(part) for part in found.sentence.split("; ")[1].split(" MB")[0].split(" s, "))
    assert sent_mb / took_s < 40
    assert hosts.machines.host_of("busy") == "hB"
    assert hosts.machines.get("busy", "/stat", 5.0)["boot_id"] == boot
    names = [one.name() for one in hosts.machines.connections["hA"].listAllDomains()]
    assert "busy" not in names


def test_a_guest_that_writes_too_fast_stays_and_the_outcome_says_so(
    hosts: FailingHosts, hypervisors: LibvirtHypervisors
) -> None:
    write(hosts, 60 * 1024, kib=20 * 1024)
    time.sleep(1.5)
    # Far below what it writes, even where an emulated processor is slow.
    found = done(hypervisors, MigrateVm("busy", "hA", "hB", 8 * MIB, 60.0))
    assert not found.ok
    assert "does not converge" in found.sentence
    assert found.sentence.endswith("busy still runs on hA")
    assert hosts.machines.host_of("busy") == "hA"
    assert hosts.machines.serving("busy", 5.0)


def test_post_copy_ends_what_would_not_where_it_is_allowed(hosts: FailingHosts) -> None:
    allowing = driver(hosts, replace(CAREFUL, migration_post_copy=True), limit_s=2.0)
    found = done(allowing, MigrateVm("busy", "hA", "hB", 4e6, 60.0))
    assert found.ok, found.sentence
    assert "switched to post-copy because it took longer than 2 s" in found.sentence
    assert hosts.machines.host_of("busy") == "hB"
    assert hosts.machines.serving("busy", 5.0)
    allowing.close()


@pytest.mark.long
def test_a_guest_that_may_be_slowed_down_arrives(hosts: FailingHosts) -> None:
    allowing = driver(hosts, replace(CAREFUL, migration_auto_converge=True), limit_s=200.0)
    write(hosts, 60 * 1024, kib=20 * 1024)
    time.sleep(1.5)
    # The hypervisor takes a little more of the guest's time in each round, so it takes many.
    found = done(allowing, MigrateVm("busy", "hA", "hB", 32 * MIB, 60.0), limit_s=220.0)
    assert found.ok, found.sentence
    assert hosts.machines.host_of("busy") == "hB"
    allowing.close()


def test_a_copy_whose_orchestrator_was_killed_is_still_ended_in_time(hosts: FailingHosts) -> None:
    told = [text for one in hosts.specs() for text in (one.name, one.uri, one.migration_uri)]
    with subprocess.Popen([sys.executable, "-c", RUN, *told]) as killed:
        try:
            until("the copy is under way", lambda: hosts.moving(BUSY))
        finally:
            killed.kill()
    successor = driver(hosts, limit_s=2.0)
    found = ended(successor, lambda: successor.follow(1, MigrateVm(BUSY, "hA", "hB"), time.time()))
    assert not found.ok
    assert "took longer than 2 s" in found.sentence
    assert found.sentence.endswith("busy still runs on hA")
    # What had arrived already when it was looked for is done, and nothing is begun a second time.
    found = ended(successor, lambda: successor.follow(1, MigrateVm(BUSY, "hB", "hA"), time.time()))
    assert found.ok, found.sentence
    assert "after a restart" in found.sentence
    successor.close()


def test_memory_grows_beyond_what_it_booted_with_and_shrinks_no_further_than_it_uses(
    hosts: FailingHosts, hypervisors: LibvirtHypervisors
) -> None:
    before = hosts.machines.get("large", "/stat", 5.0)["memory_bytes"]
    grown = done(hypervisors, SetMemory("large", 256 * MIB, 320 * MIB))
    assert grown.ok, grown.sentence
    assert hosts.machines.get("large", "/stat", 5.0)["memory_bytes"] - before == pytest.approx(64 * MIB, rel=0.1)
    starved = done(hypervisors, SetMemory("large", 320 * MIB, 96 * MIB))
    assert "below the floor" in starved.sentence
    shrunk = done(hypervisors, SetMemory("large", 320 * MIB, 224 * MIB))
    assert shrunk.ok, shrunk.sentence
    assert hosts.machines.domain("large").info()[2] >> 10 == pytest.approx(224, abs=8)
    too_much = done(hypervisors, SetMemory("large", 224 * MIB, 900 * MIB))
    assert "more than its maximum of 512 MiB" in too_much.sentence


def test_a_network_rate_holds_or_nothing_of_it_stays(hosts: FailingHosts, hypervisors: LibvirtHypervisors) -> None:
    """Not every kernel can limit both ways: then one line says so, and the machine is not half cut off."""
    found = done(hypervisors, SetNetworkRate("busy", 0.0, 1e6))
    assert "\n" not in found.sentence
    shaped = hosts.machines.domain("busy").interfaceParameters(GUESTS[0].mac, 0)
    expected = 1000 if found.ok else 0
    assert (shaped["inbound.average"], shaped["outbound.average"]) == (expected, expected)
    assert done(hypervisors, SetNetworkRate("busy", 1e6, 0.0)).ok
    assert hosts.machines.serving("busy", 5.0)


def test_a_machine_that_stops_is_told_at_once(hosts: FailingHosts, hypervisors: LibvirtHypervisors) -> None:
    hypervisors.loads(time.time())
    hosts.machines.domain("large").destroy()
    states = []
    for _ in range(20):
        states += [one.state for one in hypervisors.loads(time.time())[1] if one.vm == "large"]
        if "stopped" in states:
            break
        time.sleep(0.1)
    assert states[-1] == "stopped"
    hosts.machines.connections["hA"].lookupByName("large").create()
    hosts.machines.wait_serving()

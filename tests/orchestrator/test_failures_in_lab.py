"""What breaks on real hosts, one thing at a time: the machine lives on where it can, and the journal says what was."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from failing_hosts import LIBVIRTD, QEMU, FailingHosts, guest, until
from trials import WANTED, Trial, decide

from cpdb import HostLoad, LabError, OutcomeKind, Store, VmLoad
from orchestrator import HostSpec, MigrateVm, PoolMember, PoolSpec, ScaleOut, SetCpuLimit, SetVcpus
from tools.lab import cgroups
from tools.lab.machines import domain_xml

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(150),
]
MOVE = MigrateVm("g1", "hA", "hB")
MIB = 1 << 20
VIP = "10.0.0.101"
POOL = PoolSpec(VIP, (PoolMember("g4", "10.77.0.34", "52:54:00:77:00:34", "hA", "defined"),))
# Depending on what was being asked when the connection broke.
BROKEN = ("does not answer", "went away", "ended or was restarted")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingHosts]:
    # Two lost answers on an idle connection, not libvirt's five of five seconds each.
    with FailingHosts(tmp_path_factory.mktemp("hosts")) as made:
        for name in ("hA", "hB"):
            made.restart_libvirtd(name, "qemu.conf", keepalive_interval=1, keepalive_count=2)
        yield made


@pytest.fixture
def start(hosts: FailingHosts, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Trial]]:
    """Makes a trial on hosts as they should be; afterwards everything has to be as it was."""
    made: list[Trial] = []

    def trial(**changed: HostSpec) -> Trial:
        specs = tuple(changed.get(one.name, one) for one in hosts.specs())
        made.append(Trial(hosts, store, WANTED.tuned(declared={"hosts": specs, "pools": (POOL,)})))
        monkeypatch.setattr(decide, "plan", made[-1].plan)
        return made[-1]

    yield trial
    for one in made:
        one.orchestrator.close()
    hosts.mend()
    assert hosts.defined("g1") == hosts.defined("g2") == {"hA": True}
    for vm in ("g1", "g2"):
        hosts.machines.set_quota(vm, 0.5)


@contextmanager
def lives(hosts: FailingHosts, vm: str = "g1", host: str = "hA") -> Iterator[None]:
    """Whatever happens inside, the machine afterwards answers on its host, and was not started anew."""
    boot = hosts.answers(vm, host)
    yield

    def answer() -> str | None:
        try:
            return hosts.answers(vm, host)
        except LabError:
            return None

    assert until(f"{vm} answers on {host}", answer) == boot


def failed_once_and_left(trial: Trial, *words: str) -> str:
    """The move failed with one clear sentence, is not tried again at once, and other work goes on."""
    row = trial.ended("migrate_vm")
    assert row.outcome is OutcomeKind.FAILED, row.sentence
    assert "\n" not in row.sentence
    for word in (*words, "g1 still runs on hA"):
        assert word in row.sentence, row.sentence
    before = time.time()
    trial.wants = [*trial.wants, SetCpuLimit("g2", 0.5, 0.4)]
    assert trial.ended("set_cpu_limit").outcome is OutcomeKind.DONE
    trial.until("another second passes", lambda: time.time() > before + 1)
    assert len(trial.rows("migrate_vm")) == 1
    assert any("next try after" in one for one in trial.refusals())
    return row.sentence


def measured(trial: Trial, since: float) -> set[str]:
    """The hosts that were measured since then."""
    return {one.host for one in trial.store.facts.loads(HostLoad, since, time.time())}


def looks(trial: Trial, vm: str, since: float) -> list[float]:
    """When the machine was measured since then."""
    return [one.t for one in trial.store.facts.loads(VmLoad, since, time.time()) if one.vm == vm]


def begun(trial: Trial) -> None:
    """The copy of g1's memory is under way."""
    trial.wants = [MOVE]
    trial.until("the copy is under way", lambda: trial.hosts.moving("g1"))


def test_the_destination_does_not_listen(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    deaf = replace(hosts.specs()[1], migration_uri="qemu+tcp://10.99.0.2:9/system")
    trial = start(hB=deaf)
    with lives(hosts):
        trial.wants = [MOVE]
        failed_once_and_left(trial, "Connection refused")


def test_the_destination_has_one_of_that_name(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    other = "<domain type='qemu'><name>g1</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    namesake = hosts.machines.connections["hB"].defineXML(other)
    try:
        trial = start()
        with lives(hosts):
            trial.wants = [MOVE]
            failed_once_and_left(trial, "already exists")
        assert hosts.defined("g1") == {"hA": True, "hB": False}  # another's machine is not ours to remove
    finally:
        namesake.undefine()


def test_the_destination_is_full(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    limit = next(one for one in cgroups.trees() if "memory" in one.options).mount / hosts.places["hB"].group
    file = limit / "memory.limit_in_bytes"
    trial = start()
    used = int((limit / "memory.usage_in_bytes").read_text())
    file.write_text(str(used + 24 * MIB))
    try:
        with lives(hosts):
            trial.wants = [MOVE]
            failed_once_and_left(trial, "lack of memory")
    finally:
        file.write_text("-1")


def test_the_destination_loses_power_in_the_middle(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    trial = start()
    with hosts.slow(8), lives(hosts):
        begun(trial)
        hosts.kill("hB", QEMU)
        hosts.kill("hB", LIBVIRTD)
        failed_once_and_left(trial, "the other end or the network to it went away")
        assert trial.longest_turn_s < 10
    hosts.start_libvirtd("hB")
    began = time.time()
    trial.until("hB is measured again", lambda: "hB" in measured(trial, began))


def test_the_network_is_cut_in_the_middle(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    trial = start()
    with hosts.slow(8), lives(hosts):
        begun(trial)
        with hosts.cut("hB"):
            failed_once_and_left(trial, "the other end or the network to it went away")
    until("what had arrived is gone", lambda: not hosts.pids("hB", QEMU))


def test_the_sources_libvirtd_is_restarted_in_the_middle(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    trial = start()
    with hosts.slow(8), lives(hosts):
        begun(trial)
        hosts.kill("hA", LIBVIRTD)
        hosts.start_libvirtd("hA")
        failed_once_and_left(trial, "libvirtd of the source ended or was restarted")
    until("what had arrived is gone", lambda: not hosts.pids("hB", QEMU))


def test_the_libvirtd_is_restarted_during_a_resize(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    trial = start()
    with lives(hosts):
        trial.turn()
        with hosts.frozen("g1"):  # the change hangs until its libvirtd is gone
            trial.wants = [SetVcpus("g1", 1, 2)]
            trial.until("it is under way", lambda: trial.rows("set_vcpus"))
            time.sleep(0.5)
            hosts.kill("hA", LIBVIRTD)
            row = trial.ended("set_vcpus")
            assert row.outcome is OutcomeKind.FAILED
            assert any(words in row.sentence for words in BROKEN) and "\n" not in row.sentence, row.sentence
        hosts.start_libvirtd("hA")
        began = time.time()
        trial.until("hA is measured again", lambda: "hA" in measured(trial, began))
        trial.wants = [SetCpuLimit("g1", 0.5, 0.45)]
        assert trial.ended("set_cpu_limit").outcome is OutcomeKind.DONE


def test_a_guest_hangs(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    trial = start()
    trial.until("both are measured", lambda: len(trial.orchestrator.world(time.time()).vms) == 2)
    with lives(hosts), hosts.frozen("g1"):
        trial.wants = [SetVcpus("g1", 1, 2), SetCpuLimit("g2", 0.5, 0.4)]
        assert trial.ended("set_cpu_limit").outcome is OutcomeKind.DONE
        began = time.time()
        trial.until("its neighbour is measured all the same", lambda: len(looks(trial, "g2", began)) >= 3)
        assert trial.longest_turn_s < 5
    row = trial.ended("set_vcpus", 60)
    assert row.outcome is OutcomeKind.DONE or "g1" in row.sentence


DISK = """<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/var/lib/libvirt/{name}.raw'/>
 <target dev='vda' bus='virtio'/>{more}</disk><interface """


@contextmanager
def with_a_disk(hosts: FailingHosts, more: str) -> Iterator[None]:
    """A machine g3 on hA whose disk is a file that only hA has."""
    (hosts.places["hA"].directory / "var-libvirt" / "g3.raw").write_bytes(bytes(1 * MIB))
    xml = domain_xml(guest("g3", 33), hosts.layout, hosts.machines.assets)
    domain = hosts.machines.connections["hA"].defineXML(
        xml.replace("<interface ", DISK.format(name="g3", more=more), 1)
    )
    domain.create()
    try:
        yield
    finally:
        domain.destroy()
        domain.undefine()


@pytest.mark.parametrize(("more", "words"), [("", "one host only"), ("<readonly/>", "not there")])
def test_the_disk_is_not_there(hosts: FailingHosts, start: Callable[..., Trial], more: str, words: str) -> None:
    """Whether libvirt finds out before it begins or when it arrives, the machine stays."""
    with with_a_disk(hosts, more):
        trial = start()
        trial.wants = [MigrateVm("g3", "hA", "hB")]
        row = trial.ended("migrate_vm")
        assert row.outcome is OutcomeKind.FAILED
        assert words in row.sentence and "g3 still runs on hA" in row.sentence, row.sentence
        assert hosts.defined("g3") == {"hA": True}


def test_a_machine_whose_disk_is_missing_does_not_join(hosts: FailingHosts, start: Callable[..., Trial]) -> None:
    xml = domain_xml(guest("g4", 34), hosts.layout, hosts.machines.assets)
    domain = hosts.machines.connections["hA"].defineXML(xml.replace("<interface ", DISK.format(name="g4", more=""), 1))
    try:
        trial = start()
        trial.wants = [ScaleOut(VIP, "g4", "hA", "defined")]
        row = trial.ended("scale_out")
        assert row.outcome is OutcomeKind.REVERTED, row.sentence
        assert "not there" in row.sentence and "g4" in row.sentence and "\n" not in row.sentence
        assert hosts.defined("g4") == {"hA": False}
        assert trial.store.inventory.changes() == []
    finally:
        domain.undefine()

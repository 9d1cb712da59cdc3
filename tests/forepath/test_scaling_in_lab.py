"""On real QEMU: a service grows by a paused, a saved and a new machine, shrinks and moves; no request is lost."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cpdb import HealthReport, MachineReport, OutcomeKind, Standing, Store, open_store
from forepath.demo.layout import LabLayout, LabVm, ServiceSpec
from forepath.demo.scene import as_tables, scene
from forepath.paths import PathReader
from forepath.processes import orchestrator_config, with_pools
from forepath.settings import Settings, declare
from orchestrator import LibvirtHypervisors, LibvirtPool, MigrateVm, Orchestrator, OrchestratorConfig

pytestmark = pytest.mark.vm
VIP = "10.77.0.101"
MIB = 1 << 20
VISITOR = (sys.executable, str(Path(__file__).with_name("steady_visitor.py")))


def machine(name: str, host: str, number: int) -> LabVm:
    return LabVm(name, host, f"10.77.0.{number}", f"52:54:00:77:00:{number:02x}", 0.3, "shop")


MACHINES = (machine("shop1", "hA", 11), machine("shop2", "hB", 21), machine("shop3", "hA", 12))
NEW = machine("shop4", "hB", 22)
LAYOUT = replace(LabLayout(), vms=MACHINES, services=(ServiceSpec("shop", VIP, 10, {"shop1": 100}),))


@dataclass
class Scaled:
    """The lab with its controller, and an orchestrator that is turned by hand."""

    lab: Any
    store: Store
    settings: Settings
    config: OrchestratorConfig
    hows: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.orchestrator = self.fresh(self.config)

    def fresh(self, config: OrchestratorConfig) -> Orchestrator:
        drivers = with_pools(LibvirtHypervisors(config.declared.hosts), self.store, config)
        return Orchestrator(config, self.store, drivers, PathReader(self.store, 1.0, time.time))

    def with_least(self, least: int) -> None:
        """Another orchestrator, as after a change of the settings file."""
        self.orchestrator.close()
        pools = tuple(replace(one, least=least) for one in self.config.declared.pools)
        self.orchestrator = self.fresh(self.config.tuned(declared={"pools": pools}))

    def until(self, holds: Callable[[], bool], within_s: float) -> bool:
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            began = time.monotonic()
            self.orchestrator.observe(time.time())
            self.orchestrator.cycle(time.time())
            if holds():
                return True
            time.sleep(max(0.0, 0.5 - (time.monotonic() - began)))
        return holds()

    def weights(self) -> dict[str, int]:
        (vip,) = self.store.inventory.virtual_ips()
        return {one.name: one.weight for one in vip.destinations if one.standing is Standing.SERVING}

    def ended(self, kind: str) -> list[tuple[str, str, str]]:
        """(machine, outcome, what was said and why) of the actions of a kind, oldest first."""
        rows = [one for one in self.store.journal.actions() if one.kind == kind]
        open_ones = (OutcomeKind.SKIPPED, OutcomeKind.PENDING)
        rows = [one for one in reversed(rows) if one.outcome not in open_ones]
        return [(one.target, one.outcome.value, f"{one.sentence} | {one.why}") for one in rows]

    def log(self) -> str:
        return (self.lab.run_directory / "controller.log").read_text()[-3000:]


def pools(template: Path, image: Path) -> list[dict[str, Any]]:
    members = [
        {"name": one.name, "address": one.address, "mac": one.mac, "host": one.host, "how": how}
        for one, how in ((MACHINES[1], "paused"), (MACHINES[2], "saved"), (NEW, "image"))
    ]
    return [
        {
            "virtual_ip": "shop", "max_destinations": 4, "probe": "agent", "member": members,
            "machine": {
                "cpu_cores_base": 0.25, "cpu_cores_max": 0.25, "memory_mib": 128,
                "image": str(image), "template": str(template),
            },
            "arrival": {"ramp_step_s": 0.5}, "departure": {"cooldown_s": 1.0},
        }
    ]  # fmt: skip


def template(directory: Path) -> Path:
    """The lab's own guest, with a disk of its own."""
    from tools.lab.assets import load_assets
    from tools.lab.machines import domain_xml

    text = domain_xml(replace(NEW, name="$name", address="$address", mac="$mac"), LAYOUT, load_assets())
    disk = "<disk type='file'><driver name='qemu' type='qcow2'/><source file='$disk'/><target dev='vda' bus='virtio'/>"
    file = directory / "guest.xml"
    file.write_text(text.replace("<devices>", f"<devices>{disk}</disk>"))
    return file


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaled]:
    from tools.lab.lab import Lab

    directory = tmp_path_factory.mktemp("scaling")
    image = directory / "golden.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "16M"], check=True, timeout=20)
    database = directory / "forepath.db"
    with Lab(LAYOUT, run_directory=directory / "run") as lab:
        lab.start()
        tables = as_tables(scene(LAYOUT, database, lab.uris, lab.migration_uris))
        tables["virtual_ip"][0] |= {"affinity": "connection", "probe": "tcp:80"}
        settings = Settings.model_validate(tables | {"pool": pools(template(directory), image)})
        store = open_store(settings.database.url)
        declare(settings, store)
        config = orchestrator_config(settings, act=True).tuned(cpu={"calm_s": 4.0}, timing={"poll_s": 1.0})
        at_rest = LibvirtPool(config.declared.hosts)
        for one in config.declared.pools[0].members[:2]:
            at_rest.rest(config.declared.pools[0], one, one.how, 0.0)
        at_rest.close()
        manager = Path(sys.executable).with_name("ryu-manager")
        argv = [str(manager), "ryu_apps.controller", "--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "6653"]
        lab.popen("controller", argv, {"FOREPATH_DATABASE_URL": settings.database.url})
        made = Scaled(lab, store, settings, config)
        yield made
        made.orchestrator.close()
        store.close()


def healthy(scaled: Scaled) -> bool:
    return any(one.status == "up" for one in scaled.store.wanted.observed_of(HealthReport))


def boot_id(scaled: Scaled, vm: str) -> str:
    return str(scaled.lab.machines.stat(vm)["boot_id"])


def test_no_request_is_lost_while_it_grows_and_shrinks(scaled: Scaled, tmp_path: Path) -> None:
    assert scaled.until(lambda: healthy(scaled), 60), scaled.log()
    before = len(scaled.ended("scale_in"))
    stop = tmp_path / "stop"
    visitor = scaled.lab.fabric.client_popen(
        "c1", [*VISITOR, VIP, str(stop)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert visitor.stdout.readline().strip() == "ready"
        scaled.with_least(3)
        grown = scaled.until(lambda: scaled.weights() == {"shop1": 100, "shop2": 100, "shop3": 100}, 60)
        assert grown, (scaled.weights(), scaled.ended("scale_out"), scaled.log())
        boots = {vm: boot_id(scaled, vm) for vm in ("shop1", "shop2", "shop3")}
        time.sleep(3)
        scaled.with_least(2)
        shrunk = scaled.until(lambda: len(scaled.weights()) == 2 and len(scaled.ended("scale_in")) > before, 90)
        assert shrunk, (scaled.weights(), scaled.ended("scale_in"), scaled.log())
        time.sleep(1)
    finally:
        stop.touch()
        text, _ = visitor.communicate(timeout=30)
    found = json.loads(text.strip().splitlines()[-1])
    assert found["failed"] == []
    assert found["slow"] > 5
    for vm, boot in boots.items():
        assert found["answered"].get(boot, 0) > 10, (vm, found)
    assert {one[1] for one in (*scaled.ended("scale_out"), *scaled.ended("scale_in"))} == {"done"}
    (left,) = {"shop2", "shop3"} - set(scaled.weights())
    assert states(scaled)[left] == {"shop2": "paused", "shop3": "saved"}[left]


def test_no_request_is_lost_while_a_serving_machine_moves_to_another_host_and_back(
    scaled: Scaled, tmp_path: Path
) -> None:
    assert scaled.until(lambda: healthy(scaled), 60), scaled.log()
    stop, boot = tmp_path / "stop", boot_id(scaled, "shop1")
    drivers = LibvirtHypervisors(scaled.config.declared.hosts)
    visitor = scaled.lab.fabric.client_popen(
        "c1", [*VISITOR, VIP, str(stop)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert visitor.stdout.readline().strip() == "ready"
        ended = []
        for number, (here, there) in enumerate((("hA", "hB"), ("hB", "hA")), start=1):
            time.sleep(2)
            drivers.start(number, MigrateVm("shop1", here, there), time.time())
            assert scaled.until(lambda: bool(found := drivers.finished(time.time())) and not ended.extend(found), 60)
            assert scaled.lab.machines.host_of("shop1") == there
        time.sleep(2)
    finally:
        stop.touch()
        text, _ = visitor.communicate(timeout=30)
        drivers.close()
    found = json.loads(text.strip().splitlines()[-1])
    assert [one.ok for one in ended] == [True, True], ended
    assert found["failed"] == []
    assert found["answered"].get(boot, 0) > 20, found


def states(scaled: Scaled) -> dict[str, str]:
    return {one.vm: one.state for one in scaled.store.wanted.observed_of(MachineReport)}


@pytest.mark.long
def test_a_machine_is_made_of_the_golden_image_and_taken_away_again(scaled: Scaled, tmp_path: Path) -> None:
    """The warm ones are at rest and left out, so the new one has to come."""
    scaled.with_least(1)
    rest = {"shop2": "paused", "shop3": "saved", "shop4": "absent"}
    assert scaled.until(lambda: scaled.weights() == {"shop1": 100} and states(scaled) == rest, 90), states(scaled)
    assert scaled.until(lambda: healthy(scaled), 60), scaled.log()
    only = replace(scaled.config.declared.pools[0], members=scaled.config.declared.pools[0].members[2:])
    whole, scaled.config = scaled.config, scaled.config.tuned(declared={"pools": (only,)})
    stop = tmp_path / "stop"
    visitor = scaled.lab.fabric.client_popen(
        "c1", [*VISITOR, VIP, str(stop)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert visitor.stdout.readline().strip() == "ready"
        scaled.with_least(2)
        grown = scaled.until(lambda: scaled.weights() == {"shop1": 100, "shop4": 100}, 90)
        assert grown, (scaled.weights(), scaled.ended("scale_out"), scaled.log())
        time.sleep(3)
        scaled.with_least(1)
        gone = scaled.until(lambda: scaled.weights() == {"shop1": 100} and states(scaled)["shop4"] == "absent", 90)
        assert gone, (scaled.weights(), states(scaled), scaled.ended("scale_in"), scaled.log())
    finally:
        stop.touch()
        text, _ = visitor.communicate(timeout=30)
        scaled.config = whole
    found = json.loads(text.strip().splitlines()[-1])
    assert found["failed"] == []
    assert len(found["answered"]) >= 2, "the new machine served"
    image = scaled.config.declared.pools[0].image
    assert image is not None
    assert [one.name for one in Path(image.path).parent.glob("*.qcow2")] == ["golden.qcow2"]

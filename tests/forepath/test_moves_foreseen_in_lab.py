"""What is foreseen leads the live processes to migrate real machines, for a host and for a link; no hand."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from foreseen_lab import BULK, Surges, eventually, play, wait_until

from cpdb import MIB
from forepath.demo.layout import LabLayout, LabVm, ServiceSpec
from forepath.demo.scene import MBIT, as_tables, as_toml, scene
from forepath.demo.schedule import Stream
from forepath.settings import Settings
from tools.lab.assets import default_directory, load_assets
from tools.lab.lab import Lab

pytestmark = pytest.mark.vm
ASSETS = default_directory().resolve()  # before a test goes to a directory of its own
# A forecast is trusted once its errors of some minutes were small.
PERIOD_S, LEARNING, PERIODS = 40.0, 7, 11
# Before a migration may be foreseen: quiet of both services.
QUIET_S = 6.0


def machine(name: str, host: str, number: int, cores: float, service: str | None, priority: int = 10) -> LabVm:
    mac = f"52:54:00:77:00:{number:02x}"
    burn_percent = 0 if service else 100
    return LabVm(name, host, f"10.77.0.{number}", mac, cores, service, priority, burn_percent, 128 * MIB)


HOST_A, HOST_B = LabLayout().hypervisors
# On one host a batch machine is in the way of what the shop will need, on the other one a copy in that of what is sent.
LAYOUT = replace(
    LabLayout(),
    vms=(
        machine("shop1", "hA", 11, 0.3, "shop"),
        machine("batch1", "hA", 12, 0.4, None, priority=0),
        machine("app1", "hB", 21, 0.4, "app"),
        machine("bulk1", "hB", 22, 0.1, "bulk", priority=0),
    ),
    services=(
        ServiceSpec("shop", "10.77.0.101", 10, {"shop1": 100}),
        ServiceSpec("app", "10.77.0.102", 10, {"app1": 100}),
        ServiceSpec("bulk", BULK, 0, {"bulk1": 100}),
    ),
    hypervisors=(
        replace(HOST_A, cpu_cores=1.2, access_bytes_per_s=40 * MBIT),
        replace(HOST_B, cpu_cores=1.2, access_bytes_per_s=12 * MBIT),
    ),
    fabric_bytes_per_s=60 * MBIT,
)
SURGES = (
    Surges("shop", "10.77.0.101", "c1", PERIOD_S, 5.0, 8.0, 26.0, 4_000, 28.0),
    Surges("app", "10.77.0.102", "c2", PERIOD_S, 25.0, 8.0, 20.0, 50_000, 0.0),
)
STREAM = Stream("c4", "bulk", 9, 1200, PERIODS * PERIOD_S, ((0.0, 6 * MBIT),))


def settings(lab: Lab, directory: Path) -> Settings:
    """What somebody who runs these machines would write."""
    tables = as_tables(scene(LAYOUT, directory / "cpdb.db", lab.uris, lab.migration_uris))
    for vm in tables["vm"]:
        vm["movable"] = LAYOUT.vm(vm["name"]).priority == 0
    return Settings.model_validate(tables | {"web": {"enabled": False}})


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(LAYOUT, run_directory=tmp_path / "lab", assets=load_assets(ASSETS)) as running:
        running.start()
        yield running


@pytest.mark.long
@pytest.mark.timeout(600)
def test_forecasts_lead_to_moves_for_a_host_and_for_a_link_before_the_need(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "forepath.toml").write_text(as_toml(settings(lab, tmp_path)), encoding="utf-8")
    played = play(lab, tmp_path, SURGES, PERIODS, [STREAM])
    wait_until(played.start_at + LEARNING * PERIOD_S - QUIET_S)
    played.let_act()
    assert eventually(lambda: len(played.moved()) == 2, (PERIODS - LEARNING) * PERIOD_S), played.told()
    assert played.moved() == {"batch1", "bulk1"}
    played.store.close()

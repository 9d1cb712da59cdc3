"""What is foreseen leads the live processes to act on real machines: limits, vCPUs, memory, more machines; no hand."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from foreseen_lab import Surges, eventually, play, wait_until

from cpdb import open_store
from forepath.demo.layout import LabLayout, LabVm, ServiceSpec
from forepath.demo.scene import MBIT, as_tables, as_toml, scene
from forepath.settings import Settings
from tools.lab.assets import default_directory, load_assets
from tools.lab.demo import lay_to_rest
from tools.lab.lab import Lab

pytestmark = pytest.mark.vm
ASSETS = default_directory().resolve()  # before a test goes to a directory of its own
# A forecast is trusted once its errors of some minutes were small.
PERIOD_S, LEARNING, PERIODS = 40.0, 6, 10


def machine(name: str, host: str, number: int, cores: float, service: str) -> LabVm:
    return LabVm(name, host, f"10.77.0.{number}", f"52:54:00:77:00:{number:02x}", cores, service)


MACHINES = (
    machine("shop1", "hA", 11, 0.25, "shop"),
    machine("shop2", "hB", 21, 0.25, "shop"),
    machine("shop3", "hA", 12, 0.25, "shop"),
    machine("app1", "hB", 22, 0.4, "app"),
    machine("cache1", "hA", 13, 0.3, "cache"),
)
LAYOUT = replace(
    LabLayout(),
    vms=MACHINES,
    services=(
        ServiceSpec("shop", "10.77.0.101", 10, {"shop1": 100}),
        ServiceSpec("app", "10.77.0.102", 10, {"app1": 100}),
        ServiceSpec("cache", "10.77.0.103", 10, {"cache1": 100}),
    ),
    hypervisors=tuple(replace(one, cpu_cores=2.0, access_bytes_per_s=50 * MBIT) for one in LabLayout().hypervisors),
)
# The last seconds of a period, in which nobody asks for much.
QUIET_S = 5.0
# Each service runs short of something else, at a time of its own. A machine that comes from a file takes longest, and
# stays: the first surge that may be acted on comes when it has been foreseen for long enough.
SURGES = (
    Surges("shop", "10.77.0.101", "c1", PERIOD_S, 16.0, 10.0, 14.0, 8_000, 18.0),
    Surges("app", "10.77.0.102", "c2", PERIOD_S, 29.0, 5.0, 34.0, 8_000, 30.0),
    Surges("cache", "10.77.0.103", "c3", PERIOD_S, 3.0, 5.0, 12.0, 2_000, 0.0),
)
# The cache's clients make it hold 40 MiB while they are many.
HOLDER = """
import sys, time, urllib.request
address, start, period, phase, length = sys.argv[1], *map(float, sys.argv[2:])
while True:
    place = (time.time() - start - phase) % period
    busy = place < length
    try:
        urllib.request.urlopen(f"http://{address}/dirty?kib={40960 * busy}&kib_per_s={40960 * busy}", timeout=2).read()
    except OSError:
        time.sleep(0.2)
        continue
    time.sleep((length if busy else period) - place + 0.02)
"""


def pool() -> dict[str, object]:
    members = [
        {"name": one.name, "address": one.address, "mac": one.mac, "host": one.host, "how": how}
        for one, how in ((MACHINES[1], "paused"), (MACHINES[2], "saved"))
    ]
    return {
        "virtual_ip": "shop", "max_destinations": 3, "probe": "agent", "member": members,
        "machine": {"cpu_cores_base": 0.25, "cpu_cores_max": 0.25, "memory_mib": 128},
        "arrival": {"ramp_step_s": 0.5}, "departure": {"cooldown_s": 1.0},
    }  # fmt: skip


def settings(lab: Lab, directory: Path) -> Settings:
    """What somebody who runs these machines would write."""
    tables = as_tables(scene(LAYOUT, directory / "cpdb.db", lab.uris, lab.migration_uris))
    tables["virtual_ip"][0] |= {"affinity": "connection", "probe": "tcp:80"}
    limits = {"shop": {"cpu_cores_max": 0.25}, "app": {"cpu_cores_max": 1.6}, "cache": {"memory_mib_max": 128}}
    for vm in tables["vm"]:
        vm |= limits[LAYOUT.vm(vm["name"]).service or ""]
    tables |= {"pool": [pool()], "web": {"enabled": False}}
    # What is given back can be had again within 5 s, so it goes back where nobody needs it for so long.
    tables["orchestrator"] = {"cpu": {"calm_s": 4.0}, "guard": {"resize_cooldown_s": 2.0}}
    return Settings.model_validate(tables)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(LAYOUT, run_directory=tmp_path / "lab", assets=load_assets(ASSETS)) as running:
        running.start()
        yield running


@pytest.mark.long
@pytest.mark.timeout(600)
def test_forecasts_lead_to_limits_vcpus_memory_and_machines_before_the_need(lab: Lab, tmp_path: Path) -> None:
    declared = settings(lab, tmp_path)
    (tmp_path / "forepath.toml").write_text(as_toml(declared), encoding="utf-8")
    store = open_store(declared.database.url)
    lay_to_rest(declared, store)
    store.close()
    played, cache = play(lab, tmp_path, SURGES, PERIODS), SURGES[2]
    numbers = (repr(one) for one in (played.start_at, PERIOD_S, cache.phase_s, cache.surge_s))
    lab.client_popen("c3", [sys.executable, "-c", HOLDER, cache.address, *numbers], "holder")
    wait_until(played.start_at + LEARNING * PERIOD_S - QUIET_S)
    played.let_act()
    wanted = {"set_cpu_limit", "set_vcpus", "set_memory", "scale_out paused", "scale_out saved"}
    assert eventually(lambda: wanted <= played.led(), (PERIODS - LEARNING) * PERIOD_S), played.told()
    played.store.close()

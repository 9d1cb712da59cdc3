"""What is foreseen leads the live processes to act: real switches, traffic that recurs, no hand on any trigger."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreseen_lab import BULK, Surges, eventually, play, wait_until

from forepath.demo.layout import ClientSpec, LabLayout
from forepath.demo.scene import MBIT, as_tables, as_toml, scene
from forepath.demo.schedule import Stream
from forepath.settings import Settings
from tools.lab.lab import Lab

pytestmark = pytest.mark.lab
PERIOD_S, SURGE_S, LEARNING, PERIODS = 16.0, 5.0, 6, 16
SERVER = (sys.executable, str(Path(__file__).with_name("swallowing_server.py")))


def host(name: str, number: int, switch: str, mbit_per_s: float = 100.0) -> ClientSpec:
    return ClientSpec(name, f"10.77.0.{number}", f"02:00:0a:4d:00:{number:02x}", switch, number, mbit_per_s * MBIT)


LAYOUT = LabLayout(
    clients=(
        host("c1", 11, "leaf1"), host("c2", 12, "leaf1"), host("c3", 13, "leaf1"), host("c4", 14, "leaf1"),
        host("s1", 21, "leaf2", 12.0), host("s3", 23, "leaf2", 3.0), host("s4", 24, "leaf3", 12.0),
        host("s5", 25, "leaf3"),
    ),
    vms=(),
    services=(),
    hypervisors=(),
    fabric_bytes_per_s=60 * MBIT,
)  # fmt: skip


# Each of them runs short in its own way: beside a less important stream on the one link to its server; at the nearer of
# two servers, behind a narrow link; on one of two paths between two switches.
SERVICES = (
    Surges("shop", "10.77.0.101", "c1", PERIOD_S, 0.0, SURGE_S, 25.0, 40_000),
    Surges("web", "10.77.0.102", "c2", PERIOD_S, 5.0, SURGE_S, 24.0, 40_000),
    Surges("video", "10.77.0.103", "c3", PERIOD_S, 10.0, SURGE_S, 30.0, 80_000),
)
SERVERS = {"shop": ("s1",), "web": ("s3", "s4"), "video": ("s5",), "bulk": ("s1",)}
STREAM = Stream("c4", "bulk", 9, 1200, PERIODS * PERIOD_S, ((0.0, 8 * MBIT),))


def settings(directory: Path) -> Settings:
    """What somebody who runs this network would write."""
    declared = as_tables(scene(LAYOUT, directory / "cpdb.db", {}, {}))
    services = [
        {
            "name": name, "address": address, "priority": 0 if name == "bulk" else 10, "streams": name == "bulk",
            "affinity": "connection" if name == "web" else "source",
            "destination": [
                {"name": one.name, "address": one.address, "mac": one.mac} for one in map(LAYOUT.client, SERVERS[name])
            ],
        }
        for name, address in [*((one.name, one.address) for one in SERVICES), ("bulk", BULK)]
    ]  # fmt: skip
    routing = {"enabled": True, "every_s": 5.0, "trigger": 0.3}
    return Settings.model_validate(declared | {"virtual_ip": services, "routing": routing, "web": {"enabled": False}})


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(LAYOUT, run_directory=tmp_path / "lab", vms=False) as running:
        running.start()
        for name in {name for names in SERVERS.values() for name in names}:
            running.client_popen(name, [*SERVER])
        yield running


@pytest.mark.timeout(400)
def test_forecasts_lead_to_limits_weights_and_splits_before_the_need(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "forepath.toml").write_text(as_toml(settings(tmp_path)), encoding="utf-8")
    played = play(lab, tmp_path, SERVICES, PERIODS, [STREAM])
    wait_until(played.start_at + LEARNING * PERIOD_S)
    played.let_act()
    wanted = {"reserve_bandwidth", "set_weights", "set_routes"}
    assert eventually(lambda: wanted <= played.led(), (PERIODS - LEARNING) * PERIOD_S), played.told()
    played.store.close()

"""`forepath run` on real switches: three processes that meet only in the database, up together and gone together."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cpdb import open_store
from forepath.demo.scene import as_tables, as_toml, scene
from forepath.settings import Settings
from tools.lab.lab import Lab

pytestmark = pytest.mark.lab
VIP = "10.77.0.101"
PYTHON = [sys.executable]
ASK = f"""
import time, urllib.request
while True:
    try:
        urllib.request.urlopen("http://{VIP}:8000/", timeout=2).read()
    except OSError:
        pass
    time.sleep(0.3)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(run_directory=tmp_path / "lab", vms=False) as running:
        running.start()
        yield running


def write_settings(lab: Lab, path: Path) -> None:
    """The lab's switches, its clients, and one virtual IP whose destination is the last client."""
    layout = replace(lab.layout, vms=(), services=(), hypervisors=())
    server = layout.clients[3]
    destination = {"name": server.name, "address": server.address, "mac": server.mac}
    shop = {"name": "shop", "address": VIP, "priority": 1, "destination": [destination]}
    tables = as_tables(scene(layout, path.parent / "cpdb.db", {}, {}))
    path.write_text(as_toml(Settings.model_validate(tables | {"virtual_ip": [shop]})), encoding="utf-8")


def eventually(check: Callable[[], Any], within_s: float) -> Any:
    end = time.monotonic() + within_s
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def test_run_mirrors_forecasts_and_ends_everything(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "forepath.toml"
    write_settings(lab, file)
    command = [*PYTHON, "-m", "forepath", "run", "--settings", str(file), "--json", str(tmp_path / "summary.json")]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lab.client_popen("c4", [*PYTHON, "-m", "http.server", "8000", "--directory", str(tmp_path / "lab")])
        lab.client_popen("c1", [*PYTHON, "-c", ASK])
        store = open_store(f"sqlite:///{tmp_path}/cpdb.db")
        spoke = eventually(lambda: [r for r in store.facts.communications(0.0) if r.new_connections], 40)
        assert spoke, (tmp_path / ".run/controller.log").read_text()
        assert {(row.source, row.virtual_ip, row.destination) for row in spoke} == {("c1", VIP, "c4")}
        assert eventually(lambda: store.forecasts.latest(time.time(), 10), 60), "no forecast"
        asked = ["paths", "--from", "c1", "--to", "shop", "--settings", str(file), "--json", "-"]
        said = subprocess.run(
            [*PYTHON, "-m", "forepath", *asked], capture_output=True, text=True, check=True,
        )  # fmt: skip
        hops = [(one["from_node"], one["to_node"]) for one in json.loads(said.stdout)["links"]]
        assert hops == [("c1", "leaf1"), ("leaf1", "c4")]
        assert store.journal.actions() == []
    finally:
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=30)
    assert running.returncode == 0, out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["programs"], summary["restarts"]) == (["controller", "predictor", "orchestrator", "web"], 0)
    assert "Traceback" not in "".join(one.read_text() for one in (tmp_path / ".run").glob("*.log"))
    store.close()

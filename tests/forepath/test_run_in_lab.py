"""`forepath run` on real switches: three processes that meet only in the database, up together and gone together."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpdb import open_store
from forepath.demo.scene import MBIT
from forepath.settings import load_settings
from tools.lab.lab import Lab
from tools.lab.stage import on_stage

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not on_stage(), reason="needs the lab's stage: python -m tools.lab.stage -- pytest -m lab"),
]
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
    layout = lab.layout
    server = layout.clients[3]
    lines = [f'[database]\nurl = "sqlite:///{path.parent}/cpdb.db"']
    lines += [f'[[node]]\nname = "{one.name}"\nkind = "switch"\ndpid = {one.dpid}' for one in layout.switches]
    lines += [f'[[node]]\nname = "{one.name}"\nkind = "client"\naddress = "{one.address}"' for one in layout.clients]
    lines += [
        f'[[link]]\na = "{a}"\na_port = {p}\nb = "{b}"\nb_port = {q}\ncapacity_mbit_per_s = '
        f"{layout.fabric_bytes_per_s / MBIT}"
        for a, p, b, q in layout.fabric_ports()
    ]
    lines += [
        f'[[link]]\na = "{one.switch}"\na_port = {one.port}\nb = "{one.name}"\ncapacity_mbit_per_s = 100'
        for one in layout.clients
    ]
    lines.append(
        f'[[virtual_ip]]\nname = "shop"\naddress = "{VIP}"\npriority = 1\n'
        f'[[virtual_ip.destination]]\nname = "{server.name}"\naddress = "{server.address}"\nmac = "{server.mac}"'
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    load_settings(path)


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

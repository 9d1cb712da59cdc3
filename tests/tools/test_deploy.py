"""The units of systemd and the composition say what the programs really take, as far as that can be told unrun."""

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cpdb import ALIVE, READY, notify_systemd
from tools.command_page import commands
from tools.house import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("forepath*"))
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
WORST_EXPOSURE = 2.0


def service(unit: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit)
    return dict(parser["Service"])


def installed(tmp_path: Path) -> list[Path]:
    """The units as they are where forepath is installed: with programs that are there."""
    bin_folder = str(Path(sys.executable).parent)
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/forepath/bin", bin_folder)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return [path for path in sorted(tmp_path.glob("forepath*")) if path.suffix != ".sysusers"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    words = ["systemd-analyze", "verify", "--man=no", *map(str, installed(tmp_path))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_what_a_unit_exposes_is_little(tmp_path: Path, unit: Path) -> None:
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found is not None and float(found[1]) <= WORST_EXPOSURE, done.stdout[-300:] + done.stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_each_unit_starts_what_there_is_as_a_user_of_its_own(unit: Path) -> None:
    told = service(unit)
    program, *words = told["ExecStart"].split()
    if Path(program).name == "forepath":
        assert " ".join(["forepath", *words]) in dict(commands())
    assert told["User"] == "forepath" and told["StateDirectory"] == "forepath" and "MemoryMax" in told
    assert "WatchdogSec" not in told or told["Type"] == "notify"


def test_the_target_wants_every_unit() -> None:
    wanted = re.findall(r"forepath-\w+\.\w+", (ROOT / "deploy/systemd/forepath.target").read_text(encoding="utf-8"))
    units = {unit.name for unit in UNITS if unit.name.startswith("forepath-")}
    assert set(wanted) == units - {"forepath-retain.service"}


def test_the_composition_is_whole() -> None:
    deploy = ROOT / "deploy"
    composed = yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8"))
    services = composed["services"]
    assert composed.keys() <= {"name", "services", "volumes", "x-forepath"}
    for name, told in services.items():
        assert "image" in told, name
        assert set(told.get("depends_on", {})) <= services.keys(), name
        for volume in told.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in composed["volumes"] or source == "./forepath.toml" or (deploy / source).exists(), volume
        command = told.get("command", [])
        if command[:1] == ["forepath"]:
            assert " ".join(word for word in command if word.isalpha()) in dict(commands())
    assert {
        "controller",
        "predictor",
        "orchestrator",
        "metrics",
        "web",
        "postgres",
        "prometheus",
        "grafana",
    } <= services.keys()


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="make setup installs docker-compose")
def test_docker_compose_takes_the_composition(tmp_path: Path) -> None:
    def said_of(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "compose.yaml").write_text(text, encoding="utf-8")
        words = ["docker-compose", "-f", str(tmp_path / "compose.yaml"), "config", "--quiet"]
        more = {"POSTGRES_PASSWORD": "word"}
        return subprocess.run(words, env=os.environ | more, capture_output=True, text=True, check=False)

    text = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    said = said_of(text)
    assert (said.returncode, said.stderr) == (0, "")
    wrong = said_of(text.replace("mem_limit:", "mem_limits:", 1))
    assert wrong.returncode != 0 and "mem_limits" in wrong.stderr


def test_systemd_is_told_where_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify_systemd(READY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify_systemd(READY) and notify_systemd(ALIVE)
        assert [listening.recv(64) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify_systemd(READY)

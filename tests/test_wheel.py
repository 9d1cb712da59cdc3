"""What is installed is the product alone, and it works outside the repository."""

import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.house import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder of its own; built without a network from a copy, so that nothing stays here."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    words = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(place), str(copy)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    with zipfile.ZipFile(next(place.glob("forepath-*.whl"))) as wheel:
        wheel.extractall(place / "installed")
    return place / "installed"


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=800, check=False
    )


def test_lab_benches_and_tests_are_not_in_it(installed: Path) -> None:
    rooms = {path.name for path in installed.iterdir()}
    assert {"cpdb", "ryu_apps", "predictor", "orchestrator", "backtest", "forepath", "mininet_topos"} <= rooms
    assert not {"tools", "tests", "bench", "docs"} & rooms


def test_commands_start_and_offer_no_bench(installed: Path, tmp_path: Path) -> None:
    told = run(installed, tmp_path, "-m", "forepath", "--help")
    assert told.returncode == 0, told.stderr
    assert "orchestrate" in told.stdout
    assert "bench" not in told.stdout
    manager = run(installed, tmp_path, "-m", "forepath.commands.ryu_manager", "--help")
    assert manager.returncode == 0, manager.stderr
    made = run(installed, tmp_path, "-m", "forepath", "db", "init", "--settings", "none.toml")
    assert "none.toml" in made.stderr


def test_migrations_and_templates_come_along(installed: Path) -> None:
    assert list((installed / "cpdb" / "migrations" / "versions").glob("v*.py"))
    assert list((installed / "backtest" / "templates").glob("*.jinja"))
    assert {"topology.jinja", "macros.jinja"} <= {one.name for one in (installed / "forepath/web/templates").iterdir()}
    assert (installed / "forepath" / "web" / "style.css").is_file()


def test_units_rules_and_the_dashboard_come_along(installed: Path) -> None:
    shared = next(installed.glob("forepath-*.data")) / "data" / "share" / "forepath"
    units = {path.name for path in (shared / "systemd").iterdir()}
    assert {"forepath.target", "forepath-controller.service", "forepath.sysusers"} <= units
    assert (shared / "prometheus" / "rules.yaml").is_file() and (shared / "grafana" / "forepath.json").is_file()


def test_make_install_brings_programs_units_that_name_them_and_completion(installed: Path, tmp_path: Path) -> None:
    """From the wheel alone and without a network: the libraries are those that are here."""
    prefix, wheel = tmp_path / "opt", next(installed.parent.glob("forepath-*.whl"))
    here = os.pathsep.join(site.getsitepackages())
    words = ["make", "--no-print-directory", "install", f"PREFIX={prefix}"]
    environment = os.environ | {"PYTHONPATH": here, "PACKAGE": f"--no-deps --no-index --ignore-installed {wheel}"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("forepath is installed"), done.stdout + done.stderr
    unit = (prefix / "share/forepath/systemd/forepath-web.service").read_text()
    assert f"ExecStart={prefix}/bin/forepath web" in unit and "/opt/forepath" not in unit
    program = prefix / "bin" / "forepath"
    told = subprocess.run([program, "--version"], env=environment, capture_output=True, text=True, check=True, cwd="/")
    assert told.stdout.startswith("forepath 0.")
    completion = prefix / "share/bash-completion/completions/forepath"
    script = f'. "{completion}"; COMP_WORDS=(forepath vip dr); COMP_CWORD=2; _forepath_completion "{program}"'
    words = ["bash", "-c", script + '; echo "${COMPREPLY[@]}"']
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["drain"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_demo_runs_simulated(installed: Path, tmp_path: Path) -> None:
    told = run(installed, tmp_path, "-m", "forepath", "demo")
    assert told.returncode == 0, told.stderr
    assert "simulated" in told.stdout
    assert (tmp_path / ".run" / "demo" / "cpdb.db").is_file()

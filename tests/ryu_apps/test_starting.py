"""A controller that cannot start says why in one line, and ends with an exit code that is not 0."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def start(folder: Path, *words: str) -> tuple[int, list[str]]:
    environment = os.environ | {"FOREPATH_DATABASE_URL": f"sqlite:///{folder}/own.db"}
    environment.pop("FOREPATH_SETTINGS", None)
    argv = [sys.executable, "-m", "forepath.commands.ryu_manager", *words]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        argv, cwd=folder, env=environment | {"PYTHONPATH": root}, capture_output=True, text=True, timeout=120
    )
    said = (done.stdout + done.stderr).splitlines()
    assert not [line for line in said if "Traceback" in line], said
    return done.returncode, [line for line in said if line.startswith("ryu-manager: ")]


@pytest.mark.parametrize("shared", [False, True], ids=["taken", "offered to be shared"])
def test_a_busy_port_ends_it(tmp_path: Path, shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (tmp_path / "forepath.toml").write_text(f"controller.port = {port}\n")
        code, lines = start(tmp_path, "ryu_apps.controller")
    assert code == 2
    assert len(lines) == 1 and f"127.0.0.1:{port}" in lines[0] and "controller.port" in lines[0]


def test_a_misspelt_module_is_one_line(tmp_path: Path) -> None:
    code, lines = start(tmp_path, "ryu_apps.contoller")
    assert code == 2
    assert lines == [
        "ryu-manager: there is no module ryu_apps.contoller; run e.g. ryu-manager ryu_apps.controller, "
        "or name a file with its .py"
    ]

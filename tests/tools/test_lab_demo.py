"""The demo ends cleanly when it is interrupted: everything that it started is gone, and the next run can start."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.lab.assets import default_directory

pytestmark = pytest.mark.vm
UP_S = 120
END_S = 60


def commands() -> set[str]:
    """Command lines of all processes that can be seen from here; on a stage, those of the stage."""
    found = set()
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                found.add((directory / "cmdline").read_text().replace("\0", " ").strip())
            except OSError:
                continue  # it ended while we looked
    return {one for one in found if one}


def start(directory: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "forepath", "demo", "--seed", "3"],
        cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_traffic(process: "subprocess.Popen[str]") -> None:
    deadline, told = time.monotonic() + UP_S, ""
    assert process.stdout is not None
    for line in process.stdout:
        told += line
        if "traffic is running" in line:
            return
        assert time.monotonic() < deadline, told
    raise AssertionError(f"the demo ended with {process.wait()}: {told}")


@pytest.mark.timeout(300)
def test_an_interrupted_demo_leaves_nothing_behind_and_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / ".lab").symlink_to(default_directory())
    before = commands()
    for _ in range(2):
        process = start(tmp_path)
        try:
            wait_for_traffic(process)
            assert any("qemu-system" in one for one in commands())
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=END_S)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 130, rest
        assert "Traceback" not in rest
        assert {one for one in commands() - before if not one.startswith("ovs")} == set()

"""Commands that run until interrupted end in order and sum themselves up for programs."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpdb import open_store


@pytest.mark.parametrize(
    "command,known",
    [("predict", {"failed_cycles": 0}), ("orchestrate", {"failed_cycles": 0, "act": False, "issued": 0})],
)
def test_an_interrupted_loop_sums_itself_up(tmp_path: Path, command: str, known: dict[str, object]) -> None:
    words = [sys.executable, "-m", "forepath", command, "--json", "summary.json"]
    running = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "forepath.db").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)  # so that there is a cycle to sum up; ending in order does not depend on it
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 0, out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["command"] == command and summary["ended_at"] > summary["began_at"]
    assert {name: summary[name] for name in known} == known
    open_store(f"sqlite:///{tmp_path}/forepath.db", create=False).close()

"""The stage: what starts on it is gone when it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpdb.errors import LabError
from tools.lab import cgroups, stage
from tools.lab.lab import Lab
from tools.lab.stage import on_stage

# An empty mark asks for a stage of its own, also when this test runs on one.
FRESH = os.environ | {stage.MARK: ""}
STAGE = [sys.executable, "-m", "tools.lab.stage"]


def groups() -> set[str]:
    return {group.name for tree in cgroups.trees() for group in tree.mount.glob("forepath-*")}


def alive(token: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in place.read_bytes().split(b"\0"):
                found.append(place.parent.name)
        except OSError:
            continue
    return found


def wait_for(token: str, present: bool) -> bool:
    deadline = time.monotonic() + 20
    while bool(alive(token)) != present and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(alive(token)) == present


def test_without_a_command_it_says_how() -> None:
    done = subprocess.run(STAGE, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_the_lab_refuses_to_start_off_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(stage.MARK, raising=False)
    with pytest.raises(LabError, match="stage"):
        Lab(run_directory=tmp_path, vms=False).start()


@pytest.mark.lab
def test_exit_code_and_isolation() -> None:
    script = "ip -o link | wc -l; hostname; exit 7"
    done = subprocess.run(
        [*STAGE, "--", "sh", "-c", script], env=FRESH, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.split() == ["1", "forepath-stage"]


@pytest.mark.lab
def test_an_interrupt_reaches_the_command() -> None:
    script = "trap 'exit 42' INT; echo ready; while :; do sleep 0.05; done"
    outer = subprocess.Popen([*STAGE, "--", "sh", "-c", script], env=FRESH, stdout=subprocess.PIPE)
    assert outer.stdout is not None
    assert outer.stdout.readline() == b"ready\n"
    outer.send_signal(signal.SIGINT)
    assert outer.wait(20) == 42
    outer.stdout.close()


@pytest.mark.lab
def test_kill_minus_nine_leaves_nothing() -> None:
    token = f"31536{os.getpid()}"  # an odd length of sleep, so that the process can be told from all others
    script = f"(setsid sleep {token} &) ; sleep {token}"
    outer = subprocess.Popen([*STAGE, "--", "sh", "-c", script], env=FRESH)
    assert wait_for(token, present=True)
    outer.kill()
    outer.wait(20)
    assert wait_for(token, present=False)


@pytest.mark.vm
def test_a_lab_that_is_cut_off_leaves_no_process_and_no_group(tmp_path: Path) -> None:
    """The host's groups exist and its libvirtd runs when the lab's own process is killed."""
    assert on_stage()
    before = groups()
    script = tmp_path / "lab.py"
    script.write_text(
        "import os, pathlib, signal\n"
        "from dataclasses import replace\n"
        "from forepath.demo.layout import LabLayout\n"
        "from tools.lab.lab import Lab\n"
        f"lab = Lab(replace(LabLayout(), vms=()), pathlib.Path({str(tmp_path)!r}))\n"
        "lab._calibrate = lambda: None\n"
        "lab.start()\n"
        f"lab.popen('x', ['sleep', '27182{os.getpid()}'])\n"
        "print(' '.join(sorted(lab.uris)), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [*STAGE, "--", sys.executable, str(script)], env=FRESH, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "hA hB\n", done.stderr
    assert done.returncode == 128 + signal.SIGKILL
    assert alive(f"27182{os.getpid()}") == []
    assert groups() == before

"""The newcomer's path of the README, typed as it stands there: every command, and the last line that it ends with."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from forepath.settings import load_settings
from forepath.web.views import VIEWS
from tools.house import ROOT
from tools.page_pictures import ABOUT, browser

HEADING = "## From a clone to a network that is watched\n"
LONGEST_S = 150.0
MARK = "--- so ended "


@dataclass(frozen=True)
class TypedStep:
    """What is typed, and the last line to be seen then ("": any)."""

    command: str
    last_line: str = ""

    def ends_well(self, said: str, code: int) -> bool:
        words = [re.escape(part) for part in self.last_line.split("…")]
        lines = said.strip().splitlines() or [""]
        return re.fullmatch(".*".join(words), lines[-1]) is not None if self.last_line else code == 0


def typed_blocks() -> list[list[TypedStep]]:
    """The README's blocks of the path."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    blocks = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        blocks.append([TypedStep(command, "\n".join(rest)) for command, *rest in _parts(block)])
    return blocks


def _parts(block: str) -> Iterator[list[str]]:
    part: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ ") and part:
            yield part
            part = []
        part.append(line.removeprefix("$ ") if not part else line)
    yield part


@contextmanager
def clean_clone(folder: Path) -> Iterator[Path]:
    """What git knows of, in a folder of its own, set up by the programs that are there."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    venv = folder / ".venv"
    venv.mkdir()
    for one in Path(sys.prefix).iterdir():
        if one.name != "ready":
            (venv / one.name).symlink_to(one)
    (venv / "ready").touch()
    yield folder


@contextmanager
def shell(folder: Path, more: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A shell as a person has one; whatever it started ends with it."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "150", **more}
    # Of a make that runs this test its own makes know nothing: they would tell where they are.
    for name in ("FOREPATH_SETTINGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        environment.pop(name, None)
    process = subprocess.Popen(
        ["env", "--default-signal=HUP", "bash", "-m"], cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        for pid in _session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def _session(leader: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] != "Z" and int(words[3]) == leader and int(stat.parent.name) != leader:
            yield int(stat.parent.name)


def type_all(bash: subprocess.Popen[str], steps: Sequence[TypedStep]) -> None:
    assert bash.stdin is not None and bash.stdout is not None
    for step in steps:
        began, said = time.monotonic(), ""
        bash.stdin.write(f"{step.command}\necho '{MARK}'$?\n")
        bash.stdin.flush()
        while not (line := bash.stdout.readline()).startswith(MARK):
            assert line and time.monotonic() - began < LONGEST_S, (step, said)
            said += line
        assert step.ends_well(said, int(line.removeprefix(MARK))), (step, said)


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def test_the_demo_and_its_recording(tmp_path: Path) -> None:
    port = free_port()
    steps = [
        TypedStep(one.command.replace("8080", port), one.last_line.replace("8080", port)) for one in typed_blocks()[0]
    ]
    with clean_clone(tmp_path) as folder, shell(folder, {"QUICK": "1", "SIMULATE": "1"}) as bash:
        settings = "sed -i '$a [web]\\nlisten = \"127.0.0.1:" + port + "\"' .run/demo/forepath.toml"
        type_all(bash, [steps[0], TypedStep(settings), *steps[1:-1]])
        look_at_every_view(f"http://127.0.0.1:{port}")
        type_all(bash, steps[-1:])


def look_at_every_view(base: str) -> None:
    """In a browser: each shows something of the recording's last moment, and nothing goes wrong."""
    driver = browser()
    try:
        for view in VIEWS:
            words = {**ABOUT.get(view.path, {}), **({"number": "1"} if view.path == "/action" else {}), "at": "last"}
            driver.get(f"{base}{view.path}?{urlencode(words)}")
            until, text = time.monotonic() + LONGEST_S, ""
            while "as it was at" not in text or "being read" in text or len(text) < 300:
                assert time.monotonic() < until, (view.path, text)
                time.sleep(0.2)
                text = driver.find_element("tag name", "body").text
            assert view.title in text and "cannot be read" not in text, text
            wrong = [row["message"] for row in driver.get_log("browser") if row["level"] == "SEVERE"]
            assert wrong == [], (view.path, wrong)
    finally:
        driver.quit()


@pytest.mark.vm
@pytest.mark.timeout(600)
def test_a_network_that_is_there_is_looked_at_and_run(tmp_path: Path) -> None:
    from tools.lab.__main__ import hypervisors_of, start_talking
    from tools.lab.lab import Lab

    (first, *network), after = typed_blocks()[1:]
    assert first.command == "make lab"
    with Lab(run_directory=tmp_path / "lab") as lab, clean_clone(tmp_path / "clone") as folder:
        lab.start()
        start_talking(lab)
        with shell(folder, {"HYPERVISORS": hypervisors_of(lab)}) as bash:
            type_all(bash, network[:1])
            before = (folder / "forepath.toml").read_text().splitlines()
            type_all(bash, network[1:2])
            now = (folder / "forepath.toml").read_text().splitlines()
            assert sum(one != other for one, other in zip(before, now, strict=True)) == 3
            assert {vm.name for vm in load_settings(folder / "forepath.toml").vm} == {vm.name for vm in lab.layout.vms}
            type_all(bash, network[2:])
            type_all(bash, after)

"""A controller that cannot start says why in one line, and ends with an exit code that is not 0."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from cpdb import Store, StoreError, open_store
from tools.bench.replayed_switch import MULTIPART_REQUEST, ReplayedSwitch, message


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


class Plain(ReplayedSwitch):
    """A switch without meters and groups, which says so."""

    def answer(self, kind: int, xid: int, body: bytes) -> bytes:
        if kind == MULTIPART_REQUEST and int.from_bytes(body[:2]) not in (1, 4, 13):
            return message(1, xid, bytes((0, 1, 0, 2)) + message(kind, xid, body)[:64])
        return super().answer(kind, xid, body)

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            super().serve()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[int]:
    """A controller's port; what it stores is in own.db."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (tmp_path / "forepath.toml").write_text(f"controller.port = {port}\n")
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"FOREPATH_DATABASE_URL": f"sqlite:///{tmp_path}/own.db", "PYTHONPATH": root}
    argv = [sys.executable, "-m", "forepath.commands.ryu_manager", "ryu_apps.controller"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            yield port
        finally:
            process.kill()
            process.wait()


def eventually(check: Callable[[], bool], within_s: float = 60.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError, StoreError):
            if check():
                return True
        time.sleep(0.1)
    return False


def test_a_large_dpid_is_stored_and_of_two_switches_with_one_the_first_is_served(tmp_path: Path, running: int) -> None:
    dpid, made = 0xFFFFFFFFFFFFFF01, list[Plain]()

    def connect() -> bool:
        made.append(Plain(running, dpid, 10))
        Thread(target=made[-1].serve, daemon=True).start()
        return True

    assert eventually(connect)
    store: list[Store] = []
    assert eventually(lambda: bool(store.append(open_store(f"sqlite:///{tmp_path}/own.db", create=False)) or store))
    assert eventually(lambda: [one.dpid for one in store[0].inventory.nodes()] == [dpid])
    connect()
    assert eventually(lambda: any(one.kind == "dpid_twice" for one in store[0].alarms.open()))
    (alarm,) = [one for one in store[0].alarms.open() if one.kind == "dpid_twice"]
    ports = [one.address[1] for one in made]
    assert all(str(port) in alarm.detail for port in ports)
    assert f"the one at ('127.0.0.1', {ports[0]}) is served" in alarm.detail
    said = (tmp_path / "log").read_text()
    assert said.count("switch connected") == 1 and "switch gone" not in said and "Traceback" not in said
    # When the first goes, another one is welcome.
    made[0].close()
    assert eventually(lambda: "switch gone" in (tmp_path / "log").read_text())
    connect()
    assert eventually(lambda: (tmp_path / "log").read_text().count("switch connected") == 2)
    store[0].close()
    for one in made:
        one.close()

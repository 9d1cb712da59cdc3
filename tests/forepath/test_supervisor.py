"""Processes are kept alive, and at the end every one of them is gone, their children too."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpdb import ForepathError
from forepath import supervisor
from forepath.supervisor import Program, Supervisor, pause_before_restart

PATIENCE_S = 60.0
TELL = "import os, sys, time, signal; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n');"
SLEEP = TELL + "time.sleep(600)"
FALL = TELL + "sys.exit(3)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
HAS_DEAF_CHILD = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {DEAF!r}, sys.argv[1]]);"
PARENT_OF_DEAF = HAS_DEAF_CHILD + "time.sleep(600)"
FALLING_PARENT = HAS_DEAF_CHILD + "time.sleep(1); sys.exit(1)"


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Watch:
    """A supervisor in a thread; each program writes its pid to a file of its name."""

    def __init__(self, folder: Path, **programs: str) -> None:
        self.folder = folder
        self.stop = threading.Event()
        listed = [
            Program(name, (sys.executable, "-c", code, str(folder / name)), {"WORD": name})
            for name, code in programs.items()
        ]
        self.thread = threading.Thread(target=Supervisor(listed, folder / "logs").run, args=(self.stop,))
        self.thread.start()

    def pids(self, name: str) -> list[int]:
        path = self.folder / name
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def end(self) -> None:
        self.stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watch]]:
    monkeypatch.setattr(supervisor, "GRACE_S", 1.0)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.01)
    started: list[Watch] = []

    def start(**programs: str) -> Watch:
        started.append(Watch(tmp_path, **programs))
        return started[-1]

    yield start
    for one in started:
        one.end()
        for pid in [int(line) for path in tmp_path.glob("p*") if path.is_file() for line in path.read_text().split()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_pauses_grow_and_end_at_half_a_minute() -> None:
    assert [pause_before_restart(failures) for failures in (1, 2, 3, 4, 5, 6, 50)] == [1, 2, 4, 8, 16, 30, 30]


def test_the_fallen_is_started_again_and_the_others_are_left_alone(watch: Callable[..., Watch]) -> None:
    one = watch(p_falls=FALL, p_stays=SLEEP)
    wait_for(lambda: len(one.pids("p_falls")) >= 3 and bool(one.pids("p_stays")))
    assert len(one.pids("p_stays")) == 1 and alive(one.pids("p_stays")[0])
    one.end()
    assert not alive(one.pids("p_stays")[0])


def test_one_that_ignores_the_request_is_ended_after_the_grace(watch: Callable[..., Watch]) -> None:
    one = watch(p_deaf=DEAF, p_stays=SLEEP)
    wait_for(lambda: bool(one.pids("p_deaf") and one.pids("p_stays")))
    one.end()
    assert not any(alive(pid) for name in ("p_deaf", "p_stays") for pid in one.pids(name))


def test_grandchildren_go_too_even_when_they_ignore_the_request(watch: Callable[..., Watch]) -> None:
    one = watch(p_family=PARENT_OF_DEAF)
    wait_for(lambda: bool(one.pids("p_family")))
    (grandchild,) = one.pids("p_family")
    assert alive(grandchild)
    one.end()
    wait_for(lambda: not alive(grandchild))


def test_what_a_fallen_program_left_behind_goes_before_it_is_started_again(watch: Callable[..., Watch]) -> None:
    one = watch(p_family=FALLING_PARENT)
    wait_for(lambda: len(one.pids("p_family")) >= 2)
    first = one.pids("p_family")[0]
    wait_for(lambda: not alive(first))


def test_output_goes_to_a_log_and_the_environment_is_added(watch: Callable[..., Watch], tmp_path: Path) -> None:
    one = watch(p_speaks="import os; print('word', os.environ['WORD'], 'PATH' in os.environ)")
    log = tmp_path / "logs" / "p_speaks.log"
    wait_for(lambda: log.exists() and "word p_speaks True" in log.read_text())
    one.end()


def test_a_program_that_cannot_be_started_takes_the_others_down(tmp_path: Path) -> None:
    stays = Program("p_stays", (sys.executable, "-c", SLEEP, str(tmp_path / "p_stays")))
    both = Supervisor([stays, Program("p_missing", ("/nowhere/at/all",))], tmp_path)
    with pytest.raises(FileNotFoundError):
        both.run(threading.Event())
    path = tmp_path / "p_stays"
    assert not path.exists() or not alive(int(path.read_text()))


SUPERVISED = f"""
import sys, threading
from pathlib import Path
from forepath.supervisor import Program, Supervisor, reload_on_hangup, stop_on_signals
folder, stop = Path(sys.argv[1]), stop_on_signals()
wanted = reload_on_hangup()
programs = [Program(name, (sys.executable, "-c", {SLEEP!r}, str(folder / name))) for name in ("p_one", "p_two")]
supervisor = Supervisor(programs, folder / "logs")

def between():
    if wanted is not None and wanted.is_set():
        wanted.clear()
        supervisor.renew(["p_two"])

supervisor.run(stop, between)
"""


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(**how: Any) -> subprocess.Popen[bytes]:
        # Whoever runs the tests may ignore hangups (nohup), which children inherit.
        argv = ["env", "--default-signal=HUP", sys.executable, "-c", SUPERVISED, str(tmp_path)]
        started.append(subprocess.Popen(argv, **how))
        wait_for(lambda: all(pids(tmp_path, name) for name in ("p_one", "p_two")))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    for pid in [*pids(tmp_path, "p_one"), *pids(tmp_path, "p_two")]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pids(folder: Path, name: str) -> list[int]:
    path = folder / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def all_gone(folder: Path) -> bool:
    return not any(alive(pid) for name in ("p_one", "p_two") for pid in pids(folder, name))


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGKILL], [signal.SIGINT, signal.SIGINT]])
def test_whatever_ends_the_supervisor_ends_its_programs(
    numbers: list[signal.Signals], supervised: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = supervised(stdin=subprocess.DEVNULL)
    for number in numbers:
        process.send_signal(number)
    wait_for(lambda: all_gone(tmp_path))


def test_a_closed_terminal_ends_all_and_a_hangup_without_one_renews(
    supervised: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = supervised(stdin=subprocess.DEVNULL)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(pids(tmp_path, "p_two")) == 2)
    first, second = pids(tmp_path, "p_two")
    assert not alive(first) and alive(second)
    assert [alive(pid) for pid in pids(tmp_path, "p_one")] == [True]
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: all_gone(tmp_path))
    ours, theirs = os.openpty()
    terminal = supervised(stdin=theirs)
    os.close(theirs)
    wait_for(lambda: not all_gone(tmp_path))
    terminal.send_signal(signal.SIGHUP)
    os.close(ours)
    wait_for(lambda: all_gone(tmp_path))


def test_what_no_restart_mends_is_given_up_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.01)
    code = "import sys; print('the port is taken', file=sys.stderr); sys.exit(2)"
    programs = [
        Program("deaf", (sys.executable, "-c", code), hopeless=(2,)),
        Program("other", (sys.executable, "-c", SLEEP, str(tmp_path / "other"))),
    ]
    with pytest.raises(ForepathError, match="deaf cannot run: the port is taken"):
        Supervisor(programs, tmp_path / "logs").run(threading.Event())
    file = tmp_path / "other"
    assert not [pid for pid in (file.read_text().split() if file.exists() else []) if alive(int(pid))]

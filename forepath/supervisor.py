"""Keeps the programs of `forepath run` alive, and ends them all, whatever becomes of itself."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from cpdb import ForepathError

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# A process that lived this long was healthy: its next failure is a new one, not a continuation.
HEALTHY_AFTER_S = 60.0
HOPELESS_AFTER = 3
GRACE_S = 5.0
LOOK_EVERY_S = 0.2
LOOK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: a name for people, the command, and what to add to the environment."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    # Exit codes that mean: as things are, starting it again will not help
    hopeless: Collection[int] = ()


def pause_before_restart(failures: int) -> float:
    """Seconds to wait after the n-th failure in a row: 1, 2, 4, ... at most 30."""
    return min(FIRST_PAUSE_S * 2.0 ** (failures - 1), LONGEST_PAUSE_S)


@dataclass(slots=True)
class _Watched:
    program: Program
    process: subprocess.Popen[bytes]
    started_at: float
    failures: int = 0
    restart_at: float | None = None
    restarts: int = 0


class Supervisor:
    """Starts programs in sessions of their own, restarts the fallen with growing pauses, stops them all at the end."""

    def __init__(self, programs: Sequence[Program], log_directory: Path) -> None:
        self._programs = programs
        self._logs = log_directory
        self._watched: list[_Watched] = []

    def run(self, stop: threading.Event, between: Callable[[], None] = lambda: None) -> int:
        """Supervises until `stop` is set; on return every program is gone. Returns how often one was restarted.

        Raises ForepathError when a program ended so often with an exit code that restarting does not mend.

        `between` is called a few times a second. To be run in the main thread: the programs end with the thread that
        started them.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            for program in self._programs:
                # One by one: when the second cannot be started, the first must be known to be ended.
                self._watched.append(_Watched(program, self._start(program), time.monotonic()))
            while not stop.wait(LOOK_EVERY_S):
                between()
                for watched in self._watched:
                    self._look_after(watched, time.monotonic())
        finally:
            self.stop()
        return sum(self.restarts.values())

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each program was started again because it had ended."""
        return {watched.program.name: watched.restarts for watched in self._watched}

    @property
    def running(self) -> Mapping[str, bool]:
        """Which programs run now."""
        return {watched.program.name: watched.restart_at is None for watched in self._watched}

    def _start(self, program: Program) -> subprocess.Popen[bytes]:
        if shutil.which(program.argv[0]) is None:
            raise FileNotFoundError(errno.ENOENT, "no such program", program.argv[0])
        with (self._logs / f"{program.name}.log").open("ab") as output:
            process = subprocess.Popen(
                (*_ends_with_us(), *program.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **program.environment},
                start_new_session=True,
            )
        log.info("started", program=program.name, pid=process.pid)
        return process

    def _look_after(self, watched: _Watched, now: float) -> None:
        if not _ended(watched.process):
            return
        if watched.restart_at is None:
            _end_group(watched.process)
            healthy = now - watched.started_at > HEALTHY_AFTER_S
            watched.failures = 1 if healthy else watched.failures + 1
            watched.restart_at = now + pause_before_restart(watched.failures)
            log.warning("ended", program=watched.program.name, code=watched.process.returncode)
            if watched.process.returncode in watched.program.hopeless and watched.failures >= HOPELESS_AFTER:
                raise ForepathError(f"{watched.program.name} cannot run: {self._last_words(watched.program)}")
        elif now >= watched.restart_at:
            watched.process = self._start(watched.program)
            watched.restarts += 1
            watched.started_at = now
            watched.restart_at = None

    def _last_words(self, program: Program) -> str:
        file = self._logs / f"{program.name}.log"
        lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} ({file})"

    def renew(self, names: Collection[str]) -> None:
        """Ends these programs in order and starts them again at once; the others are left alone."""
        chosen = [watched for watched in self._watched if watched.program.name in names]
        _end_all([watched.process for watched in chosen])
        for watched in chosen:
            watched.process, watched.started_at = self._start(watched.program), time.monotonic()
            watched.failures, watched.restart_at = 0, None

    def stop(self) -> None:
        """Asks every program's session to end, and ends what is left of it after a grace of 5 s."""
        _end_all([watched.process for watched in self._watched])


def stop_on_signals() -> threading.Event:
    """An event that SIGINT, SIGTERM and, unless it is ignored (nohup), SIGHUP set, so that loops end in order."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    return stop


def reload_on_hangup() -> threading.Event | None:
    """An event that SIGHUP sets from now on; None where it means that the terminal has gone, or is ignored."""
    if (sys.stdin is not None and sys.stdin.isatty()) or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return None
    wanted = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: wanted.set())
    return wanted


def _ends_with_us() -> tuple[str, ...]:
    # The kernel ends a program whose starter was killed (prctl(2), PR_SET_PDEATHSIG); else it would go on acting.
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


def _end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and not all(map(_ended, processes)):
        time.sleep(LOOK_AGAIN_S)
    for process in processes:
        _end_group(process)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is not reaped by asking, so its number stays taken and its group can be signalled."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends whatever is left of a program's session, its children too, and reaps it."""
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Once reaped, the number may belong to somebody else.
    if process.returncode is None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass

"""What can break, in a random order that a seed repeats: each fault is done, lasts a while, and is mended again."""

import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random

from tools.chaos.clock import read_clock, set_clock
from tools.chaos.scene import LAYOUT, PORTS, Scene, run

Seconds = float

CLOCK_STEP_S = 30
# What a write to the disk costs more, by system call
DELAYS_US = {"pwrite64": 20_000, "fsync": 200_000, "fdatasync": 200_000}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks for `lasts_s`.

    `rules_lost`: switches forget what they hold, and what they counted. `machines_lost`: machines of a host end.
    """

    name: str
    lasts_s: Seconds
    rules_lost: bool = False
    machines_lost: bool = False


@contextmanager
def _killed(scene: Scene, kind: str, number: signal.Signals) -> Iterator[None]:
    name = scene.working(kind)
    if name is None:
        yield
        return
    scene.end(name, number)
    try:
        yield
    finally:
        scene.begin(name)


@contextmanager
def _stopped(scene: Scene, kind: str) -> Iterator[None]:
    name = scene.working(kind)
    if name is None:
        yield
        return
    scene.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        scene.signal(name, signal.SIGCONT)


@contextmanager
def _cut(scene: Scene) -> Iterator[None]:
    name = scene.working("controller")
    others = [port for port in PORTS if f"controller-{port}" != name]
    scene.connect(*others, switches=("leaf1",))
    try:
        yield
    finally:
        scene.connect(*PORTS, switches=("leaf1",))


@contextmanager
def _switches_restarted(scene: Scene) -> Iterator[None]:
    scene.restart_switches()
    yield


@contextmanager
def _link_down(_scene: Scene) -> Iterator[None]:
    a, port, _, _ = LAYOUT.fabric_ports()[0]
    run("ip", "link", "set", f"{a}-eth{port}", "down")
    try:
        yield
    finally:
        run("ip", "link", "set", f"{a}-eth{port}", "up")


@contextmanager
def _database_away(scene: Scene) -> Iterator[None]:
    if scene.server is not None:
        scene.server.stop()
        try:
            yield
        finally:
            scene.server.start()
        return
    lock = sqlite3.connect(scene.disk / "cpdb.db", timeout=10, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        lock.execute("ROLLBACK")
        lock.close()


@contextmanager
def _clock_set(scene: Scene) -> Iterator[None]:
    # For good: once forward, the next time back.
    set_clock(scene.clock, CLOCK_STEP_S if read_clock(scene.clock) == 0 else 0)
    yield


@contextmanager
def _disk_slow(scene: Scene) -> Iterator[None]:
    # Every write of every program waits, as on a disk that is busy or dying.
    delays = [word for call, us in DELAYS_US.items() for word in ("-e", f"inject={call}:delay_exit={us}")]
    pids = [word for process in scene.running.values() for word in ("-p", str(process.pid))]
    argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={','.join(DELAYS_US)}", *delays, *pids]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as delaying:
        try:
            yield
        finally:
            delaying.terminate()


@contextmanager
def _disk_full(scene: Scene) -> Iterator[None]:
    filler = scene.disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    try:
        yield
    finally:
        filler.unlink()


HOST = "hA"


@contextmanager
def _libvirtd_crashed(scene: Scene) -> Iterator[None]:
    scene.hosts.crash_libvirtd(HOST)
    try:
        yield
    finally:
        scene.hosts.start_libvirtd(HOST)


@contextmanager
def _power_cut(scene: Scene) -> Iterator[None]:
    scene.hosts.cut_power(HOST)
    try:
        yield
    finally:
        scene.hosts.power_on(HOST)


Breaking = Callable[[Scene], AbstractContextManager[None]]
KINDS = ("controller", "predictor", "orchestrator")
WAYS: dict[str, Breaking] = {
    **{f"kill -9 {kind}": partial(_killed, kind=kind, number=signal.SIGKILL) for kind in KINDS},
    **{f"stop {kind}": partial(_stopped, kind=kind) for kind in KINDS},
    "end controller": partial(_killed, kind="controller", number=signal.SIGTERM),
    "cut controller from switch": _cut,
    "restart switches": _switches_restarted,
    "link down": _link_down,
    "database away": _database_away,
    "clock set by 30 s": _clock_set,
    "disk slow": _disk_slow,
    "disk full": _disk_full,
    "libvirtd of a host crashes": _libvirtd_crashed,
    "power of a host cut": _power_cut,
}
FORGET = ("restart switches",)
NEED_HOSTS = ("libvirtd of a host crashes", "power of a host cut")


def draw_faults(seed: int, names: Sequence[str] = tuple(WAYS)) -> Iterator[Fault]:
    """Without end: all faults in a random order, then all in another one, each for 1 to 6 seconds."""
    rng = Random(seed)
    while True:
        for name in rng.sample(sorted(names), len(names)):
            yield Fault(name, round(rng.uniform(1.0, 6.0), 1), name in FORGET, name == "power of a host cut")

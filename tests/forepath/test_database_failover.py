"""Two real PostgreSQL servers, one streaming to the other: the primary dies, the standby is promoted, all go on."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

import orchestrator as orchestrator_room
import predictor as predictor_room
from cpdb import Batch, FlowKey, Spool, Store, StoreError, open_store
from cpdb.engine import connect, spread_hosts
from forepath.processes import make_orchestrator, orchestrator_config, predictor_config
from forepath.settings import Settings
from ryu_apps.telemetry.writer import Writer, store_rows
from tools.lab.postgres import PROGRAMS, why_not

EVERY_S, OUTAGE_S = 0.2, 2.0
PAIR = FlowKey("c1", "10.0.0.101", "shop1")


@dataclass
class Server:
    """One server; its files lie in `home`."""

    home: Path
    port: int

    def run(self, program: str, *words: str) -> None:
        programs = sorted(PROGRAMS.glob("*/bin/postgres"))[-1].parent
        argv = [str(programs / program), *words]
        if os.geteuid() == 0:
            argv = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", timeout=120)

    def control(self, *words: str) -> None:
        self.run("pg_ctl", "-D", str(self.home / "data"), "-w", *words)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.home} -c fsync=off"
        self.control("-l", str(self.home / "log"), "-o", options, "start")

    def kill(self) -> None:
        """As a power cut does it."""
        os.kill(int((self.home / "data" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)

    def do(self, statement: str) -> None:
        engine = connect(f"postgresql://forepath@127.0.0.1:{self.port}/postgres").execution_options(
            isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


@contextmanager
def made() -> Iterator[Server]:
    home = Path(tempfile.mkdtemp(prefix="forepath-pair-"))
    if os.geteuid() == 0:
        shutil.chown(home, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(home, port)
    try:
        yield server
    finally:
        # Of one that was killed there is nothing left to stop.
        with contextlib.suppress(subprocess.CalledProcessError):
            server.control("-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary that has committed only what its standby has, too."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with made() as primary, made() as standby:
        primary.run("initdb", "-D", str(primary.home / "data"), "-U", "forepath", "--auth=trust", "--no-sync")
        primary.start()
        copy = ["-D", str(standby.home / "data"), "-R", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "forepath"]
        standby.run("pg_basebackup", *copy, "-c", "fast", "--no-sync")
        standby.start()
        primary.do("ALTER SYSTEM SET synchronous_standby_names = '*'")
        # A standby is asked at once for what was committed: having it in its log is not enough.
        primary.do("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
        primary.do("SELECT pg_reload_conf()")
        yield primary, standby


def batch(t: float, size: int) -> Batch:
    columns = (array("q", [size]), array("q", [1]), array("q", [1]))
    return Batch("switch/leaf1", t, EVERY_S, [PAIR], *columns, complete=True)


class Measuring:
    """What a controller does with the database: a batch every so often, and all that waits is written."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.told: list[int] = []
        self.spool = Spool(folder, 1 << 20)
        self.writer = Writer(10_000, "w", self.spool)
        self._write = partial(store_rows, store)

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY_S):
            self.told.append(len(self.told) + 1)
            self.writer.offer([batch(time.time(), self.told[-1])], time.time())
            self.writer.flush(self._write)

    def done(self) -> bool:
        self.writer.flush(self._write)
        return not self.spool.waiting and not self.writer.waiting


def until(check: Callable[[], object], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.postgres
def test_the_primary_dies_the_standby_takes_over_and_every_byte_is_counted_once(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    primary, standby = pair
    url = f"postgresql://forepath@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
    settings = Settings.model_validate(
        {"database": {"url": url}, "predictor": {"models": ["naive", "ewma"], "history": {"min_s": 1.0}}}
    )
    store, stop = open_store(settings.database.url), threading.Event()
    measuring = Measuring(store, tmp_path / "spool")
    forecast, decided = [False], [False]
    deciding = make_orchestrator(orchestrator_config(settings, act=False), store, time.time)
    threads = [
        threading.Thread(target=measuring.run, args=(stop,)),
        threading.Thread(
            target=predictor_room.run,
            args=(store, predictor_config(settings), 0.5, stop, lambda told: forecast.append(told is not None)),
        ),
        threading.Thread(
            target=orchestrator_room.run,
            args=(deciding, 0.5, stop, time.time, lambda told: decided.append(told is not None)),
        ),
    ]
    try:
        for thread in threads:
            thread.start()
        until(lambda: forecast[-1] and decided[-1] and len(measuring.told) > 5)
        primary.kill()
        until(lambda: not forecast[-1] and not decided[-1] and measuring.spool.waiting)
        time.sleep(OUTAGE_S)
        standby.control("promote")
        until(lambda: forecast[-1] and decided[-1] and not measuring.spool.waiting)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    until(measuring.done)
    counted = [row.bytes for row in store.facts.communications(0.0)]
    store.close()
    measuring.spool.close()
    assert measuring.writer.lost == 0
    assert sorted(counted) == measuring.told


@pytest.mark.postgres
def test_readers_find_the_primary_and_change_nothing_and_a_standby_is_no_place_to_write(
    pair: tuple[Server, Server],
) -> None:
    primary, standby = pair
    both = f"postgresql://forepath@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/postgres"
    open_store(both).close()
    reader = open_store(both, create=False, read_only=True)
    assert reader.inventory.nodes() == []
    with pytest.raises(StoreError):
        reader.leases.hold("x", "me", 1.0, 1.0)
    reader.close()
    alone = open_store(f"postgresql://forepath@127.0.0.1:{standby.port}/postgres", create=False)
    with pytest.raises(StoreError, match="read-only"):
        alone.leases.hold("x", "me", 1.0, 1.0)
    # The same connections, once the server may be written to.
    primary.kill()
    standby.control("promote")
    assert alone.leases.hold("x", "me", 1.0, 1.0).holder == "me"
    alone.close()


@pytest.mark.parametrize(
    ("url", "spread"),
    [
        ("sqlite:///a,b.db", "sqlite:///a,b.db"),
        ("postgresql://u@a/n", "postgresql://u@a/n"),
        ("postgresql://u:p%40@a:1,b/n", "postgresql://u:p%40@/n?host=a:1&host=b:5432&target_session_attrs=read-write"),
        (
            "postgresql://a,b/n?connect_timeout=9&target_session_attrs=any",
            "postgresql:///n?host=a:5432&host=b:5432&connect_timeout=9&target_session_attrs=any",
        ),
    ],
)
def test_several_hosts_in_a_url(url: str, spread: str) -> None:
    assert spread_hosts(url) == spread == spread_hosts(spread)
    assert Settings.model_validate({"database": {"url": url}}).database.url == spread

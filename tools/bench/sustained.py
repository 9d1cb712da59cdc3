"""The whole way of a sample, second after second: a switch all of whose counters grow, the mirror, SQLite."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cpdb import LabError, Store, open_store
from tools.bench.figures import median
from tools.bench.heartbeat_app import FILE

PORT = 6654
# Long enough that nothing of the start is measured.
_WARM_ROWS = 2
_PATIENCE_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def sustained(flows: int, seconds: float) -> dict[str, float]:
    """Rows written, CPU of the mirror's process, and its stalls, over `seconds` of one poll a second.

    Raises LabError when no rows come.
    """
    with tempfile.TemporaryDirectory() as folder, _mirror(Path(folder)) as (process, url), _switch(flows):
        with contextlib.closing(open_store(url)) as store:
            _wait_for_rows(store, flows)
            began, rows, cpu = time.monotonic(), _rows(store), cpu_s(process.pid)
            earlier = len(_beats(Path(folder)))
            time.sleep(seconds)
            wall, cpu = time.monotonic() - began, cpu_s(process.pid) - cpu
            written, beats = _rows(store) - rows, _beats(Path(folder))[earlier:]
            size = sum(one.stat().st_size for one in Path(folder).glob("cpdb.db*"))
        return {
            "rows_per_s": written / wall,
            "entries_per_cpu_s": written / cpu,
            "cores_used": cpu / wall,
            "stall_s": median(one["stall_s"] for one in beats),
            "stall_cpu_s": median(one["stall_cpu_s"] for one in beats),
            "longest_stall_of_all_s": max(one["stall_s"] for one in beats),
            "database_bytes_per_row": size / max(_rows_in(url), 1),
            "memory_bytes": float(memory_bytes(process.pid)),
        }


@contextlib.contextmanager
def _mirror(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    url = f"sqlite:///{folder}/cpdb.db"
    open_store(url).close()
    argv = [sys.executable, "-m", "forepath.commands.ryu_manager", "ryu_apps.flow_mirror", "tools.bench.heartbeat_app"]
    argv += ["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(PORT)]
    env = os.environ | {"FOREPATH_DATABASE_URL": url, FILE: f"{folder}/beats"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, cwd=folder, stdout=log, stderr=log)
        try:
            yield process, url
        except LabError as error:
            raise LabError(f"{error}; the mirror said: {(folder / 'log').read_text()[-400:]}") from error
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _switch(flows: int) -> Iterator[None]:
    argv = [sys.executable, "-m", "tools.bench.replayed_switch", str(PORT), "0x51", str(flows)]
    deadline = time.monotonic() + _PATIENCE_S
    process = _connect(argv)
    while process is None:
        if time.monotonic() > deadline:
            raise LabError("the mirror accepts no connection")
        process = _connect(argv)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _connect(argv: list[str]) -> subprocess.Popen[bytes] | None:
    # Until the mirror listens, the switch ends at once.
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return process
    return None


def _rows(store: Store) -> int:
    return sum(len(one.key_ids) for one in store.facts.batches(0, 0.0))


def _rows_in(url: str) -> int:
    with contextlib.closing(open_store(url)) as store:
        return _rows(store)


def _wait_for_rows(store: Store, flows: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while _rows(store) < _WARM_ROWS * flows:
        if time.monotonic() > deadline:
            raise LabError(f"only {_rows(store)} rows after {_PATIENCE_S:g} s")
        time.sleep(0.5)


def _beats(folder: Path) -> list[dict[str, float]]:
    # The longest stalls of each second.
    lines = (folder / "beats").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def cpu_s(pid: int, ended: bool = False) -> float:
    """CPU seconds that a process, all its threads, has used so far; with its children that have `ended` as well."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if ended else 13])) / _TICKS_PER_S


def memory_bytes(pid: int) -> int:
    """What a process holds in memory now."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES

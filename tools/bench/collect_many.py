"""`forepath bench collect --controllers N`: many controllers, many switches, one database - and which is the limit."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from cpdb import Batch, FlowKey, LabError, Store, open_store
from tools.bench.figures import BenchTarget, Result
from tools.bench.sustained import cpu_s
from tools.lab.postgres import private_postgres, why_not

# What several controllers write together is at least this share of what as much CPU wrote through one.
LEAST_SHARE = 0.8
_PATIENCE_S = 240.0
_FRESH_S, _CATCH_UP_S = 2.0, 30.0
# So many batches a transaction, each of so many flow keys: a controller's of one poll.
_A_POLL, _KEYS = 50, 250


@dataclass(frozen=True, slots=True)
class ManyScale:
    """How much is measured: controllers, switches shared out among them, entries in each, seconds of one poll each."""

    controllers: int = 4
    switches: int = 200
    flows: int = 250
    seconds: float = 15.0


def measure(scale: ManyScale, tell: Callable[[str], None]) -> Result:
    """On SQLite, and on PostgreSQL where its programs are: one controller against many, then the database alone."""
    figures: dict[str, float] = {"entries": float(scale.switches * scale.flows)}
    databases = {"sqlite": _sqlite, **({} if why_not() else {"postgresql": _postgresql})}
    for name, database in databases.items():
        for count in sorted({1, scale.controllers}):
            tell(f"{name}, {count} controllers")
            with database() as (url, server):
                found = _collect(replace(scale, controllers=count), url, server)
            figures |= {f"{name}_{count}_{key}": value for key, value in found.items()}
            tell(f"{name} alone, {count} writers")
            with database() as (url, server):
                found = _written(url, count, scale.seconds / 3, server)
            figures |= {f"{name}_alone_{count}_{key}": value for key, value in found.items()}
    return judge(figures, scale)


def judge(figures: dict[str, float], scale: ManyScale) -> Result:
    """Rows a CPU second through many controllers, the database's share included, beside those through one."""
    targets = []
    for name in ("sqlite", "postgresql"):
        one, many = (figures.get(f"{name}_{count}_rows_per_cpu_s", 0.0) for count in (1, scale.controllers))
        if one:
            text = f"rows a CPU second, {scale.controllers} controllers to one, {name}"
            targets.append(BenchTarget(text, many / one, LEAST_SHARE, "higher"))
    return Result(figures, targets)


@contextlib.contextmanager
def _sqlite() -> Iterator[tuple[str, int | None]]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/cpdb.db", None


@contextlib.contextmanager
def _postgresql() -> Iterator[tuple[str, int | None]]:
    with private_postgres() as server:
        main = int((server.home / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])
        yield server.url, main


# ---- controllers and switches


def _collect(scale: ManyScale, url: str, server: int | None) -> dict[str, float]:
    """Rows that came into the database within `seconds`, and CPU seconds of controllers and server meanwhile."""
    open_store(url).close()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ports = _free_ports(scale.controllers)
        mirrors = [stack.enter_context(_mirror(Path(folder), url, port)) for port in ports]
        for number, port in enumerate(ports):
            own = range(number, scale.switches, scale.controllers)
            stack.enter_context(_switches(port, 1 + number * scale.switches, scale.flows, len(own)))
        with contextlib.closing(open_store(url)) as store:
            reader = RowReader(store)
            _until(lambda: reader.advance() >= 2 * scale.switches * scale.flows, Path(folder))
            # All pairs have been named now; what had to wait for that is written, where anybody keeps up at all.
            late = time.monotonic() + _CATCH_UP_S
            _until(lambda: _caught_up(reader) or time.monotonic() > late, Path(folder))
            before, began, rows = _cpu(mirrors, server), time.monotonic(), reader.rows
            time.sleep(scale.seconds)
            wall, spent = time.monotonic() - began, [b - a for a, b in zip(before, _cpu(mirrors, server), strict=True)]
            rows = reader.advance() - rows
    return {
        "rows_per_s": rows / wall,
        "rows_per_cpu_s": rows / sum(spent),
        "lag_s": reader.age_s,
        "controllers_cores": spent[0] / wall,
        "server_cores": spent[1] / wall,
    }


@dataclass(slots=True)
class RowReader:
    """Counts the rows of a database, reading each batch once; `newest` is when the last of them were counted."""

    store: Store
    rows: int = 0
    newest: float = 0.0
    _last: int = 0

    @property
    def age_s(self) -> float:
        """How long ago the newest rows were counted."""
        return time.time() - self.newest

    def advance(self) -> int:
        """All rows up to now."""
        for one in self.store.facts.batches(self._last, 0.0):
            self.rows, self._last, self.newest = self.rows + len(one.key_ids), one.id, one.t
        return self.rows


def _caught_up(reader: RowReader) -> bool:
    reader.advance()
    return reader.age_s < _FRESH_S


def _cpu(mirrors: list[subprocess.Popen[bytes]], server: int | None) -> tuple[float, float]:
    return sum(cpu_s(one.pid) for one in mirrors), _family_cpu_s(server) if server else 0.0


def _family_cpu_s(main: int) -> float:
    """Of a server, of its children, and of those that have ended."""
    found = cpu_s(main, ended=True)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1]
            found += cpu_s(int(folder.name)) if int(parent) == main else 0.0
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.contextmanager
def _mirror(folder: Path, url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    home = folder / str(port)
    home.mkdir()
    argv = [sys.executable, "-m", "forepath.commands.ryu_manager", "ryu_apps.flow_mirror"]
    argv += ["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(port)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=os.environ | {"FOREPATH_DATABASE_URL": url}, cwd=home, stdout=log, stderr=log
        )
        try:
            _until(lambda: _listens(port), folder)
            yield process
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _switches(port: int, dpid: int, flows: int, count: int) -> Iterator[None]:
    argv = [sys.executable, "-m", "tools.bench.replayed_switch", *map(str, (port, dpid, flows, count))]
    process = subprocess.Popen(argv)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _until(there: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not there():
        if time.monotonic() > deadline:
            said = "; ".join(one.read_text(errors="replace")[-300:] for one in sorted(folder.glob("*/log")))
            raise LabError(f"nothing after {_PATIENCE_S:g} s; the controllers said: {said}")
        time.sleep(0.5)


# ---- the database alone


def _written(url: str, writers: int, seconds: float, server: int | None) -> dict[str, float]:
    """What so many processes that do nothing else write of made-up polls, each as fast as it can."""
    open_store(url).close()
    context = get_context("spawn")
    with context.Pool(writers) as pool:
        pool.starmap(_write, [(url, number, 0.0) for number in range(writers)])  # names are known from then on
        before = _family_cpu_s(server) if server else 0.0
        began = time.monotonic()
        rows = sum(pool.starmap(_write, [(url, number, seconds) for number in range(writers)]))
        wall = time.monotonic() - began
        return {"rows_per_s": rows / wall, "server_cores": ((_family_cpu_s(server) - before) / wall) if server else 0.0}


def _write(url: str, writer: int, seconds: float) -> int:
    keys = [FlowKey(f"w{writer}-{n}", "10.99.0.1", None) for n in range(_KEYS)]
    counts, rows, begun = array("q", range(1, _KEYS + 1)), 0, time.monotonic()
    with contextlib.closing(open_store(url, create=False)) as store:
        while not rows or time.monotonic() - begun < seconds:
            at = 1_700_000_000.0 + rows / _KEYS
            own = [Batch(f"s{writer}-{n}", at, 1.0, keys, counts, counts, counts) for n in range(_A_POLL)]
            store.facts.add_batches(own)
            rows += _A_POLL * _KEYS
    return rows

"""The database: rows in, a window out as a dense array, bytes a row; beside a bare insert of the same rows."""

import sqlite3
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy import text

from cpdb import Batch, FlowKey, RetentionPolicy, Store, open_store
from tools.bench.figures import BenchTarget, Result, Size, median
from tools.lab.postgres import private_postgres, why_not

START_S = 1_699_999_980
WINDOW_S = 300
LEAST_SHARE, MOST_WINDOW_S, MOST_GB_A_DAY = 0.8, 0.5, 4.0
Rows = list[tuple[int, int, int, int, int]]
Write = Callable[[Batch, Rows], None]
TABLE = "CREATE TABLE bare (t INTEGER, flow_key_id INTEGER, bytes BIGINT, packets BIGINT, connections BIGINT)"


@dataclass(frozen=True, slots=True)
class Load:
    """`pairs` of whom each says something each second, for `seconds`."""

    pairs: int
    seconds: int
    seed: int = 1


def measure(load: Load, progress: Callable[[str], None] = lambda _: None) -> Result:
    """Both engines; PostgreSQL is left out where no server can be started, and then has no figures."""
    progress("SQLite")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/store.db")
        with _bare_sqlite(Path(folder)) as bare:
            result = _named("sqlite", _engine(store, bare, load))
        store.close()
    if why_not() is None:
        progress("PostgreSQL")
        with private_postgres("") as server:
            store = open_store(server.url)
            with _bare_postgres(server.url) as bare:
                other = _named("postgresql", _engine(store, bare, load))
            store.close()
        result = Result(result.figures | other.figures, result.targets + other.targets)
    return result


def small(size: Size) -> Result:
    """SQLite only, as a part of the whole set of benches."""
    load = Load(size.of(1000), max(3, size.of(20)))
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/store.db")
        with _bare_sqlite(Path(folder)) as bare:
            result = _named("sqlite", _engine(store, bare, load))
        store.close()
    return result


def _named(engine: str, figures: dict[str, float]) -> Result:
    targets = [
        BenchTarget(f"{engine}: share of the bare rows a second", figures["share_of_bare"], LEAST_SHARE, "higher")
    ]
    targets += [
        BenchTarget(
            f"{engine}: {WINDOW_S} s of all pairs as an array, s", figures["window_cpu_s"], MOST_WINDOW_S, "lower"
        ),
        BenchTarget(f"{engine}: GB after a day", figures["gb_after_a_day"], MOST_GB_A_DAY, "lower"),
    ]
    # Only for SQLite is a size promised.
    kept = targets if engine == "sqlite" else targets[:2]
    return Result({f"{engine}_{name}": value for name, value in figures.items()}, kept)


def _engine(store: Store, bare: Write, load: Load) -> dict[str, float]:
    rng = np.random.default_rng(load.seed)
    talks = [FlowKey(f"c{n}", f"10.9.{n % 4}.1", f"vm{n % 16}") for n in range(load.pairs)]
    ours, theirs = [], []
    for second in range(load.seconds):
        batch, rows = _second(rng, talks, second)
        if second == 0:
            store.facts.add_batches([batch])
            bare(batch, rows)
            continue
        # In turns, so that whatever else runs here disturbs both alike.
        ours.append(_spent(store, lambda batch=batch: store.facts.add_batches([batch])))  # type: ignore[misc]
        theirs.append(_spent(store, lambda batch=batch, rows=rows: bare(batch, rows)))  # type: ignore[misc]
    for second in range(load.seconds, WINDOW_S):
        store.facts.add_batches([_second(rng, talks, second)[0]])
    return {
        "rows_per_s": load.pairs / median(ours),
        "bare_rows_per_s": load.pairs / median(theirs),
        "share_of_bare": median(theirs) / median(ours),
        **_window(store, load.pairs),
        **_sizes(store, load),
    }


def _spent(store: Store, work: Callable[[], object]) -> float:
    """CPU seconds on SQLite; wall seconds where a server does the work beside this process."""
    clock = time.process_time if store.engine.dialect.name == "sqlite" else time.perf_counter
    before = clock()
    work()
    return max(clock() - before, 1e-6)


def _second(rng: np.random.Generator, talks: list[FlowKey], second: int) -> tuple[Batch, Rows]:
    """Packets log-normal, their size uniform: as uneven as traffic is, so that it packs no better than traffic."""
    packets = np.maximum(1, rng.lognormal(3.0, 1.2, len(talks))).astype(np.int64)
    sizes = (packets * rng.uniform(80, 1400, len(talks))).astype(np.int64)
    connections = np.minimum(packets, rng.exponential(3.0, len(talks)).astype(np.int64))
    a, b, c = (array("q", column.tobytes()) for column in (sizes, packets, connections))
    t = START_S + second + 1
    batch = Batch("switch/s1", float(t), 1.0, talks, a, b, c, complete=True, writer="bench", seq=second + 1)
    return batch, [(t, n, *row) for n, row in enumerate(zip(a, b, c, strict=True))]


def _window(store: Store, pairs: int) -> dict[str, float]:
    found, cpu, wall = [], [], []
    for _ in range(3):
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        found.append(dense(store, float(START_S), START_S + WINDOW_S))
        cpu.append(time.process_time() - cpu_before)
        wall.append(time.perf_counter() - wall_before)
    if found[0].shape != (3, pairs + 1, WINDOW_S):
        raise RuntimeError(f"the window has shape {found[0].shape}")
    return {"window_cpu_s": median(cpu), "window_wall_s": median(wall)}


def dense(store: Store, since: float, until: float) -> NDArray[np.float32]:
    """Bytes, packets and connections a second: 3 x talk number x second, NaN where nobody looked."""
    count = max(store.facts.flow_keys()) + 1
    result = np.full((3, count, int(until - since)), np.nan, dtype=np.float32)
    by_time = result.transpose(2, 0, 1).copy()
    seen = np.zeros(count, dtype=bool)
    for batch in store.facts.batches(0, since, until):
        cell = by_time[int(np.ceil(batch.t - since)) - 1]
        ids = np.asarray(batch.key_ids)
        seen[ids] = True
        if batch.complete:
            cell[:, seen] = 0.0
        for channel, column in enumerate((batch.bytes, batch.packets, batch.connections)):
            cell[channel, ids] = np.asarray(column) / np.float32(batch.interval_s)
    return np.ascontiguousarray(by_time.transpose(1, 2, 0))


def _sizes(store: Store, load: Load) -> dict[str, float]:
    policy = RetentionPolicy()
    rows = load.pairs * max(load.seconds, WINDOW_S)
    fine, coarse = max(load.seconds, WINDOW_S) // 10, max(load.seconds, WINDOW_S) // 60
    raw = _bytes(store, "batches") / rows
    before = time.process_time()
    store.retain(START_S + max(load.seconds, WINDOW_S) + 60.0, policy, 600.0)
    spent = time.process_time() - before
    rolled = (_bytes(store, "patterns_10s") + _bytes(store, "patterns_60s")) / (load.pairs * (fine + coarse))
    a_day = raw * policy.second_s + rolled * (policy.ten_seconds_s / 10 + policy.ten_seconds_s / 60)
    return {
        "bytes_per_row": raw,
        "bytes_per_rolled_row": rolled,
        "gb_after_a_day": a_day * load.pairs / 1e9,
        "roll_up_cpu_s_per_s": spent / max(load.seconds, WINDOW_S),
    }


def _bytes(store: Store, table: str) -> int:
    """Bytes on disk of a table with its indexes (and partitions)."""
    if store.engine.dialect.name == "sqlite":
        pages = "SELECT coalesce(sum(s.pgsize), 0) FROM dbstat s JOIN sqlite_master m USING (name)"
        query = f"{pages} WHERE m.tbl_name = '{table}'"
    else:
        query = f"SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('{table}')"
    with store.engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


@contextmanager
def _bare_sqlite(folder: Path) -> Iterator[Write]:
    connection = sqlite3.connect(folder / "bare.db")
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", TABLE):
        connection.execute(statement)

    def write(_: Batch, rows: Rows) -> None:
        with connection:
            connection.executemany("INSERT INTO bare VALUES (?, ?, ?, ?, ?)", rows)

    try:
        yield write
    finally:
        connection.close()


@contextmanager
def _bare_postgres(url: str) -> Iterator[Write]:
    with psycopg.connect(url) as connection:
        connection.execute(TABLE)
        connection.commit()

        def write(_: Batch, rows: Rows) -> None:
            with connection.cursor() as cursor, cursor.copy("COPY bare FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            connection.commit()

        yield write

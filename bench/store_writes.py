"""Writing communications: rows per CPU second through the store, beside sqlite3 alone on the same columns."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Result, Size, Target, cpu_s, median
from cpdb import Communication, open_store

BATCH = 1000
BATCHES = 20
# Names to numbers, records to dictionaries, SQLAlchemy: all that may cost so many times the bare insert.
LEAST_RATIO = 0.1
START_S = 1_700_000_000.0
TABLE = """CREATE TABLE communications (
    id INTEGER PRIMARY KEY, source_id INTEGER NOT NULL, virtual_ip_id INTEGER NOT NULL, destination VARCHAR(64),
    t FLOAT NOT NULL, interval_s FLOAT NOT NULL, bytes BIGINT NOT NULL, packets BIGINT NOT NULL,
    mean_packet_bytes FLOAT NOT NULL, new_connections INTEGER NOT NULL)"""
INSERT = """INSERT INTO communications (source_id, virtual_ip_id, destination, t, interval_s, bytes, packets,
    mean_packet_bytes, new_connections) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def batch(number: int, rows: int) -> list[Communication]:
    """One second of `rows` pairs."""
    return [
        Communication(f"c{n}", f"10.9.{n % 4}.1", "vm1", START_S + number, 1.0, 10_000 + n, 10, n % 5)
        for n in range(rows)
    ]


def measure(size: Size) -> Result:
    """Batches go to a fresh file each; the median batch counts, and one batch before it warms up."""
    rows, batches = size.of(BATCH), max(3, size.of(BATCHES))
    with tempfile.TemporaryDirectory() as folder:
        with _store(Path(folder)) as write:
            ours = rows / _median_batch(write, rows, batches)
        with _sqlite(Path(folder)) as write:
            bare = rows / _median_batch(write, rows, batches)
    ratio = ours / bare
    figures = {
        "store_rows_per_cpu_s": ours,
        "sqlite3_rows_per_cpu_s": bare,
        "ratio": ratio,
        "rows_per_batch": float(rows),
    }
    return Result(
        figures, [Target("store writes, share of sqlite3's rows per CPU second", ratio, LEAST_RATIO, "higher")]
    )


def _median_batch(write: Callable[[list[Communication]], object], rows: int, batches: int) -> float:
    ready = [batch(number, rows) for number in range(batches + 1)]
    write(ready[0])
    # One clock tick at least: what is too small to be seen must not become infinitely fast.
    return max(median(cpu_s(lambda one=one: write(one)) for one in ready[1:]), 1e-6)  # type: ignore[misc]


@contextmanager
def _store(folder: Path) -> Iterator[Callable[[list[Communication]], object]]:
    store = open_store(f"sqlite:///{folder}/store.db")
    try:
        yield store.facts.add_communications
    finally:
        store.close()


@contextmanager
def _sqlite(folder: Path) -> Iterator[Callable[[list[Communication]], object]]:
    connection = sqlite3.connect(folder / "bare.db")
    for statement in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=NORMAL",
        TABLE,
        "CREATE INDEX t ON communications (t)",
    ):
        connection.execute(statement)

    def write(rows: list[Communication]) -> None:
        with connection:
            connection.executemany(
                INSERT,
                [
                    (1, 1, one.destination, one.t, one.interval_s, one.bytes, one.packets, one.mean_packet_bytes,
                     one.new_connections)
                    for one in rows
                ],
            )  # fmt: skip

    try:
        yield write
    finally:
        connection.close()

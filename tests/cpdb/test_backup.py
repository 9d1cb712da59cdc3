"""Copies: whole, taken while others write, put back on both engines; what is damaged or busy is refused."""

import threading
import time
from array import array
from pathlib import Path

import pytest

from cpdb import Batch, FlowKey, Node, NodeKind, Store, StoreError, back_up, open_store, restore
from cpdb.schema import metadata


def batch(t: float, seq: int) -> Batch:
    columns = (array("q", [seq]), array("q", [1]), array("q", [1]))
    key = FlowKey(f"c{seq % 7}", "10.0.0.101", None)
    return Batch("switch/leaf1", t, 1.0, [key], *columns, complete=True, writer="w", seq=seq)


def contents(url: str) -> dict[str, list[str]]:
    store = open_store(url, create=False)
    with store.engine.connect() as connection:
        found = {name: sorted(map(repr, connection.execute(table.select()))) for name, table in metadata.tables.items()}
    store.close()
    return found


def fill(store: Store, now: float) -> None:
    store.inventory.put_nodes([Node("leaf1", NodeKind.SWITCH, dpid=(1 << 64) - 1), Node("Käse'; --", NodeKind.HOST)])
    store.facts.add_batches([batch(now - 1000 + number, number) for number in range(1, 50)])
    store.forecasts.remember("learnt", bytes(range(256)), now)


def test_a_copy_put_back_holds_the_same(url: str, tmp_path: Path) -> None:
    store, now, file = open_store(url), time.time(), tmp_path / "copy"
    fill(store, now)
    before = contents(url)
    assert back_up(url, file) == file.stat().st_size > 1000
    assert file.stat().st_mode & 0o077 == 0
    store.inventory.put_nodes([Node("later", NodeKind.HOST)])
    with pytest.raises(StoreError, match="--replace"):
        restore(url, file, False, now)
    store.close()
    restore(url, file, True, now)
    assert contents(url) == before
    # What is put back goes on: numbers are not given twice.
    again = open_store(url)
    assert again.facts.add_batches([batch(now, 99)]) == 1
    again.close()


def test_a_copy_is_of_one_moment_while_another_writes(url: str, tmp_path: Path) -> None:
    store, now, stop, written = open_store(url), time.time(), threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            written[0] += 1
            store.facts.add_batches([batch(now - 2000 + written[0], written[0])])

    writing = threading.Thread(target=write)
    writing.start()
    try:
        while written[0] < 20:
            time.sleep(0.01)
        before = written[0]
        back_up(url, tmp_path / "copy")
    finally:
        stop.set()
        writing.join()
    store.close()
    restore(url, tmp_path / "copy", True, now)
    found = contents(url)
    assert len(found["batches"]) == len(found["pending"]) >= before - 1
    assert len(found["batches"]) <= written[0]


def test_who_is_at_work_is_not_disturbed(url: str, tmp_path: Path) -> None:
    store, now = open_store(url), time.time()
    back_up(url, tmp_path / "copy")
    store.leases.hold("orchestrator", "me", now, 5.0)
    with pytest.raises(StoreError, match="at work"):
        restore(url, tmp_path / "copy", True, now)
    store.leases.release("orchestrator", "me")
    store.facts.add_batches([batch(now, 1)])
    with pytest.raises(StoreError, match="at work"):
        restore(url, tmp_path / "copy", True, now)
    store.close()
    restore(url, tmp_path / "copy", True, now + 60)


def test_damaged_copies_change_nothing_and_bad_places_are_named(url: str, tmp_path: Path) -> None:
    store, now, file = open_store(url), time.time(), tmp_path / "copy"
    fill(store, now)
    back_up(url, file)
    store.close()
    before, whole = contents(url), file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    for damaged in (file, tmp_path / "rubbish", tmp_path / "nothing"):
        if damaged.name == "rubbish":
            damaged.write_bytes(b"rubbish" * 1000)
        with pytest.raises(StoreError):
            restore(url, damaged, True, now)
    assert contents(url) == before
    file.write_bytes(b"old")
    with pytest.raises(StoreError):
        back_up(url.replace("cpdb.db", "none.db").replace("/t", "/nowhere_t"), file)
    with pytest.raises(StoreError):
        back_up(url, tmp_path / "no folder" / "copy")
    assert file.read_bytes() == b"old" and not list(tmp_path.glob(".*.new"))

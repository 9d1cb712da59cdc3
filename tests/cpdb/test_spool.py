"""The spool: in order, exactly once, bounded, and whole after a kill, a torn tail and a full disk."""

import json
import signal
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpdb import Batch, FlowKey, Spool, Store, StoreError

WRITES_UNTIL_KILLED = """
import sys
import threading
from array import array
from pathlib import Path
from cpdb import Batch, Spool, FlowKey
spool = Spool(Path(sys.argv[1]), segment_bytes=2000)
seq = 0
while True:
    seq += 1
    talks = [FlowKey(f"c{n}", "10.0.0.1", None) for n in range(seq % 7)]
    column = array("q", range(len(talks)))
    spool.append([Batch("leaf", float(seq), 1.0, talks, column, column, column, writer="w", seq=seq)])
    print(seq, flush=True)
"""

# A limit on the size of files stands in for a full disk: writing fails halfway, and works again without it.
MEETS_A_FULL_DISK = """
import json, resource, sys
from array import array
from pathlib import Path
from cpdb import Batch, Spool, FlowKey
spool, column = Spool(Path(sys.argv[1])), array("q", range(3))
talks = [FlowKey(f"c{n}", "10.0.0.1", None) for n in range(3)]
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
kept, replayed = [], []
for seq, room in enumerate((30, hard, 10, hard), 1):
    limit = spool.bytes + room if room != hard else hard
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    kept.append(spool.append([Batch("leaf", float(seq), 1.0, talks, column, column, column)]))
while spool.replay(replayed.extend):
    pass
spool.close()
print(json.dumps({"kept": kept, "lost": spool.lost, "replayed": [one.t for one in replayed]}))
"""


def batch(seq: int, talks: int = 3) -> Batch:
    names = [FlowKey(f"c{n + seq % 2}", "10.0.0.101", "shop1" if n else None) for n in range(talks)]
    counts = [array("q", [seq * 100 + n + shift for n in range(talks)]) for shift in range(3)]
    flags = array("B", [1] * talks) if seq % 3 == 0 else None
    return Batch("leaf1", float(seq), 1.0, names, *counts, flags, complete=True, writer="w", seq=seq)


class Sink:
    """A database that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.kept: list[Batch] = []

    def write(self, items: list[Batch]) -> None:
        if self.away:
            raise StoreError("away")
        self.kept.extend(items)


def drain(spool: Spool, sink: Sink, most: int = 64) -> list[int]:
    while spool.replay(sink.write, most):
        pass
    return [one.seq for one in sink.kept]


@contextmanager
def opened(folder: Path, max_bytes: int = 1 << 20, segment_bytes: int = 2000) -> Iterator[Spool]:
    spool = Spool(folder, max_bytes, segment_bytes)
    try:
        yield spool
    finally:
        spool.close()


def test_batches_come_back_in_order_and_as_they_were(tmp_path: Path) -> None:
    items, sink = [batch(seq) for seq in range(1, 60)], Sink()
    with opened(tmp_path) as spool:
        assert spool.append(items) == spool.waiting == 59
        drain(spool, sink, most=7)
        assert sink.kept == items
        assert (spool.waiting, spool.bytes, spool.lost) == (0, 0, 0)


def test_what_could_not_be_written_comes_first_the_next_time(tmp_path: Path) -> None:
    sink = Sink()
    with opened(tmp_path) as spool:
        spool.append([batch(seq) for seq in range(1, 6)])
        spool.replay(sink.write, 2)
        sink.away = True
        with pytest.raises(StoreError, match="away"):
            spool.replay(sink.write, 2)
        assert spool.waiting == 3
        spool.append([batch(6)])
        sink.away = False
        assert drain(spool, sink) == [1, 2, 3, 4, 5, 6]


def test_an_earlier_process_leaves_its_batches_to_the_next(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([batch(1), batch(2)])
    sink = Sink()
    with opened(tmp_path) as spool:
        assert spool.waiting == 2
        spool.append([batch(3)])
        assert drain(spool, sink) == [1, 2, 3]


def test_the_oldest_give_way_when_the_spool_is_full(tmp_path: Path) -> None:
    sink = Sink()
    with opened(tmp_path, max_bytes=6000, segment_bytes=1000) as spool:
        spool.append([batch(seq) for seq in range(1, 200)])
        assert spool.bytes <= 6000 + 1000
        assert spool.lost > 0
        kept = drain(spool, sink)
        assert kept == list(range(spool.lost + 1, 200))


def test_no_room_is_counted_and_the_spool_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEETS_A_FULL_DISK, str(tmp_path)], capture_output=True, timeout=60, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {"kept": [0, 1, 1, 1], "lost": 2, "replayed": [3.0, 4.0]}


def test_appending_goes_on_while_a_write_hangs(tmp_path: Path) -> None:
    sink = Sink()
    with opened(tmp_path, segment_bytes=600) as spool:
        spool.append([batch(1), batch(2)])

        def hangs(items: list[Batch]) -> None:
            spool.append([batch(seq) for seq in range(10, 20)])
            sink.write(items)

        assert spool.replay(hangs, 1) == 1
        assert drain(spool, sink) == [1, 2, *range(10, 20)]


def test_two_threads_keep_every_batch_in_order(tmp_path: Path) -> None:
    sink, last = Sink(), 400
    with opened(tmp_path, segment_bytes=1500) as spool:
        writer = threading.Thread(target=lambda: [spool.append([batch(seq)]) for seq in range(1, last + 1)])
        writer.start()
        while writer.is_alive() or spool.waiting:
            spool.replay(sink.write, 5)
        writer.join()
    assert [one.seq for one in sink.kept] == list(range(1, last + 1))


def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(StoreError, match="another process"):
        Spool(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name a folder"):
        Spool(tmp_path / "file")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
def test_a_torn_tail_costs_only_the_torn_record(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("spool")
    ends = []
    with opened(folder, segment_bytes=1 << 20) as spool:
        for seq in range(1, 8):
            spool.append([batch(seq)])
            ends.append(spool.bytes)
    (segment,) = folder.glob("*.spool")
    cut = min(cut % ends[-1], ends[-1])
    segment.write_bytes(segment.read_bytes()[:cut])
    sink = Sink()
    with opened(folder) as spool:
        assert drain(spool, sink) == [seq for seq, end in enumerate(ends, 1) if end <= cut]
    assert list(folder.glob("*.spool")) == []


def test_a_flipped_bit_ends_the_segment_and_no_more(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=1) as spool:
        spool.append([batch(1), batch(2), batch(3)])
    middle = sorted(tmp_path.glob("*.spool"))[1]
    raw = bytearray(middle.read_bytes())
    raw[len(raw) // 2] ^= 1
    middle.write_bytes(raw)
    sink = Sink()
    with opened(tmp_path) as spool:
        assert drain(spool, sink) == [1, 3]


def test_a_killed_writer_loses_at_most_the_batch_in_hand(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITES_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout if line.endswith(b"\n")]
    process.stdout.close()
    process.wait(timeout=30)
    sink = Sink()
    with opened(tmp_path) as spool:
        kept = drain(spool, sink)
    assert kept[: len(said)] == said
    assert len(kept) <= len(said) + 1


def test_replayed_twice_is_stored_once(store: Store, tmp_path: Path) -> None:
    """As after a crash between the database's commit and the spool's knowing of it."""
    items = [batch(seq) for seq in range(1, 5)]
    store.facts.add_batches(items[:2])
    with opened(tmp_path / "spool") as spool:
        spool.append(items)
        spool.replay(store.facts.add_batches)
    assert [one.t for one in store.facts.batches(0, 0.0)] == [1.0, 2.0, 3.0, 4.0]

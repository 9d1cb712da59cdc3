"""Rows: answers become batches and loads, and the writer keeps the database's troubles to itself."""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cpdb import (
    IMPLAUSIBLE,
    Batch,
    FlowKey,
    LinkLoad,
    ObservedRecord,
    RefreshReport,
    Spool,
    Store,
    StoreError,
    open_store,
)
from ryu_apps.rules import KIND_SHIFT, Kind, Table, cookie, number_of
from ryu_apps.status.alarms import EventCountPublisher
from ryu_apps.telemetry.counters import Entry, PortSample
from ryu_apps.telemetry.rows import LinkEnds, SampleSource, SwitchCounters, loads, paced
from ryu_apps.telemetry.writer import KeptCounters, Row, Writer, store_rows

C1 = FlowKey("c1", "10.0.0.100", "s1")


def account(key: int) -> tuple[FlowKey, bool] | None:
    return (C1, key >> KIND_SHIFT & 0xF == Kind.PAIR_SYN) if number_of(key) == 7 else None


BOOK = SampleSource("switch/leaf1", account)


def answer(age_s: float, every: tuple[int, int], first: tuple[int, int], number: int = 7) -> Iterable[Entry]:
    for kind, counts in ((Kind.PAIR, every), (Kind.PAIR_SYN, first)):
        yield (cookie(Table.ACCOUNT, kind, number), *counts, age_s)


def told(accounts: SwitchCounters, t: float, entries: Iterable[Entry], book: SampleSource = BOOK) -> list[Batch]:
    return accounts.make_batches(accounts.look(1, entries, t), book)


def test_both_entries_of_a_pair_make_one_row_and_openings_are_counted() -> None:
    accounts = SwitchCounters()
    accounts.connected(1, 10.0)
    (batch,) = told(accounts, 11.0, answer(0.5, (10, 5000), (2, 120)))
    assert (batch.observer, batch.t, batch.interval_s, batch.complete) == ("switch/leaf1", 11.0, 1.0, True)
    columns = (batch.flow_keys, batch.bytes, batch.packets, batch.connections)
    assert [list(column) for column in columns] == [[C1], [5120], [12], [2]]


def test_silence_is_an_empty_complete_batch_once_somebody_spoke() -> None:
    accounts = SwitchCounters()
    accounts.connected(1, 10.0)
    assert told(accounts, 11.0, answer(0.5, (0, 0), (0, 0))) == []
    assert len(told(accounts, 12.0, answer(1.5, (1, 100), (0, 0)))) == 1
    (batch,) = told(accounts, 13.0, answer(2.5, (1, 100), (0, 0)))
    assert (list(batch.flow_keys), batch.complete, batch.interval_s) == ([], True, 1.0)


def test_what_a_switch_counted_before_the_controller_came_is_not_told() -> None:
    accounts = SwitchCounters()
    accounts.connected(1, 10.0)
    assert told(accounts, 11.0, answer(100.0, (10, 5000), (2, 120))) == []
    (batch,) = told(accounts, 12.0, answer(101.0, (11, 6000), (3, 180)))
    assert (list(batch.bytes), list(batch.connections)) == ([1060], [1])


def test_a_new_controller_goes_on_where_the_last_one_stopped() -> None:
    first, second = SwitchCounters(), SwitchCounters()
    first.connected(1, 10.0)
    told(first, 11.0, answer(0.5, (10, 5000), (2, 120)))
    second.connected(1, 20.0, first.dump(1))
    (batch,) = told(second, 21.0, answer(10.5, (30, 9000), (2, 120)))
    assert (list(batch.bytes), batch.t, batch.interval_s) == ([4000], 21.0, 10.0)


def test_counters_kept_for_too_long_are_only_a_base_again() -> None:
    first, second = SwitchCounters(), SwitchCounters()
    first.connected(1, 10.0)
    told(first, 11.0, answer(0.5, (10, 5000), (2, 120)))
    second.connected(1, 5000.0, first.dump(1))
    assert told(second, 5001.0, answer(4990.0, (30, 9000), (2, 120))) == []


def test_keys_of_nobody_make_no_rows() -> None:
    accounts = SwitchCounters()
    accounts.connected(1, 10.0)
    assert told(accounts, 11.0, answer(0.5, (1, 100), (0, 0), number=8)) == []


def test_rows_that_cannot_be_true_are_marked_and_none_is_too_large() -> None:
    accounts = SwitchCounters()
    accounts.connected(1, 10.0)
    book = SampleSource("switch/leaf1", account, lambda talks, _sizes, _seconds: range(len(talks)))
    (batch,) = told(accounts, 11.0, answer(0.5, (1, 100), (0, 0)), book)
    assert batch.flags == array("B", [IMPLAUSIBLE])
    (batch,) = told(accounts, 12.0, answer(1.5, (2**64 - 2, 2**64 - 2), (5, 2**64 - 2)))
    assert batch.flags == array("B", [IMPLAUSIBLE])
    assert 0 < batch.bytes[0] < 2**63


def test_an_edge_port_tells_both_directions() -> None:
    accounts = SwitchCounters()
    accounts.connected(1, 10.0)
    names = {1: LinkEnds("leaf", "spine", False), 2: LinkEnds("leaf", "c1", True)}

    def at(t: float, grown: int) -> list[tuple[str, str, int]]:
        samples = [PortSample(1, port, t, t, 1, grown, 0, 1, 2 * grown, 0) for port in (1, 2, 3)]
        grew = accounts.ports(1, samples, t)
        rows = [row for one, growth in grew if one.port in names for row in loads(names[one.port], growth)]
        return [(load.from_node, load.to_node, load.bytes) for load in rows]

    assert at(11.0, 1000) == []
    assert at(12.0, 1500) == [("leaf", "spine", 500), ("leaf", "c1", 500), ("c1", "leaf", 1000)]


# ---- the writer


def batch(n: int) -> Batch:
    return Batch("switch/leaf1", float(n), 1.0, [C1], array("q", [n]), array("q", [1]), array("q", [0]))


def load(n: int) -> LinkLoad:
    return LinkLoad("a", "b", float(n), 1.0, n, 1)


class Database:
    """Takes rows while it is there."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.away = False

    def write(self, rows: list[Row]) -> None:
        if self.away:
            raise StoreError("database x: writing: gone")
        self.rows += rows

    @property
    def times(self) -> list[float]:
        return [row.t for row in self.rows if isinstance(row, Batch | LinkLoad)]


def test_a_full_queue_drops_the_oldest_and_counts_them() -> None:
    writer, database = Writer(max_rows=5), Database()
    writer.offer([load(n) for n in range(8)])
    assert writer.flush(database.write) == 5
    assert database.times == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert writer.lost == 3
    assert writer.flush(database.write) == 0


def test_rows_wait_for_a_database_that_is_away() -> None:
    writer, database = Writer(max_rows=5), Database()
    database.away = True
    writer.offer([load(1), batch(2)])
    assert writer.flush(database.write) == 0
    assert writer.flush(None) == 0
    database.away = False
    writer.flush(database.write)
    assert sorted(database.times) == [1.0, 2.0]
    assert writer.lost == 0


def test_rows_that_a_database_never_takes_do_not_stand_in_the_way_for_ever() -> None:
    writer, taken = Writer(max_rows=50), list[Row]()

    def write(rows: list[Row]) -> None:
        if isinstance(rows[0], ObservedRecord):
            raise StoreError("database x: recording observed state: impossible")
        taken.extend(rows)

    writer.offer([RefreshReport("a", 1.0, 1.0)])
    for n in range(50):
        writer.offer([load(n)])
        writer.flush(write)
    assert (len(taken), writer.lost) == (50, 1)


@pytest.fixture
def spooled(tmp_path: Path) -> Iterator[Writer]:
    """A writer with places on disk."""
    with closing(Spool(tmp_path / "spool")) as spool:
        yield Writer(1000, "w", spool, KeptCounters(tmp_path / "counters"))


def test_batches_go_through_the_disk_in_order_and_only_once(spooled: Writer) -> None:
    database = Database()
    database.away = True
    for n in range(1, 6):
        spooled.offer([batch(n)], float(n))
        assert spooled.flush(database.write) == 0
    assert spooled.spool is not None and spooled.spool.waiting == 5
    database.away = False
    spooled.offer([batch(6)], 6.0)
    spooled.flush(database.write)
    spooled.offer([batch(7)], 7.0)
    spooled.flush(database.write)
    assert database.times == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert [row.seq for row in database.rows if isinstance(row, Batch)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_database_that_hangs_finds_everything_on_disk_already(spooled: Writer) -> None:
    seen: list[int] = []

    def hanging(rows: list[Row]) -> None:
        spooled.offer([batch(2)], 10.5, {1: b"later"})
        spooled.guard(10.4)
        seen.append(spooled.spool.waiting if spooled.spool else -1)
        spooled.guard(10.7)
        seen.append(spooled.spool.waiting if spooled.spool else -1)
        assert spooled.kept.read(1) == b"later"
        raise StoreError("database x: writing: the connection is gone")

    spooled.offer([batch(1)], 10.0, {1: b"dump"})
    spooled.flush(hanging)
    assert seen == [0, 2]
    database = Database()
    spooled.flush(database.write)
    assert database.times == [1.0, 2.0]


def test_a_dump_is_on_disk_before_its_batch_leaves(spooled: Writer) -> None:
    def write(_rows: list[Row]) -> None:
        assert spooled.kept.read(0x11) == b"as of now"

    spooled.offer([batch(1)], 1.0, {0x11: b"as of now"})
    assert spooled.flush(write) == 2
    assert spooled.kept.read(0x12) is None


def test_counters_that_cannot_be_kept_are_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    kept = KeptCounters(tmp_path / "file")
    kept.write(1, b"x")
    assert kept.failures == 1
    assert kept.read(1) is None


def test_rows_of_all_kinds_reach_the_store() -> None:
    store: Store = open_store("sqlite://")
    store_rows(store, [batch(5), load(1), RefreshReport("a", 1.0, 1.0)])
    assert [row.bytes for row in store.facts.communications(-1.0)] == [5]
    assert [row.bytes for row in store.facts.loads(LinkLoad, -1.0)] == [1]
    assert len(store.wanted.observed()) == 1
    store.close()


# ---- what went wrong


def test_counts_of_what_went_wrong_are_told_when_they_change() -> None:
    tallies = EventCountPublisher()
    assert tallies.news({("lost", "rows"): 0}, 1.0) == []
    (row,) = tallies.news({("lost", "rows"): 3, ("refused", "length"): 0}, 2.0)
    assert (row.kind, row.key, row.count) == ("lost", "rows", 3)
    assert tallies.news({("lost", "rows"): 3}, 3.0) == []


def test_long_iterations_pause_and_lose_nothing() -> None:
    pauses: list[int] = []
    assert list(paced(range(10), lambda: pauses.append(1), every=4)) == list(range(10))
    assert len(pauses) == 2

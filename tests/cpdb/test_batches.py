"""Batches in columns: what goes in comes out, once; silence is proven by what is not listed."""

from array import array
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpdb import Batch, Communication, FlowKey, Store, open_store
from cpdb.telemetry.columns import pack, unpack

SHOP = "10.0.0.101"
C1, C2, C3 = (FlowKey(name, SHOP, "shop1") for name in ("c1", "c2", "c3"))


def batch(t: float, sizes: dict[FlowKey, int], seq: int = 0, observer: str = "switch/leaf1") -> Batch:
    count = len(sizes)
    packets, connections = array("q", [10] * count), array("q", [1] * count)
    columns = (array("q", sizes.values()), packets, connections)
    return Batch(observer, t, 1.0, list(sizes), *columns, complete=True, writer="w" if seq else "", seq=seq)


def said(store: Store, since: float = 0.0) -> list[tuple[float, str, int]]:
    return [(row.t, row.source, row.bytes) for row in store.facts.communications(since)]


def test_a_batch_comes_back_in_columns(store: Store) -> None:
    flagged = replace(batch(5.0, {C1: 7, C2: 2**40}), flags=array("B", [0, 1]), sampling=100)
    assert store.facts.add_batches([flagged]) == 1
    (found,) = store.facts.batches(0, 0.0)
    talks = store.facts.flow_keys()
    assert [talks[number] for number in found.key_ids] == [C1, C2]
    assert (list(found.bytes), list(found.packets), list(found.connections)) == ([7, 2**40], [10, 10], [1, 1])
    assert (list(found.flags or ()), found.sampling, found.complete) == ([0, 1], 100, True)
    assert (found.observer, found.t, found.interval_s) == ("switch/leaf1", 5.0, 1.0)


def test_reading_goes_on_after_the_last_number_seen(store: Store) -> None:
    store.facts.add_batches([batch(1.0, {C1: 1}), batch(2.0, {C1: 2})])
    first, second = store.facts.batches(0, 0.0)
    store.facts.add_batches([batch(1.5, {C1: 3})])
    assert first.id < second.id
    assert [one.t for one in store.facts.batches(second.id, 0.0)] == [1.5]
    assert [one.t for one in store.facts.batches(0, 1.0, 1.5)] == [1.5]


def test_a_batch_written_twice_is_stored_once(store: Store) -> None:
    one, two = batch(1.0, {C1: 1}, seq=1), batch(2.0, {C1: 2}, seq=2)
    assert store.facts.add_batches([one]) == 1
    assert store.facts.add_batches([one, two]) == 1
    assert said(store) == [(1.0, "c1", 1), (2.0, "c1", 2)]


def test_who_is_not_listed_in_a_complete_batch_said_nothing(store: Store) -> None:
    store.facts.add_batches([batch(1.0, {C1: 1, C2: 2}), batch(2.0, {C2: 3}), batch(3.0, {C3: 4}, observer="other")])
    assert said(store) == [(1.0, "c1", 1), (1.0, "c2", 2), (2.0, "c1", 0), (2.0, "c2", 3), (3.0, "c3", 4)]
    assert said(store, since=1.0) == [(2.0, "c2", 3), (3.0, "c3", 4)]


def test_a_pair_with_a_new_destination_is_not_silent(store: Store) -> None:
    moved = C1._replace(destination="shop2")
    store.facts.add_batches([batch(1.0, {C1: 1}), batch(2.0, {moved: 2}), batch(3.0, {})])
    rows = store.facts.communications(0.0)
    assert [(row.t, row.destination, row.bytes) for row in rows] == [
        (1.0, "shop1", 1),
        (2.0, "shop2", 2),
        (3.0, "shop2", 0),
    ]


def test_rows_keep_their_flags_and_sampling(store: Store) -> None:
    row = Communication("c1", SHOP, None, 1.0, 2.0, 10, 4, 1, flags=1, sampling=64)
    store.facts.add_communications([row])
    assert store.facts.communications(0.0) == [row]
    assert row.packets_per_s == 2.0


def test_a_number_taken_back_is_not_used_again(url: str) -> None:
    """The talk's transaction stands even when the batch's fails, so that a cached number is always a real one."""
    with_rows, other = open_store(url), open_store(url)
    broken = replace(batch(1.0, {C1: 1}), bytes=array("q", [-1]))
    assert with_rows.facts.add_batches([broken]) == 0
    with_rows.alarms.tell_refusals("tester", 1.0)
    (told,) = with_rows.alarms.open()
    assert told.kind == "set_aside" and "negative" in told.detail
    other.facts.add_batches([batch(1.0, {C2: 2}, observer="other")])
    with_rows.facts.add_batches([batch(2.0, {C1: 3})])
    assert said(other) == [(1.0, "c2", 2), (2.0, "c1", 3)]
    with_rows.close()
    other.close()


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        replace(batch(1.0, {C1: 1}), packets=array("q"))


COUNTS = st.lists(st.tuples(*[st.integers(0, 2**63 - 1)] * 3, st.integers(0, 255)), max_size=30)


@given(COUNTS)
def test_packing_is_lossless(rows: list[tuple[int, int, int, int]]) -> None:
    ids = array("I", range(len(rows)))
    counts: Sequence[array[int]] = [array("q", [row[n] for row in rows]) for n in range(3)]
    flags = array("B", [row[3] for row in rows])
    found = unpack(pack(ids, counts, flags))
    assert list(found.key_ids) == list(ids)
    assert [list(found.bytes), list(found.packets), list(found.connections)] == [list(one) for one in counts]
    assert list(found.flags or bytes(len(rows))) == list(flags)


@given(st.binary(max_size=40))
def test_a_torn_block_is_told(block: bytes) -> None:
    with pytest.raises(ValueError, match="stored batch"):
        unpack(block)

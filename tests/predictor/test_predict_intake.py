"""What is read reaches the panel once: silence as zeros, the implausible not at all, the future in its time."""

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cpdb import IMPLAUSIBLE, Batch, FlowKey, Store, Subject, SubjectKind, open_store
from predictor import FlowSeries
from predictor.data.panel import Panel

START = 1_000_000.0
TALKS = [FlowKey("c1", "10.9.0.1", "vm1"), FlowKey("c1", "10.9.0.1", "vm2"), FlowKey("c2", "10.9.0.1", None)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = open_store(f"sqlite:///{tmp_path}/intake.db")
    yield one
    one.close()


def batch(second: int, said: dict[int, int], **more: object) -> Batch:
    """What one switch says about the second that ends at START + second: bytes by place in TALKS."""
    size = array("q", said.values())
    ones = array("q", [1] * len(said))
    talks = [TALKS[number] for number in said]
    return Batch("switch/leaf1", START + second, 1.0, talks, size, ones, ones, **{"complete": True, **more})  # type: ignore[arg-type]


def rates(source: FlowSeries, seconds: int, source_name: str) -> list[float]:
    row = source.subjects.index(Subject(SubjectKind.PAIR, source_name, "10.9.0.1"))
    return source.window(int(START), seconds)[0, row].tolist()


def test_destinations_add_up_and_silence_of_those_who_spoke_before_is_zero(store):
    source = FlowSeries.of_pairs(1.0, 100, 10)
    store.facts.add_batches([batch(1, {0: 700, 1: 300, 2: 50}), batch(2, {1: 20}), batch(3, {})])
    source.read(store, START + 3)
    assert rates(source, 3, "c1") == [1000, 20, 0]
    assert rates(source, 3, "c2") == [50, 0, 0]


def test_an_observer_that_does_not_tell_all_proves_no_silence(store):
    source = FlowSeries.of_pairs(1.0, 100, 10)
    store.facts.add_batches([batch(1, {0: 700, 2: 50}), batch(2, {0: 20}, complete=False)])
    source.read(store, START + 2)
    assert np.isnan(rates(source, 2, "c2")[1])


def test_what_was_flagged_is_neither_learnt_nor_taken_for_silence(store):
    source = FlowSeries.of_pairs(1.0, 100, 10)
    flagged = batch(2, {0: 10**12, 2: 60}, flags=array("B", [IMPLAUSIBLE, 0]))
    store.facts.add_batches([batch(1, {0: 700, 2: 50}), flagged, batch(3, {0: 5, 2: 5})])
    source.read(store, START + 3)
    held = rates(source, 3, "c1")
    assert held[0] == 700 and np.isnan(held[1]) and held[2] == 5
    assert rates(source, 3, "c2") == [50, 60, 5]


def test_each_batch_is_taken_once_and_one_from_the_future_in_its_time(store):
    source = FlowSeries.of_pairs(1.0, 100, 10)
    store.facts.add_batches([batch(1, {0: 700}), batch(4, {0: 4})])
    assert source.read(store, START + 2) == 1
    view = source.view(START + 2)
    assert view is not None and view.cells == 1 and view.lead == 1
    store.facts.add_batches([batch(2, {0: 22})])
    assert source.read(store, START + 3) == 1
    assert source.read(store, START + 4) == 1
    assert source.read(store, START + 5) == 0
    held = rates(source, 4, "c1")
    assert held[:2] == [700, 22] and np.isnan(held[2]) and held[3] == 4


def test_any_sum_over_talks_can_be_a_series(store):
    by_address = FlowSeries(
        Panel(1.0, 100, 3),
        100,
        lambda talk: Subject(SubjectKind.VIRTUAL_IP, talk.virtual_ip) if talk.destination else None,
    )
    store.facts.add_batches([batch(1, {0: 700, 1: 300, 2: 50})])
    by_address.read(store, START + 1)
    assert list(by_address.subjects) == [Subject(SubjectKind.VIRTUAL_IP, "10.9.0.1")]
    assert by_address.window(int(START), 1)[0, 0, 0] == 1000

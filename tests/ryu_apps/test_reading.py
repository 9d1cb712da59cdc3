"""Two reader to what is wanted: the quick one reads only that, and an earlier reading never undoes a later one."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpdb import Destination, Node, NodeKind, Pair, Reservation, Store, VirtualIp, WantedWeights, open_store
from ryu_apps import database
from ryu_apps.database import DeclaredReader, watch_changes
from ryu_apps.declared import Declared
from ryu_apps.framework import beside, sleep

VIP = "10.0.0.100"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/cpdb.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = open_store(url)
    made.inventory.put_nodes([Node("c1", NodeKind.CLIENT, "10.0.0.1")])
    made.inventory.declare_virtual_ips([VirtualIp(VIP, "shop", 10, (Destination("s1", "10.0.0.2", "02::1", 1),))])
    yield made
    made.close()


def reservation(key: str) -> Reservation:
    now = time.time()
    return Reservation(key, Pair("c1", VIP), 1.0, (), "test", "a test", now, now + 60)


def test_the_quick_loop_reads_what_is_wanted_and_keeps_names(store: Store) -> None:
    told: list[Declared] = []
    reader = DeclaredReader(lambda: store, lambda declared, _now: told.append(declared))
    reader.wanted()
    assert told == []
    reader.whole(time.time())
    store.inventory.put_nodes([Node("c2", NodeKind.CLIENT)])
    store.wanted.reserve(reservation("r"))
    reader.wanted()
    first, second = told
    assert first.reservations == ()
    assert [one.key for one in second.reservations] == ["r"]
    assert second.nodes is first.nodes
    assert list(second.virtual_ips) == [VIP]


def test_weights_come_with_their_generation_and_the_virtual_ips_made_of_them(store: Store) -> None:
    told: list[Declared] = []
    reader = DeclaredReader(lambda: store, lambda declared, _now: told.append(declared))
    reader.whole(time.time())
    assert told[-1].weights == ()
    generation = store.wanted.want_weights(WantedWeights(VIP, {"s1": 7}, "test", "a test"))
    reader.wanted()
    assert [(one.virtual_ip, one.generation) for one in told[-1].weights] == [(VIP, generation)]
    assert told[-1].virtual_ips[VIP].destinations[0].weight == 7
    assert told[-1].generation == generation


def test_a_reading_that_ends_late_does_not_undo_a_later_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Declared] = []
    reader = DeclaredReader(lambda: store, lambda declared, _now: told.append(declared))
    reader.whole(time.time())
    plain = database.off_loop

    def overtaken(function: object) -> object:
        found = plain(function)
        monkeypatch.setattr(database, "off_loop", plain)
        store.wanted.reserve(reservation("late"))
        reader.wanted()
        return found

    monkeypatch.setattr(database, "off_loop", overtaken)
    reader.whole(time.time() + 60)
    assert [one.key for one in told[-1].reservations] == ["late"]
    assert len(told) == 2


def test_without_a_database_nothing_is_told() -> None:
    reader = DeclaredReader(lambda: None, lambda _declared, _now: pytest.fail("told"))
    reader.whole(time.time())
    reader.wanted()


def test_a_look_says_when_something_else_is_wanted_and_survives_trouble(store: Store, url: str) -> None:
    ask = watch_changes(url)
    assert ask()
    assert not ask()
    store.wanted.reserve(reservation("r"))
    assert ask()
    assert not watch_changes("sqlite:////nowhere/at/all.db")()


def test_a_thread_beside_the_loop_wakes_it() -> None:
    answers = iter([False, True])
    woken, elsewhere = [], []

    def step() -> bool:
        elsewhere.append(threading.get_ident())
        return next(answers, False)

    beside(step, 0.005, lambda: woken.append(1))
    end = time.monotonic() + 10
    while not woken and time.monotonic() < end:
        sleep(0.01)
    assert woken == [1]
    assert threading.get_ident() not in elsewhere

"""The reader asks once for all, keeps within its share, and goes on with another database."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from lab_on_paper import fill

from cpdb import SettingsError, Store, StoreError, open_store
from forepath.settings import Settings, declare
from forepath.web.address import PageAddress
from forepath.web.reader import FRESH_S, Reader, StoreMoment
from forepath.web.views import VIEWS
from tools.lab.postgres import private_postgres, why_not


class Question:
    """Counts how often it is put to the database; each time it costs so much CPU."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self.cost_s, self.count, self.threads = cost_s, 0, set[str]()

    def __call__(self, at: StoreMoment, *_arguments: Any) -> int:
        self.count += 1
        self.threads.add(threading.current_thread().name)
        ends = time.thread_time() + self.cost_s
        while time.thread_time() < ends:
            pass
        return len(at.store.inventory.nodes())


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_three_viewers_are_one_question_in_a_worker_thread(empty: Store, settings: Settings) -> None:
    question, reader = Question(), Reader(settings, Hands())

    async def look() -> list[Any]:
        return [one.value for one in await asyncio.gather(*(reader.ask(question) for _ in range(3)))]

    assert asyncio.run(look()) == [len(empty.inventory.nodes())] * 3
    assert question.count == 1 and threading.main_thread().name not in question.threads
    reader.close()


def test_what_costs_much_is_read_seldom_and_cheap_things_more_often(empty: Store, settings: Settings) -> None:
    dear, cheap, clock = Question(0.2), Question(0.002), Hands()
    reader = Reader(settings, clock)

    async def look() -> None:
        for _ in range(40):
            await asyncio.gather(reader.ask(dear), reader.ask(cheap))
            clock.now += 0.5

    asyncio.run(look())
    assert dear.count >= 3 and dear.count * dear.cost_s / 20.0 <= 0.25
    assert cheap.count > dear.count
    reader.close()


def test_the_event_loop_goes_on_while_the_database_is_read(empty: Store, settings: Settings) -> None:
    reader = Reader(settings)

    def slow(_at: StoreMoment) -> int:
        time.sleep(0.5)
        return 1

    async def look() -> int:
        task, beats = asyncio.create_task(reader.ask(slow)), 0
        while not task.done():
            await asyncio.sleep(0.01)
            beats += 1
        return beats

    assert asyncio.run(look()) > 5
    reader.close()


def test_it_outlives_a_database_that_goes_away_and_is_another_one(empty: Store, settings: Settings) -> None:
    question, clock, file = Question(), Hands(), Path("forepath.db")
    reader = Reader(settings, clock)

    def look() -> Any:
        clock.now += 10 * FRESH_S
        return asyncio.run(reader.ask(question))

    before = look()
    empty.close()
    for one in Path().glob("forepath.db*"):
        one.unlink()
    away = look()
    assert away.trouble is not None and away.value == before.value and away.read_at == before.read_at
    assert look().since == away.since and not file.exists()
    other = open_store(settings.database.url)
    there = look()
    assert there.trouble is None and there.value == 0
    declare(settings, other)
    fill(other)
    assert look().value == before.value
    other.close()
    reader.close()


def test_nothing_can_be_written_through_it(empty: Store, settings: Settings) -> None:
    reader = Reader(settings)
    with pytest.raises(StoreError, match="readonly"):
        reader.open().wanted.clear(0.0)
    reader.close()


def test_a_wrong_question_is_the_askers_trouble(empty: Store, settings: Settings) -> None:
    def wrong(_at: StoreMoment) -> None:
        raise SettingsError("no machine of that name")

    reader = Reader(settings)
    with pytest.raises(SettingsError, match="no machine"):
        asyncio.run(reader.ask(wrong))
    reader.close()


ABOUT = {
    "/pair": {"source": "c1", "virtual_ip": "shop"},
    "/link": {"from": "leaf2", "to": "hA"},
    "/machine": {"name": "shop1"},
    "/service": {"name": "shop"},
    "/action": {"number": "3"},
}


@pytest.mark.postgres
@pytest.mark.skipif(why_not() is not None, reason="no programs of a PostgreSQL server")
def test_every_view_says_the_same_on_either_engine(settings: Settings) -> None:
    with private_postgres() as server:
        told, now = [], float(int(time.time()))
        for one in (settings, settings.model_copy(update={"database": settings.database.tuned(url=server.url)})):
            store = open_store(one.database.url)
            declare(one, store)
            fill(store, now)
            store.close()
            reader = Reader(one, lambda: now)
            words = {view.path: view.arguments(PageAddress(view.path, ABOUT.get(view.path, {}))) for view in VIEWS}
            answers = {view.path: reader.answer(view.question, words[view.path], now) for view in VIEWS}
            assert [answer.trouble for answer in answers.values()] == [None] * len(VIEWS)
            answers["/health"].value.pop("usage")
            told.append({path: json.dumps(answer.value, default=str) for path, answer in answers.items()})
            reader.close()
        assert told[0] == told[1]

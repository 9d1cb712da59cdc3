"""The thread beside the supervisor that keeps the database small."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from cpdb import Communication, DatabaseSection, Store, StoreError, open_store
from forepath.commands import run
from forepath.settings import Settings

LIMIT_S = 30.0


def rolled_up(store: Store) -> int:
    with store.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM patterns_60s")).scalar_one())


def wait_for_roll_up(store: Store) -> bool:
    deadline = time.monotonic() + LIMIT_S
    while not rolled_up(store) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(rolled_up(store))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(run, "RETAIN_EVERY_S", 0.01)
    return Settings(database=DatabaseSection(url=f"sqlite:///{tmp_path}/cpdb.db", keep_1s_hours=2, keep_1min_days=10))


def fill(settings: Settings) -> Store:
    store = open_store(settings.database.url)
    store.facts.add_communications([Communication("c1", "10.0.0.1", None, time.time() - 600, 1.0, 5, 1, 0)])
    return store


def test_it_rolls_up_while_the_block_lasts_and_ends_with_it(settings: Settings) -> None:
    store, stop = fill(settings), threading.Event()
    with run.retaining(settings, stop):
        assert wait_for_roll_up(store)
    assert stop.is_set()
    assert not any(thread.name == "keeper" for thread in threading.enumerate())
    store.close()


@pytest.mark.parametrize("error", [StoreError("away for a moment"), ZeroDivisionError("a mistake")])
def test_it_outlives_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    store, errors, retain = fill(settings), [error], Store.retain

    def fails_once(self: Store, *given: object) -> object:
        if errors:
            raise errors.pop()
        return retain(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "retain", fails_once)
    with run.retaining(settings, threading.Event()):
        assert wait_for_roll_up(store)
    store.close()


def test_the_policy_is_what_the_settings_say(settings: Settings) -> None:
    rules = settings.database.retention_policy()
    assert (rules.second_s, rules.ten_seconds_s, rules.minute_s) == (7200.0, 86_400.0, 864_000.0)

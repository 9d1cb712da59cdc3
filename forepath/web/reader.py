"""Reads the database for all viewers: in worker threads, each thing once, and no oftener than its cost allows."""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import sqrt
from threading import Lock
from typing import Any

import structlog

from cpdb import Seconds, SettingsError, Store, StoreError, StoreUnreachable, database_file, open_store
from forepath.settings import Settings

log = structlog.get_logger(__name__)
# What is read is no older than this for a viewer of the present; the past does not change.
FRESH_S, PAST_FRESH_S = 1.0, 60.0
# Of one core, for all reads together. A read that costs much is repeated the more seldom.
CPU_SHARE = 0.15
# A question that nobody has asked for so long no longer counts among those that share it.
ASKED_LATELY_S = 30.0
MOST_REMEMBERED = 64
THREADS = 2


@dataclass(frozen=True, slots=True)
class StoreMoment:
    """The database as it was at `now`, and the settings; `live` says that this is the present."""

    store: Store
    settings: Settings
    now: Seconds
    live: bool = True


Question = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """What was read last, and `trouble`: why nothing newer could be read (None: it could); `since` when that is so."""

    value: Any = None
    read_at: Seconds | None = None
    cost_s: Seconds = 0.0
    trouble: str | None = None
    since: Seconds | None = None
    tried_at: Seconds = 0.0
    asked_at: Seconds = 0.0


class Reader:
    """Answers questions `f(moment, *arguments)`. The database may go away and come back, or be another one then."""

    def __init__(self, settings: Settings, clock: Callable[[], Seconds] = time.time) -> None:
        self._settings, self.clock = settings, clock
        self._store: Store | None = None
        self._file: tuple[int, int] | None = None
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="reader")
        self._answers: dict[Hashable, PageAnswer] = {}
        self._under_way: dict[Hashable, asyncio.Task[PageAnswer]] = {}

    async def ask(self, question: Question, *arguments: Hashable, at: Seconds | None = None) -> PageAnswer:
        """The answer for the moment `at` (None: now), from the database or from memory where that is fresh enough."""
        key = (question, arguments, at)
        now = self.clock()
        known = self._answers.get(key)
        if known is not None and not self._due(known, at, now):
            self._answers[key] = replace(known, asked_at=now)
            return known
        if key not in self._under_way:
            task = asyncio.create_task(self._read(key, known))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(self._under_way[key])

    def _due(self, known: PageAnswer, at: Seconds | None, now: Seconds) -> bool:
        if known.trouble is not None or known.read_at is None:
            return now - known.tried_at >= FRESH_S
        # Of all ways to keep within the share, that by which answers are least old in sum: periods as roots of costs.
        asked = (one for one in self._answers.values() if now - one.asked_at < ASKED_LATELY_S)
        roots = sum(sqrt(one.cost_s) for one in asked)
        fresh_s = FRESH_S if at is None else PAST_FRESH_S
        return now - known.tried_at >= max(fresh_s, sqrt(known.cost_s) * roots / CPU_SHARE)

    async def _read(self, key: Any, known: PageAnswer | None) -> PageAnswer:
        question, arguments, at = key
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, self.answer, question, arguments, at)
        if answer.trouble is not None and known is not None:
            since = known.since or answer.since
            answer = replace(known, trouble=answer.trouble, since=since, tried_at=answer.tried_at)
        answer = replace(answer, asked_at=self.clock())
        self._answers.pop(key, None)
        self._answers[key] = answer
        while len(self._answers) > MOST_REMEMBERED:
            del self._answers[next(iter(self._answers))]
        return answer

    def answer(self, question: Question, arguments: tuple[Any, ...], at: Seconds | None) -> PageAnswer:
        """Reads at once, in the caller's thread; trouble is told in the answer."""
        began, now = time.thread_time(), self.clock()
        try:
            moment = StoreMoment(self.open(), self._settings, now if at is None else at, at is None)
            value = question(moment, *arguments)
        except SettingsError:
            # What was asked for is not there: the database itself is well.
            raise
        except StoreError as error:
            self.close()
            return PageAnswer(trouble=str(error), since=now, tried_at=now)
        return PageAnswer(value, now, time.thread_time() - began, tried_at=now)

    def open(self) -> Store:
        """The store, opened anew where its file is gone or another one. Raises StoreError."""
        with self._lock:
            if self._store is not None and self._file != _identity(self._store):
                log.info("the database is another one than before; opened again")
                self._forget()
            if self._store is None:
                self._store = open_store(self._settings.database.url, create=False, read_only=True)
                self._file = _identity(self._store)
            return self._store

    def close(self) -> None:
        """Lets go of the database; the next question opens it again."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None


def _identity(store: Store) -> tuple[int, int] | None:
    """Which file the database is now; None for a server. Raises StoreUnreachable where there is none any more."""
    file = database_file(store.engine)
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError as error:
        raise StoreUnreachable(f"database {file}: {error.strerror}; it was there before") from error
    return found.st_dev, found.st_ino

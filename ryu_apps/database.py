"""The application's side of the database: opened when it is there, read when it has changed, written in batches."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from uuid import uuid4

import structlog

from cpdb import CONTROLLER, ForepathError, Spool, Store, Watch, open_store, spool_in_use
from ryu_apps.declared import Declared, read_declared, read_wanted
from ryu_apps.framework import Loops, alarm_clock, beside, off_loop, sleep
from ryu_apps.settings import ControllerSettings
from ryu_apps.telemetry.writer import KeptCounters, Row, Writer, store_rows

Seconds = float
Open = Callable[[], Store | None]
Declare = Callable[[Declared, Seconds], None]

# How long a change of what is wanted may go unnoticed; one look costs some microseconds.
LOOK_EVERY_S = 0.02
_AGAIN_S = 1.0
FLUSH_EVERY_S = 0.25
REOPEN_EVERY_S = 2.0
# On one machine
_MAX_CONTROLLERS = 16
_log = structlog.get_logger("ryu_apps.database")


class DeclaredReader:
    """Two ways to `declare`: the whole picture at its pace, and what is wanted in between."""

    def __init__(self, opened: Open, declare: Declare) -> None:
        self._opened = opened
        self._declare = declare
        self._latest: Declared | None = None
        self._again = 0.0
        # Number of the latest reading that was begun, and of the latest that was told
        self._begun = self._told = 0

    def whole(self, now: Seconds) -> None:
        """Reads names, links, virtual IPs and what is wanted, unless the last time took too long for that."""
        store = self._opened() if now >= self._again else None
        if store is None:
            return
        before = self._latest
        self._tell(lambda: read_declared(store, now, before))
        # However large the inventory is, reading it shall not take more than a tenth of the time.
        self._again = now + 10 * (time.time() - now)

    def wanted(self) -> None:
        """Reads what is wanted; names and links stay as they were."""
        store, latest = self._opened(), self._latest
        if store is not None and latest is not None:
            now = time.time()
            self._tell(lambda: read_wanted(store, latest, now))

    def _tell(self, read: Callable[[], Declared]) -> None:
        self._begun += 1
        number = self._begun
        try:
            found = off_loop(read)
        except ForepathError as error:
            _log.warning("what is wanted cannot be read, the last reading stands", reason=str(error))
            return
        if number > self._told:
            # A reading that was begun earlier may end later: it must not undo this one.
            self._told, self._latest = number, found
            self._declare(found, time.time())


def watch_changes(url: str) -> Callable[[], bool]:
    """A question for a thread of its own: is something else wanted now?"""
    watches: list[Watch] = []
    rest_until = 0.0

    def ask() -> bool:
        # In a thread of its own, where nothing may be logged: the other way will say what is wrong.
        nonlocal rest_until
        if time.monotonic() < rest_until:
            return False
        try:
            if not watches:
                watches.append(Watch.of(url))
            return watches[0].changed()
        except ForepathError:
            rest_until = time.monotonic() + _AGAIN_S
            if watches:
                watches.pop().close()
            return False

    return ask


class Database:
    """One database and all loops about it: reading what is wanted, writing rows, and what waits on disk meanwhile."""

    def __init__(self, settings: ControllerSettings, loops: Loops, declare: Declare) -> None:
        self.store: Store | None = None
        self.writer = make_writer(settings)
        self.url = settings.database.url
        # Whether it could not be opened the last time that this was tried
        self.away = False
        # Told once of the store
        self.opened: list[Callable[[Store], None]] = []
        self._loops = loops
        self._reader = DeclaredReader(self._open, declare)
        self._read_every_s = settings.controller.wanted_s
        self._due = alarm_clock()

    def start(self) -> None:
        """Starts the loops."""
        self._loops.every(FLUSH_EVERY_S, "writing", self._write, self._due)
        self._loops.every(FLUSH_EVERY_S, "guarding what waits", self.writer.guard)
        self._loops.every(self._read_every_s, "reading what is wanted", self._reader.whole)

    def write_now(self, rows: Iterable[Row]) -> None:
        """Takes rows that somebody waits for: they are written at once."""
        rows = list(rows)
        if rows:
            self.writer.offer(rows)
            self._due.set()

    def _open(self) -> Store | None:
        if self.store is None:
            try:
                self.store = off_loop(open_store, self.url)
                _log.info("database open", url=self.store.engine.url.render_as_string(hide_password=True))
                beside(watch_changes(self.url), LOOK_EVERY_S, self._hurry)
                self.away = False
                for told in self.opened:
                    told(self.store)
            except ForepathError as error:
                self.away = True
                _log.warning("no database, forwarding goes on", reason=str(error))
                sleep(REOPEN_EVERY_S)
        return self.store

    def _hurry(self) -> None:
        self._loops.attempt("reading what has changed", self._reader.wanted)

    def _write(self, now: Seconds) -> None:
        store = self.store
        self.writer.flush(partial(store_rows, store) if store is not None else None)
        if store is not None:
            try:
                off_loop(store.alarms.tell_refusals, CONTROLLER, now)
            except ForepathError as error:
                _log.debug("what was set aside is told later", reason=str(error))


def make_writer(settings: ControllerSettings) -> Writer:
    """The writer with its place on disk; where there is none, a database that is away costs what the queue sheds."""
    directory, storage = _own_directory(settings.state_directory()), settings.controller.storage
    spool = None
    if directory is not None:
        try:
            spool = Spool(directory / "spool", storage.spool_mib << 20)
        except ForepathError as error:
            _log.warning("no spool, a long absence of the database will cost rows", reason=str(error))
    kept = KeptCounters(directory / "counters" if directory is not None else None)
    return Writer(storage.max_rows, uuid4().hex, spool, kept, off_loop)


def _own_directory(directory: Path | None) -> Path | None:
    """The first of DIRECTORY, DIRECTORY-2 and so on that no other controller of this machine uses."""
    if directory is None:
        return None
    others = (directory.with_name(f"{directory.name}-{number}") for number in range(2, _MAX_CONTROLLERS + 1))
    return next((one for one in (directory, *others) if not spool_in_use(one / "spool")), directory)

"""Reads the database for the controller: everything now and then, what is wanted as soon as that has changed."""

import time
from collections.abc import Callable

import structlog

from cpdb import ForepathError, Store, Watch
from ryu_apps.declared import Declared, read_declared, read_wanted
from ryu_apps.framework import off_loop

Seconds = float
Open = Callable[[], Store | None]
Declare = Callable[[Declared, Seconds], None]

# How long a change of what is wanted may go unnoticed; one look costs some microseconds.
LOOK_EVERY_S = 0.02
_AGAIN_S = 1.0
_log = structlog.get_logger("ryu_apps.reading")


class Reading:
    """Two lanes to `declare`: the whole picture at its pace, and what is wanted in between."""

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


def look(url: str) -> Callable[[], bool]:
    """A question for a thread of its own: is something else wanted now?"""
    watches: list[Watch] = []
    rest_until = 0.0

    def ask() -> bool:
        # In a thread of its own, where nothing may be logged: the other lane will say what is wrong.
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

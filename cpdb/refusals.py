"""One bad row is set aside, counted and told; it never stops the rest: what a database cannot hold, or nobody can read.

Each engine has one such list; its process tells it as alarms.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy import Connection, Engine

from cpdb.engine import reported
from cpdb.errors import StoreRefused

T = TypeVar("T")
R = TypeVar("R", bound=Sequence[Any])
# What comes of content that is torn, of another version, or nobody's.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError)
# A hostile peer must not be able to fill the memory.
MOST_NAMED = 1000
# An alarm is over when its cause was not seen for so long, and is not written more often than this.
OVER_S, AGAIN_S = 60.0, 10.0
_log = structlog.get_logger("cpdb.refusals")


class Refusals:
    """What was set aside, by what it is: how often in `counts`, and why at last. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._reasons: dict[str, str] = {}
        self._told: dict[str, tuple[float, int]] = {}

    def note(self, what: str, reason: str) -> None:
        """Something was set aside; the log says so the first time."""
        key = printable(what)[:128]
        if len(self.counts) >= MOST_NAMED and key not in self.counts:
            key = "more"
        self.counts[key] += 1
        if key not in self._reasons:
            _log.warning("set aside, the rest goes on", what=key, reason=printable(reason))
        self._reasons[key] = printable(reason)

    def write_apart(self, what: str, write: Callable[[Sequence[T]], object], rows: Sequence[T]) -> None:
        """Writes rows together; where the database refuses that, in halves, until only the bad ones are left out."""
        if not rows:
            return
        try:
            write(rows)
        except StoreRefused as error:
            if len(rows) == 1:
                self.note(f"{what} {name_of(rows[0])}", str(error))
                return
            middle = len(rows) // 2
            self.write_apart(what, write, rows[:middle])
            self.write_apart(what, write, rows[middle:])

    def read_apart(self, what: str, rows: Iterable[R], read: Callable[[R], T]) -> Iterator[T]:
        """What becomes of rows; one that makes no sense to this program is left out. Rows begin with their name."""
        for row in rows:
            try:
                yield read(row)
            except UNREADABLE as error:
                self.note(f"{what} {str(row[0])[:40]}", f"cannot be read: {error}")

    @contextmanager
    def aside(self, connection: Connection, what: str) -> Iterator[None]:
        """A part of a transaction: where the database refuses it, the rest of the transaction stands."""
        try:
            with reported(self._engine, f"writing {what}"), connection.begin_nested():
                yield
        except StoreRefused as error:
            self.note(what, str(error))

    def news(self, now: float) -> tuple[dict[str, tuple[str, int]], list[str]]:
        """What to tell now: reason and count since it was told last, and what has not been seen for a while."""
        fresh: dict[str, tuple[str, int]] = {}
        for what, count in list(self.counts.items()):
            at, before = self._told.get(what, (float("-inf"), 0))
            if count > before and now - at >= AGAIN_S:
                fresh[what] = self._reasons[what], count - before
                self._told[what] = now, count
        over = [what for what, (at, _) in self._told.items() if now - at > OVER_S]
        for what in over:
            # Said again in the log when it comes back
            for known in (self._told, self.counts, self._reasons):
                known.pop(what, None)
        return fresh, over


def name_of(row: object) -> str:
    """What a row is called, as far as it says so."""
    for name in ("name", "vm", "host", "key", "observer", "from_node", "a"):
        if isinstance(found := getattr(row, name, None), str):
            return found
    return type(row).__name__


def printable(text: str) -> str:
    """The text in letters that every database can hold."""
    return text.encode("ascii", "backslashreplace").decode().replace("\0", "\\x00")


_of: WeakKeyDictionary[Engine, Refusals] = WeakKeyDictionary()


def refusals_of(engine: Engine) -> Refusals:
    """The list of this engine."""
    return _of.setdefault(engine, Refusals(engine)) if engine not in _of else _of[engine]

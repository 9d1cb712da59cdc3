"""Carries rows to the database beside the event loop: bounded, in batches, and never in the way of a switch."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import Any, Protocol

import structlog

from cpdb import Alarm, Batch, ForepathError, KeptCounts, Link, LinkLoad, Node, ObservedRecord, Store

_log_counters = structlog.get_logger("ryu_apps.telemetry.writer")


@dataclass(slots=True)
class KeptCounters:
    """Dumps of counters in `directory`; None keeps nothing. `failures` counts what could not be written."""

    directory: Path | None
    failures: int = 0

    @property
    def place(self) -> str:
        """Where they are, told from all other places."""
        return f"{gethostname()}:{self.directory.absolute()}"[:256] if self.directory else ""

    def read(self, dpid: int) -> bytes | None:
        """What was written for a switch, None when there is nothing."""
        if self.directory is None:
            return None
        try:
            return self._file(self.directory, dpid).read_bytes()
        except OSError:
            return None

    def write(self, dpid: int, dump: bytes) -> None:
        """Replaces what was kept, as a whole or not at all. A full disk is counted and reported once."""
        if self.directory is None:
            return
        file = self._file(self.directory, dpid)
        fresh = file.with_suffix(".new")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(dump)
            fresh.replace(file)
        except OSError as error:
            if not self.failures:
                _log_counters.warning("counters are not kept over a restart", file=str(file), reason=error.strerror)
            self.failures += 1

    @staticmethod
    def _file(directory: Path, dpid: int) -> Path:
        return directory / f"{dpid:016x}.counters"


Seconds = float
Row = Batch | KeptCounts | LinkLoad | ObservedRecord | Node | Link | Alarm
Run = Callable[..., Any]

# Nodes first: other rows may name them.
ORDER: tuple[type[Any], ...] = (Node, Link, Batch, LinkLoad, ObservedRecord, Alarm)
# What waits for longer is copied to disk while the database thinks: no kill costs more than this.
GUARD_AFTER_S = 0.5
# Rows that failed so often while others went through are the trouble themselves.
_TRIES = 20
_MAX_REPLAY = 200
_log = structlog.get_logger("ryu_apps.telemetry.writer")


class Spooling(Protocol):
    """Where batches wait on disk for the database; `lost` counts those for which there was no room."""

    lost: int

    @property
    def waiting(self) -> int:
        """How many there are."""

    def append(self, items: list[Batch]) -> int:
        """Takes more; returns how many found room."""

    def replay(self, write: Callable[[list[Batch]], object], most: int = 64) -> int:
        """Hands over the oldest; returns how many `write` took."""


def _kind(row: Row) -> type:
    if isinstance(row, KeptCounts):
        # They are stored in one transaction, or not at all.
        return Batch
    return ObservedRecord if isinstance(row, ObservedRecord) else type(row)


def store_rows(store: Store, rows: Iterable[Row]) -> None:
    """Writes rows of all kinds, each kind in one transaction."""
    by_kind: dict[type, list[Any]] = {}
    for row in rows:
        by_kind.setdefault(_kind(row), []).append(row)
    if Node in by_kind:
        store.inventory.put_nodes(by_kind[Node])
    if Link in by_kind:
        store.inventory.put_links(by_kind[Link])
    if Batch in by_kind:
        store.facts.add_batches(
            _batches(by_kind[Batch]), [one for one in by_kind[Batch] if isinstance(one, KeptCounts)]
        )
    store.facts.add_loads(by_kind.get(LinkLoad, []))
    if ObservedRecord in by_kind:
        store.wanted.observe(by_kind[ObservedRecord])
    _alarm(store, by_kind.get(Alarm, []))


def _alarm(store: Store, items: Iterable[Alarm]) -> None:
    # In order: one may be raised, cleared and raised again.
    for one in items:
        if one.cleared_at is None:
            store.alarms.raise_([one])
        else:
            store.alarms.clear(one.kind, one.key, one.node, one.cleared_at)


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _batches(rows: Iterable[Row]) -> list[Batch]:
    return [row for row in rows if isinstance(row, Batch)]


def _size(row: Row) -> int:
    return len(row.flow_keys) + 1 if isinstance(row, Batch) else 1


@dataclass(slots=True)
class _RowQueue:
    """Rows that wait, and how many they are, rows within batches included; `since`: when the oldest batch came."""

    rows: deque[Row] = field(default_factory=deque)
    size: int = 0
    since: Seconds | None = None

    def add(self, row: Row) -> None:
        """Takes one more."""
        self.rows.append(row)
        self.size += _size(row)

    def put_back(self, rows: Sequence[Row]) -> None:
        """Takes rows back, before all others."""
        self.rows.extendleft(reversed(rows))
        self.size += sum(map(_size, rows))

    def shed(self, max_rows: int) -> int:
        """Lets the oldest go while there are too many; returns how many rows went."""
        before = self.size
        while self.size > max_rows and self.rows:
            self.size -= _size(self.rows.popleft())
        return before - self.size

    def take_all(self) -> list[Row]:
        """Everything, in order."""
        rows, self.rows, self.size, self.since = list(self.rows), deque(), 0, None
        return rows

    def take_batches(self) -> list[Batch]:
        """The batches; the rest goes on waiting."""
        batches = _batches(self.rows)
        self.rows = deque(row for row in self.rows if not isinstance(row, Batch | KeptCounts))
        self.size, self.since = len(self.rows), None
        return batches


@dataclass(slots=True)
class _Flight:
    """What is being written: batches, since when the oldest of them waits, and whether the database is at work."""

    batches: list[Batch] = field(default_factory=list)
    since: Seconds | None = None
    writing: bool = False


@dataclass(slots=True)
class Writer:
    """A bounded queue before the database.

    Every batch gets this writer's `name` and the next number, so that it is stored once however often it is sent.
    What the database does not take goes to the `spool` (batches) or waits here (the rest). `lost` counts rows that
    had to go because the queue was full, `written` those that were taken. `kept` holds dumps of counters: each is
    on disk before the batch that it covers leaves, so that a kill may lose a batch but never tells one twice.
    """

    max_rows: int
    name: str = ""
    spool: Spooling | None = None
    kept: KeptCounters = field(default_factory=lambda: KeptCounters(None))
    run: Run = _here
    lost: int = 0
    written: int = 0
    _queue: _RowQueue = field(default_factory=_RowQueue)
    _flight: _Flight = field(default_factory=_Flight)
    _seq: int = 0
    _dumps: dict[int, bytes] = field(default_factory=dict)
    _tries: dict[type[Any], int] = field(default_factory=dict)

    def offer(self, rows: Iterable[Row], now: Seconds = 0.0, dumps: Mapping[int, bytes] | None = None) -> None:
        """Takes rows; when full, the oldest go. `dumps` are the counters of switches as of these batches."""
        for row in rows:
            if isinstance(row, Batch):
                self._seq += 1
                row = replace(row, writer=self.name + row.writer, seq=self._seq)
                self._queue.since = now if self._queue.since is None else self._queue.since
            self._queue.add(row)
        self._dumps.update(dumps or {})
        self.lost += self._queue.shed(self.max_rows)

    def flush(self, write: Callable[[list[Row]], None] | None) -> int:
        """Hands everything that waits to `write` (None: no database yet); returns how many rows it took."""
        dumps, self._dumps, self._flight.since = self._dumps, {}, self._queue.since
        rows = self._queue.take_all()
        self._keep(dumps)
        waiting: list[Row] = []
        told = 0
        for kind in ORDER:
            group = [row for row in rows if _kind(row) is kind]
            if kind is Batch:
                told += self._flush_batches(group, write)
            elif group and self._written(group, write):
                told += len(group)
            else:
                waiting += self._patient(kind, group)
        self._queue.put_back(waiting)
        self._flight.since = None
        self.lost += self._queue.shed(self.max_rows)
        self.written += told
        return told

    @property
    def waiting(self) -> int:
        """How many rows wait in memory."""
        return self._queue.size

    def _keep(self, dumps: dict[int, bytes]) -> None:
        for dpid, dump in dumps.items():
            self.run(self.kept.write, dpid, dump)

    def _written(self, rows: list[Any], write: Callable[[list[Row]], None] | None) -> bool:
        if write is None:
            return False
        try:
            self.run(self._write, write, rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rows must not be lost for it
            kind = _kind(rows[0])
            if not self._tries.get(kind):
                _log.warning("the database does not take rows, they wait", kind=kind.__name__, reason=repr(error))
            self._tries[kind] = self._tries.get(kind, 0) + 1
            return False
        if self._tries.pop(_kind(rows[0]), 0):
            _log.info("the database takes rows again", kind=_kind(rows[0]).__name__)
        return True

    def _write(self, write: Callable[[list[Row]], None], rows: list[Any]) -> None:
        self._flight.writing = True
        try:
            write(rows)
        finally:
            self._flight.writing = False

    def _patient(self, kind: type[Any], rows: list[Row]) -> list[Row]:
        alone = self._tries.get(kind, 0) >= _TRIES and len(self._tries) == 1
        if not rows or not alone:
            return rows
        self.lost += len(rows)
        self._tries[kind] = 1
        _log.warning("rows lost that the database never took", kind=kind.__name__, rows=len(rows))
        return []

    def _flush_batches(self, rows: list[Any], write: Callable[[list[Row]], None] | None) -> int:
        spool, batches = self.spool, _batches(rows)
        self._flight.batches = batches
        if spool is not None and spool.waiting:
            # In order: what came later waits behind what is on disk already.
            self._flight.batches = []
            self._keep_on_disk(rows)
            return self._replay(spool, write)
        taken = bool(batches) and self._written(rows, write)
        # Empty when `guard` has been here in the meantime.
        rest, self._flight.batches = self._flight.batches, []
        if taken or not batches:
            return sum(map(_size, batches))
        self._keep_on_disk([*rest, *(row for row in rows if rest and isinstance(row, KeptCounts))])
        return 0

    def _keep_on_disk(self, rows: list[Any]) -> None:
        batches = _batches(rows)
        kept = self.run(self.spool.append, batches) if self.spool is not None and batches else 0
        if kept < len(batches):
            # No room, or not for all of them: they also wait here. What is stored twice is stored once.
            self._queue.put_back(rows)

    def _replay(self, spool: Spooling, write: Callable[[list[Row]], None] | None) -> int:
        if write is None:
            return 0
        try:
            return int(self.run(spool.replay, partial(self._write, write), _MAX_REPLAY))
        except ForepathError as error:
            if not self._tries.get(Batch):
                _log.warning("the database does not take rows, they wait on disk", reason=str(error))
            self._tries[Batch] = self._tries.get(Batch, 0) + 1
            return 0

    def guard(self, now: Seconds) -> None:
        """Copies to disk what has waited too long behind a database that neither takes nor refuses."""
        since = [t for t in (self._queue.since, self._flight.since) if t is not None]
        # Only while the database itself is waited for does nobody else touch the spool.
        if self.spool is None or not self._flight.writing or not since or now - min(since) < GUARD_AFTER_S:
            return
        for dpid, dump in self._dumps.items():
            self.kept.write(dpid, dump)
        self.spool.append(self._flight.batches + self._queue.take_batches())
        self._flight.batches, self._flight.since, self._dumps = [], None, {}

"""Keeps batches on disk while the database is away, and hands them back in order when it is there again.

A folder of segments, each a row of records: length and CRC-32 (uint32 both), kind (1 byte), content. A segment names
its flow keys itself (kind T, JSON) and then refers to them by number (kind B), so that any one can be read alone.
A program killed in the middle of a record leaves a torn tail, which is dropped; a segment is deleted when the last of
its batches is written. A crash before that hands some out twice: (writer, seq) makes the store keep them once.
"""

import errno
import fcntl
import json
import os
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import IO, TypeGuard

import structlog

from cpdb.errors import StoreError
from cpdb.telemetry.columns import Batch, FlowKey, pack, unpack

HEAD = struct.Struct("<II")
FLOW_KEYS, BATCH = b"T", b"B"
LENGTH = struct.Struct("<I")
SEGMENT_BYTES = 4 << 20
MAX_BYTES = 256 << 20
SUFFIX = ".spool"
_log = structlog.get_logger("cpdb.telemetry.spool")


@dataclass(slots=True)
class _Segment:
    path: Path
    batches: int = 0
    size: int = 0
    open: bool = False


@dataclass(slots=True)
class _Writing:
    segment: _Segment
    file: FileIO
    numbers: dict[FlowKey, int] = field(default_factory=dict)


class Spool:
    """A queue of batches on disk, bounded by bytes: when it is full or the disk is, the oldest segment goes, counted.

    One process a folder. One thread may append while another replays, also while its `write` hangs: no lock is held,
    the segment being written changes hands by taking it out of a list.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Opens or makes the folder; what an earlier process left there waits to be replayed.

        Raises StoreError when the folder cannot be used or another process has it.
        """
        self._folder, self._max_bytes, self._segment_bytes = folder, max_bytes, segment_bytes
        self._lock = _locked(folder)
        self._segments = [_scanned(path) for path in sorted(folder.glob("*" + SUFFIX))]
        self._next = 1 + max(
            (int(segment.path.stem) for segment in self._segments if segment.path.stem.isdigit()), default=0
        )
        self._idle: list[_Writing] = []
        self._reading: tuple[Path, Iterator[Batch]] | None = None
        self._taken: list[Batch] = []
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Batches that wait to be replayed."""
        return sum(segment.batches for segment in list(self._segments))

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in list(self._segments))

    def append(self, items: Sequence[Batch]) -> int:
        """Keeps batches, safe on disk when this returns; returns how many. What finds no room is counted in `lost`."""
        kept = sum(self._append(item) for item in items)
        writing = self._taken_up()
        if writing is not None:
            with suppress(OSError):
                os.fsync(writing.file.fileno())
            self._idle.append(writing)
        return kept

    def _taken_up(self) -> _Writing | None:
        """The segment being written, for the caller alone; None when there is none or another thread has it."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _append(self, item: Batch) -> bool:
        for attempt in range(2):
            writing = self._taken_up()
            try:
                if writing is None or writing.segment.size >= self._segment_bytes:
                    writing = self._new_segment(writing)
                _write(writing, item)
            except (OSError, ValueError) as error:
                if _give_up(writing):
                    self._forget(writing.segment)
                if attempt == 0 and isinstance(error, OSError) and self._drop_oldest():
                    continue
                self.lost += 1
                _log.warning("batch lost: it could not be kept", reason=str(error), lost_in_all=self.lost)
                return False
            self._idle.append(writing)
            break
        while self.bytes > self._max_bytes and len(self._segments) > 1:
            self._drop_oldest()
        return True

    def _new_segment(self, before: _Writing | None) -> _Writing:
        _end(before)
        path = self._folder / f"{self._next:08d}{SUFFIX}"
        self._next += 1
        writing = _Writing(_Segment(path, open=True), FileIO(path, "xb"))
        self._segments.append(writing.segment)
        return writing

    def _drop_oldest(self) -> bool:
        oldest = next(iter(self._segments), None)
        if oldest is None:
            return False
        if oldest.batches:
            self.lost += oldest.batches
            _log.warning("batches lost: the spool is full", batches=oldest.batches, lost_in_all=self.lost)
        self._forget(oldest)
        return True

    def _forget(self, segment: _Segment) -> None:
        with suppress(ValueError):
            self._segments.remove(segment)
        with suppress(OSError):
            segment.path.unlink(missing_ok=True)

    def replay(self, write: Callable[[list[Batch]], object], most: int = 64) -> int:
        """Hands up to `most` of the oldest batches to `write`; they are gone once it returns. Returns how many.

        What `write` raises is raised on, and the same batches come first the next time.
        """
        while (oldest := next(iter(self._segments), None)) is not None:
            if not self._closed(oldest):
                return 0
            items = self._take(oldest, most)
            if items:
                write(items)
                self._taken = []
                oldest.batches = max(0, oldest.batches - len(items))
                return len(items)
            self._forget(oldest)
        return 0

    def _closed(self, segment: _Segment) -> bool:
        """Whether nobody writes in it any more; ends it when it just lies ready for that."""
        ready = next((writing for writing in list(self._idle) if writing.segment is segment), None)
        if ready is not None:
            with suppress(ValueError):
                self._idle.remove(ready)
                _end(ready)
        return not segment.open

    def _take(self, segment: _Segment, most: int) -> list[Batch]:
        if self._reading is None or self._reading[0] != segment.path:
            self._reading, self._taken = (segment.path, _batches(segment.path)), []
        for item in self._reading[1] if len(self._taken) < most else ():
            self._taken.append(item)
            if len(self._taken) >= most:
                break
        return self._taken[:most]

    def close(self) -> None:
        """Lets the folder go; what waits stays on disk."""
        _end(self._taken_up())
        self._reading = None
        self._lock.close()


def spool_in_use(folder: Path) -> bool:
    """Whether a process has this folder open; makes nothing."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _locked(folder: Path) -> IO[bytes]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StoreError(f"spool {folder}: another process uses it; give each its own folder") from error
    except OSError as error:
        raise StoreError(f"spool {folder}: {error.strerror}; name a folder that can be written") from error
    return lock


def _write(writing: _Writing, item: Batch) -> None:
    fresh = [flow_key for flow_key in dict.fromkeys(item.flow_keys) if flow_key not in writing.numbers]
    numbers = writing.numbers | {flow_key: len(writing.numbers) + at for at, flow_key in enumerate(fresh)}
    records = _record(FLOW_KEYS, json.dumps(fresh).encode()) if fresh else b""
    records += _record(BATCH, _encoded(item, numbers))
    if writing.file.write(records) < len(records):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    writing.numbers = numbers
    writing.segment.size += len(records)
    writing.segment.batches += 1


def _end(writing: _Writing | None) -> None:
    if writing is not None:
        with suppress(OSError):
            os.fsync(writing.file.fileno())
        with suppress(OSError):
            writing.file.close()
        writing.segment.open = False


def _give_up(writing: _Writing | None) -> TypeGuard[_Writing]:
    """Cuts off half a record; what was whole stays. True when nothing was."""
    if writing is None:
        return False
    with suppress(OSError):
        writing.file.truncate(writing.segment.size)
    _end(writing)
    return writing.segment.batches == 0


def _record(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return HEAD.pack(len(body), zlib.crc32(body)) + body


def _encoded(item: Batch, numbers: dict[FlowKey, int]) -> bytes:
    head = {
        "observer": item.observer,
        "t": item.t,
        "interval_s": item.interval_s,
        "sampling": item.sampling,
        "complete": item.complete,
        "writer": item.writer,
        "seq": item.seq,
    }
    text = json.dumps(head).encode()
    ids = array("I", map(numbers.__getitem__, item.flow_keys))
    return LENGTH.pack(len(text)) + text + pack(ids, (item.bytes, item.packets, item.connections), item.flags)


def _decoded(content: bytes, flow_keys: Sequence[FlowKey]) -> Batch:
    (length,) = LENGTH.unpack_from(content)
    head = json.loads(content[LENGTH.size : LENGTH.size + length])
    columns = unpack(content[LENGTH.size + length :])
    return Batch(
        flow_keys=[flow_keys[number] for number in columns.key_ids],
        bytes=array("q", columns.bytes),
        packets=array("q", columns.packets),
        connections=array("q", columns.connections),
        flags=None if columns.flags is None else array("B", columns.flags),
        **head,
    )


def _records(path: Path) -> Iterator[bytes]:
    """Whole records of a segment, up to the first that is torn."""
    with path.open("rb") as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            length, check = HEAD.unpack(head)
            body = file.read(length)
            if len(body) < length or zlib.crc32(body) != check:
                _log.warning("a torn record ends a spool segment", segment=path.name)
                return
            yield body


def _batches(path: Path) -> Iterator[Batch]:
    flow_keys: list[FlowKey] = []
    for body in _records(path):
        if body[:1] == FLOW_KEYS:
            flow_keys.extend(FlowKey(*words) for words in json.loads(body[1:]))
        else:
            yield _decoded(body[1:], flow_keys)


def _scanned(path: Path) -> _Segment:
    return _Segment(path, sum(body[:1] == BATCH for body in _records(path)), path.stat().st_size)

"""Tables of numbers as people save them: one reader for every file of series, which names the line of what is wrong.

The first column is a time: t, or one of TIME_NAMES, in seconds (milli-, micro- and nanoseconds since 1970 are told by
their size) or as ISO 8601. Every other column is a series; a blank cell is missing.
"""

import codecs
import csv
import gzip
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cpdb.errors import ForepathError

TIME_NAMES = ("t", "time", "timestamp", "date", "datetime", "date_time", "ds")
MISSING = ("", "nan", "na", "n/a", "null", "none")
# From these sizes on a time counts in thousandths and so on: as seconds it would be after the year 5000.
FINER = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
# No link carries so much in a second, and no sum of such is exact: a counter that ran over, or a number gone wrong.
IMPLAUSIBLE_FROM = 1e16
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


class TableError(ForepathError):
    """A file that is no table of series; the text says where and how to mend it."""


@dataclass(frozen=True, slots=True)
class TableLine:
    """One line below the header: its number in the file, its time (s) and the cells after it, None where missing."""

    number: int
    t: float
    values: list[float | None]


@dataclass(frozen=True, slots=True)
class NumberTable:
    """A file that is being read: the names of all its series and of those wanted, and its lines, once."""

    path: Path
    columns: tuple[str, ...]
    names: tuple[str, ...]
    lines: Iterator[TableLine]


@contextmanager
def open_table(path: Path, wanted: Callable[[str], bool] = bool) -> Iterator[NumberTable]:
    """Opens a .csv or .csv.gz file; columns that are not wanted may hold anything.

    Raises TableError with one line, also while lines are read.
    """
    try:
        with _opened(path) as text:
            first = text.readline()
            delimiter = next((mark for mark in (",", ";", "\t") if mark in first), ",")
            header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            _check_header(path, header)
            chosen = [place for place, name in enumerate(header) if place and wanted(name)]
            names = tuple(header[place] for place in chosen)
            yield NumberTable(path, tuple(header[1:]), names, _lines(path, text, delimiter, header, chosen))
    except OSError as error:
        # gzip reports a file that is none as an OSError without strerror.
        raise TableError(f"{path}: {error.strerror or error}; name a readable .csv or .csv.gz file") from error
    except (UnicodeDecodeError, EOFError) as error:
        raise TableError(f"{path}: is not (whole) text in UTF-8: {error}") from error
    except csv.Error as error:
        raise TableError(f"{path}: is no CSV: {error}") from error


def _opened(path: Path) -> IO[str]:
    packed = path.suffix == ".gz"
    with gzip.open(path, "rb") if packed else path.open("rb") as raw:
        begin = raw.read(2)
    if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in begin:
        raise TableError(f"{path}: is in UTF-16; save it as CSV in UTF-8")
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise TableError(f"{path}: the file begins with nothing; its first line names the columns: t, then the series")
    if header[0].lower() not in TIME_NAMES:
        raise TableError(
            f"{path}:1: the first column must be t (seconds, or ISO times; also called {', '.join(TIME_NAMES[1:4])}), "
            f"it is {header[0]!r}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        mend = ", ".join(name for name in twice if name) or "the empty one"
        raise TableError(f"{path}:1: every column needs a name of its own; mend {mend}")
    if len(header) < 2:
        raise TableError(f"{path}:1: there is no series beside {header[0]}")


def _lines(path: Path, text: IO[str], delimiter: str, header: list[str], chosen: list[int]) -> Iterator[TableLine]:
    reader = csv.reader(text, delimiter=delimiter)
    for cells in reader:
        # The header was read before
        number = reader.line_num + 1
        if not any(map(str.strip, cells)):
            continue
        place = f"{path}:{number}"
        if len(cells) != len(header):
            raise TableError(f"{place}: has {len(cells)} cells, the header {len(header)}")
        t = _read_time(f"{place}: column {header[0]}", cells[0])
        values = [_read_number(place, header[column], cells[column]) for column in chosen]
        yield TableLine(number, t, values)


def _read_time(where: str, cell: str) -> float:
    cell = cell.strip()
    try:
        value = float(cell)
    except ValueError:
        return _read_iso(where, cell)
    if not math.isfinite(value):
        raise TableError(f"{where}: {cell!r} is no time; every line needs one")
    return value / next((unit for size, unit in FINER if abs(value) >= size), 1.0)


def _read_iso(where: str, cell: str) -> float:
    try:
        found = datetime.fromisoformat(cell)
    except ValueError:
        mend = "write seconds, or ISO 8601: 2026-01-31T13:05:00Z" if cell else "every line needs one"
        raise TableError(f"{where}: {cell!r} is no time; {mend}") from None
    # Without a zone it is taken as UTC: local time would have an hour twice a year.
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _read_number(place: str, name: str, cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return _read_odd(place, name, cell.strip())
    if -IMPLAUSIBLE_FROM < value < IMPLAUSIBLE_FROM:
        return value
    if math.isnan(value):
        return None
    if math.isinf(value):
        raise TableError(f"{place}: column {name}: {cell!r} is no number; leave the cell blank if it is missing")
    raise TableError(
        f"{place}: column {name}: {cell} is more than anything measured, as of a counter that ran over; leave it blank"
    )


def _read_odd(place: str, name: str, cell: str) -> float | None:
    if cell.lower() in MISSING:
        return None
    if DECIMAL_COMMA.fullmatch(cell):
        return _read_number(place, name, cell.replace(",", "."))
    raise TableError(f"{place}: column {name}: {cell!r} is no number; leave the cell blank if it is missing")


def show_time(t: float) -> str:
    """A time with every digit that it has."""
    return f"{t:.6f}".rstrip("0").rstrip(".")

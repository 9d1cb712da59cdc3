"""Reads a table of any series from a CSV file onto a regular grid, so that it can be replayed as if it happened now."""

import csv
import gzip
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cpdb import ForepathError

Floats = NDArray[Any]

# A time stamp may lie this share of a step beside its place in the grid.
JITTER = 0.25
# Seconds without rows become missing cells; beyond this many cells a row the step is surely wrong.
SPARSEST = 50
FEWEST_ROWS = 20


class RecordingError(ForepathError):
    """A file that cannot be replayed; the text says where and how to mend it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Series on a regular grid: `values` is series x rows (float64, NaN = missing), rows are `step_s` apart."""

    name: str
    names: tuple[str, ...]
    step_s: float
    start: float
    values: Floats

    @property
    def rows(self) -> int:
        """Number of rows of the grid, gaps included."""
        return int(self.values.shape[1])

    def positions(self, patterns: Sequence[str]) -> NDArray[np.int64]:
        """Positions of the series that match one of the patterns (shell style); all without patterns.

        Raises RecordingError for a pattern that matches nothing.
        """
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.names):
                raise RecordingError(f"{self.name}: no series matches {pattern!r}; there are {_some(self.names)}")
        found = [i for i, name in enumerate(self.names) if not patterns or any(fnmatchcase(name, p) for p in patterns)]
        return np.array(found, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Cells:
    """A table as it was read: `times` (rows,) in seconds, `values` rows x columns (float64, NaN = missing)."""

    names: tuple[str, ...]
    times: Floats
    values: Floats


def read(path: Path, step_s: float, exclude: Sequence[str] = (), say: Callable[[int], None] | None = None) -> Recording:
    """Reads `path` (.csv or .csv.gz): column `t` in seconds, every other column a series, a blank cell missing.

    Rows that are left out become missing cells; `exclude` names columns that are no series (shell style patterns).
    `say` is told the number of rows read now and then. Raises RecordingError with one line.
    """
    if not step_s > 0 or not math.isfinite(step_s):
        raise RecordingError(f"--step {step_s}: must be above 0 seconds")
    return _on_grid(path.name, step_s, read_cells(path, exclude, say))


def read_cells(path: Path, exclude: Sequence[str] = (), say: Callable[[int], None] | None = None) -> Cells:
    """Reads `path` as it stands, whatever its times are. Raises RecordingError with one line."""
    try:
        with _opened(path) as text:
            return _parsed(path, text, exclude, say)
    except OSError as error:
        # gzip reports a file that is none as an OSError without strerror.
        raise RecordingError(f"{path}: {error.strerror or error}; name a readable .csv or .csv.gz file") from error
    except (UnicodeDecodeError, EOFError) as error:
        raise RecordingError(f"{path}: is not (whole) text in UTF-8: {error}") from error
    except csv.Error as error:
        raise RecordingError(f"{path}: is no CSV: {error}") from error


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _parsed(path: Path, text: IO[str], exclude: Sequence[str], say: Callable[[int], None] | None) -> Cells:
    lines = csv.reader(text)
    header = [name.strip().lstrip("\ufeff") for name in next(lines, [])]
    columns = _columns(path, header, exclude)
    times, rows = [], []
    for line in lines:
        if not line:
            continue
        if len(line) != len(header):
            raise RecordingError(f"{path}:{lines.line_num}: has {len(line)} cells, the header {len(header)}")
        place = f"{path}:{lines.line_num}"
        times.append(_number(place, "t", line[0]))
        rows.append([_number(place, header[column], line[column], blank=True) for column in columns])
        if say and len(rows) % 500 == 0:
            say(len(rows))
    return Cells(
        tuple(header[column] for column in columns),
        np.array(times, dtype=np.float64),
        np.array(rows, dtype=np.float64).reshape(len(times), len(columns)),
    )


def _columns(path: Path, header: list[str], exclude: Sequence[str]) -> list[int]:
    if not header or header[0] != "t":
        raise RecordingError(
            f"{path}:1: the first column must be t (seconds), it is {header[0] if header else 'empty'!r}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        raise RecordingError(
            f"{path}:1: every column needs a name of its own; mend {', '.join(twice) or 'the empty one'}"
        )
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in header[1:]):
            raise RecordingError(f"{path}: --exclude {pattern}: no such column; there are {_some(header[1:])}")
    columns = [i for i, name in enumerate(header) if i and not any(fnmatchcase(name, p) for p in exclude)]
    if not columns:
        raise RecordingError(f"{path}:1: there is no series beside t")
    return columns


def _number(place: str, column: str, cell: str, blank: bool = False) -> float:
    cell = cell.strip()
    if not cell and blank:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if math.isinf(value) or (math.isnan(value) and not blank):
        raise RecordingError(f"{place}: column {column}: {cell!r} is no number; leave the cell blank if it is missing")
    return value


def _on_grid(name: str, step_s: float, cells_read: Cells) -> Recording:
    names, times, rows = cells_read.names, cells_read.times, cells_read.values
    if len(times) < FEWEST_ROWS:
        raise RecordingError(f"{name}: has {len(times)} rows; a backtest needs at least {FEWEST_ROWS}")
    exact = (times - times[0]) / step_s
    cells = np.round(exact)
    beside = np.flatnonzero(np.abs(exact - cells) > JITTER)
    if len(beside):
        at = int(beside[0])
        raise RecordingError(f"{name}: row {at + 1}: t = {times[at]:g} is not on a grid of --step {step_s:g} seconds")
    backwards = np.flatnonzero(np.diff(cells) <= 0)
    if len(backwards):
        at = int(backwards[0]) + 1
        raise RecordingError(
            f"{name}: row {at + 1}: t = {times[at]:g} does not come --step {step_s:g} after the row before"
        )
    if cells[-1] + 1 > SPARSEST * len(times):
        raise RecordingError(
            f"{name}: {len(times)} rows for {cells[-1] + 1:.0f} steps of {step_s:g} s; is --step right?"
        )
    values = np.full((len(names), int(cells[-1]) + 1), np.nan)
    values[:, cells.astype(np.int64)] = rows.T
    return Recording(name, names, step_s, float(times[0]), values)


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:6], f"... ({len(names)} in all)"] if len(names) > 6 else names)

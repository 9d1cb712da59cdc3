"""Reads a table of any series from a CSV file onto a regular grid, so that it can be replayed as if it happened now."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpdb import ForepathError, TableError, open_table, show_time

Floats = NDArray[Any]

# A time stamp may lie this share of a step beside its place in the grid.
JITTER = 0.25
# Seconds without rows become missing cells, days of them; beyond this many cells a row and in all the step is wrong.
SPARSEST, MOST_HOLES = 50, 500_000
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
    """A table as it was read: `times` (rows,) in seconds, `values` rows x columns (float64, NaN = missing).

    `lines` (rows,) are the numbers of the lines of the file.
    """

    names: tuple[str, ...]
    times: Floats
    values: Floats
    lines: NDArray[np.int64]

    def place(self, name: str, row: int) -> str:
        """File, line and time of a row, for people."""
        return f"{name}:{self.lines[row]}: t = {show_time(float(self.times[row]))}"


def read(path: Path, step_s: float, exclude: Sequence[str] = (), say: Callable[[int], None] | None = None) -> Recording:
    """Reads `path` (.csv or .csv.gz): column `t` (seconds, ISO 8601), every other column a series, blank: missing.

    Rows that are left out become missing cells; `exclude` names columns that are no series (shell style patterns).
    `say` is told the number of rows read now and then. Raises RecordingError with one line.
    """
    if not step_s > 0 or not math.isfinite(step_s):
        raise RecordingError(f"--step {step_s}: must be above 0 seconds")
    return _on_grid(path.name, step_s, read_cells(path, _left_in(path, exclude), say))


def read_cells(path: Path, wanted: Callable[[str], bool] = bool, say: Callable[[int], None] | None = None) -> Cells:
    """Reads the wanted columns of `path` as they stand, whatever its times are. Raises RecordingError with one line."""
    try:
        with open_table(path, wanted) as table:
            times, rows, numbers = [], [], []
            for line in table.lines:
                times.append(line.t)
                rows.append([math.nan if value is None else value for value in line.values])
                numbers.append(line.number)
                if say and len(rows) % 500 == 0:
                    say(len(rows))
    except TableError as error:
        raise RecordingError(str(error)) from error
    values = np.array(rows, dtype=np.float64).reshape(len(times), len(table.names))
    return Cells(table.names, np.array(times, dtype=np.float64), values, np.array(numbers, dtype=np.int64))


def _left_in(path: Path, exclude: Sequence[str]) -> Callable[[str], bool]:
    """Which columns are wanted. Raises RecordingError for a pattern that leaves out nothing, or all."""
    try:
        with open_table(path) as table:
            columns = table.columns
    except TableError as error:
        raise RecordingError(str(error)) from error
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in columns):
            raise RecordingError(f"{path}: --exclude {pattern}: no such column; there are {_some(columns)}")
    left = [name for name in columns if not any(fnmatchcase(name, pattern) for pattern in exclude)]
    if not left:
        raise RecordingError(f"{path}:1: there is no series beside t")
    return frozenset(left).__contains__


def _on_grid(name: str, step_s: float, cells_read: Cells) -> Recording:
    names, times, rows = cells_read.names, cells_read.times, cells_read.values
    if len(times) < FEWEST_ROWS:
        raise RecordingError(f"{name}: has {len(times)} rows; a backtest needs at least {FEWEST_ROWS}")
    backwards = np.flatnonzero(np.diff(times) <= 0)
    if len(backwards):
        raise RecordingError(
            f"{cells_read.place(name, int(backwards[0]) + 1)} {_out_of_order(times, int(backwards[0]))}"
        )
    exact = (times - times[0]) / step_s
    cells = np.round(exact)
    beside = np.flatnonzero((np.abs(exact - cells) > JITTER) | (np.diff(cells, prepend=-1) <= 0))
    if len(beside):
        place = cells_read.place(name, int(beside[0]))
        raise RecordingError(f"{place} is not on a grid of --step {step_s:g} seconds that begins with the first row")
    if cells[-1] + 1 > max(SPARSEST * len(times), MOST_HOLES):
        raise RecordingError(
            f"{name}: {len(times)} rows for {cells[-1] + 1:.0f} steps of {step_s:g} s; is --step right?"
        )
    values = np.full((len(names), int(cells[-1]) + 1), np.nan)
    values[:, cells.astype(np.int64)] = rows.T
    return Recording(name, names, step_s, float(times[0]), values)


def _out_of_order(times: Floats, before: int) -> str:
    if times[before] == times[before + 1]:
        return "is the time of the row before, too; leave one of them"
    return f"comes after t = {show_time(times[before])}; sort the rows by t"


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:6], f"... ({len(names)} in all)"] if len(names) > 6 else names)

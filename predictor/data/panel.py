"""Turns amounts over any interval into rates on a regular grid, without losing a byte or inventing a zero."""

from dataclasses import dataclass

import numpy as np

from cpdb import Subject
from predictor.data.view import ALL, Floats, Ints, Rows, SeriesView

# A cell counts as known from this share of its time on; below, its rate would be mostly noise.
COVERED_SHARE = 0.6
# Room for the grid. Beyond, fewer cells are remembered: 100,000 pairs get about 120 of them.
MAX_BYTES = 390_000_000
# Room kept free at the end, as a share of the window, so that the past has to be moved only now and then.
SLACK = 0.25
MIN_CELLS = 64


@dataclass(frozen=True, slots=True)
class IntervalAmounts:
    """What some series (`rows`, may repeat) said in the interval of `interval_s` that ended at `t`.

    `amounts` is channels x rows; `silent` are series that are known to have said nothing in it.
    """

    rows: Ints
    amounts: Floats
    silent: Ints
    t: float
    interval_s: float


class Panel:
    """Series x cells of one step each; cell k covers (k * step_s, (k + 1) * step_s]. Series keep their row for ever."""

    def __init__(self, step_s: float, window_s: float, channels: int, most: int = 120_000) -> None:
        self.step_s = step_s
        self.cells = int(np.ceil(window_s / step_s))
        self.channels = channels
        self.most = most
        self.max_bytes: int | None = None  # None: MAX_BYTES
        self.refused = 0
        self.subjects: list[Subject] = []
        self._rows: dict[Subject, int] = {}
        self._base: int | None = None
        self._allocate(16)

    @property
    def _width(self) -> int:
        return self.cells + max(16, int(SLACK * self.cells))

    def _allocate(self, room: int) -> None:
        shape = (room, self._width)
        self._amounts = np.zeros((self.channels, *shape), dtype=np.float32)
        self._covered_s = np.zeros(shape, dtype=np.float16)
        self._rates = np.full((self.channels, *shape), np.nan, dtype=np.float32)
        self._told = np.zeros(self._width, dtype=bool)  # cells that any series knows

    def row_of(self, subject: Subject) -> int:
        """The row of a subject, which joins if it is new; -1 when there are `most` already."""
        index = self._rows.get(subject)
        if index is None:
            if len(self.subjects) >= self.most:
                return -1
            index = self._rows[subject] = len(self.subjects)
            self.subjects.append(subject)
        return index

    def put(self, columns: IntervalAmounts) -> None:
        """Spreads amounts over the cells that the interval covers, so that they are conserved.

        May come late and in any order; what lies before the window is dropped. Intervals without duration are
        counted in `refused`.
        """
        if columns.interval_s <= 0:
            self.refused += len(columns.rows)
            return
        speaking, amounts = _merged(columns)
        if not len(speaking) and not len(columns.silent):
            return
        self._grow()
        end = columns.t / self.step_s
        begin = end - columns.interval_s / self.step_s
        self._make_room(int(np.ceil(end)) - 1)
        assert self._base is not None
        covered = np.concatenate([speaking, columns.silent])
        for cell in range(max(int(np.floor(begin)), self._base), int(np.ceil(end))):
            overlap = min(end, cell + 1) - max(begin, cell)
            if overlap > 0:
                column = cell - self._base
                self._covered_s[covered, column] += overlap * self.step_s
                self._amounts[:, speaking, column] += overlap / (end - begin) * amounts
                self._settle(covered, column)

    def _settle(self, rows: Ints, column: int) -> None:
        covered = np.minimum(self._covered_s[rows, column].astype(np.float32), self.step_s)
        known = covered >= COVERED_SHARE * self.step_s
        rates = self._amounts[:, rows, column] / np.where(known, covered, np.nan)
        self._rates[:, rows, column] = rates
        self._told[column] |= known.any()

    def _grow(self) -> None:
        room = self._covered_s.shape[0]
        if len(self.subjects) <= room:
            return
        room = max(min(2 * room, self.most), len(self.subjects))
        # Amounts and rates are float32 per channel, the time covered is float16.
        fitting = int((self.max_bytes or MAX_BYTES) / (1.0 + SLACK) / (8 * self.channels + 2) / room)
        narrower = self._width
        self.cells = min(self.cells, max(MIN_CELLS, fitting))
        narrower -= self._width
        old: tuple[Floats, ...] = (self._amounts, self._covered_s, self._rates)
        told = self._told[narrower:]
        self._allocate(room)
        self._told = told
        new: tuple[Floats, ...] = (self._amounts, self._covered_s, self._rates)
        for array, before in zip(new, old, strict=True):
            array[..., : before.shape[-2], :] = before[..., narrower:]
        if self._base is not None:
            self._base += narrower

    def _make_room(self, last: int) -> None:
        if self._base is None:
            self._base = last - self.cells + 1
        move = last - self._base - self._width + 1
        if move <= 0:
            return
        move = max(move, last - self._base - self.cells + 1)
        kept = max(0, self._width - move)
        self._told = np.append(self._told[move:], np.zeros(self._width - kept, dtype=bool))
        for grid in (self._amounts, self._covered_s, self._rates):
            grid[..., :kept] = grid[..., move : move + kept]
            grid[..., kept:] = np.nan if grid is self._rates else 0.0
        self._base += move

    def total(self, subject: Subject) -> tuple[float, ...]:
        """Amounts of one subject that the grid holds, by channel: equal to those that were put in."""
        return tuple(self._amounts[:, self._rows[subject]].sum(axis=-1, dtype=np.float64).tolist())

    def window(self, first: int, count: int, rows: Rows = ALL) -> Floats:
        """Rates of cells first .. first + count - 1: channels x series x cells, NaN = not known. May share memory."""
        series = min(len(self.subjects), self._rates.shape[1])
        base = 0 if self._base is None else self._base
        low, high = max(first, base), min(first + count, base + self._width)
        if self._base is not None and (low, high) == (first, first + count):
            return self._rates[:, :series, low - base : high - base][:, rows]
        selected = np.arange(series)[rows]
        result = np.full((self.channels, len(selected), count), np.nan, dtype=np.float32)
        if self._base is not None and low < high:
            result[..., low - first : high - first] = self._rates[:, :series, low - base : high - base][:, rows]
        return result

    def first_cell_after(self, now: float) -> int:
        """The cell at which a window that begins at `now` begins, to the nearest cell border."""
        return round(now / self.step_s)

    def view(self, now: float, groups: Ints | None = None) -> SeriesView | None:
        """The window up to `now`, cut after the last cell that any series knows; None while nobody knows any.

        Shares memory with the panel: good until more is put into it.
        """
        end = self.first_cell_after(now)
        base = 0 if self._base is None else self._base
        told = np.flatnonzero(self._told[max(0, end - self.cells - base) : max(0, end - base)])
        if not len(told):
            return None
        # Leading cells that nobody knows would only cost time.
        first, last = (base + max(0, end - self.cells - base) + told[[0, -1]]).tolist()
        rates = self.window(first, last + 1 - first)
        return SeriesView(rates, end - 1 - last, first, self.step_s, groups=groups)


def _merged(columns: IntervalAmounts) -> tuple[Ints, Floats]:
    # One pair may speak to several destinations in one interval: sum them, so that the time is covered once.
    rows, place = np.unique(columns.rows, return_inverse=True)
    if len(rows) == len(columns.rows):
        return columns.rows, columns.amounts
    return rows, np.stack([np.bincount(place, amount, len(rows)) for amount in columns.amounts])

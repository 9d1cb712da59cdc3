"""Turns rows of any age and length into rates on a regular grid, without losing a byte or inventing a zero."""

from collections.abc import Sequence

import numpy as np

from cpdb import Communication, Pair
from predictor.view import CHANNELS, Floats, Ints, View

# A cell counts as known from this share of its time on; below, its rate would be mostly noise.
COVERED_SHARE = 0.6


class Panel:
    """Pairs x cells of one step each; cell k covers (k * step_s, (k + 1) * step_s]. Pairs keep their row for ever."""

    def __init__(self, step_s: float, window_s: float, max_pairs: int = 20_000) -> None:
        self.step_s = step_s
        self.cells = int(np.ceil(window_s / step_s))
        self.max_pairs = max_pairs
        self.refused = 0
        self.pairs: list[Pair] = []
        self._rows: dict[Pair, int] = {}
        # Twice the window, so that the past has to be moved only once per window.
        self._amounts = np.zeros((len(CHANNELS), 0, 2 * self.cells), dtype=np.float32)
        self._covered_s = np.zeros((0, 2 * self.cells), dtype=np.float32)
        self._base: int | None = None

    def add(self, rows: Sequence[Communication]) -> None:
        """Spreads rows over the cells that they cover, so that bytes and connections are conserved.

        Rows may come late and in any order; what lies before the window is dropped. Rows without duration
        and pairs beyond `max_pairs` are counted in `refused`.
        """
        merged = self._merge(rows)
        if not merged:
            return
        keys = np.array(list(merged), dtype=np.float64)
        amounts = np.array(list(merged.values()), dtype=np.float64)
        self._make_room(float(keys[:, 1].max()))
        self._spread(keys, amounts)

    def _merge(self, rows: Sequence[Communication]) -> dict[tuple[int, float, float], tuple[int, int]]:
        # One pair may speak to several destinations in one interval: sum them, so that the time is covered once.
        merged: dict[tuple[int, float, float], tuple[int, int]] = {}
        for row in rows:
            index = self._row_of(row.pair)
            if index is None or row.interval_s <= 0 or row.bytes < 0 or row.new_connections < 0:
                self.refused += 1
                continue
            key = (index, row.t, row.interval_s)
            size, connections = merged.get(key, (0, 0))
            merged[key] = (size + row.bytes, connections + row.new_connections)
        return merged

    def _row_of(self, pair: Pair) -> int | None:
        index = self._rows.get(pair)
        if index is None and len(self.pairs) < self.max_pairs:
            index = self._rows[pair] = len(self.pairs)
            self.pairs.append(pair)
            if index >= len(self._covered_s):
                more = max(16, len(self._covered_s))
                self._amounts = np.pad(self._amounts, ((0, 0), (0, more), (0, 0)))
                self._covered_s = np.pad(self._covered_s, ((0, more), (0, 0)))
        return index

    def _make_room(self, t: float) -> None:
        last = self._last_cell(t)
        if self._base is None:
            self._base = last - self.cells + 1
        move = last - self._base - 2 * self.cells + 1
        if move <= 0:
            return
        move = max(move, last - self._base - self.cells + 1)
        for array in (self._amounts, self._covered_s):
            kept = array[..., move:].copy()
            array[...] = 0.0
            array[..., : kept.shape[-1]] = kept
        self._base += move

    def _last_cell(self, t: float) -> int:
        return int(np.ceil(t / self.step_s)) - 1

    def _spread(self, keys: Floats, amounts: Floats) -> None:
        assert self._base is not None
        end = keys[:, 1] / self.step_s
        begin = end - keys[:, 2] / self.step_s
        first = np.floor(begin).astype(np.int64)
        count = np.maximum(np.ceil(end).astype(np.int64) - first, 1)
        row = np.repeat(np.arange(len(keys)), count)
        cell = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        overlap = np.clip(np.minimum(end[row], cell + 1) - np.maximum(begin[row], cell), 0.0, 1.0)
        column = cell - self._base
        inside = (column >= 0) & (column < 2 * self.cells) & (overlap > 0)
        row, column, overlap = row[inside], column[inside], overlap[inside]
        pair: Ints = keys[row, 0].astype(np.int64)
        share = overlap / (end - begin)[row]
        np.add.at(self._covered_s, (pair, column), overlap * self.step_s)
        for channel in range(len(CHANNELS)):
            np.add.at(self._amounts[channel], (pair, column), share * amounts[row, channel])

    def total(self, pair: Pair) -> tuple[float, float]:
        """Bytes and connections of one pair that the grid holds: equal to those of the rows that were added."""
        index = self._rows[pair]
        return float(self._amounts[0, index].sum(dtype=np.float64)), float(
            self._amounts[1, index].sum(dtype=np.float64)
        )

    def window(self, first: int, count: int) -> Floats:
        """Rates of cells first .. first + count - 1 for all pairs: channels x pairs x cells, NaN = not known."""
        pairs = len(self.pairs)
        result = np.full((len(CHANNELS), pairs, count), np.nan, dtype=np.float32)
        if self._base is None:
            return result
        low, high = max(first, self._base), min(first + count, self._base + 2 * self.cells)
        if low >= high:
            return result
        part = slice(low - self._base, high - self._base)
        covered = np.minimum(self._covered_s[:pairs, part], self.step_s)
        known = covered >= COVERED_SHARE * self.step_s
        rates = self._amounts[:, :pairs, part] / np.where(known, covered, 1.0)
        result[..., low - first : high - first] = np.where(known, rates, np.nan)
        return result

    def first_cell_after(self, now: float) -> int:
        """The cell at which a window that begins at `now` begins, to the nearest cell border."""
        return round(now / self.step_s)

    def view(self, now: float) -> View | None:
        """The window up to `now`, cut after the last cell that any pair knows; None while nobody knows any."""
        start = self.first_cell_after(now)
        rates = self.window(start - self.cells, self.cells)
        anyone = np.flatnonzero((~np.isnan(rates[0])).any(axis=0))
        if not len(anyone):
            return None
        # Leading cells that nobody knows would only cost time.
        return View(rates[..., anyone[0] : anyone[-1] + 1], lead=self.cells - 1 - int(anyone[-1]))

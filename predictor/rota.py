"""Keeps in view when each series was last heard of, and picks those that a costly model is asked about."""

from dataclasses import dataclass, field

import numpy as np

from predictor.view import Floats, Ints, View

# Cells at the end that late rows may still change.
LATE = 8
# A costly model is asked about no more than so many series a cycle where it has a say, the busiest; a model whose fits
# are slow is usually slow in all.
MOST_ASKED, MOST_ASKED_SLOW = 3000, 300
# How busy a series is, is the mean of so many cells.
BUSY_CELLS = 30
NEVER = -(10**12)


@dataclass(slots=True)
class Seen:
    """When each series was last known, when it last said something (numbers of cells), and how many cells are known."""

    last: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    spoke: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    known: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def update(self, view: View, rows: Ints) -> None:
        """Looks at the newest cells of all series, and at all cells of new ones and of `rows`."""
        begin, count = len(self.last), view.series
        room = (0, count - begin)
        self.last = np.pad(self.last, room, constant_values=NEVER)
        self.spoke = np.pad(self.spoke, room, constant_values=NEVER)
        self.known = np.pad(self.known, room)
        if begin < count:
            self._look(view, slice(begin, count), view.cells)
        self._look(view, slice(0, begin), min(LATE, view.cells))
        for part in (rows, slice(begin, count)):
            self.known[part] = (~np.isnan(view.rates[0, part])).sum(axis=-1)

    def _look(self, view: View, part: slice, cells: int) -> None:
        for cell in range(view.cells - cells, view.cells):
            column = view.rates[0, part, cell]
            self.last[part] = np.where(np.isnan(column), self.last[part], view.start + cell)
            self.spoke[part] = np.where(column > 0, view.start + cell, self.spoke[part])


class Rota:
    """Which models promise what for which series: models x series, and how busy each series is."""

    def __init__(self, slow: Ints) -> None:
        self._most = np.where(slow, MOST_ASKED_SLOW, MOST_ASKED)[:, None]
        self._promising = np.zeros((len(slow), 0), dtype=bool)
        self._busy: Floats = np.zeros(0)
        self._asked = self._promising

    def update(self, view: View, turn: Ints, promising: Ints) -> None:
        """Takes note of what models promise (models x turn) about the series whose turn it is."""
        more = view.series - self._promising.shape[1]
        self._promising = np.pad(self._promising, ((0, 0), (0, more)))
        self._busy = np.pad(self._busy, (0, more))
        self._promising[:, turn] = promising
        self._busy[turn] = np.nan_to_num(view.rates[0, turn, -BUSY_CELLS:]).mean(axis=-1)
        order = np.argsort(-self._busy, kind="stable")
        among = np.cumsum(self._promising[:, order], axis=1) <= self._most
        self._asked = np.zeros_like(self._promising)
        self._asked[:, order] = self._promising[:, order] & among

    def asked(self, number: int, judged: Ints, round_number: int) -> Ints:
        """The series that a costly model (by number) is asked about: where it has a say, and a share of those judged.

        Which share moves on from round to round, so that in the end all are.
        """
        rounds = max(1, -(-len(judged) // int(self._most[number, 0])))
        chosen = self._asked[number].copy()
        chosen[judged[round_number % rounds :: rounds]] = True
        return np.flatnonzero(chosen)

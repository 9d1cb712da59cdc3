"""Reads what is new in the store, once each, and spreads it over a panel: also what comes late, and what is silent."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from cpdb import IMPLAUSIBLE, Quantity, Store, StoredBatch, Subject, SubjectKind, Talk
from predictor.asking import CHANNELS, QUANTITIES
from predictor.panel import Columns, Panel
from predictor.view import ALL, Floats, Ints, Rows, View


class Source(Protocol):
    """Where a predictor gets its series from."""

    @property
    def subjects(self) -> Sequence[Subject]:
        """What each series is about; grows only."""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Peak and mean of each channel in turn."""

    @property
    def step_s(self) -> float:
        """Length of a cell."""

    def join(self, subjects: Sequence[Subject]) -> None:
        """Gives subjects that were known before a restart their places, in this order, before the first `read`."""

    def read(self, store: Store, now: float) -> int:
        """Takes in what is new and not from after `now`; returns how many rows. Raises StoreError."""

    def view(self, now: float) -> View | None:
        """All that is known at `now`, None while that is nothing. Good until the next `read`."""

    def window(self, first: int, count: int, rows: Rows = ALL) -> Floats:
        """Rates of some cells (by number): channels x series x cells, NaN = not known."""


def pair_of(talk: Talk) -> Subject:
    """The pair that a talk belongs to, whichever destination answers."""
    return Subject(SubjectKind.PAIR, talk.source, talk.virtual_ip)


class Talks:
    """Communications, summed over the talks that `key` gives the same subject."""

    quantities = QUANTITIES

    def __init__(self, panel: Panel, window_s: float, key: Callable[[Talk], Subject | None] = pair_of) -> None:
        self.panel = panel
        self._window_s = window_s
        self._key = key
        self._read_up_to = 0
        self._early: list[StoredBatch] = []
        self._row_of_talk: Ints = np.zeros(0, dtype=np.int64)
        self._reported: dict[str, Ints] = {}
        self._groups: dict[str, int] = {}
        self._group_of: list[int] = []

    @classmethod
    def of_pairs(cls, step_s: float, window_s: float, most: int) -> "Talks":
        """The usual source: a series for each pair, cells of `step_s`, at least `window_s` of them remembered."""
        return cls(Panel(step_s, window_s, len(CHANNELS), most), window_s)

    @property
    def subjects(self) -> Sequence[Subject]:
        """See Source."""
        return self.panel.subjects

    @property
    def step_s(self) -> float:
        """See Source."""
        return self.panel.step_s

    def join(self, subjects: Sequence[Subject]) -> None:
        """See Source."""
        for subject in subjects:
            self.panel.row_of(subject)

    def window(self, first: int, count: int, rows: Rows = ALL) -> Floats:
        """See Source."""
        return self.panel.window(first, count, rows)

    def view(self, now: float) -> View | None:
        """See Source. Series whose subjects begin with the same name (the source of a pair) make a group."""
        for subject in self.subjects[len(self._group_of) :]:
            self._group_of.append(self._groups.setdefault(subject.a, len(self._groups)))
        return self.panel.view(now, np.array(self._group_of, dtype=np.int64))

    def read(self, store: Store, now: float) -> int:
        """See Source. A batch from the future of `now` (clocks differ) waits until its time."""
        fresh = store.facts.batches(self._read_up_to, now - self._window_s)
        if fresh:
            self._read_up_to = max(batch.id for batch in fresh)
            self._name(store, fresh)
        batches = [*self._early, *fresh]
        self._early = [batch for batch in batches if batch.t > now]
        return sum(self._take(batch) for batch in batches if batch.t <= now)

    def _name(self, store: Store, batches: list[StoredBatch]) -> None:
        most = max((int(np.asarray(batch.talk_ids).max(initial=0)) for batch in batches), default=0)
        begin = len(self._row_of_talk)
        if most < begin:
            return
        talks = store.facts.talks()
        keys = [self._key(talks[number]) if number in talks else None for number in range(begin, most + 1)]
        rows = [-1 if key is None else self.panel.row_of(key) for key in keys]
        self._row_of_talk = np.concatenate([self._row_of_talk, np.array(rows, dtype=np.int64)])

    def _take(self, batch: StoredBatch) -> int:
        rows = self._row_of_talk[np.asarray(batch.talk_ids)]
        columns = (batch.bytes, batch.packets, batch.connections)
        amounts = np.stack([np.asarray(column).astype(np.float64) for column in columns])
        good = rows >= 0
        if batch.flags is not None:
            # What the controller did not believe stays unknown: it is neither learnt nor taken for silence.
            good &= (np.asarray(batch.flags) & IMPLAUSIBLE) == 0
        self.panel.refused += int((~good).sum())
        silent = self._silent(batch, rows[rows >= 0])
        if not good.all():
            rows, amounts = rows[good], amounts[:, good]
        self.panel.put(Columns(rows, amounts, silent, batch.t, batch.interval_s))
        return len(good)

    def _silent(self, batch: StoredBatch, listed: Ints) -> Ints:
        """Series that this observer has reported before and does not list: if it tells all, they said nothing."""
        spoke = np.zeros(len(self.subjects), dtype=bool)
        spoke[listed] = True
        known = np.zeros(len(self.subjects), dtype=bool)
        before = self._reported.get(batch.observer, listed[:0])
        known[before] = True
        if (spoke & ~known).any():
            self._reported[batch.observer] = np.flatnonzero(spoke | known)
        return np.flatnonzero(known & ~spoke) if batch.complete else listed[:0]

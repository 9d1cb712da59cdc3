"""What machines use beside what their communications explain: backups and cron jobs have a rhythm of their own."""

from collections.abc import Sequence

import numpy as np

from cpdb import Quantity, Store, Subject, SubjectKind
from predictor.data.sources import FlowSeries, LoadSeries
from predictor.data.view import ALL, CONNECTIONS, Floats, Ints, Rows, SeriesView, last_known
from predictor.data.view import BYTES as SENT
from predictor.models.communications import fitted

# From this share of its limit on a machine shows what it was given, not what it wanted.
HELD_SHARE = 0.95
# Work is counted up to so many cells before or after what asked for it: the most of them explains it.
LATE, EARLY = 2, 1
# What comes must have varied by this share of its mean.
MIN_VARIATION = 0.08
# How long it may take until a machine is free again, in cells.
REVEALED = 10
# Lines are fitted anew in turns of so many reads: what a request costs changes slowly.
ROUNDS = 16


class BesideSeries:
    """CPU in cores of each machine, less what a line on the communications that arrived there explains of it.

    What a machine wanted at its limit is told by what it used once it was free again, and is no less than it used. Of
    one to which communications come while no line is found nothing is known. Where no row names a machine (connections
    that are placed one by one) nothing is taken off.
    """

    quantities = (Quantity.CPU_PEAK, Quantity.CPU_MEAN)

    def __init__(self, machines: LoadSeries, destinations: FlowSeries) -> None:
        self._machines, self._destinations = machines, destinations
        self._places: list[int] = []  # of the machines among all that are measured
        self._looked_at = 0
        self._subjects: list[Subject] = []
        self._slopes: Floats = np.zeros((0, 2))
        self._number = 0

    @property
    def subjects(self) -> Sequence[Subject]:
        """See Source."""
        known = self._machines.subjects
        for place in range(self._looked_at, len(known)):
            if known[place].kind is SubjectKind.VM:
                self._places.append(place)
                self._subjects.append(Subject(SubjectKind.BESIDE, known[place].a))
        self._looked_at = len(known)
        return self._subjects

    @property
    def step_s(self) -> float:
        """See Source."""
        return self._machines.step_s

    def join(self, subjects: Sequence[Subject]) -> None:
        """See Source."""
        self._machines.join([Subject(SubjectKind.VM, subject.a) for subject in subjects])

    def read(self, store: Store, now: float) -> int:
        """See Source."""
        self._destinations.read(store, now)
        return self._machines.read(store, now)

    def view(self, now: float) -> SeriesView | None:
        """See Source. The newest cell is left to settle: what was asked in it may be counted a moment later."""
        whole = self._machines.view(now)
        if whole is None or whole.cells <= EARLY or not self.subjects:
            return None
        self._fit(whole)
        rates = self.window(whole.start, whole.cells - EARLY)
        return SeriesView(rates, whole.lead + EARLY, whole.start, self.step_s, groups=np.arange(rates.shape[1]))

    def window(self, first: int, count: int, rows: Rows = ALL) -> Floats:
        """See Source."""
        which = np.arange(min(len(self.subjects), len(self._slopes)))[rows]
        used, held = self._used(first, count + REVEALED, which)
        later = last_known(np.where(held, np.nan, used)[:, ::-1])[:, ::-1]
        used = np.where(held, np.fmax(used, later), used)[:, :count]
        asked = self._arrived(first - LATE, count + LATE + EARLY, which)
        explained = np.einsum("mf,fmc->mc", self._slopes[which], asked)
        most = np.fmax.reduce([explained[:, at : at + count] for at in range(LATE + EARLY + 1)])
        found: Floats = np.maximum(used - most, 0.0)[None].astype(np.float32)
        return found

    def _used(self, first: int, count: int, which: Ints) -> tuple[Floats, Floats]:
        """Machines x cells: cores used, and where that was no choice."""
        places = np.array(self._places, dtype=np.int64)[which]
        used = self._machines.window(first, count, places)[0]
        return used, used >= HELD_SHARE * self._machines.limits.window(first, count, places)[0]

    def _arrived(self, first: int, count: int, which: Ints) -> Floats:
        """Features x machines x cells: connections and bytes a second; 0 where a machine was never named."""
        number = {subject.a: place for place, subject in enumerate(self._destinations.subjects)}
        columns = np.array([number.get(self._subjects[one].a, -1) for one in which.tolist()], dtype=np.int64)
        found = np.zeros((2, len(which), count), dtype=np.float32)
        named = np.flatnonzero(columns >= 0)
        if len(named):
            found[:, named] = self._destinations.window(first, count, columns[named])[[CONNECTIONS, SENT]]
        return found

    def _fit(self, view: SeriesView) -> None:
        """Renews the lines of those whose turn it is, from means of a few cells: clocks differ by a second or two."""
        more, begin = len(self.subjects) - len(self._slopes), len(self._slopes)
        self._slopes = np.concatenate([self._slopes, np.full((more, 2), np.nan)])
        turn = np.arange(self._number % ROUNDS, len(self._slopes), ROUNDS)
        which = np.union1d(turn, np.arange(begin, len(self._slopes))).astype(np.int64)
        self._number += 1
        asked = self._arrived(view.start, view.cells, which)
        used, held = self._used(view.start, view.cells, which)
        used = np.where(held, np.nan, used)
        for place, number in enumerate(which.tolist()):
            if not np.nan_to_num(asked[:, place]).any():
                self._slopes[number] = 0.0  # nothing ever came
                continue
            load, arrivals = _smooth(used[place]), _smooth(asked[:, place])
            line = fitted(load, arrivals) if _varies(arrivals) else None
            self._slopes[number] = np.nan if line is None else line.slopes


def _varies(arrivals: Floats) -> bool:
    """Whether anything of what comes varies enough for a slope to be no invention."""
    known = arrivals[:, ~np.isnan(arrivals).any(axis=0)]
    return bool(known.size and (known.std(axis=1) >= MIN_VARIATION * known.mean(axis=1)).any())


def _smooth(rates: Floats) -> Floats:
    """Means of as many cells as work may be late by, over the last axis."""
    wide = LATE + EARLY
    if rates.shape[-1] < wide:
        return rates
    found: Floats = np.lib.stride_tricks.sliding_window_view(rates, wide, axis=-1).mean(axis=-1)
    return found

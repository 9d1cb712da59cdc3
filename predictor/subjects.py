"""Where other series than pairs come from: sums over pairs, links, machines, and any of these in coarser cells."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cpdb import HostLoad, LinkLoad, Quantity, Store, Subject, SubjectKind, Talk, VmLoad
from predictor.asking import CHANNELS
from predictor.intake import Source, Talks
from predictor.panel import Columns, Panel
from predictor.view import ALL, Floats, Rows, View

LINK_QUANTITIES = (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN, Quantity.PACKETS_PEAK, Quantity.PACKETS_MEAN)
MACHINE_QUANTITIES = (Quantity.CPU_PEAK, Quantity.CPU_MEAN, Quantity.MEMORY_PEAK, Quantity.MEMORY_MEAN)
# A machine that was not looked at for longer than this has a gap, not a long interval.
LONGEST_INTERVAL_S = 5.0
# Coarser cells are made of fine ones so many seconds old: late rows have arrived by then.
SETTLED_S = 5.0
MOST_SUBJECTS = 20_000


def virtual_ip_of(talk: Talk) -> Subject | None:
    """The virtual IP that a talk belongs to."""
    return Subject(SubjectKind.VIRTUAL_IP, talk.virtual_ip)


def destination_of(talk: Talk) -> Subject | None:
    """The destination that a talk goes to, None while it is not known."""
    return None if talk.destination is None else Subject(SubjectKind.DESTINATION, talk.destination)


def sums(key: Callable[[Talk], Subject | None], step_s: float, window_s: float) -> Talks:
    """Communications summed over all pairs that `key` gives the same subject."""
    return Talks(Panel(step_s, window_s, len(CHANNELS), MOST_SUBJECTS), window_s, key)


class Gathered:
    """A source whose series lie in a panel that it fills itself."""

    def __init__(self, panel: Panel, quantities: tuple[Quantity, ...]) -> None:
        self.panel = panel
        self._quantities = quantities

    @property
    def subjects(self) -> Sequence[Subject]:
        """See Source."""
        return self.panel.subjects

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """See Source."""
        return self._quantities

    @property
    def step_s(self) -> float:
        """See Source."""
        return self.panel.step_s

    def join(self, subjects: Sequence[Subject]) -> None:
        """See Source."""
        for subject in subjects:
            self.panel.row_of(subject)

    def view(self, now: float) -> View | None:
        """See Source."""
        return self.panel.view(now, np.arange(len(self.panel.subjects)))

    def window(self, first: int, count: int, rows: Rows = ALL) -> Floats:
        """See Source."""
        return self.panel.window(first, count, rows)


class Loads(Gathered):
    """What links carried, or what machines used: read from the rows that were measured of them."""

    def __init__(self, kinds: Sequence[type[Any]], step_s: float, window_s: float) -> None:
        quantities = LINK_QUANTITIES if LinkLoad in kinds else MACHINE_QUANTITIES
        super().__init__(Panel(step_s, window_s, len(quantities) // 2, MOST_SUBJECTS), quantities)
        self._kinds = tuple(kinds)
        self._window_s = window_s
        self._last: dict[Subject, float] = {}
        self.host_of: dict[str, str] = {}  # the host that each VM was last seen on

    def read(self, store: Store, now: float) -> int:
        """See Source."""
        newest = max(self._last.values(), default=now - self._window_s)
        since = max(now - self._window_s, newest - LONGEST_INTERVAL_S)
        rows = [row for kind in self._kinds for row in store.facts.loads(kind, since, now)]
        return self._take(sorted(rows, key=lambda row: row.t))

    def _take(self, rows: Iterable[LinkLoad | HostLoad | VmLoad]) -> int:
        moments: dict[tuple[float, float], list[tuple[int, tuple[float, ...]]]] = {}
        taken = 0
        for row in rows:
            subject = machine_of(row)
            place, last = self.panel.row_of(subject), self._last.get(subject, -np.inf)
            if row.t <= last or place < 0:
                continue
            self._last[subject] = row.t
            if isinstance(row, VmLoad):
                self.host_of[row.vm] = row.host
            interval_s = row.interval_s if isinstance(row, LinkLoad) else min(row.t - last, LONGEST_INTERVAL_S)
            if last == -np.inf and not isinstance(row, LinkLoad):
                interval_s = self.panel.step_s
            moments.setdefault((row.t, round(interval_s, 3)), []).append((place, _amounts(row, interval_s)))
            taken += 1
        for (t, interval_s), group in moments.items():
            places = np.array([place for place, _ in group], dtype=np.int64)
            amounts = np.array([amount for _, amount in group], dtype=np.float64).T
            self.panel.put(Columns(places, amounts, places[:0], t, interval_s))
        return taken


def machine_of(row: LinkLoad | HostLoad | VmLoad) -> Subject:
    """What a measured row is about."""
    if isinstance(row, LinkLoad):
        return Subject(SubjectKind.LINK, row.from_node, row.to_node)
    if isinstance(row, HostLoad):
        return Subject(SubjectKind.HOST, row.host)
    return Subject(SubjectKind.VM, row.vm)


def _amounts(row: LinkLoad | HostLoad | VmLoad, interval_s: float) -> tuple[float, ...]:
    if isinstance(row, LinkLoad):
        return float(row.bytes), float(row.packets)
    # Cores and bytes in use are levels: times the interval they become amounts like all others.
    return row.cpu_cores_used * interval_s, float(row.memory_bytes_used) * interval_s


class Coarse(Gathered):
    """Another source's series in longer cells: what is read once serves both lanes."""

    def __init__(self, fine: Source, step_s: float, window_s: float) -> None:
        super().__init__(Panel(step_s, window_s, len(fine.quantities) // 2, MOST_SUBJECTS), fine.quantities)
        self._fine = fine
        self._window_s = window_s
        self._next: int | None = None

    def read(self, store: Store, now: float) -> int:  # noqa: ARG002 - see below
        """See Source. The fine source must have read already; `store` is not asked."""
        self.join(self._fine.subjects[len(self.subjects) :])
        step_s = self._fine.step_s
        until = int((now - SETTLED_S) / step_s)
        if self._next is None:
            view = self._fine.view(now)
            self._next = until if view is None else view.start
        first, self._next = self._next, max(self._next, until)
        rows = 0
        for cell in range(first, until):
            rates = self._fine.window(cell, 1)[..., 0]
            known = np.flatnonzero(~np.isnan(rates[0, : len(self.subjects)]))
            rows += len(known)
            self.panel.put(Columns(known, rates[:, known] * step_s, known[:0], (cell + 1) * step_s, step_s))
        return rows

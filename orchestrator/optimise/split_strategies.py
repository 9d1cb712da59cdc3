"""Ways to choose splits from what was seen so far that the hedged ones must beat, and what all have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from orchestrator.optimise.hedging import GAP, Hedge, hedge
from orchestrator.optimise.paths import Floats, Ints, Tunnels, optimum
from orchestrator.optimise.scenarios import History, MeasuredMatrix, Risk, Scenarios, blended, history_for


class Strategy(Protocol):
    """Is shown each matrix once it is over, and asked for splits before the next one begins."""

    def see(self, row: MeasuredMatrix) -> None:
        """Learns from a matrix that was measured."""
        ...

    def decide(self) -> Floats:
        """Splits (P values) for the next matrix."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same splits."""

    splits: Floats

    def see(self, row: MeasuredMatrix) -> None:
        """Nothing is learnt."""

    def decide(self) -> Floats:
        """The same as ever."""
        return self.splits


@dataclass(slots=True)
class LastMatrix:
    """What was best for the matrix before."""

    tunnels: Tunnels
    _last: MeasuredMatrix | None = None

    def see(self, row: MeasuredMatrix) -> None:
        """Its optimum comes next."""
        self._last = row

    def decide(self) -> Floats:
        """The optimum of the last matrix."""
        if self._last is None:
            return self.tunnels.shortest()
        known = self._last.optimal
        return optimum(self.tunnels, self._last.demand).splits if known is None else known


@dataclass(slots=True)
class Ewma:
    """What is best for an exponentially weighted mean of the matrices before."""

    tunnels: Tunnels
    weight: float = 0.2
    _sum: Floats | None = None
    _weights: float = 0.0

    def see(self, row: MeasuredMatrix) -> None:
        """The newest matrix weighs 1, each one before it (1 - weight) of the one after."""
        before = np.zeros_like(row.demand) if self._sum is None else self._sum
        self._sum = row.demand + (1 - self.weight) * before
        self._weights = 1 + (1 - self.weight) * self._weights

    @property
    def value(self) -> Floats | None:
        """The mean (N); None before the first matrix."""
        return None if self._sum is None else self._sum / self._weights

    def decide(self) -> Floats:
        """The optimum of the mean."""
        now = self.value
        return self.tunnels.shortest() if now is None else optimum(self.tunnels, now).splits


@dataclass(slots=True)
class PointForecast:
    """What is best for one forecast matrix, whoever makes it: `foresee(number)` forecasts the matrix of that number."""

    tunnels: Tunnels
    foresee: Callable[[int], Floats]
    _next: int = 0

    def see(self, row: MeasuredMatrix) -> None:
        """Counts on."""
        self._next = row.number + 1

    def decide(self) -> Floats:
        """The optimum of the forecast."""
        return optimum(self.tunnels, self.foresee(self._next)).splits


# Pairs that may move in one renewal. Beyond so many the heaviest half of them and a share of the others in turn do.
MOST_PAIRS = 4000
# Splits are renewed when so little of what is looked back at is new: one part in this many, but see `Habits.every`.
RENEWALS = 64


@dataclass(frozen=True, slots=True)
class Habits:
    """When and what to renew. The one default setting; it was chosen on train rows of two public recordings.

    `every`: matrices between renewals, more where far more are looked back at. `alert`: also as soon as a matrix went
    worse than anything that the splits were hedged against (by more than the programs' own gap), for then the world is
    not the one they were made for. `deadband`: a pair that would move less than this share stays, if that costs no
    more than `deadband_cost` of the promised ratio. `outlook`: weight of forecast matrices among the scenarios, where
    there are any.
    """

    every: int = 25
    alert: bool = True
    deadband: float = 0.01
    deadband_cost: float = 1e-3
    outlook: float = 0.0


@dataclass(slots=True)
class Hedged:
    """Splits of least risk over the matrices seen and, where `foresee` is given, over those it foresees (S x N)."""

    tunnels: Tunnels
    risk: Risk = field(default_factory=Risk)
    habits: Habits = field(default_factory=Habits)
    foresee: Callable[[int], Floats] | None = None
    history: History = field(default_factory=History)
    last: Hedge | None = None
    solved: int = 0
    # Of the newest matrix, with the splits that were in force: its MLU ratio, and the share of all pairs that moved
    ratio: float = 1.0
    moved: float = 0.0
    _splits: Floats | None = None
    _age: int = 0
    _surprised: bool = False

    @property
    def name(self) -> str:
        """What tells it from others: how far it looks back, at which tail, and whether it looks ahead."""
        back = f"last {self.history.window}" if self.history.window else "all"
        return f"{back}, tail {self.risk.tail_weight:g}{', ahead' if self.habits.outlook else ''}"

    def see(self, row: MeasuredMatrix) -> None:
        """Remembers the matrix, and whether the splits in force failed on it."""
        self.history.add(row)
        self._age += 1
        if self._splits is not None and row.best > 0:
            self.ratio = float(self.tunnels.mlu(self._splits, row.demand)[0]) / row.best
            if self.habits.alert and self.last is not None:
                self._surprised |= self.ratio > float(self.last.ratios.max()) * (1 + GAP)

    def take(self, splits: Floats) -> None:
        """These splits are in force, whatever was decided."""
        self._splits = splits
        self._age = max(self._age, self.habits.every) if self.last is None else self._age

    @property
    def looked(self) -> int:
        """Up to which matrix it has looked for splits; below 0 before it has."""
        return self.history.seen - self._age if self.last is not None else -1

    @property
    def overdue(self) -> bool:
        """Whether it is time to look for others."""
        return self._splits is None or self._age >= self._every or self._surprised

    def decide(self) -> Floats:
        """The splits in force, renewed when it is time."""
        self.moved = 0.0
        if self.overdue:
            self.renew()
        return self.splits

    @property
    def splits(self) -> Floats:
        """Those in force."""
        return self.tunnels.shortest() if self._splits is None else self._splits

    @property
    def _every(self) -> int:
        """Where much is remembered, few new matrices change little."""
        return max(self.habits.every, self.history.length // RENEWALS)

    def renew(self) -> None:
        """Looks for splits of less risk now, and takes them where they pay."""
        given = self.history.scenarios()
        if given is None:
            return
        if self.foresee is not None and self.habits.outlook > 0:
            given = blended(self.tunnels, given, self.foresee(self.history.seen), self.habits.outlook)
        found = hedge(self.tunnels, given, self.risk, self._splits, self._free(given))
        before, self._splits = self._splits, self._settled(found, given)
        if before is not None:
            self.moved = float(np.abs(self._splits - before).sum()) / 2 / len(self.tunnels.pairs)
        self.last, self._age, self._surprised = found, 0, False
        self.solved += 1

    def _free(self, given: Scenarios) -> Ints | None:
        pairs = len(self.tunnels.pairs)
        if self._splits is None or pairs <= MOST_PAIRS:
            return None
        heavy = np.argsort(-(given.weight @ given.demand), kind="stable")
        sure, others = heavy[: MOST_PAIRS // 2], heavy[MOST_PAIRS // 2 :]
        turns = -(-len(others) // (MOST_PAIRS // 2))
        return np.sort(np.concatenate([sure, others[self.solved % turns :: turns]]))

    def _settled(self, found: Hedge, given: Scenarios) -> Floats:
        if self._splits is None:
            return found.splits
        moved = np.bincount(self.tunnels.pair_of, np.abs(found.splits - self._splits)) / 2
        still = moved[self.tunnels.pair_of] < self.habits.deadband
        splits = np.where(still, self._splits, found.splits)
        cost = self.risk.of(given.ratios(self.tunnels, splits), given.weight)
        return splits if cost <= found.risk + self.habits.deadband_cost else found.splits


def scheduled(tunnels: Tunnels) -> Hedged:
    """Hedged splits on a schedule alone: no alert, every change taken. What the alert and the deadband are worth."""
    return Hedged(tunnels, habits=Habits(alert=False, deadband=0.0), history=history_for(tunnels))

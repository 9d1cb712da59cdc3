"""Ways to choose splits from what was seen so far that the hedged ones must beat, and what all have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from orchestrator.routing.oracle import optimum
from orchestrator.routing.paths import Floats, Tunnels
from orchestrator.routing.scenarios import Seen


class Strategy(Protocol):
    """Is shown each matrix once it is over, and asked for splits before the next one begins."""

    def see(self, row: Seen) -> None:
        """Learns from a matrix that was measured."""
        ...

    def decide(self) -> Floats:
        """Splits (P values) for the next matrix."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same splits."""

    splits: Floats

    def see(self, row: Seen) -> None:
        """Nothing is learnt."""

    def decide(self) -> Floats:
        """The same as ever."""
        return self.splits


@dataclass(slots=True)
class LastMatrix:
    """What was best for the matrix before."""

    tunnels: Tunnels
    _last: Seen | None = None

    def see(self, row: Seen) -> None:
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

    def see(self, row: Seen) -> None:
        """The newest matrix weighs 1, each one before it (1 - weight) of the one after."""
        before = np.zeros_like(row.demand) if self._sum is None else self._sum
        self._sum = row.demand + (1 - self.weight) * before
        self._weights = 1 + (1 - self.weight) * self._weights

    def decide(self) -> Floats:
        """The optimum of the mean."""
        return self.tunnels.shortest() if self._sum is None else optimum(self.tunnels, self._sum / self._weights).splits


@dataclass(slots=True)
class PointForecast:
    """What is best for one forecast matrix, whoever makes it: `foresee(number)` forecasts the matrix of that number."""

    tunnels: Tunnels
    foresee: Callable[[int], Floats]
    _next: int = 0

    def see(self, row: Seen) -> None:
        """Counts on."""
        self._next = row.number + 1

    def decide(self) -> Floats:
        """The optimum of the forecast."""
        return optimum(self.tunnels, self.foresee(self._next)).splits

"""What waits with patience: amounts in the order of their arrival, given up when they have waited too long."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from backtest.whatif.records import Floats

# Nobody waits longer: the lab's clients give up after so many seconds.
PATIENCE_S = 4


@dataclass(slots=True)
class WaitingLine:
    """One line for each of `size` things, by whole seconds of age: row 0 came in the present second."""

    size: int
    ages: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.ages = np.zeros((PATIENCE_S, self.size))

    @property
    def total(self) -> Floats:
        """What waits of each."""
        return np.asarray(self.ages.sum(axis=0))

    def join(self, amounts: Floats) -> Self:
        """What has just come stands last."""
        self.ages[0] += amounts
        return self

    def serve(self, amounts: Floats) -> None:
        """Takes away so much of each, the oldest first; what is more than waits takes nothing."""
        left = amounts.copy()
        for row in reversed(self.ages):
            taken = np.minimum(row, left)
            row -= taken
            left -= taken

    def give_up(self) -> Floats:
        """Ends a second: all that is left becomes a second older; returns what goes because it has waited too long."""
        gone = self.ages[-1].copy()
        self.ages[1:] = self.ages[:-1]
        self.ages[0] = 0.0
        return np.asarray(gone)

"""Makes up traffic of many pairs for the forecast bench: levels that wander, surges that recur for some, noise."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SURGING_SHARE = 0.25
SURGE_FACTOR, SURGE_S = 6.0, 8.0
PERIOD_S = (20.0, 40.0)
# How far the level moves in a second (standard deviation of its logarithm), and how strongly it is drawn back.
WANDERING, DRAWN_BACK = 0.1, 0.02
BYTES_PER_PACKET, BYTES_PER_CONNECTION = 900.0, 20_000.0


@dataclass(slots=True)
class Traffic:
    """Seconds of traffic, one after the other; the same for the same seed and number of pairs."""

    pairs: int
    seed: int
    _rng: np.random.Generator = field(init=False)
    _base: Floats = field(init=False)
    _level: Floats = field(init=False)
    _phase: Floats = field(init=False)
    _period: Floats = field(init=False)
    _surging: NDArray[np.bool_] = field(init=False)
    _second: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._base = self._rng.lognormal(8.0, 1.5, self.pairs)
        self._level = np.zeros(self.pairs)
        self._phase = self._rng.uniform(0.0, PERIOD_S[1], self.pairs)
        self._period = self._rng.uniform(*PERIOD_S, self.pairs)
        self._surging = self._rng.random(self.pairs) < SURGING_SHARE

    def second(self) -> Floats:
        """Bytes, packets and connections of the next second: 3 x pairs, whole numbers."""
        self._level += -DRAWN_BACK * self._level + self._rng.normal(0.0, WANDERING, self.pairs)
        surge = self._surging & ((self._second + self._phase) % self._period < SURGE_S)
        mean = self._base * np.exp(self._level) * np.where(surge, SURGE_FACTOR, 1.0)
        size = mean * self._rng.gamma(4.0, 0.25, self.pairs)
        connections = self._rng.poisson(np.minimum(size / BYTES_PER_CONNECTION, 1000.0))
        self._second += 1
        amounts: Floats = np.floor(np.stack([size, np.ceil(size / BYTES_PER_PACKET), connections]))
        return amounts

    def seconds(self, count: int) -> Floats:
        """Bytes of the next `count` seconds: pairs x count."""
        return np.stack([self.second()[0] for _ in range(count)], axis=1)

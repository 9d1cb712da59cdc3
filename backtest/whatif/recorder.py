"""Keeps, second by second, what the timeline of a policy's run consists of."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backtest.whatif.records import DoneAction, Floats, ObjectSeries, PolicyRun, ReplayPolicy
from backtest.whatif.requests import Delivery


@dataclass(slots=True)
class SeriesRecorder:
    """Series of objects of one kind, filled in row by row; `where` is kept for kinds that have `places`."""

    seconds: int
    names: tuple[str, ...]
    places: tuple[str, ...] = ()
    _values: Floats = field(init=False)
    _where: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        self._values = np.zeros((3, self.seconds, len(self.names)))
        self._where = np.zeros((self.seconds if self.places else 0, len(self.names)), dtype=np.int32)

    def put(self, second: int, need: Floats, allowed: Floats, used: Floats) -> None:
        """What was needed, allowed and used in one second; what nothing limits is allowed what it took."""
        free = np.isinf(allowed)
        self._values[:, second] = need, np.where(free, np.maximum(need, used), allowed), used

    def place(self, second: int, where: NDArray[np.int64]) -> None:
        """Where the objects were, as numbers of places."""
        self._where[second] = where

    def needed(self, second: int, name: str) -> float:
        """What an object needed in a second."""
        return float(self._values[0, second, self.names.index(name)])

    def series(self) -> ObjectSeries:
        """All of it."""
        need, allowed, used = self._values
        return ObjectSeries(self.names, need, allowed, used, self._where if self.places else None, self.places)


@dataclass(slots=True)
class RunRecorder:
    """All series of one run."""

    vms: SeriesRecorder
    pairs: SeriesRecorder
    links: SeriesRecorder
    hosts: SeriesRecorder
    _delivered: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._delivered = np.zeros((2, self.pairs.seconds, len(self.pairs.names)))

    def deliver(self, second: int, delivery: Delivery) -> None:
        """What was delivered in a second, and after how long."""
        self._delivered[:, second] = delivery.bytes, delivery.delay_s

    def run(self, policy: ReplayPolicy, actions: tuple[DoneAction, ...]) -> PolicyRun:
        """The run that was recorded."""
        delivered, delay_s = self._delivered
        vms, pairs, links, hosts = (one.series() for one in (self.vms, self.pairs, self.links, self.hosts))
        return PolicyRun(policy, vms, pairs, links, hosts, delivered, delay_s, actions)

"""Queues without a switch, for the keeper."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cpdb import DriverError
from orchestrator import QueueKeeper, QueueSpec
from orchestrator.act.ovs_qos import QueueCounts


@dataclass
class FakeQueues:
    """Queues that stand when they were made; `open` is cleared to let a look hang."""

    specs: tuple[QueueSpec, ...]
    standing: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    counted: dict[str, QueueCounts] = field(default_factory=dict)
    open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.open.set()

    def faults(self, spec: QueueSpec) -> tuple[str, ...]:
        self.open.wait(10)
        if spec.link in self.refusing:
            raise DriverError(f"{spec.link}: refused")
        return () if spec.link in self.standing else ("it has no QoS",)

    def ensure(self, spec: QueueSpec) -> tuple[str, ...]:
        found = self.faults(spec)
        self.standing.add(spec.link)
        return found

    def counts(self, spec: QueueSpec) -> QueueCounts:
        return self.counted.get(spec.link, QueueCounts(0, 0))

    def remove(self, spec: QueueSpec) -> None:
        if spec.link in self.refusing:
            raise DriverError(f"{spec.link}: refused")
        self.standing.discard(spec.link)


def eventually(check: Callable[[], bool]) -> bool:
    """Whether `check` becomes true while others work."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if check():
            return True
        time.sleep(0.005)
    return False


def settled(keeper: QueueKeeper, now: float, wanted: set[str]) -> bool:
    """Whether the keeper comes to say `wanted` without the clock going on."""
    return eventually(lambda: keeper.ready(now) == wanted)

"""Keeps the declared queues whole beside the loop: a switch that does not answer must not hold up a cycle."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import structlog

from cpdb import DriverError, Seconds
from orchestrator.config import QueueSpec

LOG = structlog.get_logger(__name__)
LOOK_EVERY_S = 10.0


class Queues(Protocol):
    """Guaranteed queues, made, looked at and removed one by one."""

    specs: tuple[QueueSpec, ...]

    def faults(self, spec: QueueSpec) -> tuple[str, ...]:
        """What is not as it should be. Touches nothing. Raises DriverError."""

    def ensure(self, spec: QueueSpec) -> tuple[str, ...]:
        """Makes or repairs; returns what was wrong before. Raises DriverError."""

    def remove(self, spec: QueueSpec) -> None:
        """Takes away what `ensure` made. Raises DriverError."""

    def counts(self, spec: QueueSpec) -> tuple[int, int]:
        """Packets sent and dropped by the guaranteed queue since it was made. Raises DriverError."""


def whole(queues: Queues) -> frozenset[str]:
    """Links whose queue stands as declared. Touches nothing; what cannot be looked at does not stand."""
    return frozenset(spec.link for spec in queues.specs if _stands(queues, spec, act=False))


def kept(queues: Queues) -> frozenset[str]:
    """As `whole`, after what was missing has been made."""
    return frozenset(spec.link for spec in queues.specs if _stands(queues, spec, act=True))


def _stands(queues: Queues, spec: QueueSpec, act: bool) -> bool:
    try:
        if not act:
            return not queues.faults(spec)
        queues.ensure(spec)
    except DriverError as error:
        LOG.warning("no guaranteed queue; meters are used on this link", link=spec.link, error=str(error))
        return False
    return True


def counted(queues: Queues) -> dict[str, tuple[int, int]]:
    """Packets sent and dropped by each guaranteed queue; one that cannot be read is left out."""
    found = {}
    for spec in queues.specs:
        try:
            found[spec.link] = queues.counts(spec)
        except DriverError as error:
            LOG.debug("queue not counted", link=spec.link, error=str(error))
    return found


class QueueKeeper:
    """Looks at the queues every `every_s` seconds in a thread; with `act` it makes, repairs and in the end removes."""

    def __init__(self, queues: Queues, act: bool, every_s: Seconds = LOOK_EVERY_S) -> None:
        self._queues = queues
        self._act = act
        self._every_s = every_s
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="queues")
        self._look: Future[frozenset[str]] | None = None
        self._due: Seconds | None = None
        self._ready: frozenset[str] = frozenset()
        self._count: Future[dict[str, tuple[int, int]]] | None = None
        self._counts: dict[str, tuple[int, int]] = {}
        self._losses: dict[str, float] = {}

    def ready(self, now: Seconds, paused: bool = False) -> frozenset[str]:
        """Links whose queue was whole at the last look that ended; begins the next when due. `paused` only looks."""
        if self._look is not None and self._look.done():
            look, self._look = self._look, None
            self._ready = frozenset()
            self._ready = look.result()
        if self._look is None and (self._due is None or now >= self._due):
            self._due = now + self._every_s
            self._look = self._worker.submit(kept if self._act and not paused else whole, self._queues)
        return self._ready

    def losses(self) -> dict[str, float]:
        """The share of packets that each guaranteed queue has lately dropped; begins the next count."""
        if self._count is not None and self._count.done():
            before, self._counts, self._count = self._counts, self._count.result(), None
            self._losses = {link: _share(before.get(link), now) for link, now in self._counts.items()}
        if self._count is None:
            self._count = self._worker.submit(counted, self._queues)
        return self._losses

    def close(self, remove: bool = True) -> None:
        """Waits for a look under way (bounded by its commands' limits), then removes the queues if it may act.

        Without `remove` they are left to another who looks after them.
        """
        self._worker.shutdown(wait=True)
        for spec in self._queues.specs if self._act and remove else ():
            try:
                self._queues.remove(spec)
            except DriverError as error:
                LOG.warning("queue not removed", link=spec.link, error=str(error))


def _share(before: tuple[int, int] | None, now: tuple[int, int]) -> float:
    """Of the packets since `before`; a queue that was made anew in between has not lost any."""
    sent, dropped = (now[0] - before[0], now[1] - before[1]) if before else (0, 0)
    return dropped / (sent + dropped) if dropped > 0 and sent >= 0 else 0.0

"""Of two orchestrators started by mistake one stands by: they would undo and repeat each other's work."""

import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from cpdb import Fence, Seconds, Store
from orchestrator.config import OrchestratorConfig

LOG = structlog.get_logger(__name__)
# One that may not act does no harm beside one that may.
ACTING, ADVISING = "orchestrator", "orchestrator/advice"
# Held by who carries out a single plan; it may do so beside one who acts.
APPLYING = "orchestrator/plan"


def identity() -> str:
    """Machine, process, and a number of its own: two in one process are two as well."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"


@dataclass(slots=True)
class Turn:
    """This orchestrator's claim to be the one that works.

    Times are the database's where it has a `clock`, so that two machines need not agree on one; else the callers'.
    """

    config: OrchestratorConfig
    store: Store
    name: str = field(default_factory=identity)
    on_duty: bool = False
    clock: Callable[[], Seconds] | None = None
    # What this one writes is refused once another has taken over.
    fence: Fence = field(default_factory=Fence)
    _waits_for: str | None = None

    @property
    def lease(self) -> str:
        """Those who act and those who only advise take turns among themselves."""
        return ACTING if self.config.act else ADVISING

    def take(self, now: Seconds) -> bool:
        """Takes or renews the lease; False while another holds it, which is logged once. Raises StoreError."""
        held = self.store.leases.hold(self.lease, self.name, self._at(now), self.config.timing.duty_s)
        self.on_duty = held.holder == self.name
        if self.on_duty:
            self.fence.lease, self.fence.holder, self.fence.token = self.lease, self.name, held.token
        if self.on_duty and self._waits_for is not None:
            LOG.info("on duty: the other orchestrator has ended", other=self._waits_for)
            self._waits_for = None
        elif not self.on_duty and self._waits_for != held.holder:
            self._waits_for = held.holder
            after_s = self.config.timing.duty_s
            LOG.warning("standing by: another orchestrator is on duty", other=held.holder, takes_over_after_s=after_s)
        return self.on_duty

    def _at(self, now: Seconds) -> Seconds:
        return now if self.clock is None else self.clock()

    def alone(self, now: Seconds) -> bool:
        """Whether what one who acts leaves to be done - measuring, following up - is this one's. Raises StoreError."""
        return bool(self.config.act) or self.store.leases.holder(ACTING, self._at(now)) is None

    def heir(self, now: Seconds) -> bool:
        """Whether pending actions that are not this one's own have nobody else left. Raises StoreError."""
        return self.alone(now) and self.store.leases.holder(APPLYING, self._at(now)) is None

    def give_back(self) -> None:
        """Lets the next one begin at once. Raises StoreError."""
        if self.on_duty:
            self.on_duty = False
            self.store.leases.release(self.lease, self.name)

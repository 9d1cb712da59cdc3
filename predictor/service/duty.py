"""Of several predictors one forecasts; another is kept ready with what that one has learnt and the same past."""

import os
import socket
import threading
import uuid
from dataclasses import dataclass, field

import structlog

from cpdb import Leases, Seconds, Store, StoreError
from predictor.config import PredictorConfig
from predictor.service.shards import LocalCrew, ShardCrew, ShardedTiers
from predictor.service.tiers import Tiers

log = structlog.get_logger(__name__)

PREDICTING = "predictor"
LEASE_S, RENEW_S = 2.0, 0.3
# What is learnt is kept once a minute: so often it is taken up anew by who stands by.
TAKE_UP_EVERY_S = 60.0


@dataclass(slots=True)
class PredictorTurn:
    """The lease, renewed beside the cycles, by the database's clock. Without word of another this one works."""

    leases: Leases
    name: str = field(default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}")
    other: str | None = None

    def keep_on(self, stop: threading.Event) -> None:
        """Takes or renews the lease until `stop` is set."""
        while not stop.wait(RENEW_S):
            self.take()

    def give_back(self) -> None:
        """Lets the next one begin at once; what was learnt should have been kept before."""
        try:
            self.leases.release(PREDICTING, self.name)
        except StoreError as error:
            log.warning("the lease ends by itself", error=str(error))

    def take(self) -> None:
        """Takes or renews the lease. Where the database is away nothing is known anew, and nothing can be written."""
        try:
            holder = self.leases.hold(PREDICTING, self.name, self.leases.now(), LEASE_S).holder
        except StoreError as error:
            log.debug("the lease is renewed later", error=str(error))
            return
        other = None if holder in ("", self.name) else holder
        if other != self.other:
            log.info(
                "standing by: another predicts" if other else "on duty: the other predictor has ended", other=holder
            )
        self.other = other


class ReadyTiers:
    """Predictors of all tiers, at work or ready to be. A `crew` does the work of the pairs where they are sharded."""

    def __init__(self, config: PredictorConfig, background: bool = True, crew: ShardCrew | None = None) -> None:
        self._config, self._background = config, background
        self._crew = crew if crew or config.shard_count == 1 else LocalCrew(config, background)
        self.tiers = self._made()
        self._taken_up_at = float("-inf")
        self._worked = False

    def _made(self) -> Tiers | ShardedTiers:
        if self._crew is None:
            return Tiers(self._config, self._background)
        return ShardedTiers(self._config, self._background, self._crew)

    def stand_by(self, store: Store, now: Seconds) -> None:
        """Follows what is measured, and now and then takes up what was learnt. Raises StoreError."""
        if self._worked or now - self._taken_up_at >= TAKE_UP_EVERY_S:
            self.tiers.close()
            self.tiers, self._worked, self._taken_up_at = self._made(), False, now
        self.tiers.follow(store, now)

    def at_work(self) -> Tiers | ShardedTiers:
        """The tiers, to be given every moment from now on."""
        self._worked = True
        return self.tiers

    def close(self) -> None:
        """Ends everything."""
        self.tiers.close()
        if self._crew is not None:
            self._crew.close()

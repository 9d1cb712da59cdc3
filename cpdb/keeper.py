"""Keeps the database small: takes the steps of roll-up and expiry, each a short transaction of its own."""

from collections.abc import Callable
from time import monotonic

from sqlalchemy import Connection, Engine, text

from cpdb import partitions, rollup
from cpdb.engine import reported
from cpdb.expiry import steps
from cpdb.records import Seconds
from cpdb.retention import COARSE_LAG_S, COARSE_S, Policy, Retained, bucket_end, roll_ups

WAITING_AT_ONCE = 20_000
# SQLite gives free pages back to the disk only when they are many: soon they would be taken again.
FREE_SHARE = 0.2
FREE_PAGES_A_STEP = 2_000


class Keeper:
    """The runner. Several may run at once: whatever one took, another finds taken."""

    def __init__(self, engine: Engine, clock: Callable[[], Seconds] = monotonic) -> None:
        """`clock` only measures the budget."""
        self._engine = engine
        self._clock = clock

    def retain(self, now: Seconds, policy: Policy, budget_s: Seconds) -> Retained:
        """Takes the steps due at `now`, for about `budget_s`; `left` tells that there are more. Raises StoreError."""
        end = self._clock() + budget_s
        with reported(self._engine, "making room"):
            partitions.prepare(self._engine, now, policy)
            done = self._roll_up(now, policy, end)
            if not done.left:
                done += self._forget(now, policy, end)
            if not done.left and self._engine.dialect.name == "sqlite":
                self._give_back()
        return done

    def _roll_up(self, now: Seconds, policy: Policy, end: Seconds) -> Retained:
        with self._engine.connect() as connection:
            pending = rollup.waiting(connection, WAITING_AT_ONCE)
        done = Retained(left=len(pending) == WAITING_AT_ONCE)
        due = list(roll_ups(pending, now))
        for step in due:
            if self._clock() > end:
                return done + Retained(left=True)
            with self._engine.begin() as connection:
                done += Retained(steps=1, rolled_up=rollup.roll_up(connection, step, now, policy))
        through = int((now - COARSE_LAG_S) // COARSE_S) * COARSE_S
        if done.left:
            # Minutes of which batches wait must not be built yet.
            through = min(through, bucket_end(pending[-1][1], COARSE_S) - COARSE_S)
        return done + self._repeat(lambda connection: int(rollup.build_next_minute(connection, through)), end)

    def _repeat(self, take: Callable[[Connection], int], end: Seconds) -> Retained:
        done = Retained()
        while self._clock() <= end:
            with self._engine.begin() as connection:
                count = take(connection)
            if not count:
                return done
            done += Retained(steps=1)
        return done + Retained(left=True)

    def _forget(self, now: Seconds, policy: Policy, end: Seconds) -> Retained:
        done = Retained()
        widths = {} if self._engine.dialect.name == "sqlite" else partitions.WIDTHS
        for step in steps(now, policy, widths):
            count = 1
            while count:
                if self._clock() > end:
                    return done + Retained(left=True)
                with self._engine.begin() as connection:
                    count = step.take(connection)
                done += Retained(steps=int(count > 0), deleted=count)
        return done

    def _give_back(self) -> None:
        with self._engine.connect() as connection:
            pages, free = (
                connection.execute(text(f"PRAGMA {name}")).scalar() or 0 for name in ("page_count", "freelist_count")
            )
            driver = connection.connection.driver_connection
            if free > max(FREE_PAGES_A_STEP, FREE_SHARE * pages) and driver is not None:
                connection.rollback()
                # It frees a page a step, and only a script is stepped to its end.
                driver.executescript(f"PRAGMA incremental_vacuum({FREE_PAGES_A_STEP})")

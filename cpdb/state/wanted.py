"""What should be and what is: wanted state, bandwidth that people ask for, and what the controller has observed."""

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from cpdb.engine import connect, reported
from cpdb.model import BytesPerS, Reservation, Seconds, WantedWeights
from cpdb.observed import Withdrawal, kinds_of, read_row
from cpdb.observed_record import ObservedKind, ObservedRecord, ObservedRow
from cpdb.refusals import refusals_of
from cpdb.repository import Condition, Repository, transaction
from cpdb.schema import (
    bandwidth_requests,
    generations,
    observed,
    past_reservations,
    reservations,
    wanted_splits,
    wanted_weights,
)
from cpdb.state.leases import Fence

# Tags are VLAN numbers of a range of our own; 4095 is reserved.
FIRST_TAG, LAST_TAG = 3072, 4094
# They come in blocks: `routing.first_label` may name another one.
LABELS = 1024


@dataclass(frozen=True, slots=True)
class HeavyPair:
    """A pair that is placed by what it carries: `share` of the traffic between two switches, over their paths by
    `ratios` (they sum to 1). One that has several paths is divided by connection. Both ends by name.
    """

    source: str
    destination: str
    share: float
    ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WantedSplit:
    """Paths from one switch to another, each with its ratio (they sum to 1) and the tag that its packets carry.

    Without an end it holds until it is replaced or removed. Pairs that are not `heavy` take what these leave.
    """

    from_switch: str
    to_switch: str
    paths: tuple[tuple[str, ...], ...]
    ratios: tuple[float, ...]
    tags: tuple[int, ...]
    owner: str
    reason: str
    changed_at: Seconds
    expires_at: Seconds | None = None
    generation: int = 0
    heavy: tuple[HeavyPair, ...] = ()


Record = TypeVar("Record", bound=ObservedRecord)
R = TypeVar("R")


class WantedRepository(Repository[R]):
    """Records of what is wanted: every change of them takes the next generation, in the same transaction.

    What is written by one whose tenure is over raises StoreRefused.
    """

    def __init__(self, engine: Engine, table: Table, record: type[R], fence: Fence = Fence()) -> None:
        super().__init__(engine, table, record)
        self._fence = fence

    def count_on(self, connection: Connection) -> int:
        """Takes the next generation, inside the transaction that makes a change."""
        # The change comes first: whoever else would write waits for it, and no tenure begins in between.
        generation = next_generation(connection)
        self._fence.check(connection)
        return generation

    def put(self, items: Iterable[R], within: Connection | None = None) -> int:
        """Writes records in place of those with the same key; returns the generation of all of them."""
        with self._joined(within, "writing") as connection:
            generation = self.count_on(connection)
            self.put_all(items, connection, generation=generation)
            return generation

    def withdraw(self, *where: Condition) -> bool:
        """Takes away what meets the conditions; False when nothing did, which is no change."""
        with self._joined(None, "withdrawing") as connection:
            gone = self.delete(*where, within=connection) > 0
            if gone:
                self.count_on(connection)
            return gone


class ObservedState:
    """What is: the newest word on each thing that somebody observes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._observed = Repository(engine, observed, ObservedRow)

    def observe(self, records: Sequence[ObservedRecord]) -> None:
        """Records what is observed; the newest word for each (kind, key, node) stands, a withdrawal takes it away."""
        refusals_of(self._observed.engine).write_apart("observed", self._observe, records)

    def _observe(self, records: Sequence[ObservedRecord]) -> None:
        rows = ((record, record.to_row()) for record in records)
        latest = {(row.kind, row.key, row.node): (record, row) for record, row in rows}
        if not latest:
            return
        with transaction(self._engine, "recording observed state") as connection:
            self._observed.delete_all((row for _, row in latest.values()), connection)
            stands = (row for record, row in latest.values() if not isinstance(record, Withdrawal))
            self._observed.add_all(stands, connection)

    def observed(self) -> list[ObservedRecord]:
        """All observed state, by kind, key and node."""
        return self._read_observed(list(ObservedKind))

    def observed_of(self, record: type[Record]) -> list[Record]:
        """What is observed of one type, by kind, key and node."""
        return [item for item in self._read_observed(kinds_of(record)) if isinstance(item, record)]

    def _read_observed(self, kinds: Sequence[str]) -> list[ObservedRecord]:
        order = [observed.c.kind, observed.c.key, observed.c.node]
        return self._observed.read_again(observed.c.kind.in_(kinds), order_by=order, then=read_row, part=tuple(kinds))


class Wanted(ObservedState):
    """Level-triggered meeting place: nobody has to see an event, everybody can read the state again."""

    def __init__(self, engine: Engine, fence: Fence = Fence()) -> None:
        super().__init__(engine)
        self._reservations = WantedRepository(engine, reservations, Reservation, fence)
        self._past = Repository(engine, past_reservations, Reservation)
        self._weights = WantedRepository(engine, wanted_weights, WantedWeights, fence)
        self._splits = WantedRepository(engine, wanted_splits, WantedSplit, fence)

    def generation(self) -> int:
        """Number of the last change of what is wanted; equal numbers mean nothing changed."""
        with reported(self._engine, "reading the generation"), self._engine.connect() as connection:
            return connection.execute(select(generations.c.generation)).scalar() or 0

    def reserve(self, item: Reservation) -> int:
        """Adds the reservation or renews the one with the same key, which keeps its birth; returns its generation."""
        with transaction(self._engine, f"reserving {item.key}") as connection:
            before = self._reservations.read_first(reservations.c.key == item.key, within=connection)
            alive = before is not None and before.expires_at > item.created_at
            if before is not None and not (alive and _same_reservation(before, item)):
                self._remember(before, item.created_at, connection)
            born = replace(item, created_at=min(before.created_at, item.created_at)) if before and alive else item
            return self._reservations.put([born], connection)

    def _remember(self, item: Reservation, ended_at: Seconds, connection: Connection) -> None:
        self._past.add(replace(item, expires_at=min(item.expires_at, ended_at)), within=connection)

    def release(self, key: str, now: Seconds) -> bool:
        """Withdraws a reservation before its time; False when there was none."""
        with transaction(self._engine, f"releasing {key}") as connection:
            held = self._reservations.read_first(reservations.c.key == key, within=connection)
            if held is not None:
                self._remember(held, now, connection)
                self._reservations.delete(reservations.c.key == key, within=connection)
                self._reservations.count_on(connection)
            return held is not None

    def reservations(self, now: Seconds) -> list[Reservation]:
        """Reservations that are still alive at `now`, by key."""
        return self._reservations.read(reservations.c.expires_at > now, order_by=[reservations.c.key])

    def reservations_at(self, t: Seconds) -> list[Reservation]:
        """Reservations that were alive at `t`, as they were then, by key."""
        found: dict[str, Reservation] = {}
        for known in (self._reservations, self._past):
            at = known.table.c
            for item in known.read(at.created_at <= t, at.expires_at > t):
                # One that was changed begins at its birth in each version: at `t` that held which ended first.
                if item.key not in found or item.expires_at < found[item.key].expires_at:
                    found[item.key] = item
        return [found[key] for key in sorted(found)]

    def reservations_since(self, since: Seconds) -> list[Reservation]:
        """Reservations alive after `since`: each version from its beginning, or `since`, to its end, by key."""
        known = [one for own in (self._past, self._reservations) for one in own.read(own.table.c.expires_at > since)]
        found: list[Reservation] = []
        for item in sorted(known, key=lambda one: (one.key, one.expires_at)):
            before = found[-1].expires_at if found and found[-1].key == item.key else since
            found.append(replace(item, created_at=max(before, since, item.created_at)))
        return found

    def want_weights(self, item: WantedWeights) -> int:
        """Sets the weights wanted for a virtual IP; returns the generation."""
        return self._weights.put([item])

    def weights(self) -> list[WantedWeights]:
        """All wanted weights, by virtual IP."""
        return self._weights.read(order_by=[wanted_weights.c.virtual_ip])

    def clear(self, now: Seconds) -> None:
        """Withdraws everything that is wanted."""
        held = self._reservations.read()
        with transaction(self._engine, "clearing what is wanted") as connection:
            for item in held:
                self._remember(item, now, connection)
            self._reservations.delete(within=connection)
            self._weights.delete(within=connection)
            self._weights.count_on(connection)

    def put_splits(self, items: Iterable[WantedSplit], removed: Sequence[tuple[str, str]] = ()) -> int:
        """Replaces these and takes away `removed` in one step; returns the generation of all of them."""
        table = wanted_splits
        with transaction(self._engine, "writing wanted paths") as connection:
            for from_switch, to_switch in removed:
                ends = table.c.from_switch == from_switch, table.c.to_switch == to_switch
                self._splits.delete(*ends, within=connection)
            return self._splits.put(items, connection)

    def splits(self) -> list[WantedSplit]:
        """Everything wanted, by switches."""
        return self._splits.read(order_by=[wanted_splits.c.from_switch, wanted_splits.c.to_switch])

    def clear_splits(self) -> None:
        """Withdraws all of it: everything goes the shortest way again."""
        self._splits.withdraw()


def _same_reservation(one: Reservation, other: Reservation) -> bool:
    return (one.bytes_per_s, one.limits, one.dscp) == (other.bytes_per_s, other.limits, other.dscp)


def next_generation(connection: Connection) -> int:
    """Counts one more change of what is wanted, inside the transaction that makes it."""
    changed = connection.execute(update(generations).values(generation=generations.c.generation + 1)).rowcount
    if not changed:
        connection.execute(insert(generations).values(generation=1))
    return int(connection.execute(select(generations.c.generation)).scalar_one())


class RequestState(StrEnum):
    """What became of a request."""

    ASKED = "asked"
    GRANTED = "granted"
    PARTLY = "partly"
    REFUSED = "refused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """What was decided about a request and why, and what was measured of it since."""

    state: RequestState = RequestState.ASKED
    granted_bytes_per_s: BytesPerS = 0.0
    obtained_bytes_per_s: BytesPerS | None = None
    why: str = ""
    decided_at: Seconds | None = None


@dataclass(frozen=True, slots=True)
class BandwidthRequest:
    """`bytes_per_s` from `source` ("": every source) to `virtual_ip` until `until`."""

    source: str
    virtual_ip: str
    bytes_per_s: BytesPerS
    until: Seconds
    reason: str
    asked_by: str
    asked_at: Seconds
    priority: int | None = None
    tenant: str | None = None
    answer: RequestAnswer = field(default_factory=RequestAnswer)
    id: int | None = None

    def answered(self, **news: Any) -> "BandwidthRequest":
        """The same request with these fields of its answer changed."""
        return replace(self, answer=replace(self.answer, **news))


ALIVE = bandwidth_requests.c.state.in_(
    [RequestState.ASKED.value, RequestState.GRANTED.value, RequestState.PARTLY.value]
)


class Requests:
    """All requests, open and ended."""

    def __init__(self, engine: Engine) -> None:
        self._requests = Repository(engine, bandwidth_requests, BandwidthRequest)

    def ask(self, item: BandwidthRequest) -> int:
        """Adds a request; returns its number."""
        return self._requests.add(item)

    def amend(self, item: BandwidthRequest) -> None:
        """Writes what became of a request. It must have its number."""
        self._requests.amend(item, bandwidth_requests.c.id == item.id)

    def withdraw(self, number: int, now: Seconds) -> bool:
        """Ends a request before its time; False when it was not open."""
        news = {"state": RequestState.ENDED.value, "why": "withdrawn", "until": now}
        return self._requests.change(news, bandwidth_requests.c.id == number, ALIVE) > 0

    def open(self, now: Seconds) -> list[BandwidthRequest]:
        """Requests that are asked or granted and not over at `now`, oldest first."""
        return self._read((bandwidth_requests.c.until > now) & ALIVE)

    def at(self, t: Seconds) -> list[BandwidthRequest]:
        """Requests that were open at `t`, with what has become of them since, oldest first; none that was refused."""
        at = bandwidth_requests.c
        return self._read((at.asked_at <= t) & (at.until > t) & (at.state != RequestState.REFUSED.value))

    def since(self, t: Seconds) -> list[BandwidthRequest]:
        """Requests that were asked after `t`, or are not over before it, oldest first."""
        return self._read((bandwidth_requests.c.asked_at > t) | (bandwidth_requests.c.until > t))

    def _read(self, which: Condition) -> list[BandwidthRequest]:
        return self._requests.read(which, order_by=[bandwidth_requests.c.id])


class Watch:
    """A connection of its own that is asked again and again, from one thread. Close it afterwards."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._version: object = None
        self._generation: object = None

    @classmethod
    def of(cls, url: str) -> "Watch":
        """A watch on the database at `url`, which must be there. Raises StoreUnreachable."""
        return cls(connect(url))

    def changed(self) -> bool:
        """Whether the generation is another one than at the last call; so it is at the first. Raises StoreError."""
        with reported(self._engine, "watching what is wanted"):
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if not self._touched(self._connection):
                return False
            generation = self._connection.execute(select(generations.c.generation)).scalar()
            before, self._generation = self._generation, (generation,)
            return before != self._generation

    def _touched(self, connection: Connection) -> bool:
        driver: Any = connection.connection.driver_connection
        if not isinstance(driver, sqlite3.Connection):
            return True
        # A number in shared memory that every commit of anybody else changes: some microseconds, no query.
        (version,) = driver.execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        return bool(before != version)

    def close(self) -> None:
        """Ends the connection; the next call makes another."""
        if self._connection is not None:
            # Of one that is broken there is nothing left to end.
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._engine.dispose()
        self._connection = self._version = None

"""Wanted and observed state: the orchestrator says what should be, the controller says what is."""

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, and_, bindparam, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from cpdb.engine import connect, reported
from cpdb.model import Limit, Pair, Reservation, Seconds, WantedWeights
from cpdb.observed import ObservedKind, ObservedRecord, ObservedRow, Withdrawal, kinds_of, read_row
from cpdb.schema import generations, observed, reservations, wanted_splits, wanted_weights

# Tags are VLAN numbers of a range of our own; 4095 is reserved.
FIRST_TAG, LAST_TAG = 3072, 4094


@dataclass(frozen=True, slots=True)
class WantedSplit:
    """Paths from one switch to another, each with its ratio (they sum to 1) and the tag that its packets carry.

    Without an end it holds until it is replaced or removed.
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


SPLIT_COLUMNS = [wanted_splits.c[item.name] for item in fields(WantedSplit)]
Record = TypeVar("Record", bound=ObservedRecord)


class Wanted:
    """Level-triggered meeting place: nobody has to see an event, everybody can read the state again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def generation(self) -> int:
        """Number of the last change of what is wanted; equal numbers mean nothing changed."""
        with reported(self._engine, "reading the generation"), self._engine.connect() as connection:
            return connection.execute(select(generations.c.generation)).scalar() or 0

    def reserve(self, item: Reservation) -> int:
        """Adds the reservation or renews the one with the same key, which keeps its birth; returns its generation."""
        row = {
            "key": item.key,
            "source": item.pair.source,
            "virtual_ip": item.pair.virtual_ip,
            "bytes_per_s": item.bytes_per_s,
            "limits": [
                {"source": one.pair.source, "virtual_ip": one.pair.virtual_ip, "bytes_per_s": one.bytes_per_s}
                for one in item.limits
            ],
            "dscp": item.dscp,
            "owner": item.owner,
            "reason": item.reason,
            "created_at": item.created_at,
            "expires_at": item.expires_at,
        }
        alive = (reservations.c.key == item.key) & (reservations.c.expires_at > item.created_at)
        born = select(reservations.c.created_at).where(alive)
        with reported(self._engine, f"reserving {item.key}"), self._engine.begin() as connection:
            before = connection.execute(born).scalar()
            row["created_at"] = item.created_at if before is None else min(before, item.created_at)
            return _replace(connection, reservations, "key", row)

    def release(self, key: str) -> bool:
        """Withdraws a reservation before its time; False when there was none."""
        with reported(self._engine, f"releasing {key}"), self._engine.begin() as connection:
            gone = connection.execute(delete(reservations).where(reservations.c.key == key)).rowcount > 0
            if gone:
                next_generation(connection)
            return gone

    def reservations(self, now: Seconds) -> list[Reservation]:
        """Reservations that are still alive at `now`, by key."""
        query = select(reservations).where(reservations.c.expires_at > now).order_by(reservations.c.key)
        with reported(self._engine, "reading reservations"), self._engine.connect() as connection:
            return [_reservation(row._mapping) for row in connection.execute(query)]

    def forget_expired(self, now: Seconds) -> int:
        """Deletes reservations whose lease ended before `now`; returns how many."""
        with reported(self._engine, "deleting expired leases"), self._engine.begin() as connection:
            return connection.execute(delete(reservations).where(reservations.c.expires_at <= now)).rowcount

    def want_weights(self, item: WantedWeights) -> int:
        """Sets the weights wanted for a virtual IP; returns the generation."""
        row = asdict(item) | {"weights": dict(item.weights)}
        with reported(self._engine, f"weights of {item.virtual_ip}"), self._engine.begin() as connection:
            return _replace(connection, wanted_weights, "virtual_ip", row)

    def weights(self) -> list[WantedWeights]:
        """All wanted weights, by virtual IP."""
        columns = [wanted_weights.c[item.name] for item in fields(WantedWeights)]
        query = select(*columns).order_by(wanted_weights.c.virtual_ip)
        with reported(self._engine, "reading weights"), self._engine.connect() as connection:
            return [WantedWeights(*row) for row in connection.execute(query)]

    def clear(self) -> None:
        """Withdraws everything that is wanted."""
        with reported(self._engine, "clearing what is wanted"), self._engine.begin() as connection:
            connection.execute(delete(reservations))
            connection.execute(delete(wanted_weights))
            next_generation(connection)

    def observe(self, records: Sequence[ObservedRecord]) -> None:
        """Records what is observed; the newest word for each (kind, key, node) stands, a withdrawal takes it away."""
        rows = ((record, record.to_row()) for record in records)
        latest = {(row.kind, row.key, row.node): (record, row) for record, row in rows}
        same = and_(*(observed.c[name] == bindparam(f"the_{name}") for name in ("kind", "key", "node")))
        places = [{"the_kind": kind, "the_key": key, "the_node": node} for kind, key, node in latest]
        if not latest:
            return
        with reported(self._engine, "recording observed state"), self._engine.begin() as connection:
            connection.execute(delete(observed).where(same), places)
            values = [asdict(row) for record, row in latest.values() if not isinstance(record, Withdrawal)]
            if values:
                connection.execute(insert(observed), values)

    def observed(self) -> list[ObservedRecord]:
        """All observed state, by kind, key and node."""
        return _observed(self._engine, list(ObservedKind))

    def observed_of(self, record: type[Record]) -> list[Record]:
        """What is observed of one type, by kind, key and node."""
        return [item for item in _observed(self._engine, kinds_of(record)) if isinstance(item, record)]

    def put_splits(self, items: Iterable[WantedSplit], removed: Sequence[tuple[str, str]] = ()) -> int:
        """Replaces these and takes away `removed` in one step; returns the generation of all of them."""
        with reported(self._engine, "writing wanted paths"), self._engine.begin() as connection:
            generation = next_generation(connection)
            for from_switch, to_switch in removed:
                _delete_split(connection, from_switch, to_switch)
            for item in items:
                _delete_split(connection, item.from_switch, item.to_switch)
                connection.execute(insert(wanted_splits).values(_row_of_split(item) | {"generation": generation}))
            return generation

    def splits(self) -> list[WantedSplit]:
        """Everything wanted, by switches."""
        query = select(*SPLIT_COLUMNS).order_by(wanted_splits.c.from_switch, wanted_splits.c.to_switch)
        with reported(self._engine, "reading wanted paths"), self._engine.connect() as connection:
            return [_split(row._mapping) for row in connection.execute(query)]

    def clear_splits(self) -> None:
        """Withdraws all of it: everything goes the shortest way again."""
        with reported(self._engine, "clearing wanted paths"), self._engine.begin() as connection:
            if connection.execute(delete(wanted_splits)).rowcount:
                next_generation(connection)


def _observed(engine: Engine, kinds: Iterable[str]) -> list[ObservedRecord]:
    columns = [observed.c[item.name] for item in fields(ObservedRow)]
    query = select(*columns).where(observed.c.kind.in_(kinds))
    query = query.order_by(observed.c.kind, observed.c.key, observed.c.node)
    with reported(engine, "reading observed state"), engine.connect() as connection:
        return [read_row(ObservedRow(*row)) for row in connection.execute(query)]


def next_generation(connection: Connection) -> int:
    """Counts one more change of what is wanted, inside the transaction that makes it."""
    changed = connection.execute(update(generations).values(generation=generations.c.generation + 1)).rowcount
    if not changed:
        connection.execute(insert(generations).values(generation=1))
    return int(connection.execute(select(generations.c.generation)).scalar_one())


def _replace(connection: Connection, table: Table, key: str, row: dict[str, Any]) -> int:
    row["generation"] = next_generation(connection)
    connection.execute(delete(table).where(table.c[key] == row[key]))
    connection.execute(insert(table).values(row))
    return int(row["generation"])


def _reservation(row: Any) -> Reservation:
    limits = tuple(Limit(Pair(one["source"], one["virtual_ip"]), float(one["bytes_per_s"])) for one in row["limits"])
    return Reservation(
        key=row["key"],
        pair=Pair(row["source"], row["virtual_ip"]),
        bytes_per_s=row["bytes_per_s"],
        limits=limits,
        owner=row["owner"],
        reason=row["reason"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        dscp=row["dscp"],
        generation=row["generation"],
    )


def _delete_split(connection: Connection, from_switch: str, to_switch: str) -> None:
    same = (wanted_splits.c.from_switch == from_switch) & (wanted_splits.c.to_switch == to_switch)
    connection.execute(delete(wanted_splits).where(same))


def _row_of_split(item: WantedSplit) -> dict[str, Any]:
    row = {one.name: getattr(item, one.name) for one in fields(WantedSplit)}
    return row | {"paths": [list(path) for path in item.paths], "ratios": list(item.ratios), "tags": list(item.tags)}


def _split(row: Any) -> WantedSplit:
    known = dict(row)
    known["paths"] = tuple(tuple(path) for path in row["paths"])
    known["ratios"] = tuple(float(one) for one in row["ratios"])
    known["tags"] = tuple(int(one) for one in row["tags"])
    return WantedSplit(**known)


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
            found = self._connection.execute(select(generations.c.generation)).scalar()
            before, self._generation = self._generation, (found,)
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

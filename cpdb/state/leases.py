"""Who is on duty: of several processes that would do the same work, one holds the lease and the others wait."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from cpdb.engine import reported
from cpdb.model import Seconds
from cpdb.names import insert_ignore
from cpdb.schema import holders, pauses


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who holds a lease, since when without interruption, and when it ends unless it is renewed."""

    name: str
    holder: str
    since: Seconds
    expires_at: Seconds


class Leases:
    """One row a lease. Nobody has to give it back: what is not renewed ends by itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def hold(self, name: str, holder: str, now: Seconds, for_s: Seconds) -> LeaseHolder:
        """Takes the lease `name` for `for_s` seconds if it is free, expired or one's own; returns who holds it now.

        Clocks of those who compete must agree to well below `for_s`. Raises StoreError.
        """
        with reported(self._engine, f"holding {name}"), self._engine.begin() as connection:
            if not _renewed(connection, LeaseHolder(name, holder, now, now + for_s)):
                _take_if_free(connection, LeaseHolder(name, holder, now, now + for_s), now)
            row = connection.execute(select(*_COLUMNS).where(holders.c.name == name)).first()
        # None: another held it a moment ago and gave it back; the next call takes it.
        return LeaseHolder(name, "", now, now) if row is None else LeaseHolder(*row)

    def holder(self, name: str, now: Seconds) -> LeaseHolder | None:
        """Who holds the lease at `now`; None when nobody does."""
        query = select(*_COLUMNS).where(holders.c.name == name, holders.c.expires_at > now)
        with reported(self._engine, f"reading who holds {name}"), self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else LeaseHolder(*row)

    def release(self, name: str, holder: str) -> bool:
        """Gives one's own lease back before its time; False when it was another's already."""
        own = (holders.c.name == name) & (holders.c.holder == holder)
        with reported(self._engine, f"releasing {name}"), self._engine.begin() as connection:
            return connection.execute(delete(holders).where(own)).rowcount > 0


_COLUMNS = (holders.c.name, holders.c.holder, holders.c.since, holders.c.expires_at)


def _renewed(connection: Connection, one: LeaseHolder) -> bool:
    own = (holders.c.name == one.name) & (holders.c.holder == one.holder)
    return connection.execute(update(holders).where(own).values(expires_at=one.expires_at)).rowcount > 0


def _take_if_free(connection: Connection, one: LeaseHolder, now: Seconds) -> None:
    # One statement decides: of two who find it expired, the second finds it renewed.
    expired = (holders.c.name == one.name) & (holders.c.expires_at <= now)
    values: dict[str, object] = asdict(one)
    if connection.execute(update(holders).where(expired).values(values)).rowcount:
        return
    insert_ignore(connection, holders, [values])


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is to be started from `paused_at` until `ends_at`; None: until somebody says so."""

    paused_at: Seconds
    paused_by: str
    reason: str = ""
    ends_at: Seconds | None = None


PAUSE_COLUMNS = (pauses.c.paused_at, pauses.c.paused_by, pauses.c.reason, pauses.c.ends_at)


class Pauses:
    """At most one pause is in force; past ones are kept, to tell later who paused when and why."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def pause(self, item: Pause) -> None:
        """Puts a pause in force; it takes the place of one that is."""
        row = {"paused_at": item.paused_at, "paused_by": item.paused_by, "reason": item.reason, "ends_at": item.ends_at}
        with reported(self._engine, "pausing"), self._engine.begin() as connection:
            _lift(connection, item.paused_at, item.paused_by)
            connection.execute(insert(pauses), row)

    def resume(self, now: Seconds, by: str) -> Pause | None:
        """Lifts the pause; returns the one that was in force, None when there was none."""
        with reported(self._engine, "resuming"), self._engine.begin() as connection:
            found = _in_force(connection, now)
            _lift(connection, now, by)
            return found

    def in_force(self, now: Seconds) -> Pause | None:
        """The pause in force at `now`, or None."""
        with reported(self._engine, "reading the kill switch"), self._engine.connect() as connection:
            return _in_force(connection, now)


def _open(now: Seconds) -> Any:
    return pauses.c.resumed_at.is_(None) & (pauses.c.ends_at.is_(None) | (pauses.c.ends_at > now))


def _in_force(connection: Connection, now: Seconds) -> Pause | None:
    row = connection.execute(select(*PAUSE_COLUMNS).where(_open(now)).order_by(pauses.c.id.desc()).limit(1)).first()
    return None if row is None else Pause(*row)


def _lift(connection: Connection, now: Seconds, by: str) -> None:
    connection.execute(update(pauses).where(_open(now)).values(resumed_at=now, resumed_by=by))

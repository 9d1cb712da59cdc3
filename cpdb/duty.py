"""Who is on duty: of several processes that would do the same work, one holds the lease and the others wait."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Engine, delete, select, update

from cpdb.engine import reported
from cpdb.names import insert_ignore
from cpdb.records import Seconds
from cpdb.schema import holders


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease, since when without interruption, and when it ends unless it is renewed."""

    name: str
    holder: str
    since: Seconds
    expires_at: Seconds


class Duty:
    """One row a lease. Nobody has to give it back: what is not renewed ends by itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def hold(self, name: str, holder: str, now: Seconds, for_s: Seconds) -> Holder:
        """Takes the lease `name` for `for_s` seconds if it is free, expired or one's own; returns who holds it now.

        Clocks of those who compete must agree to well below `for_s`. Raises StoreError.
        """
        with reported(self._engine, f"holding {name}"), self._engine.begin() as connection:
            if not _renewed(connection, Holder(name, holder, now, now + for_s)):
                _take_if_free(connection, Holder(name, holder, now, now + for_s), now)
            row = connection.execute(select(*_COLUMNS).where(holders.c.name == name)).first()
        # None: another held it a moment ago and gave it back; the next call takes it.
        return Holder(name, "", now, now) if row is None else Holder(*row)

    def holder(self, name: str, now: Seconds) -> Holder | None:
        """Who holds the lease at `now`; None when nobody does."""
        query = select(*_COLUMNS).where(holders.c.name == name, holders.c.expires_at > now)
        with reported(self._engine, f"reading who holds {name}"), self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else Holder(*row)

    def release(self, name: str, holder: str) -> bool:
        """Gives one's own lease back before its time; False when it was another's already."""
        own = (holders.c.name == name) & (holders.c.holder == holder)
        with reported(self._engine, f"releasing {name}"), self._engine.begin() as connection:
            return connection.execute(delete(holders).where(own)).rowcount > 0


_COLUMNS = (holders.c.name, holders.c.holder, holders.c.since, holders.c.expires_at)


def _renewed(connection: Connection, one: Holder) -> bool:
    own = (holders.c.name == one.name) & (holders.c.holder == one.holder)
    return connection.execute(update(holders).where(own).values(expires_at=one.expires_at)).rowcount > 0


def _take_if_free(connection: Connection, one: Holder, now: Seconds) -> None:
    # One statement decides: of two who find it expired, the second finds it renewed.
    expired = (holders.c.name == one.name) & (holders.c.expires_at <= now)
    values: dict[str, object] = asdict(one)
    if connection.execute(update(holders).where(expired).values(values)).rowcount:
        return
    insert_ignore(connection, holders, [values])

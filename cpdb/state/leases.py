"""Who may act: of processes that would do the same work one holds the lease, and a person may pause them all."""

from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, Engine, Float, func, select

from cpdb.engine import reported
from cpdb.errors import StoreRefused
from cpdb.model import Seconds
from cpdb.repository import Condition, Repository, insert_ignore, transaction
from cpdb.schema import holders, pauses


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who holds a lease, since when without interruption, and when it ends unless it is renewed.

    `token` is larger for every tenure that begins later, in milliseconds: who shows an older one is refused.
    """

    name: str
    holder: str
    since: Seconds
    expires_at: Seconds
    token: int = 0

    @classmethod
    def begin(cls, name: str, holder: str, now: Seconds, for_s: Seconds) -> "LeaseHolder":
        """A tenure that begins now."""
        return cls(name, holder, now, now + for_s, int(now * 1000))


def database_clock(engine: Engine) -> ColumnElement[float]:
    """The database's own time in seconds since 1970: the one clock that all who compete for a lease share."""
    if engine.dialect.name == "postgresql":
        return func.extract("epoch", func.clock_timestamp()).cast(Float)
    return (func.julianday("now", type_=Float) - 2440587.5) * 86400.0


@dataclass(slots=True)
class Fence:
    """In which tenure of a lease its holder acts; what comes of an earlier one is refused where it would be written.

    Without a lease nothing is refused.
    """

    lease: str = ""
    holder: str = ""
    token: int = 0

    def confirm(self, engine: Engine) -> None:
        """Raises StoreRefused when another may act by now."""
        with transaction(engine, "looking at a tenure") as connection:
            self.check(connection)

    def check(self, connection: Connection) -> None:
        """Raises StoreRefused when the tenure is over; until this transaction ends, it cannot end."""
        if not self.lease:
            return
        mine = holders.c.name == self.lease, holders.c.holder == self.holder, holders.c.token == self.token
        if connection.execute(select(holders.c.token).where(*mine).with_for_update(read=True)).first() is None:
            raise StoreRefused(f"another has the lease {self.lease} by now: nothing is done any more by {self.holder}")


class Leases:
    """One row a lease. Nobody has to give it back: what is not renewed ends by itself."""

    def __init__(self, engine: Engine) -> None:
        self._holders = Repository(engine, holders, LeaseHolder)

    def now(self) -> Seconds:
        """The database's clock. Raises StoreError."""
        engine = self._holders.engine
        with reported(engine, "reading its clock"), engine.connect() as connection:
            return float(connection.execute(select(database_clock(engine))).scalar_one())

    def hold(self, name: str, holder: str, now: Seconds, for_s: Seconds) -> LeaseHolder:
        """Takes the lease `name` for `for_s` seconds if it is free, expired or one's own; returns who holds it now.

        Clocks of those who compete must agree to well below `for_s`. Raises StoreError.
        """
        wanted = LeaseHolder.begin(name, holder, now, for_s)
        with transaction(self._holders.engine, f"holding {name}") as connection:
            renewed = {"expires_at": wanted.expires_at}
            if not self._holders.change(renewed, *_same(name, holder), within=connection):
                self._take_if_free(connection, wanted, now)
            holding = self._holders.read_first(holders.c.name == name, within=connection)
        # None: another held it a moment ago and gave it back; the next call takes it.
        return holding or LeaseHolder(name, "", now, now)

    def _take_if_free(self, connection: Connection, wanted: LeaseHolder, now: Seconds) -> None:
        # One statement decides: of two who find it expired, the second finds it renewed.
        expired = (holders.c.name == wanted.name) & (holders.c.expires_at <= now)
        if not self._holders.change(asdict(wanted), expired, within=connection):
            insert_ignore(connection, holders, [asdict(wanted)])

    def holder(self, name: str, now: Seconds) -> LeaseHolder | None:
        """Who holds the lease at `now`; None when nobody does."""
        return self._holders.read_first(holders.c.name == name, holders.c.expires_at > now)

    def release(self, name: str, holder: str) -> bool:
        """Gives one's own lease back before its time; False when it was another's already."""
        return self._holders.delete(*_same(name, holder)) > 0


def _same(name: str, holder: str) -> tuple[Condition, ...]:
    return holders.c.name == name, holders.c.holder == holder


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is to be started from `paused_at` until `ends_at`; None: until somebody says so."""

    paused_at: Seconds
    paused_by: str
    reason: str = ""
    ends_at: Seconds | None = None


class Pauses:
    """The kill switch, valid on every machine and through every restart.

    At most one pause is in force; past ones are kept, to tell later who paused when and why.
    """

    def __init__(self, engine: Engine) -> None:
        self._pauses = Repository(engine, pauses, Pause)

    def pause(self, item: Pause) -> None:
        """Puts a pause in force; it takes the place of one that is."""
        with transaction(self._pauses.engine, "pausing") as connection:
            self._lift(connection, item.paused_at, item.paused_by)
            self._pauses.add(item, within=connection)

    def resume(self, now: Seconds, by: str) -> Pause | None:
        """Lifts the pause; returns the one that was in force, None when there was none."""
        with transaction(self._pauses.engine, "resuming") as connection:
            lifted = self._pauses.read_first(_in_force(now), order_by=[pauses.c.id.desc()], within=connection)
            self._lift(connection, now, by)
        return lifted

    def in_force(self, now: Seconds) -> Pause | None:
        """The pause in force at `now`, or None."""
        return self._pauses.read_first(_in_force(now), order_by=[pauses.c.id.desc()])

    def at(self, t: Seconds) -> Pause | None:
        """The pause that was in force at `t`, as it was made, or None."""
        ended = pauses.c.ends_at.is_not(None) & (pauses.c.ends_at <= t)
        lifted = pauses.c.resumed_at.is_not(None) & (pauses.c.resumed_at <= t)
        return self._pauses.read_first(pauses.c.paused_at <= t, ~ended, ~lifted, order_by=[pauses.c.id.desc()])

    def _lift(self, connection: Connection, now: Seconds, by: str) -> None:
        self._pauses.change({"resumed_at": now, "resumed_by": by}, _in_force(now), within=connection)


def _in_force(now: Seconds) -> Condition:
    return pauses.c.resumed_at.is_(None) & (pauses.c.ends_at.is_(None) | (pauses.c.ends_at > now))

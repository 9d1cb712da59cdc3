"""The kill switch: a person's word that nothing is to be started, valid on every machine and through every restart."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from cpdb.engine import reported
from cpdb.records import Seconds
from cpdb.schema import pauses


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is to be started from `paused_at` until `ends_at`; None: until somebody says so."""

    paused_at: Seconds
    paused_by: str
    reason: str = ""
    ends_at: Seconds | None = None


COLUMNS = (pauses.c.paused_at, pauses.c.paused_by, pauses.c.reason, pauses.c.ends_at)


class Brake:
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
    row = connection.execute(select(*COLUMNS).where(_open(now)).order_by(pauses.c.id.desc()).limit(1)).first()
    return None if row is None else Pause(*row)


def _lift(connection: Connection, now: Seconds, by: str) -> None:
    connection.execute(update(pauses).where(_open(now)).values(resumed_at=now, resumed_by=by))

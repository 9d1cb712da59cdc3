"""Notices at once, and for next to nothing, that something else is wanted than a moment ago."""

import contextlib
import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from cpdb.engine import connect, reported
from cpdb.schema import generations


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

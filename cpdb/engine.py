"""Opens the database: one URL, SQLite in WAL mode by default, PostgreSQL by changing the URL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cpdb.errors import StoreError, StoreOutdated, StoreUnreachable

# A writer may hold the file for a while on a busy disk; others wait instead of failing.
SQLITE_BUSY_S = 10.0


def connect(url: str) -> Engine:
    """An engine for `url`; nothing is opened yet. Raises StoreUnreachable when the URL makes no sense."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            # psycopg 3 is the driver that ships; users should not have to name it.
            return create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        engine = create_engine(parsed, connect_args={"timeout": SQLITE_BUSY_S})
    except (ArgumentError, SQLAlchemyError, ImportError, ValueError) as error:
        # The URL may hold a password: only its beginning is shown.
        raise StoreUnreachable(
            f"database URL {url.split('@', maxsplit=1)[0].split(':', maxsplit=1)[0]!r}...: {error}; "
            "write sqlite:///FILE.db or postgresql://USER@HOST/NAME"
        ) from error
    event.listen(engine, "connect", _tune_sqlite)
    return engine


def _tune_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # WAL lets the readers of three processes go on while a fourth writes. NORMAL may lose the last
    # commits at a power cut, never the file.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def reported(engine: Engine, doing: str) -> Iterator[None]:
    """Turns a driver's error into one StoreError line that says what was being done, and where."""
    try:
        yield
    except SQLAlchemyError as error:
        where = engine.url.render_as_string(hide_password=True)
        text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        kind = StoreUnreachable if getattr(error, "connection_invalidated", False) else StoreError
        raise kind(f"database {where}: {doing}: {text}") from error


def _alembic(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def migrate(engine: Engine) -> None:
    """Brings the schema to this program's version; creates it in an empty database."""
    where = engine.url.render_as_string(hide_password=True)
    try:
        command.upgrade(_alembic(engine), "head")
    except SQLAlchemyError as error:
        text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StoreUnreachable(
            f"database {where}: {text}; check that its folder or server exists and is writable"
        ) from error
    except CommandError as error:
        # The schema names a migration that this program has never heard of.
        raise StoreOutdated(f"database {where}: {error}; it was made by a newer forepath, use that one") from error


def check_version(engine: Engine) -> None:
    """Raises StoreOutdated when the schema is not the one that this program was written for."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if file and file != ":memory:" and Path(file).parent.is_dir() and not Path(file).exists():
        # Connecting would leave an empty file behind.
        raise StoreOutdated(f"database {file}: there is none yet; forepath run, predict or orchestrate makes it")
    with reported(engine, "reading the schema version"), engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    wanted = ScriptDirectory.from_config(_alembic(engine)).get_current_head()
    if found != wanted:
        where = engine.url.render_as_string(hide_password=True)
        raise StoreOutdated(
            f"database {where}: schema {found or 'missing'}, this program needs {wanted}; "
            "any forepath command that writes brings it up to date, e.g. forepath run"
        )

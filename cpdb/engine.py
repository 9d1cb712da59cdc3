"""Opens the database: one URL, SQLite in WAL mode by default, PostgreSQL by changing the URL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from cpdb.errors import StoreError, StoreOutdated, StoreUnreachable

# A writer may hold the file for a while on a busy disk; others wait instead of failing.
SQLITE_BUSY_S = 10.0
# A server that does not answer must be known to be away before its clients' queues are full.
POSTGRES_LIMITS = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
# PostgreSQL's own words for going down, and class 08: the connection broke.
AWAY_STATES = ("57P01", "57P02", "57P03", "08")
READ_ONLY_OPTION = "-c default_transaction_read_only=on"


def connect(url: str, read_only: bool = False) -> Engine:
    """An engine for `url`; nothing is opened yet. Raises StoreUnreachable when the URL makes no sense.

    With `read_only` the database itself refuses every change, and no file is made where there is none.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            # psycopg 3 is the driver that ships; users should not have to name it.
            limits = {key: value for key, value in POSTGRES_LIMITS.items() if key not in parsed.query}
            parsed = parsed.set(drivername="postgresql+psycopg")
            refusing: dict[str, Any] = {"options": READ_ONLY_OPTION} if read_only else {}
            return create_engine(parsed, pool_pre_ping=True, connect_args=limits | refusing)
        if read_only and parsed.database not in (None, "", ":memory:"):
            parsed = parsed.set(database=f"file:{quote(str(parsed.database))}", query={"mode": "ro", "uri": "true"})
        engine = create_engine(parsed, connect_args={"timeout": SQLITE_BUSY_S})
    except (ArgumentError, SQLAlchemyError, ImportError, ValueError) as error:
        # The URL may hold a password: only its beginning is shown.
        raise StoreUnreachable(
            f"database URL {url.split('@', maxsplit=1)[0].split(':', maxsplit=1)[0]!r}...: {error}; "
            "write sqlite:///FILE.db or postgresql://USER@HOST/NAME"
        ) from error
    event.listen(engine, "connect", _ask_only if read_only else _tune_sqlite)
    return engine


def _tune_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # WAL lets the readers of three processes go on while a fourth writes. NORMAL may lose the last
    # commits at a power cut, never the file.
    # auto_vacuum counts only in an empty file: freed pages can be given back to the disk later.
    for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _ask_only(connection: sqlite3.Connection, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON")


@contextmanager
def reported(engine: Engine, doing: str) -> Iterator[None]:
    """Turns a driver's error into one StoreError line that says what was being done, and where."""
    try:
        yield
    except SQLAlchemyError as error:
        where = _shown(engine)
        text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        kind = StoreUnreachable if _away(engine, error) else StoreError
        raise kind(f"database {where}: {doing}: {text}") from error


def _shown(engine: Engine) -> str:
    """Where the database is, for people."""
    file = database_file(engine) if "uri" in engine.url.query else None
    return f"sqlite:///{file}" if file else engine.url.render_as_string(hide_password=True)


def _away(engine: Engine, error: SQLAlchemyError) -> bool:
    if getattr(error, "connection_invalidated", False):
        return True
    if engine.dialect.name != "postgresql" or not isinstance(error, OperationalError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state is None or str(state).startswith(AWAY_STATES)


def _alembic(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def migrate(engine: Engine) -> None:
    """Brings the schema to this program's version; creates it in an empty database."""
    where = _shown(engine)
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


def versions(engine: Engine) -> tuple[str | None, str]:
    """The schema's version in the database (None: there is none) and the one that this program needs."""
    present = None
    if not _file_is_missing(engine):
        with reported(engine, "reading the schema version"), engine.connect() as connection:
            present = MigrationContext.configure(connection).get_current_revision()
    return present, str(ScriptDirectory.from_config(_alembic(engine)).get_current_head())


def _file_is_missing(engine: Engine) -> bool:
    # Connecting would leave an empty file behind.
    file = database_file(engine)
    return bool(file and file.parent.is_dir() and not file.exists())


def database_file(engine: Engine) -> Path | None:
    """The file that holds the database; None for a server and for one in memory."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    return Path(unquote(file.removeprefix("file:"))) if file and file != ":memory:" else None


def check_version(engine: Engine) -> None:
    """Raises StoreOutdated when the schema is not the one that this program was written for."""
    if _file_is_missing(engine):
        raise StoreOutdated(f"database {database_file(engine)}: there is none yet; forepath db init makes it")
    present, wanted = versions(engine)
    if present != wanted:
        where = _shown(engine)
        raise StoreOutdated(
            f"database {where}: schema {present or 'missing'}, this program needs {wanted}; "
            "forepath db migrate brings it up to date"
        )

"""Opens the database: one URL, SQLite in WAL mode by default, PostgreSQL by changing the URL."""

import os
import re
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
from sqlalchemy import URL, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)

from cpdb.errors import StoreError, StoreForbidden, StoreOutdated, StoreRefused, StoreUnreachable
from cpdb.schema import metadata

# A writer may hold the file for a while on a busy disk; others wait instead of failing.
SQLITE_BUSY_S = 10.0
# A server that does not answer must be known to be away before its clients' queues are full.
POSTGRES_LIMITS = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
# With several servers, one that is gone must not cost more than the others have time.
SEVERAL_LIMITS = {"connect_timeout": 2}
WRITABLE = "read-write"
_SEVERAL = re.compile(r"(postgresql(?:\+\w+)?://(?:[^/?#]*@)?)([^/?#@]+,[^/?#@]+)(/[^?#]*)?(?:\?(.*))?")
# Whatever encoding the database has: without it, one in SQL_ASCII would speak in bytes.
POSTGRES_SPEAKS = {"client_encoding": "utf8"}
# Tables that older versions had.
OLD_TABLES = ("communications", "forecasts", "talks")
# PostgreSQL's own words for going down, and class 08: the connection broke.
AWAY_STATES = ("57P01", "57P02", "57P03", "08")
READ_ONLY_STATE, FORBIDDEN_STATE = "25006", "42501"
READ_ONLY_OPTION = "-c default_transaction_read_only=on"


def spread_hosts(url: str) -> str:
    """A PostgreSQL URL with several hosts, as libpq writes it, in the form that SQLAlchemy reads; others as they are.

    postgresql://USER@A:5432,B:5433/NAME -> postgresql://USER@/NAME?host=A:5432&host=B:5433, and only a server that can
    be written to is taken: who is a standby now may be the primary in a moment. Raises ValueError.
    """
    found = _SEVERAL.fullmatch(url)
    if found is None:
        return url
    begin, hosts, end, query = found.groups(default="")
    if "[" in hosts:
        raise ValueError("several hosts cannot be IPv6 addresses in brackets; write names")
    told = [f"host={one if ':' in one else f'{one}:5432'}" for one in hosts.split(",")]
    told += [query] if query else []
    told += [] if "target_session_attrs" in query else [f"target_session_attrs={WRITABLE}"]
    return f"{begin}{end or '/'}?{'&'.join(told)}"


def connect(url: str, read_only: bool = False) -> Engine:
    """An engine for `url`; nothing is opened yet. Raises StoreUnreachable when the URL makes no sense.

    With `read_only` the database itself refuses every change, and no file is made where there is none.
    """
    try:
        parsed = make_url(spread_hosts(url))
        if parsed.get_backend_name() == "postgresql":
            return _connect_postgres(parsed, read_only)
        if read_only and "uri" not in parsed.query and parsed.database not in (None, "", ":memory:"):
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


def _connect_postgres(url: URL, read_only: bool) -> Engine:
    several = "target_session_attrs" in url.query
    given = POSTGRES_LIMITS | POSTGRES_SPEAKS | (SEVERAL_LIMITS if several else {})
    told: dict[str, Any] = {key: value for key, value in given.items() if key not in url.query}
    if read_only:
        told["options"] = READ_ONLY_OPTION
        if url.query.get("target_session_attrs") == WRITABLE:
            # Our own option makes a session read-only: the server is known by not being a standby.
            told["target_session_attrs"] = "primary"
    # psycopg 3 is the driver that ships; users should not have to name it.
    engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args=told)
    event.listen(engine, "handle_error", _leave_demoted)
    return engine


def _leave_demoted(context: ExceptionContext) -> None:
    # A server that has become a standby answers well, and takes nothing: its connections are worth nothing any more.
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY_STATE:
        context.is_disconnect = True


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
    except (SQLAlchemyError, OverflowError, UnicodeError) as error:
        where = _shown(engine)
        said = (str(getattr(error, "orig", None) or error).strip() or repr(error)).splitlines()[0]
        raise _kind_of(engine, error)(f"database {where}: {doing}: {said}") from error


def _kind_of(engine: Engine, error: Exception) -> type[StoreError]:
    if _away(engine, error):
        return StoreUnreachable
    if getattr(getattr(error, "orig", None), "sqlstate", None) == FORBIDDEN_STATE:
        return StoreForbidden
    return StoreRefused if _refused(error) else StoreError


def _refused(error: Exception) -> bool:
    """Whether it is about what was to be written, and something else could be."""
    if isinstance(error, OverflowError | UnicodeError | DataError | IntegrityError):
        return True
    # A value that could not even be handed to the driver
    return isinstance(error, StatementError) and not isinstance(error, DBAPIError)


def _shown(engine: Engine) -> str:
    """Where the database is, for people."""
    file = database_file(engine) if "uri" in engine.url.query else None
    return f"sqlite:///{file}" if file else engine.url.render_as_string(hide_password=True)


def _away(engine: Engine, error: Exception) -> bool:
    if getattr(error, "connection_invalidated", False):
        # Also by a server that has become a standby
        return True
    if not isinstance(error, OperationalError):
        return False
    if engine.dialect.name != "postgresql":
        return getattr(error.orig, "sqlite_errorname", None) == "SQLITE_CANTOPEN"
    state = getattr(error.orig, "sqlstate", None)
    return state is None or str(state).startswith(AWAY_STATES)


def _alembic(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def migrate(engine: Engine) -> None:
    """Brings the schema to this program's version; creates it in an empty database.

    Raises StoreError before anything is made where another program has tables of the same names.
    """
    where = _shown(engine)
    if problem := _foreign(engine):
        raise StoreError(f"database {where}: {problem}")
    try:
        command.upgrade(_alembic(engine), "head")
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StoreUnreachable(
            f"database {where}: {said}; check that its folder or server exists and is writable"
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


def _foreign(engine: Engine) -> str | None:
    """Why our tables cannot be made here: their names are taken, and not by us."""
    if _file_is_missing(engine) or (engine.dialect.name == "sqlite" and database_file(engine) is None):
        return None
    # Not even its way of writing is changed for a look.
    reader = connect(engine.url.render_as_string(hide_password=False), read_only=True)
    try:
        if versions(reader)[0] is not None:
            return None
        with reported(engine, "looking for tables"):
            taken = sorted({*inspect(reader).get_table_names()} & {*metadata.tables, *OLD_TABLES})
    finally:
        reader.dispose()
    if not taken:
        return None
    return f"another program's tables are there ({', '.join(taken[:4])}); name another database, it is left as it is"


def database_problem(url: str) -> str | None:
    """One line about a database that could not be made or used as it is, None when nothing is wrong; makes nothing."""
    engine = connect(url, read_only=True)
    try:
        problem = _unwritable(engine) or _foreign(engine) or _newer(engine) or _narrow(engine)
    finally:
        engine.dispose()
    return problem and f"database {_shown(engine)}: {problem}"


def _unwritable(engine: Engine) -> str | None:
    if engine.dialect.name == "postgresql":
        present, wanted = versions(engine)
        with reported(engine, "looking at rights"), engine.connect() as connection:
            may = connection.execute(text("SELECT has_schema_privilege(current_schema(), 'CREATE')")).scalar()
        need = "GRANT CREATE, USAGE ON SCHEMA public TO this user"
        return None if may or present == wanted else f"this user may make no tables here; {need}"
    file = database_file(engine)
    if file is None:
        return None
    if file.is_dir():
        return f"{file} is a folder; name a file in it, e.g. sqlite:///{file}/forepath.db"
    folder = file.absolute().parent
    if not folder.is_dir():
        return f"there is no folder {folder}; make it, or name another file"
    # Beside the file, SQLite makes two more while it writes.
    closed = next((path for path in (file, folder) if path.exists() and not os.access(path, os.W_OK)), None)
    return None if closed is None else f"{closed} cannot be written; change its rights, or name another file"


def _newer(engine: Engine) -> str | None:
    present, _ = versions(engine)
    try:
        ScriptDirectory.from_config(_alembic(engine)).get_revision(present or "base")
    except CommandError:
        return f"schema {present} is unknown here: it was made by a newer forepath, use that one"
    return None


def _narrow(engine: Engine) -> str | None:
    """What of names a PostgreSQL database cannot hold; SQL_ASCII keeps all bytes as they come."""
    if engine.dialect.name != "postgresql":
        return None
    with reported(engine, "looking at the encoding"), engine.connect() as connection:
        encoding = str(connection.execute(text("SHOW server_encoding")).scalar())
    if encoding in ("UTF8", "SQL_ASCII"):
        return None
    return f"its encoding is {encoding}: names in other letters are left out; make one with ENCODING 'UTF8'"


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

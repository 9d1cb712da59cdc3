"""Copies of the whole database: taken while everything goes on, checked, and put back."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Engine, func, select

from cpdb.engine import check_version, connect, database_file, reported, versions
from cpdb.errors import StoreError
from cpdb.model import Seconds
from cpdb.roles import VERSION, VIEW
from cpdb.schema import batches, holders, metadata

# Whoever wrote in so many seconds is at work.
AT_WORK_S = 10.0
_PAGES = 4096


def back_up(url: str, target: Path) -> int:
    """Writes a copy of the database as it is at one moment; returns its size in bytes. Others go on meanwhile.

    SQLite: a database file, checked. PostgreSQL: the custom format of pg_dump. A file of that name is replaced when
    the new copy is whole, and never before. Raises StoreError.
    """
    engine = connect(url)
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        check_version(engine)
        new.touch(mode=0o600)
        if (file := _sqlite_file(engine)) is not None:
            _copy_sqlite(file, new)
        else:
            _run(["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={new}"], engine.url)
            _run(["pg_restore", "--list", str(new)], None)
        new.replace(target)
    except OSError as error:
        raise StoreError(f"backup {target}: {error.strerror or error}") from error
    finally:
        new.unlink(missing_ok=True)
        engine.dispose()
    return target.stat().st_size


def restore(url: str, source: Path, replace: bool, now: Seconds) -> str | None:
    """Puts a copy back; returns its schema's version, which may be older than this program's.

    A database that holds something is left as it is unless `replace`, and always while processes are at work. What
    fails leaves everything as it was. Raises StoreError.
    """
    if not source.is_file():
        raise StoreError(f"backup {source}: there is no such file")
    engine = connect(url)
    try:
        if versions(engine)[0] is not None:
            _check_rest(engine, now)
            if not replace:
                raise StoreError(f"database {_shown(engine)}: holds something; --replace puts the copy in its place")
        if (file := _sqlite_file(engine)) is not None:
            _restore_sqlite(source, file)
        else:
            _restore_postgres(source, engine.url)
        return versions(engine)[0]
    finally:
        engine.dispose()


def _check_rest(engine: Engine, now: Seconds) -> None:
    if versions(engine)[0] != versions(engine)[1]:
        return
    with reported(engine, "looking who is at work"), engine.connect() as connection:
        on_duty = connection.execute(holders.select().where(holders.c.expires_at > now)).first()
        newest = connection.execute(select(func.max(batches.c.t))).scalar()
    if on_duty is not None or (newest is not None and now - float(newest) < AT_WORK_S):
        raise StoreError(f"database {_shown(engine)}: processes are at work on it; stop them first")


def _shown(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)


def _sqlite_file(engine: Engine) -> Path | None:
    if engine.dialect.name != "sqlite":
        return None
    file = database_file(engine)
    if file is None:
        raise StoreError("a database in memory has no copies; name a file")
    return file


def _copy_sqlite(file: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            # In portions: writers wait for none of them.
            source.backup(copy, pages=_PAGES)
            copy.execute("PRAGMA journal_mode=DELETE")
            _check_sqlite(copy, file)
    except sqlite3.Error as error:
        raise StoreError(f"backup {target}: {error}") from error


def _restore_sqlite(source: Path, file: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as copy:
            _check_sqlite(copy, source)
            if not copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
                raise StoreError(f"backup {source}: is no database of forepath")
            # As one transaction on the file that is there: whoever still reads it sees all or nothing of the copy.
            with closing(sqlite3.connect(file, timeout=5)) as target:
                copy.backup(target)
                target.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise StoreError(f"backup {source}: {error}") from error


def _restore_postgres(source: Path, url: URL) -> None:
    # The copy as statements first: one that is damaged is known before anything is touched. pg_restore's own way to
    # make room, --clean, cannot drop partitioned tables.
    with tempfile.TemporaryDirectory(prefix="forepath-restore-") as folder:
        room, script = Path(folder) / "room.sql", Path(folder) / "copy.sql"
        tables = ", ".join((*metadata.tables, VERSION))
        room.write_text(f"DROP VIEW IF EXISTS {VIEW};\nDROP TABLE IF EXISTS {tables};\n", encoding="utf-8")
        _run(["pg_restore", "--no-owner", "--no-privileges", f"--file={script}", str(source)], None)
        whole = ["--single-transaction", "--set=ON_ERROR_STOP=1", "--no-psqlrc", "--quiet"]
        _run(["psql", *whole, f"--file={room}", f"--file={script}"], url)


def _check_sqlite(connection: sqlite3.Connection, file: Path) -> None:
    (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise StoreError(f"database {file}: is damaged: {said}")


def _run(argv: Sequence[str], url: URL | None) -> None:
    """Runs one of PostgreSQL's programs; the password is in its environment, where no list of processes shows it."""
    if shutil.which(argv[0]) is None:
        raise StoreError(f"{argv[0]} is not installed; the package postgresql-client brings it")
    environment = dict(os.environ)
    words = list(argv)
    if url is not None:
        words.append(f"--dbname={_conninfo(url)}")
        if password := url.password or url.query.get("password"):
            environment["PGPASSWORD"] = str(password)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = next(
            (line for line in done.stderr.splitlines() if "ERROR" in line or "error" in line), done.stderr[:200]
        )
        raise StoreError(f"{argv[0]} ended with {done.returncode}: {said}")


def _conninfo(url: URL) -> str:
    values: dict[str, object] = {}
    hosts = url.query.get("host", ())
    places = [hosts] if isinstance(hosts, str) else list(hosts)
    if places:
        values["host"] = ",".join(one.rpartition(":")[0] or one for one in places)
        values["port"] = ",".join(one.rpartition(":")[2] if ":" in one else "5432" for one in places)
    else:
        values |= {"host": url.host, "port": url.port}
    values |= {"user": url.username, "dbname": url.database}
    values |= {name: value for name, value in url.query.items() if name not in ("host", "password")}
    return " ".join(f"{name}='{_quoted(value)}'" for name, value in values.items() if value is not None)


def _quoted(value: object) -> str:
    return str(value).replace("\\", r"\\").replace("'", r"\'")

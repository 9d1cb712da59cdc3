"""Stores to test against: a fresh SQLite file, and a fresh database on a real PostgreSQL server."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from cpdb import Store, open_store

SERVER_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_postgres(argv: list[str]) -> list[str]:
    # PostgreSQL refuses to run as root.
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv] if os.geteuid() == 0 else argv


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a server's superuser database; the server listens on loopback and ends with the session."""
    if not SERVER_PROGRAMS:
        pytest.skip("no PostgreSQL server programs here; deploy/system-packages.sh installs them")
    programs = SERVER_PROGRAMS[-1].parent
    home = Path(tempfile.mkdtemp(prefix="forepath-postgres-"))
    port = _free_port()
    try:
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")
        data = home / "data"
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "forepath", "--auth=trust", "--no-sync"]
        subprocess.run(_as_postgres(initdb), check=True, capture_output=True, cwd="/", timeout=120)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
        control = [str(programs / "pg_ctl"), "-D", str(data), "-w"]
        start = [*control, "-l", str(home / "log"), "-o", options, "start"]
        subprocess.run(_as_postgres(start), check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120)
        try:
            yield f"postgresql://forepath@127.0.0.1:{port}/postgres"
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(_as_postgres(stop), check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database on each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cpdb.db"
    server = str(request.getfixturevalue("postgres_url"))
    name = f"t{uuid.uuid4().hex}"
    admin = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return server.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store on each engine in turn."""
    opened = open_store(url)
    yield opened
    opened.close()

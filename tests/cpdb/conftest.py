"""Stores to test against: a fresh SQLite file, and a fresh database on a real PostgreSQL server."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from cpdb import Store, open_store
from tools.lab.postgres import private_postgres, why_not


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a server's superuser database; the server listens on loopback and ends with the session."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with private_postgres() as server:
        yield server.url


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

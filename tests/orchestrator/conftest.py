"""A fresh database for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cpdb import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty SQLite store."""
    opened = open_store(f"sqlite:///{tmp_path / 'forepath.db'}")
    yield opened
    opened.close()

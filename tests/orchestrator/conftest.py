"""A fresh database for each test, and quiet logs."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from cpdb import Store, open_store


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty SQLite store."""
    opened = open_store(f"sqlite:///{tmp_path / 'forepath.db'}")
    yield opened
    opened.close()

"""Keeps numeric libraries from fighting over cores: these tests fit small models."""

import pytest

from predictor.service.workers import use_one_thread


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As in the predictor's own processes."""
    use_one_thread()

"""What several tests of the demo need."""

from pathlib import Path

import pytest


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "file.jsonl"

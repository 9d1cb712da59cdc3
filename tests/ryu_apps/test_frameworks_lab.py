"""On real switches, on the framework that the other tests do not run on: the mirror beside somebody's application."""

from pathlib import Path

import pytest
from test_frameworks import INSTALLED, on

from ryu_apps import framework_name

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(len(INSTALLED) < 2, reason="only one framework is installed"),
]


def test_the_mirror_works_on_the_other_framework(tmp_path: Path) -> None:
    other = next(name for name in INSTALLED if name != framework_name())
    words = (
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path}/other",
        "tests/ryu_apps/test_flow_mirror_lab.py",
    )
    done = on(other, "-m", "pytest", *words)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]

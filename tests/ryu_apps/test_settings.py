"""Wrong settings are refused at the door, in one line that names every problem."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MANAGER = Path(sys.executable).with_name("ryu-manager")


def refused(directory: Path, text: str, **environment: str) -> str:
    file = directory / "ryu.conf"
    file.write_text(f"[forepath]\n{text}\n")
    done = subprocess.run(
        [str(MANAGER), "--config-file", str(file), "ryu_apps.controller"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=directory,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    line = refused(tmp_path, "polls = 1\npoll_s = often\nfirst_meter = 0")
    assert "polls is no setting" in line
    assert "poll_s" in line
    assert "first_meter" in line


@pytest.mark.parametrize("url", ["nonsense", "://"])
def test_a_database_url_that_makes_no_sense_is_refused(tmp_path: Path, url: str) -> None:
    assert "sqlite:///FILE.db" in refused(tmp_path, "", FOREPATH_DATABASE_URL=url)

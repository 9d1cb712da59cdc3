"""Wrong settings are refused at the door, in one line that names every problem."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpdb import SettingsError
from ryu_apps.settings import Settings, agents, state_directory
from ryu_apps.telemetry.sflow import bound

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


@pytest.mark.parametrize(
    ("listen", "names", "word"),
    [
        ("", "leaf1", "NAME=ADDRESS"),
        ("", "leaf1=nowhere", "nowhere"),
        ("", "leaf1=127.0.0.1, leaf2=127.0.0.1", "of its own"),
        ("127.0.0.1:6343", "", "sflow_agents"),
        ("6343", "leaf1=", "NAME=ADDRESS"),
    ],
)
def test_who_may_send_samples_is_checked(listen: str, names: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        agents(Settings(sflow_listen=listen, sflow_agents=names))


def test_samples_are_received_only_where_this_machine_is() -> None:
    assert agents(Settings(sflow_agents="leaf1=127.0.0.1, leaf2 = ::1")) == {"127.0.0.1": "leaf1", "::1": "leaf2"}
    with pytest.raises(SettingsError, match="an address of this machine"):
        bound("192.0.2.77:6343")
    with bound("127.0.0.1:0") as receiver:
        assert receiver.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("sqlite:///a/b.db", Path("a/b.db.controller")),
        ("sqlite://", None),
        ("postgresql://me@host/name", Path("forepath-controller")),
    ],
)
def test_what_must_outlast_the_controller_has_a_place(url: str, where: Path | None) -> None:
    assert state_directory(Settings(database_url=url)) == where
    assert state_directory(Settings(database_url=url, state_dir="x/y")) == Path("x/y")

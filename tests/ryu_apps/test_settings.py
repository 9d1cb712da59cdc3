"""Wrong settings are refused at the door, a line each, and old names of settings with their new place."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cpdb import Section, SettingsError, read_settings
from ryu_apps.settings import MOVED, ControllerSettings
from ryu_apps.telemetry.sampling import bound

MANAGER = Path(sys.executable).with_name("ryu-manager")


def refused(directory: Path, *options: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [str(MANAGER), *options, "ryu_apps.controller"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=directory,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr[done.stderr.index("ryu-manager: ") :].removeprefix("ryu-manager: ").strip().splitlines()


def loaded(directory: Path, text: str) -> ControllerSettings:
    file = directory / "some.toml"
    file.write_text(text, encoding="utf-8")
    return read_settings(file, ControllerSettings)


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "forepath.toml").write_text("[controller]\npolls = 1\npoll_s = 'often'\nfirst_meter = 0\n")
    lines = refused(tmp_path)
    assert len(lines) == 3
    told = "\n".join(lines)
    known = "first_table, mode, guest_next, vlans, access, sflow, netflow, accounts, listen"
    assert f"controller.polls = 1: no such setting; known here: {known}" in told
    assert "controller.poll_s = 'often': " in told
    assert "controller.first_meter = 0: " in told


@pytest.mark.parametrize("way", ["beside", "variable", "option"])
def test_the_file_is_found_beside_by_variable_and_by_ryu_s_own_file(tmp_path: Path, way: str) -> None:
    file = tmp_path / ("forepath.toml" if way == "beside" else "other.toml")
    file.write_text("[controller.pairs]\nmax_pairs = 0\n")
    (tmp_path / "ryu.conf").write_text(f"[forepath]\nsettings = {file}\n")
    options = ["--config-file", "ryu.conf"] if way == "option" else []
    environment = {"FOREPATH_SETTINGS": str(file)} if way == "variable" else {}
    (line,) = refused(tmp_path, *options, **environment)
    assert file.name in line and "controller.pairs.max_pairs = 0: " in line


def test_ryu_s_own_group_of_old_is_refused_with_the_new_place_of_every_setting(tmp_path: Path) -> None:
    (tmp_path / "ryu.conf").write_text("[forepath]\ncolour = 1\n" + "".join(f"{name} = 1\n" for name in MOVED))
    lines = refused(tmp_path, "--config-file", "ryu.conf")
    assert len(lines) == len(MOVED) + 1
    for name, new in MOVED.items():
        table, _, setting = new.rpartition(".")
        assert f"ryu.conf: [forepath] {name}: write {setting} in [{table}] of forepath.toml" in lines
        assert setting in _section(table).model_fields, new
    assert "ryu.conf: [forepath] colour: is no setting; here stands settings = FILE" in lines


def _section(table: str) -> type[Section]:
    found: Any = ControllerSettings()
    for part in table.split("."):
        found = getattr(found, part)
    return type(found)


def test_tables_of_others_are_left_to_them_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    assert loaded(tmp_path, "[predictor]\nanything = 1\n[[vm]]\nname = 3\n") == ControllerSettings()
    with pytest.raises(SettingsError, match=r"controler = .*no such setting; known here: database, controller"):
        loaded(tmp_path, "[controler]\nport = 7000\n")


@pytest.mark.parametrize("url", ["nonsense", "://"])
def test_a_database_url_that_makes_no_sense_is_refused(tmp_path: Path, url: str) -> None:
    (line,) = refused(tmp_path, FOREPATH_DATABASE_URL=url)
    assert "database.url" in line and "sqlite:///FILE.db" in line


def test_the_url_of_the_environment_comes_before_the_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREPATH_DATABASE_URL", "sqlite:///two.db")
    assert loaded(tmp_path, "database.url = 'sqlite:///one.db'").database.url == "sqlite:///two.db"


@pytest.mark.parametrize(
    ("listen", "agents", "word"),
    [
        ("", "leaf1 = ''", "agents"),
        ("", "leaf1 = 'nowhere'", "nowhere"),
        ("", "leaf1 = '127.0.0.1', leaf2 = '127.0.0.1'", "of its own"),
        ("", "'' = '127.0.0.1'", "of its own"),
        ("127.0.0.1:6343", "", "needs agents"),
        ("6343", "leaf1 = ''", "agents"),
        ("localhost", "leaf1 = '127.0.0.1'", "HOST:PORT"),
    ],
)
def test_who_may_send_samples_is_checked(tmp_path: Path, listen: str, agents: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word) as caught:
        loaded(tmp_path, f"[controller.sflow]\nlisten = '{listen}'\nagents = {{ {agents} }}\n")
    assert "controller.sflow: " in str(caught.value) and "\n" not in str(caught.value)


def test_samples_are_received_only_where_this_machine_is(tmp_path: Path) -> None:
    found = loaded(tmp_path, "[controller.sflow.agents]\nleaf1 = '127.0.0.1'\nleaf2 = ' ::1'\n")
    assert found.controller.sflow.by_address() == {"127.0.0.1": "leaf1", "::1": "leaf2"}
    with pytest.raises(SettingsError, match="an address of this machine"):
        bound("192.0.2.77:6343", "sflow")
    with bound("127.0.0.1:0", "sflow") as receiver:
        assert receiver.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("sqlite:///a/b.db", Path("a/b.db.controller")),
        ("sqlite://", None),
        ("postgresql://me@host/name", Path("forepath-controller")),
    ],
)
def test_what_must_outlast_the_controller_has_a_place(tmp_path: Path, url: str, where: Path | None) -> None:
    text = f"database.url = '{url}'\n"
    assert loaded(tmp_path, text).state_directory() == where
    assert loaded(tmp_path, text + "controller.storage.state_dir = 'x/y'").state_directory() == Path("x/y")

"""Whatever is asked wrongly ends in one line and a documented exit code, never in a traceback."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from lab_on_paper import Forepath

from cpdb import PlanRecord, Store


@pytest.mark.parametrize(
    "words,code,told",
    [
        ((), 2, "Usage"),
        (("dance",), 2, "No such command"),
        (("status", "--colour"), 2, "No such option"),
        (("apply",), 2, "Missing argument"),
        (("apply", "many"), 2, "Invalid value"),
        (("explain",), 2, "--last"),
        (("explain", "3", "--last"), 2, "--last"),
        (("paths", "--from", "c1"), 2, "--to"),
        (("orchestrate", "--policy", "nonsense"), 2, "predictive or reactive"),
        (("demo", "--scenario", "storm"), 2, "surge, calm, crowd"),
        (("status", "--json", "/nowhere/out.json"), 2, "cannot be written"),
        (("status", "--json", "."), 2, "cannot be written"),
        (("demo", "--json", "/nowhere/out.json"), 2, "cannot be written"),
        (("status", "--json", "/proc/forepath.json"), 1, "name a file that can be written"),
        (("status", "-c", "missing.toml"), 3, "No such file"),
        (("status", "-c", "."), 3, "Is a directory"),
        (("explain", "99"), 3, "no action 99"),
        (("explain", "0"), 3, "no action 0"),
        (("explain", "--last"), 3, "no action was tried so far"),
        (("apply", "99"), 3, "plan 99: there is none"),
        (("predict", "--scheduler", "somewhere"), 3, "somewhere is no address: write tls://"),
        (("predict", "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"), 3, "leave one of the two out"),
        (("forecast", "c1", "shop"), 3, "no forecast for c1 -> shop"),
        (("forecast", "nobody"), 3, "no forecast for nobody"),
        (("paths", "--from", "c1", "--to", "nowhere"), 3, "no path from 'c1' to 'nowhere'"),
        (("paths", "--from", "nobody", "--to", "shop"), 3, "no path from 'nobody'"),
    ],
)
def test_wrong_words(forepath: Forepath, empty: Store, words: tuple[str, ...], code: int, told: str) -> None:
    said = forepath(*words)
    assert said.code == code, said
    assert told in said.err + said.out
    assert code == 2 or len(said.err.splitlines()) == 1
    assert code == 2 or said.err.startswith("forepath: ")


@pytest.mark.parametrize("command", [("status",), ("pairs",), ("plan",), ("apply", "1"), ("explain", "--last")])
@pytest.mark.parametrize(
    "url,told",
    [
        ("postgresql://someone:hidden@127.0.0.1:1/x", "refused"),
        ("sqlite:////nowhere/at/all.db", "unable to open"),
        ("sqlite:///garbage.db", "not a database"),
        ("carrier-pigeon", "write sqlite:///FILE.db"),
    ],
)
def test_a_database_that_cannot_be_used(
    tmp_path: Path, forepath: Forepath, command: tuple[str, ...], url: str, told: str
) -> None:
    (tmp_path / "garbage.db").write_bytes(b"this is no database, " * 100)
    (tmp_path / "forepath.toml").write_text(f'[database]\nurl = "{url}"\n')
    said = forepath(*command)
    assert said.code == 4, said
    assert told in said.err and len(said.err.splitlines()) == 1
    assert "hidden" not in said.out + said.err


def test_a_reader_before_any_writer_is_told_what_to_start(forepath: Forepath) -> None:
    said = forepath("status")
    assert said.code == 4 and "there is none yet" in said.err


@pytest.mark.parametrize("command", [("status",), ("plan",), ("predict",), ("run",), ("apply", "1")])
def test_wrong_settings_stop_every_command(tmp_path: Path, forepath: Forepath, command: tuple[str, ...]) -> None:
    (tmp_path / "forepath.toml").write_text("[contoller]\nport = 1\n[predictor]\ncycle_s = -1\n")
    said = forepath(*command)
    assert said.code == 3
    assert "contoller" in said.err and "predictor.cycle_s = -1" in said.err


def test_settings_that_do_not_go_together_stop_the_predictor(tmp_path: Path, forepath: Forepath) -> None:
    (tmp_path / "forepath.toml").write_text("[predictor.history]\nwindow_s = 60\n")
    said = forepath("predict")
    assert said.code == 3 and "history.window_s: 60 must be at least 4 times" in said.err


@pytest.mark.parametrize(
    "age_s,state,told", [(1000.0, "open", "expired"), (0.0, "superseded", "superseded"), (0.0, "applied", "applied")]
)
def test_a_plan_that_may_no_longer_be_carried_out(
    forepath: Forepath, empty: Store, age_s: float, state: str, told: str
) -> None:
    from time import time

    created = time() - age_s
    number = empty.journal.add_plan(PlanRecord(created, created + 30, state, {"steps": [], "refusals": []}))
    said = forepath("apply", str(number))
    assert said.code == 3 and told in said.err and f"plan {number}" in said.err


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path, forepath: Forepath) -> None:
    (tmp_path / ".run").write_text("a file where a folder should be")
    said = forepath("run")
    assert said.code == 1 and ".run" in said.err and len(said.err.splitlines()) == 1


def test_a_real_process_ends_likewise(tmp_path: Path) -> None:
    environment = {**os.environ, "FOREPATH_SETTINGS": "missing.toml"}
    ended = subprocess.run(
        [sys.executable, "-m", "forepath", "status"], capture_output=True, text=True, timeout=60, env=environment
    )
    assert ended.returncode == 3
    assert ended.stderr.startswith("forepath: missing.toml: No such file") and "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_the_version_is_told_and_logs_are_json_where_wanted() -> None:
    def run(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **variables}
        return subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=60, env=environment)

    assert run("-m", "forepath", "--version").stdout == f"forepath {version('forepath')}\n"
    assert run("-m", "forepath", "--log-format", "xml", "status").returncode == 2
    program = "import structlog, forepath.logs as logs; logs.set_up_logs(); structlog.get_logger().info('said', n=1)"
    line = json.loads(run("-c", program, FOREPATH_LOG_FORMAT="json").stderr)
    assert (line["event"], line["level"], line["n"]) == ("said", "info", 1)
    assert run("-c", program, FOREPATH_LOG_LEVEL="warning").stderr == ""

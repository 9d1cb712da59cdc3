"""`python -m bench` gives the agreed document, at sizes far too small to mean anything."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ryu_apps import framework_name

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    path = tmp_path_factory.mktemp("bench") / "out.json"
    ended = bench("--tiny", "--json", str(path))
    assert ended.returncode == 0, ended.stderr
    document = json.loads(path.read_text())
    assert isinstance(document, dict)
    return document, ended.stdout


def test_the_document_has_the_agreed_shape(told: tuple[dict[str, Any], str]) -> None:
    document, _ = told
    assert list(document) == ["command", "versions", "cores", "results", "targets"]
    assert document["command"].startswith("python -m tools.bench --tiny")
    assert {"python", framework_name(), "sqlalchemy"} <= set(document["versions"]) and document["cores"] >= 1
    assert set(document["results"]) == {"store", "decoding", "rule_making", "destinations", "planning", "foreseeing"}
    figures = [value for result in document["results"].values() for value in result.values()]
    assert figures and all(isinstance(value, (int, float)) and value >= 0 for value in figures)


def test_each_target_says_whether_it_is_met(told: tuple[dict[str, Any], str]) -> None:
    document, text = told
    assert len(document["targets"]) >= 6
    for one in document["targets"]:
        assert list(one) == ["name", "value", "limit", "better", "met"]
        kept = one["value"] <= one["limit"] if one["better"] == "lower" else one["value"] >= one["limit"]
        assert one["met"] is kept
        assert one["better"] in ("lower", "higher")
    missed = [one["name"] for one in document["targets"] if not one["met"]]
    assert ("missed: " in text) is bool(missed)
    assert ("every target is met" in text) is not bool(missed)


def test_a_wrong_folder_is_told_before_anything_is_measured() -> None:
    ended = bench("--json", "/nowhere/at/all.json")
    assert ended.returncode == 2 and "no such folder" in ended.stderr and "Traceback" not in ended.stderr

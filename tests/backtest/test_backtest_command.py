"""`forepath backtest forecast`: from a file to a table, a document and a page; what is wrong is told in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recordings import waves, write

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def forepath(*words: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "forepath", "backtest", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=250, check=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    values = waves(3, 200).round(2).T.tolist()
    rows = [[2 * number, *row, number] for number, row in enumerate(values)]
    rows[20][1] = None
    return write(tmp_path_factory.mktemp("made") / "made.csv.gz", ["a", "b", "c", "oracle"], rows)


def test_json_and_page_come_from_one_run_and_the_document_has_the_promised_form(file, tmp_path):
    words = ("--step", 2, "--horizons", "1,3", "--windows", "4", "--exclude", "oracle", "--fit-budget", 0.2)
    done = forepath("forecast", file, *words, "--json", "-", "--html", tmp_path / "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["test_rows"] == 50
    assert report["series"] == 3
    assert report["missing"] > 0
    for name in ("auto", "naive", "ewma", "train_mean", "seasonal_naive"):
        model = report["models"][name]
        assert set(model["horizons"]) == {"1", "3"}
        assert {"wape", "mase", "rmsse", "wql", "coverage_q90", "skill"} <= set(model["horizons"]["1"])
        assert model["horizons"]["1"]["wape"] > 0
        assert model["windows"]["4"]["wape"] > 0
        assert model["fit_seconds"] >= 0
        assert model["predict_seconds"] >= 0
    assert "<svg" in (tmp_path / "page.html").read_text()


def test_a_person_is_shown_a_table(file, tmp_path):
    done = forepath(
        "forecast", file, "--step", 2, "--horizons", 2, "--models", "naive,ewma", "--series", "b", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "2 rows ahead; best simple method" in done.stdout
    assert "naive" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("forecast", "none.csv", "--step", 1), 1, "none.csv: No such file"),
        (("forecast", "FILE", "--step", 0), 1, "must be above 0"),
        (("forecast", "FILE", "--step", 3), 1, "grid of --step 3"),
        (("forecast", "FILE", "--step", 2, "--models", "oracle"), 1, "no such model"),
        (("forecast", "FILE", "--step", 2, "--exclude", "x"), 1, "no such column"),
        (("forecast", "FILE", "--step", 2, "--series", "x"), 1, "no series matches"),
        (("forecast", "FILE", "--step", 2, "--train-fraction", 1), 1, "too few to forecast"),
        (("forecast", "FILE", "--step", 2, "--horizons", "0"), 2, "whole numbers"),
        (("forecast", "FILE", "--step", 2, "--html", "/nowhere/p.html"), 2, "cannot be written"),
        (("forecast", "FILE"), 2, "--step"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(file, tmp_path, words, code, told):
    done = forepath(*(file if word == "FILE" else word for word in words), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1

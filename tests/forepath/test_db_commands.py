"""`forepath db`: make, fill, look after and read a database from the command line."""

import csv
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_on_paper import Said, call

HEAD = ["t", "c1>10.0.0.1", "c2>10.0.0.1"]
T0 = 1_700_000_040


Db = Callable[..., Said]
Told = Callable[..., dict[str, Any]]


@pytest.fixture
def db(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Db:
    """`forepath db WORDS` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: call(["db", *words], capsys, monkeypatch)


@pytest.fixture
def told(db: Db) -> Told:
    """The document that a command gives with --json."""

    def document(*words: str) -> dict[str, Any]:
        said = db(*words, "--json", "-")
        assert said.code == 0, said.err
        found = json.loads(said.out)
        assert isinstance(found, dict)
        return found

    return document


def write(path: Path, rows: list[list[str]]) -> Path:
    text = "\n".join(",".join(row) for row in [HEAD, *rows]) + "\n"
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.write(text)
    return path


def test_a_database_is_made_once(told: Told) -> None:
    assert told("init")["changed"] is True
    again = told("init")
    assert (again["changed"], again["schema_before"]) == (False, again["schema"])
    assert told("migrate")["changed"] is False


@pytest.mark.parametrize("command", ["status", "export", "migrate"])
def test_a_database_that_is_not_there_is_one_line_and_stays_so(tmp_path: Path, command: str, db: Db) -> None:
    ended = db(command)
    assert ended.code == 4
    assert "forepath db init makes" in ended.err and len(ended.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_the_import_again(tmp_path: Path, told: Told) -> None:
    rows = [[str(T0 + n), str(5 * n), "" if n == 3 else "0" if n == 4 else "7"] for n in range(1, 9)]
    source = write(tmp_path / "in.csv.gz", rows)
    assert told("import", str(source)) == {
        "file": str(source),
        "rows": 8,
        "values": 15,
        "quantity": "bytes",
    }
    told("import", str(source))  # stored once
    found = told("export", "out.csv", "--step", "1")
    assert (found["rows"], found["series"]) == (8, 2)
    with (tmp_path / "out.csv").open() as file:
        assert list(csv.reader(file)) == [HEAD, *rows]


def test_a_recording_of_everything_is_read_in_again(tmp_path: Path, told: Told) -> None:
    names = ["t", "c1>10.0.0.1", "c1>10.0.0.1:connections", "vm:web:cores"]
    rows = [names, *([str(T0 + n), str(50 * n), str(n), "0.5"] for n in range(1, 5))]
    (tmp_path / "in.csv").write_text("\n".join(",".join(row) for row in rows) + "\n", encoding="utf-8")
    assert told("import", "in.csv")["values"] == 8
    told("export", "out.csv", "--step", "1", "--quantity", "all")
    with (tmp_path / "out.csv").open() as file:
        # CPU is measured where machines run: it is written, not read in.
        assert list(csv.reader(file)) == [row[:3] for row in rows]


def test_status_tells_size_and_rate(tmp_path: Path, db: Db, told: Told) -> None:
    now = int(time.time())
    write(tmp_path / "in.csv", [[str(now - 60 + n), "5", "6"] for n in range(50)])
    told("import", "in.csv")
    found = told("status")
    assert found["bytes"] > 0 and found["waiting_batches"] == 50
    assert 0.5 < found["rows_per_s"] < 3
    assert 0 < found["bytes_after_a_day"] <= found["bytes_in_the_end"]
    assert [one["step_s"] for one in found["tiers"]] == [1, 10, 60]
    for words in ("after a day like this", "waiting for roll-up", "rows a step"):
        assert words in db("status").out


def test_retain_rolls_up_once(tmp_path: Path, told: Told) -> None:
    write(tmp_path / "in.csv", [["1", "5", "6"], ["2", "5", "6"]])
    told("import", "in.csv", "--ending-now")
    done = told("retain")
    assert set(done) == {"steps", "rolled_up_batches", "deleted_rows"}
    assert done["rolled_up_batches"] in (0, 1, 2)


@pytest.mark.parametrize(
    "content,words",
    [
        ("x,a>b\n1,2\n", "first column must be t"),
        ("t,a>b\n1,2\n1,3\n", "in.csv:3: t = 1 does not come after the line before; sort by t"),
        ("t,a>b\n1,2,3\n", "in.csv:2: has 3 cells"),
        ("t,a>b\n1,2\n2,minus\n", "in.csv:3: column a>b: 'minus' is no number"),
        ("t,a>b\n1,-2\n2,3\n", "in.csv:2: column a>b: -2 is below 0"),
        ("t,a>b\n", "no rows"),
        ("", "begins with nothing"),
        ("t,a>b\n1,5\n2,18446744073709551615\n", "in.csv:3: column a>b: 18446744073709551615 is more than"),
        ("t,a>b\n1,5\n4102444800,5\n", "in.csv:3: t = 4102444800 lies in the future; --ending-now"),
        ("t,a\n1,2\n2,3\n", "a: not source>virtual_ip"),
        ("t,a>b\n1,2\n", "give --step"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, content: str, words: str, db: Db, told: Told) -> None:
    (tmp_path / "in.csv").write_text(content)
    ended = db("import", "in.csv")
    assert ended.code == 1
    assert words in ended.err and "Traceback" not in ended.err
    assert told("status")["waiting_batches"] == 0


def test_columns_without_a_virtual_ip_can_be_given_one(tmp_path: Path, db: Db, told: Told) -> None:
    (tmp_path / "in.csv").write_text(f"t,a,b\n{T0},1,2\n{T0 + 1},3,4\n")
    told("import", "in.csv", "--virtual-ip", "10.0.0.9")
    ended = db("export", "-", "--step", "1")
    assert ended.out.splitlines() == ["t,a>10.0.0.9,b>10.0.0.9", f"{T0},1,2", f"{T0 + 1},3,4"]


@pytest.mark.parametrize(
    "words",
    [
        ("--step", "15"),
        ("--quantity", "meters"),
        ("--step", "1", "--since", "9", "--until", "8"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, words: tuple[str, ...], db: Db, told: Told) -> None:
    write(tmp_path / "in.csv", [["1", "5", "6"], ["2", "5", "6"]])
    told("import", "in.csv")
    ended = db("export", *words)
    assert ended.code == 2 and "Traceback" not in ended.err


@pytest.mark.parametrize("command", ["init", "migrate", "status", "retain", "import", "export"])
def test_each_command_shows_examples(command: str, db: Db) -> None:
    assert "Examples:" in db(command, "--help").out

"""Any table of series is read as it stands: gaps stay gaps, and what cannot be read is told in one line."""

import numpy as np
import pytest
from recordings import recording, write

from backtest.reading import RecordingError, read

ROWS = [[10 * n, n, n % 3] for n in range(30)]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_columns_become_series_and_blanks_stay_missing(tmp_path, name):
    rows = [list(row) for row in ROWS]
    rows[4][1] = None
    rows[7][2] = " "
    found = read(write(tmp_path / name, ["one", "two"], rows), 10)
    assert found.names == ("one", "two")
    assert found.values.shape == (2, 30)
    assert np.isnan(found.values).sum() == 2
    assert np.isnan(found.values[0, 4])
    assert np.isnan(found.values[1, 7])
    assert found.values[0, 5] == 5


def test_rows_that_are_left_out_become_missing_cells(tmp_path):
    rows = [row for number, row in enumerate(ROWS) if number not in (12, 13)]
    found = read(write(tmp_path / "a.csv", ["one", "two"], rows), 10)
    assert found.rows == 30
    assert np.isnan(found.values[:, 12:14]).all()
    assert np.isnan(found.values).sum() == 4


def test_a_hole_of_days_is_missing_cells_and_is_judged_around(tmp_path):
    rows = [[1_700_000_000 + 60 * n, n] for n in range(15)] + [[1_700_173_700 + 60 * n, n] for n in range(15)]
    found = read(write(tmp_path / "a.csv", ["one"], rows), 60)
    assert found.rows == 2910 and np.isfinite(found.values).sum() == 30


def test_columns_can_be_left_out_and_series_chosen(tmp_path):
    found = read(write(tmp_path / "a.csv", ["x_avg", "oracle"], ROWS), 10, exclude=["orac*"])
    assert found.names == ("x_avg",)
    assert recording(np.zeros((3, 5))).positions(["s[02]"]).tolist() == [0, 2]
    with pytest.raises(RecordingError, match="no series matches 'q"):
        found.positions(["q*"])


@pytest.mark.parametrize(
    ("rows", "names", "words"),
    [
        ([[0, 1], [10, "x"]], ["one"], "line|:3.*'x' is no number"),
        ([[0, 1], [10, "inf"]], ["one"], "'inf' is no number"),
        ([["nan", 1]], ["one"], ":2.*column t"),
        ([[0, 1], [10]], ["one"], ":3: has 1 cells, the header 2"),
        ([[0, 1, 2]], ["one", "one"], "name of its own; mend one"),
        (ROWS[:5], ["one", "two"], "at least 20"),
        ([*ROWS, [297, 1, 1]], ["one", "two"], "not on a grid"),
        ([*ROWS, [290, 1, 1]], ["one", "two"], "a.csv:32: t = 290 is the time of the row before"),
        ([*ROWS[:20], [50, 1, 1]], ["one", "two"], "a.csv:22: t = 50 comes after t = 190; sort the rows by t"),
        ([*ROWS, [9_000_000, 1, 1]], ["one", "two"], "is --step right"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path, rows, names, words):
    with pytest.raises(RecordingError, match=words) as caught:
        read(write(tmp_path / "a.csv", names, rows), 10)
    assert "\n" not in str(caught.value)
    assert "a.csv" in str(caught.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "b.csv.gz").write_bytes(b"not gzip")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "d.csv").write_text("time,a\n")
    for name in ("none.csv", "b.csv.gz", "c.csv", "d.csv"):
        with pytest.raises(RecordingError, match=name):
            read(tmp_path / name, 1)
    for step in (0, -1, float("nan")):
        with pytest.raises(RecordingError, match="--step"):
            read(tmp_path / "none.csv", step)

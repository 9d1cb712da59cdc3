"""Recordings as people have them: what is read of them, what is mended and named, what stops."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import write
from whatif_scenes import BULK, SHOP, small_scene

from backtest import RecordingError
from backtest.whatif import OfferedLoad, TimeSpan, read_load
from cpdb import Pair

SCENE = small_scene()


def load(tmp_path: Path, names: list[str], rows: list[list[object]], span: TimeSpan = TimeSpan()) -> OfferedLoad:
    return read_load(write(tmp_path / "load.csv", names, rows), SCENE, span)


def test_a_recording_is_read_to_the_last_digit(tmp_path: Path) -> None:
    names = ["c1>shop", "c1>shop:connections", "c2>bulk", "vm:batch:cores"]
    found = load(tmp_path, names, [[7, 1.5, 2, 3, 0.25], [8, 4, 5, 6, 0.5]])
    assert found.pairs == (Pair("c1", SHOP), Pair("c2", BULK))
    assert found.bytes_per_s.tolist() == [[1.5, 3], [4, 6]]
    assert found.connections_per_s.tolist() == [[2, 0], [5, 0]]
    assert found.vms == ("shop1", "bulk1", "batch")
    assert found.cores[:, 2].tolist() == [0.25, 0.5]
    assert found.known.all() and found.left_out == () and not found.lower_bound


def test_addresses_are_as_good_as_names(tmp_path: Path) -> None:
    assert load(tmp_path, [f"10.0.0.1>{SHOP}"], [[0, 1], [1, 2]]).pairs == (Pair("c1", SHOP),)


def test_unsorted_rows_are_sorted_and_gaps_are_not_judged(tmp_path: Path) -> None:
    found = load(tmp_path, ["c1>shop"], [[3, 4], [0, 1], [1, 2], [6, 7]])
    assert found.bytes_per_s[:, 0].tolist() == [1, 2, 0, 4, 0, 0, 7]
    assert found.known.tolist() == [True, True, False, True, False, False, True]
    assert "out of order" in found.left_out[0] and "3 s without rows in 2 gaps" in found.left_out[1]


def test_a_blank_cell_holds_the_value_before_for_a_while(tmp_path: Path) -> None:
    rows = [[t, None if 2 <= t < 12 else 5.0, "nan" if t == 0 else 1] for t in range(14)]
    found = load(tmp_path, ["c1>shop", "c2>bulk"], rows)
    assert found.bytes_per_s[:, 0].tolist() == [5] * 7 + [0] * 5 + [5, 5]
    assert found.bytes_per_s[:, 1].tolist() == [0] + [1] * 13
    assert found.known.all()
    assert "11 blank cells in 2 columns (the first: c2>bulk at t = 0)" in found.left_out[0]


def test_rows_of_an_export_stand_for_all_their_seconds(tmp_path: Path) -> None:
    found = load(tmp_path, ["c1>shop"], [[1000, 3], [1010, 4], [1030, 5]])
    assert found.seconds == 40
    assert found.bytes_per_s[[0, 9, 10, 19, 20, 30], 0].tolist() == [3, 3, 4, 4, 0, 5]
    assert found.known[20:30].sum() == 0
    assert "10 s apart" in found.left_out[0]


def test_a_part_is_read(tmp_path: Path) -> None:
    rows: list[list[object]] = [[t, t] for t in range(10)]
    assert load(tmp_path, ["c1>shop"], rows, TimeSpan(3, 6)).bytes_per_s[:, 0].tolist() == [3, 4, 5]
    assert load(tmp_path, ["c1>shop"], rows, TimeSpan(since=-3)).bytes_per_s[:, 0].tolist() == [7, 8, 9]
    with pytest.raises(RecordingError, match="its t goes from 0 to 9"):
        load(tmp_path, ["c1>shop"], rows, TimeSpan(20, 30))


@pytest.mark.parametrize(
    ("names", "rows", "says"),
    [
        (["c9>shop"], [[0, 1]], "'c9' is no declared node; add"),
        (["c1>spa"], [[0, 1]], "'spa' is no declared virtual IP; there are"),
        (["leaf>shop"], [[0, 1]], "'leaf' is no declared node"),
        (["vm:web9:cores"], [[0, 1]], "'web9' is no declared machine; there are shop1"),
        (["weather"], [[0, 1]], "'weather'.*unknown; columns are"),
        (["c1>shop:packets"], [[0, 1]], "'shop:packets' is no declared virtual IP"),
        (["c1>shop", f"c1>{SHOP}"], [[0, 1, 1]], "mean the same; leave one"),
        (["c1>shop"], [[0, -1], [1, 2]], "t = 0, column c1>shop: -1 is below 0; leave"),
        (["c1>shop"], [[0, 1], [0, 2]], "t = 0 stands in two rows; leave one"),
        (["c1>shop"], [[0, 1], [1, "many"]], "'many' is no number; leave"),
        (["c1>shop"], [["", 1], [1, 1]], "column t: '' is no time"),
        (["c1>shop"], [], "has no rows; write"),
        (["c1>shop"], [[t / 2, 1] for t in range(20)], "0.5 s apart; give one row"),
        (["c1>shop"], [[t, 1] for t in [0, 1, 2, 3, 3.5, 4.5, 5.5]], "t = 3.5 is not on the grid.*two steps"),
        (["c1>shop"], [[t, 1] for t in [*range(20), *range(20, 100, 10)]], "10 s apart; .*two steps are mixed; bring"),
        (["c1>shop"], [[t, 1] for t in [0, 1, 2, 9000]], "is t in seconds"),
    ],
)
def test_what_cannot_be_meant_stops_with_one_line(
    tmp_path: Path, names: list[str], rows: list[list[object]], says: str
) -> None:
    with pytest.raises(RecordingError, match=says) as caught:
        load(tmp_path, names, rows)
    assert "\n" not in str(caught.value) and "load.csv" in str(caught.value)


@given(st.lists(st.integers(0, 60), min_size=2, max_size=40, unique=True), st.integers(-1000, 1000))
def test_every_row_counts_once_where_its_time_says(seconds: list[int], start: int) -> None:
    import tempfile

    # Every other row at least stands a second apart, so the step is 1 s whatever is missing between.
    times = sorted({*seconds, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
    with tempfile.TemporaryDirectory() as folder:
        rows: list[list[object]] = [[start + t, t + 1] for t in reversed(times)]
        try:
            found = load(Path(folder), ["c1>shop"], rows)
        except RecordingError as error:
            assert "two steps" in str(error) or "is t in seconds" in str(error)
            return
    assert np.flatnonzero(found.known).tolist() == times
    assert found.bytes_per_s[times, 0].tolist() == [t + 1 for t in times]
    assert found.bytes_per_s.sum() == sum(t + 1 for t in times)

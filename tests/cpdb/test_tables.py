"""Tables of numbers as people really save them: read where the meaning is sure, else refused with line and column."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpdb import TableError, open_table, show_time

Rows = list[tuple[float, list[float | None]]]


def read(path: Path, content: str | bytes, wanted: Callable[[str], bool] = bool) -> Rows:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with open_table(path, wanted) as table:
        return [(line.t, line.values) for line in table.lines]


PLAIN = "t,a,b\n1700000000,1,2.5\n1700000010,,4\n"
MEANT: Rows = [(1700000000.0, [1.0, 2.5]), (1700000010.0, [None, 4.0])]
SPELLINGS = {
    "as it should be": PLAIN,
    "byte order mark": "\ufeff" + PLAIN,
    "line ends": PLAIN.replace("\n", "\r\n"),
    "no last line end": PLAIN.strip(),
    "blank lines": PLAIN.replace("\n", "\n\n") + ",,\n",
    "spaces": PLAIN.replace(",", " , "),
    "quotes": '"t","a","b"\n"1700000000","1","2.5"\n"1700000010","","4"\n',
    "semicolons": PLAIN.replace(",", ";"),
    "decimal commas": PLAIN.replace(",", ";").replace(".", ","),
    "tabs": PLAIN.replace(",", "\t"),
    "milliseconds": PLAIN.replace("0,1,", "0000,1,").replace("10,,", "10000,,"),
    "microseconds": PLAIN.replace("0,1,", "0000000,1,").replace("10,,", "10000000,,"),
    "nanoseconds": PLAIN.replace("0,1,", "0000000000,1,").replace("10,,", "10000000000,,"),
    "exponents": PLAIN.replace("1700000000", "1.7e9"),
    "ISO times": "date,a,b\n2023-11-14 22:13:20,1,2.5\n2023-11-14T22:13:30Z,NaN,4\n",
    "ISO with zones": "timestamp,a,b\n2023-11-14T23:13:20+01:00,1,2.5\n2023-11-14 22:13:30+00:00,null,4\n",
}


@pytest.mark.parametrize("content", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_spellings_that_mean_the_same_are_read_the_same(tmp_path: Path, content: str, packed: bool) -> None:
    name = "a.csv.gz" if packed else "a.csv"
    assert read(tmp_path / name, gzip.compress(content.encode()) if packed else content) == MEANT


WRONG = {
    "empty": ("", "begins with nothing"),
    "blank": ("\n\n", "begins with nothing"),
    "no time": ("a,b\n1,2\n", ":1: the first column must be t"),
    "times alone": ("t\n1\n", ":1: there is no series beside t"),
    "twice": ("t,a,a\n1,2,3\n", "name of its own; mend a"),
    "nameless": ("t,a,\n1,2,\n", "mend the empty one"),
    "wrapped": ("t,a\n1,5\n2,18446744073709551615\n", ":3: column a: 18446744073709551615 is more than"),
    "negative and wrapped": ("t,a\n1,-9223372036854775808\n", ":2: column a"),
    "huge": ("t,a\n1,1e308\n", ":2: column a"),
    "infinite": ("t,a\n1,inf\n", "is no number"),
    "over the top": ("t,a\n1,1e400\n", ":2: column a"),
    "words": ("t,a\n1,many\n", ":2: column a: 'many' is no number"),
    "short": ("t,a,b\n1,2\n", ":2: has 2 cells, the header 3"),
    "no time in a line": ("t,a\n1,1\n,2\n", ":3: column t: '' is no time"),
    "not a time": ("t,a\nnan,2\n", ":2: column t"),
    "a day of whom": ("date,a\n03/04/2023,2\n", "ISO 8601"),
    "UTF-16": ("t,a\n1,2\n".encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ("t,a\n1,2\n".encode("utf-16-le"), "UTF-16"),
    "no text": (b"t,a\n1,\xff\n", "UTF-8"),
}


@pytest.mark.parametrize(("content", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(TableError) as caught:
        read(tmp_path / "a.csv", content)
    assert words in str(caught.value) and "a.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_wanted_may_hold_anything(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "t,note,a\n1,good,2\n", lambda name: name == "a") == [(1.0, [2.0])]


@given(st.binary(max_size=200))
def test_any_bytes_end_in_numbers_or_in_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    try:
        read(tmp_path_factory.getbasetemp() / "any.csv", b"t,a\n" + content)
    except TableError as error:
        assert "\n" not in str(error)


def test_times_are_shown_whole() -> None:
    assert [show_time(t) for t in (1700000050.0, 1700000050.25, 0.0)] == ["1700000050", "1700000050.25", "0"]

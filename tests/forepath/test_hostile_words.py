"""Names that somebody made up, in every way in: nothing of them acts in a terminal, a page, SQL, a log or a shell."""

import io
import re
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_on_paper import Forepath

from cpdb import Alarm, Node, NodeKind, Pause, Store, open_store
from forepath.logs import set_up_logs
from forepath.output import PlainConsole, printable, table
from forepath.web.address import PageAddress
from forepath.web.paper import write_view

HOSTILE = (
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\r\nb: c",
    "<script>alert(1)</script>",
    "'; DROP TABLE nodes; --",
    "$(touch /tmp/forepath-hostile)`id`",
    "[bold]not bold[/bold]",
    "\u202egnp.exe",
    "{{ 7 * 7 }}{% for x in y %}",
)
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e]")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200))
def test_what_is_printed_is_only_text(text: str) -> None:
    assert not ACTS.search(printable(text)) and printable(printable(text)) == printable(text)
    out = io.StringIO()
    console = PlainConsole(file=out, width=500)
    console.print(text, markup=False, highlight=False)
    console.print(table("t", ("name",), [(text,)]))
    assert not ACTS.search(out.getvalue())


def test_names_in_the_database_act_nowhere(empty: Store, forepath: Forepath) -> None:
    now = 1e9
    for number, words in enumerate(HOSTILE):
        empty.inventory.put_nodes([Node(f"{number}{words}"[:64], NodeKind.HOST, address=words[:64])])
        empty.alarms.raise_([Alarm("stranger", words, words[:64], words, now, now, 1)])
        empty.pauses.pause(Pause(now, words, words))
    assert {words[:64] for words in HOSTILE} <= {one.address for one in empty.inventory.nodes()}
    for command in (("status",), ("pairs",), ("actions",), ("check",)):
        told = forepath(*command)
        assert not ACTS.search(told.out + told.err), command
    assert "red" in forepath("status").out
    assert not Path("/tmp/forepath-hostile").exists()


@pytest.mark.parametrize("words", HOSTILE)
def test_a_page_shows_names_as_text(words: str) -> None:
    strip = {
        "now": 1.0, "live": True, "mode": "paused", "on_duty": words, "done": 0, "advised": 0, "earned": [words],
        "paused": {"paused_by": words, "reason": words, "paused_at": 1.0}, "alarms": 1, "last_sample_at": None,
        "last_forecast_at": None, "first_at": None, "last_at": None, "shortage": None, "open_doors": [words],
    }  # fmt: skip
    page = write_view("strip", strip, PageAddress("/", {"q": words}))
    assert "<script" not in page and "49" not in page


def test_a_log_is_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs()
    for words in HOSTILE:
        structlog.get_logger("test").warning("refused", switch=words, reason=words)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(HOSTILE)
    assert not any(ACTS.search(re.sub(r"\x1b\[\d*m", "", line)) for line in lines)


def test_a_log_says_where_something_broke_and_not_what_variables_held(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs()

    def breaks(password: str) -> None:
        raise ValueError(f"of {len(password)} letters")

    try:
        breaks("-".join(("very", "secret")))
    except ValueError:
        structlog.get_logger("test").exception("broken")
    said = capsys.readouterr().err
    assert "of 11 letters" in said and "in breaks" in said and "very-secret" not in said


def test_a_database_s_name_reaches_no_shell(tmp_path: Path, forepath: Forepath) -> None:
    folder = tmp_path / "$(touch owned) 'q' \"d\" ;x"
    folder.mkdir()
    url = f"sqlite:///{folder}/x.db"
    open_store(url).close()
    (tmp_path / "forepath.toml").write_text(f"[database]\nurl = '''{url}'''\n")
    assert forepath("db", "backup", folder / "copy; touch owned").code == 0
    assert (folder / "copy; touch owned").is_file() and not list(tmp_path.rglob("owned"))

"""The kill switch at the command line: who paused since when and why is told, and it ends as it was said."""

import time
from pathlib import Path

import pytest
from lab_on_paper import Forepath

from cpdb import Store, open_store
from forepath.output import seconds, span
from forepath.settings import Settings


def test_paused_until_resumed(forepath: Forepath, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    said = forepath("pause", "--reason", "changing [b]cables")
    assert said.code == 0 and "by anna@" in said.out and "until forepath resume" in said.out
    assert "reservations still held: 1" in said.out
    told = forepath("status", "--json", "-").json()["paused"]
    assert told["paused_by"].startswith("anna@") and told["reason"] == "changing [b]cables" and told["ends_at"] is None
    text = forepath("status").out
    assert "by anna@" in text and "(changing [b]cables)" in text and "nothing is started" in text
    assert "it was paused" in forepath("resume").out
    assert forepath("status", "--json", "-").json()["paused"] is None
    assert "paused" not in forepath("status").out


def test_a_pause_for_a_while_ends_by_itself_and_outlasts_a_restart(
    forepath: Forepath, empty: Store, settings: Settings
) -> None:
    began = time.time()
    made = forepath("pause", "--for", "10m", "--json", "-").json()["paused"]
    assert 600 <= made["ends_at"] - began < 660
    again = open_store(settings.database.url, create=False)
    assert again.pauses.in_force(began + 500) is not None and again.pauses.in_force(began + 700) is None
    again.close()
    assert "ends in 10 min" in forepath("status").out


def test_the_last_of_two_pauses_counts_and_tells_of_the_first(forepath: Forepath, empty: Store) -> None:
    forepath("pause", "--reason", "first")
    said = forepath("pause", "--reason", "second", "--for", "1h")
    assert "in place of: paused" in said.out and "first" in said.out
    assert forepath("resume", "--json", "-").json()["resumed"]["reason"] == "second"
    assert forepath("status", "--json", "-").json()["paused"] is None


def test_resuming_what_is_not_paused_is_no_failure(forepath: Forepath, empty: Store) -> None:
    said = forepath("resume")
    assert said.code == 0 and "nothing was paused" in said.out
    assert forepath("resume", "--json", "-").json() == {"resumed": None, "stop_file": None}


def test_the_file_that_stops_this_folder_is_told_too(forepath: Forepath, empty: Store, tmp_path: Path) -> None:
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "paused").touch()
    assert forepath("status", "--json", "-").json()["stop_file"] == ".run/paused"
    assert "remove that file" in forepath("status").out and "remove that file" in forepath("resume").out


def test_nothing_is_carried_out_by_hand_while_paused(forepath: Forepath, filled: Store) -> None:
    number = forepath("plan", "--json", "-").json()["id"]
    forepath("pause")
    said = forepath("apply", str(number))
    assert said.code == 3 and "forepath resume first" in said.err and len(said.err.splitlines()) == 1
    plan = filled.journal.plan(number)
    assert plan is not None and plan.state == "open"


def test_without_a_database_there_is_nothing_to_pause(forepath: Forepath) -> None:
    assert forepath("pause").code == 4 and forepath("resume").code == 4


@pytest.mark.parametrize("words", [("--for", "soon"), ("--for", "0"), ("--for", "-5m"), ("--for", "10 weeks")])
def test_a_span_that_is_none(forepath: Forepath, empty: Store, words: tuple[str, ...]) -> None:
    assert forepath("pause", *words).code == 2
    assert empty.pauses.in_force(time.time()) is None


@pytest.mark.parametrize(
    "text,value",
    [("90", 90), ("90s", 90), ("+15s", 15), ("10m", 600), ("10 min", 600), ("1.5h", 5400), ("2D", 172_800)],
)
def test_spans_as_people_write_them(text: str, value: float) -> None:
    assert seconds(text) == value


def test_spans_are_told_in_few_letters() -> None:
    assert [span(one) for one in (5.0, 600.0, 7200.0)] == ["5 s", "10 min", "2 h"]

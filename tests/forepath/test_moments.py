"""Reading commands at a past moment: what was then is found long after, and nothing of what came later."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from lab_on_paper import SHOP_BYTES, Forepath, actions, fill

from cpdb import Alarm, Pause, Reservation, RetentionPolicy, SettingsError, Store
from forepath import views
from forepath.moments import moment

HOUR_S = 3600.0
RESERVED = "c2-search"


@pytest.fixture
def long_ago(empty: Store) -> float:
    """The lab's ten seconds of facts, two hours ago; nothing since, but a later action, alarm and pause."""
    then = fill(empty, round(time.time() - 2 * HOUR_S, -1) - 5)
    empty.journal.add_action(replace(actions(then + HOUR_S)[1], why="later"))
    empty.alarms.raise_([Alarm("moved", "later", "leaf1", "seen", then + HOUR_S, then + HOUR_S)])
    empty.pauses.pause(Pause(then - 60, "somebody"))
    empty.pauses.resume(then + 60, "somebody")
    return then


def at(t: float) -> tuple[str, str]:
    return "--at", datetime.fromtimestamp(t, UTC).isoformat()


def test_the_commands_show_what_was_then_and_nothing_now(forepath: Forepath, long_ago: float) -> None:
    now, then = (forepath("status", *words, "--json", "-").json() for words in ((), at(long_ago)))
    assert now["vms"] == now["reservations"] == [] and now["last_forecast_at"] is now["paused"] is None
    assert then["last_sample_at"] == then["last_forecast_at"] == pytest.approx(long_ago)
    assert then["vms"] and [one["key"] for one in then["reservations"]] == [RESERVED]
    assert then["paused"]["paused_by"] == "somebody" and then["alarms"] == []
    assert "later" not in [one["why"] for one in then["actions"]] and now["actions"][0]["why"] == "later"
    assert "as it was at" in forepath("status", *at(long_ago)).out


@pytest.mark.parametrize(
    "words,key", [(("pairs",), "pairs"), (("forecast",), "forecasts"), (("reservations",), "reservations")]
)
def test_each_is_empty_now_and_full_then(forepath: Forepath, long_ago: float, words: tuple[str, ...], key: str) -> None:
    assert forepath(*words, "--json", "-").json()[key] == []
    assert forepath(*words, *at(long_ago), "--json", "-").json()[key]
    assert forepath(*words, *at(long_ago)).code == 0


def test_paths_tell_what_was_foreseen_then(forepath: Forepath, long_ago: float) -> None:
    told = forepath("paths", "--links", *at(long_ago), "--horizon", "+5s", "--json", "-").json()
    assert told["issued_at"] == pytest.approx(long_ago) and told["horizon_s"] == 5
    assert told["links"][0]["bytes_per_s"] > SHOP_BYTES
    assert forepath("paths", "--links", "--json", "-").json()["issued_at"] is None


def test_actions_end_at_the_moment(forepath: Forepath, long_ago: float) -> None:
    told = forepath("actions", *at(long_ago), "--json", "-").json()["actions"]
    assert [one["outcome"] for one in told] == ["failed", "done", "advised"]


def test_what_was_rolled_up_is_found_at_its_minute(empty: Store, long_ago: float) -> None:
    keep = RetentionPolicy(second_s=HOUR_S, ten_seconds_s=1.5 * HOUR_S)
    while empty.retain(time.time(), keep, 5.0).left:
        pass
    assert empty.facts.communications(0.0) == []
    rates = {view.pair.source: view.bytes_per_s for view in views.pairs(empty, long_ago - 1)}
    assert rates["c1"] == pytest.approx(SHOP_BYTES, rel=0.2)
    assert views.newest_vm_loads(empty, long_ago - 1) and views.newest_vm_loads(empty, time.time()) == []
    assert views.pairs(empty, long_ago - HOUR_S) == []


def test_a_reservation_is_known_as_it_was_before_it_was_changed_withdrawn_or_made_anew(empty: Store) -> None:
    fill(empty, 1000.0)
    (first,) = empty.wanted.reservations_at(1000.0)
    empty.wanted.reserve(replace(first, created_at=1010.0, expires_at=1080.0))
    assert len(empty.wanted.reservations_at(1065.0)) == 1, "renewed"
    empty.wanted.reserve(replace(first, bytes_per_s=7e5, created_at=1020.0, expires_at=1080.0))
    empty.wanted.release(RESERVED, 1040.0)
    empty.wanted.reserve(replace(first, bytes_per_s=9e5, created_at=1100.0, expires_at=1200.0))
    empty.wanted.reserve(replace(first, bytes_per_s=1e5, created_at=1300.0, expires_at=1400.0))

    def rates(t: float) -> list[float]:
        found: list[Reservation] = empty.wanted.reservations_at(t)
        return [one.bytes_per_s for one in found]

    known = {t: rates(t) for t in (999.0, 1015.0, 1030.0, 1050.0, 1150.0, 1250.0, 1350.0)}
    assert known == {999.0: [], 1015.0: [5e5], 1030.0: [7e5], 1050.0: [], 1150.0: [9e5], 1250.0: [], 1350.0: [1e5]}
    stretches = [(one.bytes_per_s, one.created_at, one.expires_at) for one in empty.wanted.reservations_since(1030.0)]
    assert stretches == [(7e5, 1030.0, 1040.0), (9e5, 1100.0, 1200.0), (1e5, 1300.0, 1400.0)]


def test_last_is_what_was_measured_last(forepath: Forepath, empty: Store) -> None:
    with pytest.raises(SettingsError, match="nothing was measured"):
        moment("last", empty)
    then = fill(empty, 1_700_000_000.0)
    assert moment("last", empty) == then
    assert len(forepath("pairs", "--at", "last", "--json", "-").json()["pairs"]) == 2


def test_moments_as_people_write_them(empty: Store) -> None:
    now = time.time()
    assert moment("-10m", empty) == pytest.approx(now - 600, abs=60)
    assert moment("2023-11-14T22:13:20Z", empty) == 1_700_000_000.0
    assert moment("2023-11-14T22:13", empty) == datetime(2023, 11, 14, 22, 13).timestamp()
    assert now - 86_500 <= moment("03:00", empty) <= now + 60


@pytest.mark.parametrize("text", ["yesterday", "25:00", "2999-01-01", "+5m", "-0s"])
def test_other_words_end_in_one_line(forepath: Forepath, empty: Store, text: str) -> None:
    said = forepath("pairs", "--at", text)
    assert said.code == 2 and ("2026-11-28T03:00" in said.err or "no span" in said.err)

"""What was done, whether it kept its promise, and what each switch holds of each reservation."""

import time
from dataclasses import replace

import pytest
from lab_on_paper import COPYING, SEARCH, SHOPPING, Forepath

from cpdb import (
    ActionRecord,
    ActionTiming,
    InstallStatus,
    Limit,
    OutcomeKind,
    Pair,
    RefreshReport,
    Reservation,
    ReservationReport,
    Store,
)
from forepath.output import console

KEY = "c1->shop@leaf2>hA"


def bandwidth(now: float) -> ActionRecord:
    """A reservation that was made 5 s ago, ahead of a need 10 s from now."""
    forecast = {
        "pair": str(SHOPPING),
        "quantity": "bytes_per_s_peak",
        "model": "ewma",
        "issued_at": now - 5.7,
        "horizon_s": 15,
        "level": 0.9,
        "q05": 250_000.0,
        "q50": 500_000.0,
        "q90": 700_000.0,
        "value": 700_000.0,
    }
    reason = {
        "forecast": forecast,
        "where": {"link": "leaf2>hA"},
        "need": 1.6e6,
        "available": 1.35e6,
        "capacity": 1.5e6,
        "alternatives": [{"action": "migrate shop1 away from hA", "why_not": "too late: it takes up to 5.0 s"}],
        "promise": {"what": "pair_bytes_per_s", "pair": str(SHOPPING), "value": 700_000.0, "by": now + 10},
    }
    body = {
        "key": KEY,
        "source": SHOPPING.source,
        "virtual_ip": SHOPPING.virtual_ip,
        "bytes_per_s": 700_000.0,
        "limits": [{"source": COPYING.source, "virtual_ip": COPYING.virtual_ip, "bytes_per_s": 600_000.0}],
        "lease_s": 8.0,
        "dscp": None,
    }
    return ActionRecord(
        "reserve_bandwidth", KEY, body, "the link will be short", reason, "predictive", now - 5,
        ActionTiming(now + 10, 2.5, now - 4), OutcomeKind.DONE, "installed on leaf1",
    )  # fmt: skip


def test_actions_newest_first_with_outcome_and_promise(forepath: Forepath, filled: Store) -> None:
    filled.journal.add_action(bandwidth(time.time()))
    told = forepath("actions", "--json", "-").json()
    assert [one["outcome"] for one in told["actions"]] == ["done", "failed", "done", "advised"]
    assert told["total"] == 4 and told["outcomes"] == {"done": 2, "failed": 1, "advised": 1}
    assert told["promises"] == {"open": 1}
    first = told["actions"][0]
    assert "5.6 Mbit/s" in first["promise"] and "limiting c4" in first["what"] and first["verdict"] == {}
    text = forepath("actions", "--wide").out
    assert "hB: no memory" in text and "14.0 s early" in text and "promises: 1 open" in text


def test_a_verdict_is_told_in_a_word(forepath: Forepath, filled: Store) -> None:
    now = time.time()
    for kept in (True, False, None):
        said = {"kept": kept, "sentence": "measured"}
        filled.journal.add_action(replace(bandwidth(now), verdict=said))
    told = forepath("actions", "--json", "-").json()
    assert told["promises"] == {"kept": 1, "broken": 1, "unknown": 1}
    assert "broken" in forepath("actions").out


@pytest.mark.parametrize(
    "words,outcomes",
    [
        (("--outcome", "failed"), ["failed"]),
        (("--kind", "set_cpu_limit"), ["done", "advised"]),
        (("--kind", "set_cpu_limit", "--outcome", "done"), ["done"]),
        (("--since", "15s"), ["failed"]),
        (("--since", "25"), ["failed", "done"]),
        (("--top", "1"), ["failed"]),
        (("--kind", "set_memory"), []),
    ],
)
def test_only_what_was_asked_for(
    forepath: Forepath, filled: Store, words: tuple[str, ...], outcomes: list[str]
) -> None:
    told = forepath("actions", *words, "--json", "-").json()
    assert [one["outcome"] for one in told["actions"]] == outcomes
    assert forepath("actions", *words).code == 0


def test_a_cut_list_says_so(forepath: Forepath, filled: Store) -> None:
    assert "2 older ones are not shown" in forepath("actions", "--top", "1").out
    assert forepath("actions", "--top", "1", "--json", "-").json()["total"] == 3


def test_each_action_takes_one_line_of_a_narrow_terminal(
    forepath: Forepath, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.journal.add_action(bandwidth(time.time()))
    monkeypatch.setattr(console, "width", 80)
    lines = forepath("actions").out.splitlines()
    assert max(map(len, lines[1:-2])) <= 80
    rows = [line for line in lines if line.lstrip()[:1].isdigit() and " │ " in line]
    assert len(rows) == 4 and rows[0].split()[0] == "4" and "…" in rows[0] and "done" in rows[0]


def test_a_dozen_lines_explain_and_all_of_them_where_asked(forepath: Forepath, filled: Store) -> None:
    record = bandwidth(time.time())
    others = [{"action": f"way {number}", "why_not": "too late"} for number in range(20)]
    number = filled.journal.add_action(replace(record, reason={**record.reason, "alternatives": others}))
    short, whole = (forepath("explain", str(number), *words).out.splitlines() for words in ((), ("--all",)))
    assert len(short) == 12 and short[-1] == f"and {len(whole) - 11} more lines: --all shows them"
    assert set(short[:-1]) <= set(whole) and short[0] == whole[0] and len(whole) > 25
    told = " ".join(short)
    assert all(word in told for word in ("why: ", "deadline: ", "outcome: ", "promise: "))


def test_how_long_each_kind_took(forepath: Forepath, filled: Store) -> None:
    found = forepath("actions", "--lead-times", "--json", "-").json()["lead_times"]
    assert {one["kind"] for one in found} == {"set_cpu_limit"} and found[0]["samples"] == 1
    assert found[0]["p50_s"] == pytest.approx(0.5) and "too few" in forepath("actions", "--lead-times").out


@pytest.mark.parametrize("words", [("--kind", "dance"), ("--outcome", "fine"), ("--since", "yesterday")])
def test_unknown_words_name_the_known_ones(forepath: Forepath, empty: Store, words: tuple[str, str]) -> None:
    said = forepath("actions", *words)
    assert said.code == 2 and words[1] in said.err


def test_explain_tells_everything_about_one_action(forepath: Forepath, filled: Store) -> None:
    number = filled.journal.add_action(bandwidth(time.time()))
    text = forepath("explain", number).out
    for told in (
        "within 15 s by ewma, 0.7 s old: median 4.0 Mbit/s, 5 % below 2.0 Mbit/s, 90 % below 5.6 Mbit/s",
        "15.0 s after the decision",
        "lead time: it takes up to 2.5 s",
        "not: migrate shop1 away from hA, because too late",
        "outcome: done after 1.0 s: installed on leaf1",
        "promise: c1->10.77.0.101 can get 5.6 Mbit/s by",
        "verdict: open until",
    ):
        assert told in text, told
    row = filled.journal.action(number)
    assert row is not None
    filled.journal.amend_action(replace(row, verdict={"kept": True, "sentence": "peak 5.0 Mbit/s"}))
    assert "verdict: kept: peak 5.0 Mbit/s" in forepath("explain", number).out


def test_reservations_tell_what_each_switch_made_of_them(forepath: Forepath, empty: Store) -> None:
    now = time.time()
    wanted = Reservation(KEY, SHOPPING, 7e5, (Limit(COPYING, 6e5),), "orchestrator", "surge", now - 9, now + 8, 46)
    first = empty.wanted.reserve(wanted)
    other = empty.wanted.reserve(Reservation("k2", Pair("c2", SEARCH), 5e5, (), "anna", "by hand", now, now + 60))
    empty.wanted.reserve(Reservation("gone", Pair("c3", SEARCH), 5e5, (), "anna", "", now - 60, now - 1))
    empty.wanted.observe(
        [
            ReservationReport(KEY, "leaf1", first, InstallStatus.INSTALLED, "c4 limited to 4800 kbit/s", now),
            ReservationReport(KEY, "leaf3", first, InstallStatus.REFUSED, "the switch has no meters", now),
            ReservationReport(KEY, "spine1", first, InstallStatus.REMOVED, "", now),
            ReservationReport("k2", "leaf1", other - 1, InstallStatus.INSTALLED, "", now),
            RefreshReport("leaf1", 1.05, now),
        ]
    )
    told = forepath("reservations", "--json", "-").json()
    assert [(one["key"], one["state"]) for one in told["reservations"]] == [(KEY, "refused"), ("k2", "not yet")]
    surge = told["reservations"][0]
    assert [(one["node"], one["state"]) for one in surge["switches"]] == [("leaf1", "installed"), ("leaf3", "refused")]
    assert 0 < surge["expires_in_s"] <= 8 and surge["dscp"] == 46 and surge["generation"] == first
    text = " ".join(forepath("reservations").out.split())
    for part in ("no meters", "DSCP 46", "anna", "by hand", f"generation {other - 1} of {other}"):
        assert part in text, part


def test_a_renewed_reservation_keeps_its_birth(forepath: Forepath, empty: Store) -> None:
    now = time.time()
    item = Reservation(KEY, SHOPPING, 7e5, (), "orchestrator", "surge", now - 30, now + 1)
    empty.wanted.reserve(item)
    empty.wanted.reserve(replace(item, created_at=now, expires_at=now + 8))
    (told,) = forepath("reservations", "--json", "-").json()["reservations"]
    assert told["created_at"] == pytest.approx(now - 30) and told["state"] == "not yet" and told["switches"] == []
    assert "no switch has answered yet" in " ".join(forepath("reservations").out.split())

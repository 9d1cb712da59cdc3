"""`forepath report` counts what promises came to, and what nobody foresaw."""

import time
from dataclasses import replace
from typing import Any

from lab_on_paper import Forepath

from cpdb import ActionRecord, ActionTiming, OutcomeKind, ShortageKind, ShortageRecord, Store
from forepath.output import console
from orchestrator import PromiseVerdict, VerdictCode

PROMISE = {"what": "vm_not_starved", "vm": "shop1", "value": 0.6}


def raised(age_s: float, outcome: OutcomeKind = OutcomeKind.ADVISED, **verdict: Any) -> ActionRecord:
    at = time.time() - age_s
    said = PromiseVerdict(sentence="measured", **verdict).to_json() if verdict else {}
    return ActionRecord(
        "set_cpu_limit", "shop1", {"vm": "shop1", "from": 0.2, "to": 0.6}, "why", {"promise": PROMISE | {"by": at}},
        "predictive", at, ActionTiming(at + 5, 1.0, at + 1), outcome, "", said,
    )  # fmt: skip


def fill(store: Store) -> None:
    for row in (
        raised(60, code=VerdictCode.KEPT, short_s=20.0, spared_s=18.0),
        raised(50, code=VerdictCode.KEPT, short_s=10.0, spared_s=10.0, watched_s=10.0, cost_s=9.0),
        raised(40, code=VerdictCode.BROKEN, short_s=10.0, spared_s=4.0),
        raised(30, code=VerdictCode.UNNEEDED, cost_s=15.0),
        raised(20),
        raised(20, OutcomeKind.FAILED),
        raised(9000, code=VerdictCode.BROKEN, short_s=99.0),
    ):
        store.journal.add_action(row)
    now = time.time()
    for short in (
        ShortageRecord(ShortageKind.CPU, "shop1", now - 100, 12.0, "uses 0.20 of 0.20 cores"),
        ShortageRecord(ShortageKind.CPU, "shop2", now - 90, 3.0, "uses 0.20 of 0.20 cores"),
        ShortageRecord(ShortageKind.CPU, "shop1", now - 80, 20.0, "", foreseen_by=1),
        ShortageRecord(ShortageKind.LINK, "a>b", now - 9000, 20.0, ""),
    ):
        store.journal.keep_shortage(short)


def test_counts_by_kind_and_missed_needs(forepath: Forepath, empty: Store) -> None:
    fill(empty)
    said = forepath("report", "--since", "1h", "--json", "-").json()
    (kind,) = said["kinds"]
    counted = {name: kind[name] for name in ("kept", "broken", "unneeded", "wasteful", "unknown", "still_open")}
    assert counted == {"kept": 2, "broken": 1, "unneeded": 1, "wasteful": 1, "unknown": 0, "still_open": 1}
    assert (kind["advised"], kind["done"], kind["short_s"], kind["spared_s"]) == (5, 0, 40.0, 32.0)
    (cpu,) = said["shortages"]
    assert (cpu["missed"], cpu["missed_s"], cpu["foreseen"], cpu["foreseen_s"]) == (2, 15.0, 1, 20.0)
    assert cpu["longest"]["subject"] == "shop1"
    stand = said["standings"]["set_cpu_limit"]
    assert stand["keeps"] and not stand["earned"] and stand["earnings"]["judged"] == 5


def test_a_past_moment_has_what_was_until_then(forepath: Forepath, empty: Store) -> None:
    fill(empty)
    said = forepath("report", "--since", "1d", "--at", "-1h", "--json", "-").json()
    assert [(one["broken"], one["kept"], one["short_s"]) for one in said["kinds"]] == [(1, 0, 99.0)]
    assert [one["kind"] for one in said["shortages"]] == ["link"] and said["standings"] == {}
    assert "promises in 24 h until 20" in " ".join(forepath("report", "--at", "-1h").out.split())


def test_it_is_told_in_lines_that_fit_a_terminal(forepath: Forepath, empty: Store) -> None:
    fill(empty)
    before, console.width = console.width, 80
    try:
        text = forepath("report").out
    finally:
        console.width = before
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "set_cpu_limit: would have spared 32 of 139 shortage seconds" in flat
    assert (
        "standing of set_cpu_limit: not enough seen: 5 of 10 judged in 24 h: it is not shown that acting pays" in flat
    )
    assert "missed needs, cpu: 2 times, 15 s; 1 foreseen (20 s); longest 12 s at shop1" in flat


def test_a_kind_that_pays_and_one_that_breaks_its_promises_are_told(forepath: Forepath, empty: Store) -> None:
    for age in range(12):
        empty.journal.add_action(raised(600 - age, code=VerdictCode.KEPT, short_s=10.0, spared_s=9.0))
        broken = raised(600 - age, code=VerdictCode.BROKEN, enough=False, in_time=True)
        empty.journal.add_action(replace(broken, kind="set_memory"))
    flat = " ".join(forepath("report").out.split())
    assert "standing of set_cpu_limit: net 108 shortage seconds spared (interval 108 to 108)" in flat
    assert "it pays to act" in flat
    assert "standing of set_memory: fell back to advice: 10 of its last 10 promises were broken" in flat
    assert "1.5 times the margin" in flat


def test_nothing_to_tell_is_told(forepath: Forepath, empty: Store) -> None:
    assert "nothing was done or advised" in forepath("report", "--since", "10m").out


def test_a_span_that_is_none_and_a_file_that_cannot_be_written(forepath: Forepath, empty: Store) -> None:
    assert forepath("report", "--since", "soon").code == 2
    assert forepath("report", "--json", "/no/such/folder/x.json").code == 2

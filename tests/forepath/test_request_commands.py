"""Asking for bandwidth on the command line: what is written down, what is shown, and what is refused at the door."""

import time
from pathlib import Path

import pytest
from lab_on_paper import Forepath

from cpdb import Alarm, InstallStatus, Pair, RequestState, Reservation, ReservationReport, Store
from forepath.processes import orchestrator_config
from forepath.settings import Settings, load_settings
from orchestrator import NOT_OBTAINED

ASK = ("request", "bandwidth", "--from", "c1", "--to", "shop", "--rate", "5mbit", "--for", "60s", "--reason", "a call")


def test_a_request_is_written_down_with_who_asked(forepath: Forepath, empty: Store) -> None:
    before = time.time()
    told = forepath(*ASK, "--priority", "20", "--tenant", "retail", "--json", "-").json()
    (found,) = empty.requests.open(time.time())
    assert (found.id, told["acting"]) == (told["id"], False)
    assert (found.source, found.bytes_per_s, found.reason) == ("c1", 625_000.0, "a call")
    assert (found.priority, found.tenant, found.answer.state) == (20, "retail", RequestState.ASKED)
    assert before + 60 <= found.until <= time.time() + 60
    assert "@" in found.asked_by
    assert "no orchestrator acts now" in forepath(*ASK).out


def test_the_list_tells_what_became_of_it(forepath: Forepath, empty: Store) -> None:
    number = forepath(*ASK, "--json", "-").json()["id"]
    assert "no orchestrator has looked" in forepath("request", "list").out
    (asked,) = empty.requests.open(time.time())
    answer = {"state": RequestState.PARTLY, "granted_bytes_per_s": 250_000.0, "obtained_bytes_per_s": 240_000.0}
    empty.requests.amend(asked.answered(**answer, why="2.0 of 5.0 Mbit/s fit", decided_at=time.time()))
    text = forepath("request", "list").out
    assert "c1 -> shop" in text and "2.00 Mbit/s" in text and "1.92 Mbit/s" in text
    assert f"{number}, a call: 2.0 of 5.0 Mbit/s fit" in text
    assert forepath("request", "list", "--json", "-").json()["requests"][0]["state"] == "partly"


def test_a_request_can_be_withdrawn_once(forepath: Forepath, empty: Store) -> None:
    number = forepath(*ASK, "--json", "-").json()["id"]
    assert forepath("request", "withdraw", number, "--json", "-").json() == {"withdrawn": number}
    assert empty.requests.open(time.time()) == []
    again = forepath("request", "withdraw", number)
    assert again.code == 3 and f"request {number} is not open" in again.err


def test_reservations_show_which_request_each_lease_is_for(forepath: Forepath, empty: Store) -> None:
    number, now = forepath(*ASK, "--json", "-").json()["id"], time.time()
    key = f"request-{number}/leaf2>hA/meters"
    lease = Reservation(key, Pair("c1", "10.77.0.101"), 625_000.0, (), "orchestrator", "r", now, now + 8, dscp=46)
    generation = empty.wanted.reserve(lease)
    empty.wanted.observe([ReservationReport(key, "leaf1", generation, InstallStatus.INSTALLED, "marked DSCP 46", now)])
    empty.alarms.raise_([Alarm(NOT_OBTAINED, f"request {number}", "orchestrator", "only half arrives", now, now)])
    (found,) = forepath("reservations", "--json", "-").json()["requests"]
    assert (found["leases"], found["installed"], found["alarms"]) == ([key], ["installed"], ["only half arrives"])
    text = forepath("reservations").out
    assert "a call" in text and key in text


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"--rate": "fast"}, 2, "is no rate"),
        ({"--rate": "0mbit"}, 2, "is no rate"),
        ({"--for": "ever"}, 2, "is no span"),
        ({"--to": "nowhere"}, 3, "--to nowhere"),
        ({"--from": "nobody"}, 3, "--from nobody"),
    ],
)
def test_wrong_words_are_one_line(
    forepath: Forepath, empty: Store, change: dict[str, str], code: int, told: str
) -> None:
    words = list(ASK)
    for name, value in change.items():
        words[words.index(name) + 1] = value
    said = forepath(*words)
    assert said.code == code
    assert told in said.err + said.out
    assert empty.requests.open(time.time()) == []


def test_a_tenant_that_caps_nothing_is_refused_and_caps_reach_the_orchestrator(
    forepath: Forepath, settings: Settings, empty: Store
) -> None:
    file = Path("forepath.toml")
    file.write_text(file.read_text() + '\n[[tenant]]\nname = "retail"\n')
    said = forepath("status")
    assert said.code == 3 and "caps nothing" in said.err
    file.write_text(file.read_text() + "mbit_per_s = 8.0\n")
    (cap,) = orchestrator_config(load_settings(None), act=False).declared.tenant_caps
    assert (cap.tenant, cap.bytes_per_s, cap.link_share) == ("retail", 1e6, None)

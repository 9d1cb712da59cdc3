"""Commands that read: help with examples, and one valid JSON document on an empty and on a filled database."""

import time
from itertools import pairwise

import pytest
from lab_on_paper import ACCESS_BYTES_PER_S, BACKUP_BYTES, SHOP, SHOP_BYTES, SHOP_PEAK, Forepath

from cpdb import BandwidthRequest, Communication, Store
from forepath.cli import app
from forepath.output import console
from orchestrator import ACTING

COMMANDS = sorted(
    command.name or command.callback.__name__ for command in app.registered_commands if command.callback is not None
)


def test_the_commands_are_the_documented_ones() -> None:
    told = "actions apply check demo explain forecast init metrics orchestrate pairs paths pause plan predict"
    assert " ".join(COMMANDS) == told + " rehearse report reservations resume run status web whatif"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(forepath: Forepath, command: str) -> None:
    said = forepath(command, "--help")
    assert said.code == 0
    assert "Examples" in said.out and f"forepath {command}" in said.out


def test_help_names_the_exit_codes(forepath: Forepath) -> None:
    said = forepath("--help")
    assert said.code == 0 and "Exit codes" in said.out and "130" in said.out


@pytest.mark.parametrize(
    "words,key",
    [
        (("status",), "actions"),
        (("pairs",), "pairs"),
        (("forecast",), "forecasts"),
        (("paths",), "links"),
        (("paths", "--links", "--at", "+5s", "--why"), "links"),
        (("actions",), "actions"),
        (("reservations",), "reservations"),
        (("resume",), "resumed"),
        (("pause",), "paused"),
        (("plan",), "body"),
    ],
)
def test_json_is_valid_before_and_after_there_is_anything_to_tell(
    forepath: Forepath, empty: Store, words: tuple[str, ...], key: str
) -> None:
    said = forepath(*words, "--json", "-")
    assert said.code == 0 and key in said.json()
    assert forepath(*words).code == 0


def test_status_tells_what_is_there(forepath: Forepath, filled: Store) -> None:
    told = forepath("status", "--json", "-").json()
    assert abs(told["last_sample_at"] - time.time()) < 60
    assert {one["vm"] for one in told["vms"]} >= {"shop1", "batch1"}
    assert [one["host"] for one in told["hosts"]] == ["hA", "hB"]
    assert [one["key"] for one in told["reservations"]] == ["c2-search"]
    assert [one["outcome"] for one in told["actions"]] == ["failed", "done", "advised"]
    text = forepath("status").out
    assert "c2 -> 10.77.0.102" in text and "4.00 Mbit/s" in text and "hA runs short" in text


def test_status_tells_who_is_on_duty(forepath: Forepath, empty: Store) -> None:
    assert "none is running" in forepath("status").out
    empty.leases.hold(ACTING, "rack7/311/ab", time.time(), 60.0)
    assert forepath("status", "--json", "-").json()["on_duty"]["acting"]["holder"] == "rack7/311/ab"
    assert "acting: rack7/311/ab" in forepath("status").out


def test_pairs_tell_rates_and_what_is_expected(forepath: Forepath, filled: Store) -> None:
    first, second = forepath("pairs", "--json", "-").json()["pairs"]
    assert (first["pair"]["source"], second["pair"]["source"]) == ("c4", "c1")
    assert first["bytes_per_s"] == pytest.approx(BACKUP_BYTES)
    assert second["bytes_per_s"] == pytest.approx(SHOP_BYTES)
    assert second["connections_per_s"] == pytest.approx(4)
    assert second["mean_packet_bytes"] == pytest.approx(1000)
    assert second["expected_q50"] == {horizon: pytest.approx(SHOP_PEAK) for horizon in ("5", "15", "30")}
    assert "shop" in forepath("pairs").out


def test_forecast_of_one_pair_by_name_and_by_address(forepath: Forepath, filled: Store) -> None:
    by_name = forepath("forecast", "c1", "shop", "--json", "-").json()["forecasts"]
    by_address = forepath("forecast", "c1", SHOP, "--json", "-").json()["forecasts"]
    assert by_name == by_address and {row["horizon_s"] for row in by_name} == {5, 15, 30}
    said = forepath("forecast", "c1", "shop")
    assert said.code == 0 and "seconds from now" in said.out and "ewma" in said.out


def test_paths_show_each_hop_with_load_against_capacity(forepath: Forepath, filled: Store) -> None:
    links = forepath("paths", "--from", "c1", "--to", "shop", "--json", "-").json()["links"]
    assert links[0]["from_node"] == "c1" and links[-1]["to_node"] == "hA"
    assert all(one["to_node"] == other["from_node"] for one, other in pairwise(links))
    assert links[-1]["capacity_bytes_per_s"] == pytest.approx(ACCESS_BYTES_PER_S)
    everything = forepath("paths", "--json", "-").json()["links"]
    shares = [one["predicted_utilisation"] for one in everything]
    assert shares == sorted(shares, reverse=True) and shares[0] > 1
    assert (everything[0]["from_node"], everything[0]["to_node"]) == ("leaf2", "hA")
    assert "leaf2 -> hA" in forepath("paths").out


LONG = "a-name-of-a-source-that-is-longer-than-any-column-should-be-0001"
NARROW = [
    ("pairs",),
    ("forecast",),
    ("forecast", "c1", "shop"),
    ("paths", "--from", "c1", "--to", "shop"),
    ("paths", "--why"),
    ("reservations",),
    ("request", "list"),
    ("status",),
    ("vip", "list"),
]


@pytest.mark.parametrize("words", NARROW, ids=" ".join)
def test_a_narrow_terminal_shows_one_line_a_row(
    forepath: Forepath, filled: Store, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    now = time.time()
    filled.facts.add_communications([Communication(LONG, SHOP, "shop1", now, 1.0, SHOP_BYTES, 100, 4)])
    filled.requests.ask(BandwidthRequest("c1", SHOP, 1e5, now + 60, "a call", f"{LONG}@a-host", now))
    monkeypatch.setattr(console, "width", 80)
    lines = forepath(*words).out.splitlines()
    # What is said beside tables may be longer: the terminal folds it. A folded cell would begin with spaces.
    tables = [line for line in lines if " │ " in line and not line.endswith("│")]
    assert tables and max(map(len, lines if words[0] in ("pairs", "forecast", "paths") else tables)) <= 80, lines
    assert not [line for line in tables if not line.split("│")[0].strip()], lines


def test_what_is_left_out_is_said_and_shown_with_wide(
    forepath: Forepath, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 80)
    narrow, wide = forepath("pairs").out, forepath("pairs", "--wide").out
    assert "--wide shows all" in narrow and "packet" not in narrow.splitlines()[1]
    assert "packet" in wide.splitlines()[1] and "--wide" not in wide
    assert len(narrow.splitlines()) == len(wide.splitlines()) + 1


def test_explain_tells_one_action_and_the_last_one(forepath: Forepath, filled: Store) -> None:
    last = forepath("explain", "--last", "--json", "-").json()
    assert last["kind"] == "migrate_vm" and last["outcome"] == "failed" and last["lines"]
    assert forepath("explain", str(last["id"]), "--json", "-").json() == last
    assert "hA runs short" in forepath("explain", "--last").out


def test_plan_in_json_carries_its_number_and_end(forepath: Forepath, filled: Store) -> None:
    told = forepath("plan", "--json", "-").json()
    assert told["id"] >= 1 and told["state"] == "open" and told["expires_at"] > told["created_at"]

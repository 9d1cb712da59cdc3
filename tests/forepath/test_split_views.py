"""What people are shown of traffic that is split over several paths."""

import time

from lab_on_paper import SHOP, Forepath, place

from cpdb import FIRST_TAG, Alarm, Link, Store, WantedSplit
from forepath.paths import PathFinder, PathReader
from forepath.processes import orchestrator_config
from forepath.settings import Settings

UPPER, LOWER = ("leaf1", "spine1", "leaf2"), ("leaf1", "spine2", "leaf2")
NOW = 1_000_000.0


def want(store: Store, ratios: tuple[float, float], now: float = NOW) -> None:
    tags = FIRST_TAG, FIRST_TAG + 1
    store.wanted.put_splits([WantedSplit("leaf1", "leaf2", (UPPER, LOWER), ratios, tags, "test", "", now, now + 600)])


def test_paths_follow_the_split_in_force_and_show_all_of_it(empty: Store) -> None:
    place(empty)
    for ratios, middle in (((1.0, 0.0), "spine1"), ((0.0, 1.0), "spine2")):
        want(empty, ratios)
        way = PathFinder.of(empty, NOW).to_service("c1", "shop", NOW)
        assert way.hops == ("c1", "leaf1", middle, "leaf2", "hA", "shop1")
        assert [(one.share, one.taken) for one in way.split] == [(1.0, True)]
        assert PathReader(empty, 1.0, lambda: NOW)("c1", "shop1")[2] == middle
    want(empty, (0.25, 0.75))
    way = PathFinder.of(empty, NOW).to_service("c1", "shop", NOW)
    assert [one.share for one in way.split] == [0.25, 0.75]
    assert [one.hops for one in way.split if one.taken] == [way.hops[1:4]]
    # Out of date: the shortest way again.
    assert PathFinder.of(empty, NOW + 601).to_service("c1", "shop", NOW).split == ()


def test_the_command_shows_every_path_with_its_share(empty: Store, forepath: Forepath) -> None:
    place(empty)
    want(empty, (0.25, 0.75), time.time())
    said = forepath("paths", "--from", "c1", "--to", SHOP)
    assert "split: 25% over leaf1 -> spine1 -> leaf2 (tag 3072)" in said.out
    assert "split: 75% over leaf1 -> spine2 -> leaf2 (tag 3073)" in said.out
    assert said.out.count("<- this pair") == 1
    split = forepath("paths", "--from", "c1", "--to", SHOP, "--json", "-").json()["path"]["split"]
    assert [(one["share"], one["tag"]) for one in split] == [(0.25, 3072), (0.75, 3073)]


def test_routing_goes_by_what_is_known_until_somebody_says_yes_or_no() -> None:
    assert orchestrator_config(Settings(), act=True).routing.enabled == "auto"
    guest = Settings.model_validate({"controller": {"mode": "guest"}})
    assert orchestrator_config(guest, act=True).routing.enabled is False
    on = orchestrator_config(Settings.model_validate({"routing": {"enabled": True, "paths": 3}}), act=True).routing
    assert on.enabled and (on.paths, on.every_s) == (3, 30.0)


def test_commands_say_whether_traffic_is_routed_and_why(empty: Store, forepath: Forepath) -> None:
    place(empty)
    assert forepath("status", "--json", "-").json()["routing"]["on"]
    assert "routing        on: there is a choice of paths, and the capacities of all 6 links" in forepath("status").out
    assert 'routing.enabled = "auto" is on' in "".join(forepath("check", "--json", "-").json()["notes"])
    empty.inventory.put_links([Link("leaf1", 9, "leaf2", 9, None)])
    now = forepath("plan", "--json", "-").json()["routing"]
    assert not now["on"] and "leaf1>leaf2: no known capacity" in now["why"]
    empty.inventory.put_links([Link("leaf1", 9, "leaf2", 9, 1e6)])
    empty.alarms.raise_([Alarm("labels_taken", "routing", "", "VLAN 3100 is in use", 1.0, 1.0)])
    assert "routing: off: VLAN 3100 is in use" in forepath("plan").out

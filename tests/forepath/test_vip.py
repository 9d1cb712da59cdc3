"""Virtual IPs at the command line: destinations come, drain and go, nobody is cut off by mistake, all can be undone."""

import time
from dataclasses import replace

import pytest
from lab_on_paper import SHOP, Forepath

from cpdb import Alarm, DestinationHealth, HealthReport, HealthStatus, LiveCount, Store, WantedWeights

NEW = ("--address", "10.77.0.99", "--mac", "52:54:00:77:00:99")


def standing(store: Store) -> dict[str, str]:
    vip = next(one for one in store.inventory.virtual_ips() if one.address == SHOP)
    return {one.name: one.standing.value for one in vip.destinations}


def names(store: Store) -> list[str]:
    return list(standing(store))


def well(store: Store, **health: str) -> None:
    store.wanted.observe(
        [
            HealthReport(SHOP, name, DestinationHealth(HealthStatus(how), how == "up"), "", 1.0)
            for name, how in health.items()
        ]
    )


def test_a_destination_joins_serves_drains_and_goes(forepath: Forepath, empty: Store) -> None:
    before = names(empty)
    said = forepath(
        "vip", "add", "shop", "shop9", *NEW, "--weight", "50", "--reason", "more room", "--json", "-"
    ).json()
    assert said["change"]["standing"] == "joining" and said["change"]["generation"] > 0
    assert said["undo"] == "forepath vip remove shop shop9"
    listed = {one["name"]: one for one in destinations(forepath)}
    assert list(listed) == [*before, "shop9"]
    joining = listed["shop9"]
    assert (joining["share"], joining["standing"], joining["declared"]) == (0.0, "joining", False)
    assert joining["reason"] == "more room" and "@" in joining["changed_by"]
    well(empty, shop9="up")
    assert {one["name"]: one for one in destinations(forepath)}["shop9"]["share"] > 0
    assert forepath("vip", "drain", "shop", "shop9").code == 0
    assert standing(empty)["shop9"] == "draining"
    assert forepath("vip", "remove", "shop", "shop9").code == 0
    assert names(empty) == before
    # What was there is remembered.
    assert forepath("vip", "add", "shop", "shop9").code == 0
    assert standing(empty)["shop9"] == "joining"


def destinations(forepath: Forepath) -> list[dict[str, object]]:
    found = forepath("vip", "list", "--json", "-").json()["virtual_ips"]
    shop: list[dict[str, object]] = next(one["destinations"] for one in found if one["name"] == "shop")
    return shop


def test_the_last_one_is_not_drained_and_who_serves_is_not_removed(forepath: Forepath, empty: Store) -> None:
    serving = next(one["name"] for one in destinations(forepath) if one["share"] == 1.0)
    said = forepath("vip", "drain", "shop", serving)
    assert said.code == 1 and "only destination" in said.err and len(said.err.splitlines()) == 1
    said = forepath("vip", "remove", "shop", serving)
    assert said.code == 1 and "still serves" in said.err and "--now" in said.err
    assert standing(empty)[str(serving)] == "serving"
    assert forepath("vip", "remove", "shop", serving, "--now").code == 0
    assert serving not in names(empty)


def test_drained_and_back(forepath: Forepath, empty: Store) -> None:
    first, *_ = names(empty)
    forepath("vip", "add", "shop", "shop9", *NEW)
    well(empty, shop9="up")
    said = forepath("vip", "drain", SHOP, first, "--reason", "new kernel")
    assert said.code == 0 and f"forepath vip undrain shop {first}" in said.out
    assert standing(empty)[first] == "draining"
    empty.wanted.observe([LiveCount(SHOP, first, 17, 1.0)])
    assert {one["name"]: one["live"] for one in destinations(forepath)} == dict.fromkeys(standing(empty)) | {first: 17}
    text = forepath("vip", "list").out
    assert "17" in text and "new kernel" in text and "draining" in text
    assert forepath("vip", "undrain", "shop", first).code == 0
    assert standing(empty)[first] == "serving"
    assert forepath("vip", "undrain", "shop", first).code == 1


@pytest.mark.parametrize(
    ("words", "code", "tells"),
    [
        (("add", "shop", "shop9"), 3, "--address and --mac"),
        (("add", "nothing", "shop9", *NEW), 3, "no declared virtual IP"),
        (("add", "shop", "shop9", "--address", SHOP, "--mac", "52:54:00:77:00:99"), 3, "virtual IP itself"),
        (("add", "shop", "shop9", "--address", "10.77.0", "--mac", "52:54:00:77:00:99"), 2, ""),
        (("add", "shop", "shop9", "--address", "10.77.0.99", "--mac", "52-54"), 2, ""),
        (("drain", "shop", "nobody"), 3, "no destination of shop"),
        (("remove", "shop", "nobody"), 3, "no destination of shop"),
    ],
)
def test_mistakes_are_told_in_one_line(
    forepath: Forepath, empty: Store, words: tuple[str, ...], code: int, tells: str
) -> None:
    before = standing(empty)
    said = forepath("vip", *words)
    assert said.code == code and tells in said.err
    assert code == 2 or len(said.err.splitlines()) == 1
    assert standing(empty) == before


def test_a_name_or_an_address_twice_is_refused(forepath: Forepath, empty: Store) -> None:
    first, *_ = names(empty)
    assert "already" in forepath("vip", "add", "shop", first).err
    taken = next(one["address"] for one in destinations(forepath))
    said = forepath("vip", "add", "shop", "shop9", "--address", taken, "--mac", "52:54:00:77:00:99")
    assert said.code == 3 and f"is {first}'s" in said.err


def test_alarms_are_shown_first_here_and_in_the_status(forepath: Forepath, empty: Store) -> None:
    now = time.time()
    first, *_ = names(empty)
    empty.alarms.raise_([Alarm("duplicate", f"{SHOP}/{first}", "controller", "is in two places", now, now)])
    for words in (("vip", "list"), ("status",)):
        assert f"alarm duplicate: shop/{first} (controller): is in two places" in forepath(*words).out
    assert [one["kind"] for one in forepath("status", "--json", "-").json()["alarms"]] == ["duplicate"]


def test_wanted_weights_count_in_the_shares(forepath: Forepath, empty: Store) -> None:
    first, *_ = names(empty)
    forepath("vip", "add", "shop", "shop9", *NEW)
    well(empty, shop9="up")
    empty.wanted.want_weights(WantedWeights(SHOP, {first: 300, "shop9": 100}, "o", "r"))
    shares = {one["name"]: one["share"] for one in destinations(forepath)}
    assert (shares[first], shares["shop9"]) == (0.75, 0.25)


def test_paths_know_who_gets_new_connections(forepath: Forepath, filled: Store) -> None:
    first, *_ = names(filled)
    other = names(filled)[1]
    filled.wanted.want_weights(WantedWeights(SHOP, {first: 100, other: 100}, "o", "r"))
    well(filled, **{first: "up", other: "down"})
    said = forepath("paths", "--from", "c3", "--to", "shop")
    assert said.code == 0 and f"({first} 100, {other} 0) it will be sent to {first}" in " ".join(said.out.split())
    declared = filled.inventory.virtual_ips(declared_only=True)
    filled.inventory.declare_virtual_ips([replace(one, affinity="connection") for one in declared])
    said = forepath("paths", "--from", "c3", "--to", "shop")
    assert f"most go to {first}" in " ".join(said.out.split())

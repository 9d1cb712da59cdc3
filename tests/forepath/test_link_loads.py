"""What links will carry, because of whom, at which moment ahead; and the way that traffic takes until then."""

import math
import time
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from lab_on_paper import BACKUP_BYTES, COPYING, SHOP, SHOP_BYTES, SHOP_PEAK, SHOPPING, Forepath, fan, fill, place

from cpdb import (
    ActionRecord,
    ActionTiming,
    Communication,
    ForecastBatch,
    Link,
    LinkLoad,
    OutcomeKind,
    Pair,
    Quantity,
    SettingsError,
    Store,
    Subject,
    SubjectKind,
    WantedWeights,
)
from forepath.forecasts import ahead
from forepath.paths import LinkView, PathFinder, links
from orchestrator import Gatherer, LeadTimes, OrchestratorConfig, PlanningContext

NOW = 1_000_000.0
ACCESS = ("leaf2", "hA")
BY = (0.1, 0.5, 0.9)


def peaks(subject: Subject, tier: str, at: float, said: dict[int, float]) -> ForecastBatch:
    """Peaks of one subject by horizon: median as given, the 0.1 quantile half, the 0.9 quantile twice of it."""
    values = array("f", [part for middle in said.values() for part in (middle / 2, middle, middle * 2)])
    quantities, chosen = (Quantity.BYTES_PEAK,), bytes(len(said))
    return ForecastBatch(at, tier, (subject,), tuple(said), quantities, BY, ("theta",), chosen, values.tobytes())


def seen(store: Store, at_s: float = 15.0, now: float = NOW) -> dict[tuple[str, str], LinkView]:
    found = links(store, now, ahead(store, now, at_s), PathFinder.of(store, now, at_s).path)
    shares = [one.predicted_utilisation for one in found]
    assert shares == sorted(shares, reverse=True)
    return {(one.from_node, one.to_node): one for one in found}


def test_a_silent_pair_with_a_forecast_loads_the_links_towards_its_service(empty: Store) -> None:
    place(empty)
    empty.forecasts.add_forecasts([fan(Pair("c2", SHOP), NOW, 5, Quantity.BYTES_PEAK, 1e6)])
    loaded = {hop: view for hop, view in seen(empty, 5.0).items() if view.predicted.q50}
    assert ("c2", "leaf1") in loaded and ACCESS in loaded and len(loaded) == 4
    assert loaded[ACCESS].predicted.q90 == pytest.approx(1.4e6)
    assert loaded[ACCESS].predicted.q10 == pytest.approx(0.6e6)


def test_predicted_load_adds_up_and_never_falls_below_the_present(empty: Store) -> None:
    fill(empty, NOW)
    found = seen(empty)
    access = found[ACCESS]
    assert next(iter(found)) == ACCESS
    assert access.bytes_per_s == pytest.approx(SHOP_BYTES + BACKUP_BYTES)
    assert access.predicted.q50 == pytest.approx(SHOP_PEAK + BACKUP_BYTES)
    assert access.predicted.q90 == pytest.approx(1.4 * SHOP_PEAK + BACKUP_BYTES)
    assert (
        access.predicted_utilisation == pytest.approx(access.predicted.q90 / 1.5e6) and access.others_bytes_per_s == 0
    )
    assert found["hA", "leaf2"].predicted.q90 == 0.0 and found["hA", "leaf2"].bytes_per_s is None


def test_pairs_add_their_spreads_in_squares_and_each_tells_what_it_brings(empty: Store) -> None:
    fill(empty, NOW)
    rows = [fan(pair, NOW, 15, Quantity.BYTES_PEAK, 1e6) for pair in (SHOPPING, COPYING)]
    empty.forecasts.add_forecasts([replace(one, issued_at=NOW + 0.5) for one in rows])
    access = seen(empty, now=NOW + 1)[ACCESS]
    assert access.predicted.q50 == pytest.approx(2e6)
    assert access.predicted.q90 == pytest.approx(2e6 + math.sqrt(2) * 0.4e6)
    assert {one.pair for one in access.parts} == {SHOPPING, COPYING}
    assert all(one.predicted.model == "ewma" for one in access.parts)


def test_of_a_link_without_pairs_its_own_forecast_counts(empty: Store) -> None:
    fill(empty, NOW)
    subject = Subject(SubjectKind.LINK, "hA", "leaf2")
    empty.forecasts.add_batch(peaks(subject, "fast/link", NOW, {5: 1e5, 15: 2e5}))
    answers = seen(empty)["hA", "leaf2"]
    assert answers.predicted.model == "link: theta" and answers.predicted.band == pytest.approx((1e5, 2e5, 4e5))
    assert answers.by_pairs.q90 == 0 and answers.share(answers.predicted.q90) == pytest.approx(4e5 / 1.5e6)


def test_pairs_and_the_link_itself_are_reconciled_and_what_is_beside_them_counts(empty: Store) -> None:
    fill(empty, NOW)
    beside = 1e5
    empty.facts.add_loads([LinkLoad(*ACCESS, NOW + 0.5, 10.5, int(10.5 * (SHOP_BYTES + BACKUP_BYTES + beside)), 1, 0)])
    alone = seen(empty, now=NOW + 1)[ACCESS]
    assert 0.0 < alone.others_bytes_per_s <= beside
    assert alone.predicted.q50 == pytest.approx(alone.by_pairs.q50 + alone.others_bytes_per_s)
    empty.forecasts.add_batch(peaks(Subject(SubjectKind.LINK, *ACCESS), "fast/link", NOW, {15: 6e5}))
    both = seen(empty, now=NOW + 1)[ACCESS]
    assert both.by_link is not None and both.by_link.q50 < both.predicted.q50 < alone.predicted.q50
    assert both.predicted.q90 - both.predicted.q50 == pytest.approx(both.by_link.q90 - both.by_link.q50)


def test_a_link_without_known_capacity_has_no_share(empty: Store) -> None:
    empty.inventory.put_links([Link("leaf1", 40, "leaf2", 40, None)])
    view = seen(empty)["leaf1", "leaf2"]
    assert view.capacity_bytes_per_s is None and view.predicted_utilisation == 0.0 and view.share(1.0) is None


@pytest.mark.parametrize("at_s,horizon_s,tier", [(1, 5, "fast"), (5, 5, "fast"), (6, 15, "fast"), (31, 60, "slow")])
def test_the_nearest_forecast_that_reaches_a_moment_speaks_of_it(
    empty: Store, at_s: float, horizon_s: int, tier: str
) -> None:
    pair = Subject(SubjectKind.PAIR, "c1", SHOP)
    empty.forecasts.add_batch(peaks(pair, "fast", NOW, {5: 1.0, 15: 2.0, 30: 3.0}))
    empty.forecasts.add_batch(peaks(pair, "slow", NOW, {60: 4.0, 300: 5.0}))
    found = ahead(empty, NOW, at_s)
    assert (found.horizon_s, found.tier, found.issued_at) == (horizon_s, tier, NOW)
    assert found.pairs[pair].q50 == {5: 1.0, 15: 2.0, 60: 4.0}[horizon_s]
    with pytest.raises(SettingsError, match="the farthest forecast is 300 s"):
        ahead(empty, NOW, 301)


def test_without_forecasts_what_is_measured_goes_on(empty: Store) -> None:
    place(empty)
    empty.facts.add_communications([Communication("c1", SHOP, "shop1", NOW, 1.0, 5_000, 10, 1)])
    (part,) = seen(empty)[ACCESS].parts
    assert part.predicted.model == "measured" and part.predicted.q90 == part.bytes_per_s == pytest.approx(5_000)


def test_wanted_weights_send_who_has_been_silent_elsewhere_and_nobody_who_speaks(empty: Store) -> None:
    place(empty)
    empty.facts.add_communications([Communication("c1", SHOP, "shop1", NOW, 1.0, 10, 1, 1)])
    empty.wanted.want_weights(WantedWeights(SHOP, {"shop1": 0, "shop2": 100}, "somebody", "drain"))
    finder = PathFinder.of(empty, NOW, 15.0)
    assert finder.to_service("c1", "shop", NOW + 30).hops[-1] == "shop1"
    later = finder.to_service("c1", "shop", NOW + 90)
    assert later.hops[-1] == "shop2" and "silent" in later.because[0] and "shop2 100" in later.because[0]
    assert finder.path("c2", SHOP)[-1] == "shop2"
    empty.wanted.want_weights(WantedWeights(SHOP, {"shop1": 0, "shop2": 0}, "somebody", "all gone"))
    with pytest.raises(SettingsError, match="no destination has a weight above 0"):
        PathFinder.of(empty).to_service("c2", "shop", NOW)


def test_a_machine_that_will_have_moved_by_then_is_met_at_its_new_host(empty: Store) -> None:
    place(empty)
    body = {"vm": "shop1", "from": "hA", "to": "hB"}
    moving = ActionRecord("migrate_vm", "shop1", body, "", {}, "predictive", NOW, ActionTiming(NOW + 10, 8.0))
    number = empty.journal.add_action(moving)
    way = {at: PathFinder.of(empty, NOW, at).to_service("c1", "shop", NOW) for at in (5.0, 10.0)}
    assert way[5.0].hops[-2:] == ("hA", "shop1")
    assert way[10.0].hops[-2:] == ("hB", "shop1") and "moving to hB" in way[10.0].because[-1]
    empty.journal.amend_action(replace(moving, id=number, outcome=OutcomeKind.FAILED))
    assert PathFinder.of(empty, NOW, 10.0).to_service("c1", "shop", NOW).hops[-2:] == ("hA", "shop1")


def test_the_command_tells_the_way_the_links_and_why(forepath: Forepath, filled: Store) -> None:
    told = forepath("paths", "--from", "c1", "--to", "shop", "--at", "+12s", "--why", "--json", "-").json()
    assert (told["at_s"], told["horizon_s"], told["tier"]) == (12, 15, "fast")
    assert told["path"]["hops"][0] == "c1" and told["path"]["hops"][-1] == "shop1" and told["path"]["because"]
    last = told["links"][-1]
    assert {one["service"] for one in last["pairs"]} == {"shop", "backup"}
    assert last["predicted_shares"]["q10"] < last["predicted_shares"]["q50"] < last["predicted_shares"]["q90"]
    text = forepath("paths", "--from", "c1", "--to", "shop", "--at", "+12s", "--why").out
    assert "in 12 s: c1 -> leaf1" in text and "c1 speaks with shop1 and keeps it" in text
    assert "c4 -> backup" in text and "ewma within 15 s" in text and "measured" in text


def test_every_link_most_congested_first(forepath: Forepath, filled: Store) -> None:
    first, *rest = forepath("paths", "--links", "--top", "3", "--json", "-").json()["links"]
    assert (first["from_node"], first["to_node"]) == ACCESS and len(rest) == 2 and "pairs" not in first
    assert first["utilisation"] == pytest.approx((SHOP_BYTES + BACKUP_BYTES) / 1.5e6)
    text = forepath("paths", "--links", "--top", "1", "--at", "5").out
    assert "leaf2 -> hA" in text and "leaf1" not in text and "2 pairs" in text and "next 5 s" in text


def test_links_show_what_the_planner_counts(forepath: Forepath, filled: Store, tmp_path: Path) -> None:
    told = forepath("paths", "--links", "--at", "15", "--json", "-").json()
    now = told["issued_at"]
    config = OrchestratorConfig(demand={"max_forecast_age_s": 1e6})
    world = Gatherer(filled, config, PathFinder.of(filled, now, 15.0).path).world(now, (), LeadTimes())
    context = PlanningContext.of(world, config)
    assert told["links"][0]["needed_bytes_per_s"] > 0
    for one in told["links"]:
        key = one["from_node"], one["to_node"]
        assert one["needed_bytes_per_s"] == pytest.approx(context.needed(key, 15), rel=0.2), key


def test_what_makes_no_sense_is_refused(forepath: Forepath, filled: Store) -> None:
    assert forepath("paths", "--links", "--from", "c1", "--to", "shop").code == 2
    assert forepath("paths", "--at", "soon").code == 2
    assert forepath("paths", "--at", "0s").code == 2
    said = forepath("paths", "--at", "+1h")
    assert said.code == 3 and "the farthest forecast is 30 s" in said.err


def test_without_fresh_forecasts_the_command_says_so(forepath: Forepath, empty: Store) -> None:
    fill(empty, time.time() - 60)
    said = forepath("paths", "--links")
    assert said.code == 0 and "no fresh forecast" in said.out

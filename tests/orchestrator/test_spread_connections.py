"""Where connections are placed one by one, each destination needs its share, and learns from its share."""

import random
from dataclasses import replace

import pytest
from fake_world import fan
from measured_rows import past
from worlds import CONFIG, NOW, RELATION, changed, foreseen, machines, pair_state, vm, world

from cpdb import Communication, Destination, Quantity, Standing, VirtualIp, VmLoad
from orchestrator import LinkState, World
from orchestrator.context import PlanningContext, served_demands, vm_need
from orchestrator.observe.learn import learn


def service(first: int = 100, second: int = 100, affinity: str = "connection") -> VirtualIp:
    return VirtualIp(
        "shop", "shop", 10, (Destination("a", "1", "m", first), Destination("b", "2", "m", second)), affinity=affinity
    )


def start(vip: VirtualIp, peak: float = 20.0) -> World:
    talk = foreseen(pair_state("c1", "shop", 10, 4.0, destination="a", links=()), {5: peak, 15: peak, 30: peak})
    guests = (vm("a", "h1", 0.05, 0.5, relation=RELATION), vm("b", "h2", 0.05, 0.5, relation=RELATION))
    return replace(world([talk], **machines(*guests)), virtual_ips={"shop": vip})


def cores(here: World, name: str, horizon_s: int = 5) -> float:
    return vm_need(PlanningContext.of(here, CONFIG), here.vms[name], horizon_s).cores


def test_each_destination_needs_its_share_and_all_together_what_one_would() -> None:
    whole = cores(start(service(affinity="source")), "a")
    here = start(service(300, 100))
    assert cores(here, "a") > cores(here, "b") > 0.05
    extra = cores(here, "a") + cores(here, "b") - 2 * RELATION.base_cores
    assert extra == pytest.approx(whole - RELATION.base_cores, rel=0.15)
    assert served_demands(PlanningContext.of(here, CONFIG), here.vms["b"], 5)[0].connections.measured == pytest.approx(
        1.0
    )


def test_with_affinity_to_sources_the_destination_that_was_seen_serves_all() -> None:
    here = start(service(affinity="source"))
    assert cores(here, "b") == pytest.approx(0.05)
    assert served_demands(PlanningContext.of(here, CONFIG), here.vms["b"], 5) == []


def test_wanted_weights_count_before_declared_ones_and_who_drains_gets_nothing() -> None:
    assert service().shares({"a": 1, "b": 3}, {}) == {"a": 0.25, "b": 0.75}
    assert service(100, 0).shares({}, {}) == {"a": 1.0}
    draining = replace(service(), destinations=(replace(service().destinations[0], standing=Standing.DRAINING),))
    assert draining.shares({}, {}) == {}


def test_relations_are_learnt_although_no_row_names_a_machine() -> None:
    rng = random.Random(4)
    counts = [rng.randint(0, 20) for _ in range(120)]
    rows = [Communication("c1", "shop", None, 1_000.0 + n, 1.0, c * 1000, c, c) for n, c in enumerate(counts)]
    loads = [
        VmLoad(name, "h1", 1_000.0 + n, "running", 0.02 * share * c, 1.0, 1, 1, 1)
        for n, c in enumerate(counts)
        for name, share in (("a", 0.75), ("b", 0.25))
    ]
    found = learn(past(rows, loads, shares={"shop": {"a": 0.75, "b": 0.25}})).relations
    for name in ("a", "b"):
        (relation,) = [one for one in found[name] if one.feature == "connections_per_s"]
        assert relation.slope == pytest.approx(0.02, rel=0.1)
    assert learn(past(rows, loads)).relations == {}


def test_a_narrow_link_to_one_destination_bounds_nobody_who_talks_to_several() -> None:
    narrow, wide = LinkState(("s", "h1"), 1_000.0, 0.0), LinkState(("s", "h2"), 50_000.0, 0.0)
    ways = {"h1": (narrow.key,), "h2": (wide.key,)}
    here = changed(
        start(service()), links={one.key: one for one in (narrow, wide)}, ways=lambda _source, end: ways.get(end, ())
    )
    talk = next(iter(here.pairs.values()))
    told = fan(talk.pair, NOW, 5, Quantity.BYTES_PEAK, 40_000.0)
    both = replace(talk, links=(narrow.key,), forecasts={(5, Quantity.BYTES_PEAK): told})
    asked = PlanningContext.of(replace(here, pairs={talk.pair: both}), CONFIG).demand.of(talk.pair, 5).bytes.need
    assert asked >= 40_000.0

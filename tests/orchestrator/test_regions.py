"""Regions: who is linked most closely is planned together, apart from the others, and what is left goes between."""

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, GIB, changed, machines, vm, world

from orchestrator import HostSpec, LinkState, OrchestratorConfig, PlanningContext, World
from orchestrator.actions import moves_of
from orchestrator.regions import WeightedLink, find_regions, regions_of, with_shares
from orchestrator.strategies import placement


def link(a: str, b: str, bytes_per_s: float = 1e9) -> WeightedLink:
    return WeightedLink((min(a, b), max(a, b)), bytes_per_s)


def test_two_meshes_over_one_thin_link_are_two_regions() -> None:
    left, right = [f"a{n}" for n in range(4)], [f"b{n}" for n in range(4)]
    links = [link(*ends) for own in (left, right) for ends in combinations(own, 2)]
    found = find_regions((*left, *right), (*links, link("a0", "b0", 1e8)), 2)
    assert set(found) == {frozenset(left), frozenset(right)}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.sets(st.tuples(st.integers(0, 29), st.integers(0, 29))), st.integers(1, 8))
def test_every_host_is_in_one_region_and_none_is_too_small(count: int, ends: set[tuple[int, int]], least: int) -> None:
    hosts = tuple(f"h{n}" for n in range(count))
    found = find_regions(hosts, tuple(link(f"h{a}", f"h{b}") for a, b in sorted(ends) if a != b), least)
    assert sorted(name for one in found for name in one) == sorted(hosts)
    assert len(found) == 1 or all(len(one) >= least for one in found)


def spread(busy: dict[str, list[float]], **spec: object) -> World:
    """Hosts of one core each, half of them in either region, with machines that use so many cores."""
    hosts = tuple(HostSpec(name, "", "", 1.0, GIB, region="east" if name < "h3" else "west") for name in sorted(busy))
    vms = [
        vm(f"{host}v{n}", host, used, 0.6, priority=10 * (n == 0), movable=n > 0, cpu_cores_max=1.0, **spec)
        for host, own in busy.items()
        for n, used in enumerate(own)
    ]
    return world([], **machines(*vms, hosts=hosts))


def moves(known: World, config: OrchestratorConfig = CONFIG) -> set[tuple[str, str]]:
    steps = placement.propose(PlanningContext.of(known, config)).steps
    return {(one.vm, one.after) for one in moves_of(step.action for step in steps)}


def test_a_region_with_room_keeps_its_machines() -> None:
    known = spread({"h1": [0.6, 0.5], "h2": [0.3], "h3": [0.0], "h4": [0.0]})
    assert moves(known) == {("h1v1", "h2")}


def test_what_a_region_cannot_place_goes_to_another() -> None:
    known = spread({"h1": [0.6, 0.5], "h2": [0.6], "h3": [0.5], "h4": [0.1]})
    assert moves(known) == {("h1v1", "h4")}
    refused = placement.propose(PlanningContext.of(known, CONFIG)).refusals
    assert not any(one.about == "h1v1" for one in refused)


def test_machines_of_one_affinity_make_their_regions_one() -> None:
    known = spread({"h1": [0.1, 0.1], "h3": [0.1, 0.1]})
    assert len(regions_of(PlanningContext.of(known, CONFIG))) == 2
    tied = {name: replace(one, spec=replace(one.spec, affinity="db")) for name, one in known.vms.items() if one.spec}
    assert regions_of(PlanningContext.of(changed(known, vms=tied), CONFIG)) == []


def test_a_small_network_is_planned_as_one() -> None:
    known = spread({"h1": [0.6, 0.5], "h2": [0.3]})
    assert regions_of(PlanningContext.of(known, CONFIG)) == []


@pytest.mark.parametrize("regions", [1, 2, 5])
def test_regions_share_what_links_between_them_have_left(regions: int) -> None:
    keys = [*pairwise(("h1", "leaf1", "spine", "leaf2", "h2"))]
    links = {key: LinkState(key, 100.0, 20.0) for key in keys}
    known = changed(spread({"h1": [0.1], "h2": [0.1]}), links=links)
    found = with_shares(PlanningContext.of(known, CONFIG), regions).world.links
    assert found["h1", "leaf1"].capacity_bytes_per_s == 100.0
    assert found["leaf1", "spine"].capacity_bytes_per_s == pytest.approx(20.0 + 80.0 / regions)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(0.0, 0.6), min_size=1, max_size=4), min_size=6, max_size=6))
def test_apart_is_never_dearer_than_both_the_whole_plan_and_leaving_all_as_it_is(used: list[list[float]]) -> None:
    """How near it comes to the whole plan is a matter of size: the bench compares them."""
    known = spread({f"h{n}": own for n, own in enumerate(used)})
    whole = PlanningContext.of(changed(known, hosts={n: replace(h, region="") for n, h in known.hosts.items()}), CONFIG)
    apart, together = (
        moves_of(step.action for step in placement.propose(context).steps)
        for context in (PlanningContext.of(known, CONFIG), whole)
    )
    most = max(placement.cost_of(whole, ()), placement.cost_of(whole, together))
    assert placement.cost_of(whole, apart) <= most + 1e-6


def test_a_region_may_take_the_room_that_another_ones_larger_machine_needs() -> None:
    """What planning apart costs: h5v1 would fit h0 alone, as the whole plan finds, and stays."""
    known = spread({"h0": [0.0], "h1": [0.5], "h2": [0.5, 0.5], "h3": [0.5], "h4": [0.375], "h5": [0.5, 0.5625]})
    assert moves(known) == {("h2v1", "h0")}
    whole = changed(known, hosts={name: replace(host, region="") for name, host in known.hosts.items()})
    assert moves(whole) == {("h2v1", "h4"), ("h5v1", "h0")}

"""Migrations are load like any other: they count on their links, and hosts and links carry few at a time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_precopy_and_places import crowded as short_host
from test_precopy_and_places import moves
from worlds import CONFIG, LINK, NOW, changed, machines, pair_state, vm, world

from orchestrator import (
    HostSpec,
    LinkState,
    MigrateVm,
    OrchestratorConfig,
    Plan,
    ReserveBandwidth,
    SetNetworkRate,
    Step,
    World,
    from_json,
    guard,
    plan,
)
from orchestrator.context import PlanningContext, copying_on, needed_on
from orchestrator.guards.guard import crowded
from orchestrator.proposal import Reason
from orchestrator.strategies.destinations import LOST_ROUNDS, post_copy

MOVE = MigrateVm("b1", "h1", "h2", 400_000.0, 3.0)
GIB = 1 << 30
# Copies take from the links between their hosts.
SHARED = CONFIG.tuned(moves={"over_links": True})


def over_link(*moves: MigrateVm) -> World:
    """Every copy goes over LINK, on which one pair speaks."""
    start = world([pair_state("c1", "shop", 10, 5.0)])
    return changed(start, in_flight=moves, ways=lambda _a, _b: (LINK,))


def test_a_copy_under_way_counts_on_its_link_before_it_is_measured() -> None:
    config = SHARED
    idle, busy = over_link(), over_link(MOVE)
    link = busy.links[LINK]
    added = needed_on(PlanningContext.of(busy, config), link, 0) - needed_on(PlanningContext.of(idle, config), link, 0)
    assert added == pytest.approx(400_000.0)
    # Once it is measured it is not counted twice.
    measured = replace(link, bytes_per_s=link.bytes_per_s + 400_000.0)
    assert needed_on(PlanningContext.of(busy, config), measured, 0) == pytest.approx(
        needed_on(PlanningContext.of(busy, config), link, 0)
    )


def test_copies_on_a_network_of_their_own_load_nothing() -> None:
    assert copying_on(PlanningContext.of(over_link(MOVE), CONFIG), LINK) == 0.0
    assert copying_on(PlanningContext.of(over_link(MOVE), SHARED), LINK) == 400_000.0
    assert copying_on(PlanningContext.of(over_link(MigrateVm("b1", "h1", "h2")), SHARED), LINK) == 0.0


def test_what_matters_more_gets_its_bandwidth_kept_beside_a_copy() -> None:
    surging = pair_state("c1", "shop", 10, 20.0)
    lesser = pair_state("c4", "backup", 0, 15.0)
    calm = changed(world([surging, lesser]), ways=lambda _a, _b: (LINK,))
    copying = replace(calm, in_flight=(replace(MOVE, bytes_per_s=600_000.0),))

    def reserved(start: World) -> bool:
        found = plan(PlanningContext.of(start, SHARED))
        return any(isinstance(one.action, ReserveBandwidth) for one in found.steps)

    assert not reserved(calm)
    assert reserved(copying)


def test_one_copy_at_a_time_for_a_host_and_for_a_link() -> None:
    start = changed(
        world([], **machines(vm("b1", "h1", 0.1, 0.2), vm("b2", "h3", 0.1, 0.2))),
        ways=lambda a, b: ((a, "leaf"), ("leaf", b)),
    )
    same_host = MigrateVm("b2", "h3", "h2")

    def against(action: MigrateVm, others: list[MigrateVm], config: OrchestratorConfig = SHARED) -> str:
        found = crowded(PlanningContext.of(start, config), action, others)
        return found.text if found else ""

    assert "to h2" in against(same_host, [MOVE])
    elsewhere = MigrateVm("b2", "h3", "h4")
    assert against(elsewhere, [MOVE]) == ""
    two = SHARED.tuned(moves={"per_host": 2})
    assert "over leaf>h2" in against(same_host, [MOVE], two)
    assert against(same_host, [MOVE], two.tuned(moves={"per_link": 2})) == ""
    assert "2 may at once" in against(elsewhere, [MOVE, MOVE])


def test_the_brakes_hold_the_second_copy_of_one_plan() -> None:
    hosts = (HostSpec("h1", "", "", 1.0, GIB), HostSpec("h2", "", "", 1.0, GIB))
    start = world([], **machines(vm("b1", "h1", 0.1, 0.2), vm("b2", "h1", 0.1, 0.2), hosts=hosts))
    steps = tuple(Step(MigrateVm(name, "h1", "h2"), "", Reason(), NOW, 1.0) for name in ("b1", "b2"))
    found = guard(Plan(steps), PlanningContext.of(start, CONFIG), [])
    assert [one.action.target for one in found.allowed] == ["b1"]
    assert "one migration at a time: b1" in found.refused[0].why_not


def test_the_rate_of_a_copy_is_kept_in_the_journal_but_makes_no_other_move_of_it() -> None:
    assert MigrateVm("b1", "h1", "h2") == MOVE
    read = from_json(MOVE.kind, MOVE.to_json())
    assert isinstance(read, MigrateVm)
    assert (read.bytes_per_s, read.expected_s) == (400_000.0, 3.0)
    old = from_json(MOVE.kind, {"vm": "b1", "from": "h1", "to": "h2"})
    assert isinstance(old, MigrateVm) and old.bytes_per_s is None


def test_a_planned_move_knows_its_rate_and_how_long_it_should_take() -> None:
    config = OrchestratorConfig(act=True)
    start = short_host(256 << 20, 10e6)
    (action,) = moves(plan(PlanningContext.of(start, config)))
    assert action.bytes_per_s == pytest.approx(config.moves.bytes_per_s)
    assert action.expected_s == pytest.approx(2.3, rel=0.2)


def test_a_network_rate_turns_back_and_says_what_it_does() -> None:
    action = SetNetworkRate("b1", 0.0, 1.25e6)
    assert action.describe() == "network rate of b1 from no limit to 10.0 Mbit/s"
    assert action.inverse() == SetNetworkRate("b1", 1.25e6, 0.0)
    assert from_json(action.kind, action.to_json()) == action


def test_links_without_a_known_copy_are_as_they_were() -> None:
    start = over_link(MOVE)
    other = LinkState(("leaf", "h9"), 1e6, 0.0)
    assert copying_on(PlanningContext.of(start, SHARED), other.key) == 0.0


# -- guests that write faster than they can be copied


@given(st.floats(1e6, 1e11), st.floats(1e6, 1e9), st.floats(1e6, 1e9))
def test_post_copy_always_ends_and_never_takes_less_than_all_memory_twice(
    memory: float, dirty: float, rate: float
) -> None:
    found = post_copy(memory, dirty, rate)
    assert found.converges
    assert 2 * memory <= found.bytes_sent <= (2 + LOST_ROUNDS) * memory * (1 + 1e-9)
    assert found.total_s == pytest.approx(found.bytes_sent / rate)


@pytest.mark.parametrize(
    ("allowed", "why_not"),
    [
        ({}, "it would not converge"),
        # Slowing a guest down takes many rounds, and there must be time for all of them.
        ({"migration_auto_converge": True}, "too late"),
        ({"migration_post_copy": True}, None),
    ],
)
def test_what_helps_a_busy_guest_along_must_be_allowed_for_it(allowed: dict[str, bool], why_not: str | None) -> None:
    start = short_host(128 << 20, 240e6)
    batch = start.vms["batch"]
    assert batch.spec is not None
    start = replace(start, vms={**start.vms, "batch": replace(batch, spec=replace(batch.spec, **allowed))})
    found = plan(PlanningContext.of(start, CONFIG))
    assert len(moves(found)) == (why_not is None)
    assert why_not is None or any(why_not in one.why_not for one in found.refusals)

"""Each brake on its own: what it refuses, with which words, and what it lets pass."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import CONFIG, NOW, machines, vm, world

from cpdb import ActionRecord, ActionTiming, OutcomeKind, Pair
from orchestrator import (
    Action,
    HostSpec,
    MigrateVm,
    OrchestratorConfig,
    Plan,
    ReserveBandwidth,
    SetCpuLimit,
    Step,
    World,
    guard,
)
from orchestrator.context import PlanningContext

HOME = world([], **machines(vm("batch", "h1", 0.2, 0.25), vm("other", "h1", 0.2, 0.25)))
MOVE = MigrateVm("batch", "h1", "h2")
RAISE = SetCpuLimit("batch", 0.2, 0.4)
RESERVE = ReserveBandwidth("k", Pair("c", "v"), 1.0, (), 10.0)
EMPTY: Mapping[str, object] = {}


def step(action: Action, renewal: bool = False) -> Step:
    return Step(action, "because", EMPTY, NOW, 1.0, renewal)


def did(action: Action, ago_s: float, outcome: OutcomeKind = OutcomeKind.DONE) -> ActionRecord:
    return ActionRecord(
        action.kind,
        action.target,
        action.to_json(),
        "",
        {},
        "predictive",
        NOW - ago_s,
        ActionTiming(None, 1.0),
        outcome=outcome,
    )


def why_not(
    action: Action,
    recent: list[ActionRecord] | None = None,
    here: World = HOME,
    config: OrchestratorConfig = CONFIG,
) -> str | None:
    found = guard(Plan((step(action),)), PlanningContext.of(here, config), recent or [])
    return found.refused[0].why_not if found.refused else None


def test_nothing_in_the_way_lets_everything_pass() -> None:
    for action in (MOVE, RAISE, RESERVE):
        assert why_not(action) is None


def test_an_old_world_stops_everything() -> None:
    old = replace(HOME, age_s=CONFIG.guard.max_world_age_s + 1)
    for action in (MOVE, RAISE, RESERVE):
        assert "stale" in (why_not(action, here=old) or "")


def test_a_stop_file_stops_everything_until_it_is_gone(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    config = CONFIG.tuned(guard={"stop_file": stop})
    assert why_not(RAISE, config=config) is None
    stop.touch()
    assert str(stop) in (why_not(RAISE, config=config) or "")


def test_a_budget_counts_what_was_done_in_the_last_minute() -> None:
    config = CONFIG.tuned(guard={"budgets": {"per_minute": {"set_cpu_limit": 2}}})
    two = [did(SetCpuLimit("other", 0.1, 0.2), ago) for ago in (10, 20)]
    assert "budget" in (why_not(RAISE, two, config=config) or "")
    assert why_not(RAISE, [two[0], replace(two[1], issued_at=NOW - 61)], config=config) is None
    assert why_not(RAISE, [replace(one, outcome=OutcomeKind.ADVISED) for one in two], config=config) is None


def test_a_budget_also_counts_within_one_plan_but_never_stops_a_renewal() -> None:
    config = CONFIG.tuned(guard={"budgets": {"per_minute": {"reserve_bandwidth": 1}}})
    others = [replace(RESERVE, key=f"k{n}") for n in range(3)]
    plan = Plan((*(step(one) for one in others), step(RESERVE, renewal=True)))
    found = guard(plan, PlanningContext.of(HOME, config), [])
    assert [one.action.target for one in found.allowed] == ["k0", "k"]


@pytest.mark.parametrize(
    ("ago_s", "words"), [(10, "cooldown"), (CONFIG.guard.move_cooldown_s + 1, "oscillation"), (400, None)]
)
def test_a_machine_does_not_go_to_and_fro(ago_s: float, words: str | None) -> None:
    found = why_not(MOVE, [did(MOVE.inverse(), ago_s)])
    assert (words in found) if words and found else found is words


def test_going_on_to_a_third_host_is_no_oscillation() -> None:
    assert why_not(MOVE, [did(MigrateVm("batch", "h3", "h1"), CONFIG.guard.move_cooldown_s + 1)]) is None


def test_a_limit_may_rise_again_at_once_but_not_turn_round() -> None:
    assert why_not(RAISE, [did(SetCpuLimit("batch", 0.1, 0.2), 1)]) is None
    assert "cooldown" in (why_not(RAISE, [did(SetCpuLimit("batch", 0.4, 0.2), 1)]) or "")
    assert why_not(RAISE, [did(SetCpuLimit("batch", 0.4, 0.2), CONFIG.guard.resize_cooldown_s + 1)]) is None


def test_a_failure_is_not_repeated_at_once() -> None:
    assert "failed" in (why_not(MOVE, [did(MOVE, 5, OutcomeKind.FAILED)]) or "")
    assert why_not(MOVE, [did(MOVE, CONFIG.guard.retry_s + 1, OutcomeKind.FAILED)]) is None


def test_one_migration_at_a_time_touches_a_host() -> None:
    second = MigrateVm("other", "h1", "h2")
    found = guard(Plan((step(MOVE), step(second))), PlanningContext.of(HOME, CONFIG), [])
    assert [one.action for one in found.allowed] == [MOVE]
    assert "one migration at a time" in found.refused[0].why_not
    assert "moving" in (why_not(second, here=replace(HOME, in_flight=(MOVE,))) or "")


def test_a_cordoned_or_unknown_host_receives_nothing() -> None:
    closed = replace(HOME, hosts={**HOME.hosts, "h2": HostSpec("h2", "", "", 1.0, 1 << 30, cordoned=True)})
    assert "cordoned" in (why_not(MOVE, here=closed) or "")
    assert "not a host" in (why_not(MigrateVm("batch", "h1", "h9")) or "")


def test_what_is_under_way_is_not_begun_again() -> None:
    assert "under way" in (why_not(RAISE, here=replace(HOME, in_flight=(RAISE,))) or "")

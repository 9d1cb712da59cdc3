"""What turns round too often is held still, steps have a size, and nobody gets all of a minute's actions."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from worlds import CONFIG, NOW, RELATION, foreseen, machines, pair_state, vm, world

from cpdb import ActionRecord, ActionTiming, OutcomeKind, Pair
from orchestrator import (
    Action,
    HostSpec,
    MigrateVm,
    OrchestratorConfig,
    Plan,
    ReserveBandwidth,
    SetCpuLimit,
    SetMemory,
    SetVcpus,
    SetWeights,
    Step,
    World,
    apply,
    guard,
    plan,
)
from orchestrator.context import PlanningContext
from orchestrator.proposal import Reason

HOME = world([], **machines(vm("batch", "h1", 0.2, 0.25), vm("other", "h1", 0.2, 0.25), vm("third", "h2", 0.1, 0.25)))
CALM = HOME.changed(vms={name: replace(one, calm=True) for name, one in HOME.vms.items()})
UP, DOWN = SetCpuLimit("batch", 0.2, 0.4), SetCpuLimit("batch", 0.4, 0.2)


def did(action: Action, ago_s: float, outcome: OutcomeKind = OutcomeKind.DONE) -> ActionRecord:
    body = action.to_json()
    return ActionRecord(
        action.kind, action.target, body, "", {}, "predictive", NOW - ago_s, ActionTiming(None, 1.0), outcome=outcome
    )


def why_not(
    action: Action, recent: Sequence[ActionRecord], config: OrchestratorConfig = CONFIG, here: World = HOME
) -> str | None:
    found = guard(Plan((Step(action, "because", Reason(), NOW, 1.0),)), PlanningContext.of(here, config), recent)
    return found.refused[0].why_not if found.refused else None


def swinging(times: int, every_s: float, last_ago_s: float) -> list[ActionRecord]:
    """So many limits up and down by turns, newest first; the newest was a rise."""
    return [did(UP if n % 2 == 0 else DOWN, last_ago_s + n * every_s) for n in range(times)]


def test_what_turned_round_too_often_is_not_lowered_for_a_while_and_says_so() -> None:
    turns = CONFIG.guard.max_turns
    said = why_not(DOWN, swinging(turns + 1, 7.0, 10.0)) or ""
    assert said.startswith(f"oscillation: batch turned round {turns} times within 60 s")
    assert f"another {CONFIG.guard.hold_still_s - 10:.0f} s" in said
    assert why_not(DOWN, swinging(turns, 7.0, 10.0), here=CALM) is None  # one turn fewer
    assert why_not(DOWN, swinging(turns + 1, 9.0, 10.0), here=CALM) is None  # slower than the window
    assert why_not(DOWN, swinging(turns + 1, 7.0, CONFIG.guard.hold_still_s + 1)) is None  # long enough ago


def test_half_of_the_turns_are_for_what_was_measured_calm_since_it_was_raised() -> None:
    half = CONFIG.guard.max_turns // 2
    assert why_not(DOWN, swinging(half, 7.0, 6.0)) is None  # one turn fewer
    assert "until it is measured calm" in (why_not(DOWN, swinging(half + 1, 7.0, 6.0)) or "")
    assert "until it is measured calm" in (why_not(DOWN, swinging(half + 1, 7.0, 6.0), here=CALM) or "")
    assert why_not(DOWN, swinging(half + 1, 7.0, CONFIG.cpu.calm_s), here=CALM) is None
    assert why_not(DOWN, swinging(half + 1, 20.0, 6.0)) is None  # slower than the window


def test_the_brake_never_keeps_a_machine_from_getting_more() -> None:
    assert why_not(UP, swinging(CONFIG.guard.max_turns + 2, 6.0, 10.0)[1:]) is None


def test_others_and_failures_do_not_count_as_turns() -> None:
    foreign = [replace(one, target="other") for one in swinging(12, 4.0, 10.0)]
    assert why_not(DOWN, foreign) is None
    failed = [replace(one, outcome=OutcomeKind.FAILED, issued_at=one.issued_at - 60) for one in swinging(9, 4.0, 10.0)]
    assert why_not(DOWN, failed, CONFIG.tuned(guard={"retry_s": 0.0})) is None


def test_weights_that_go_to_and_fro_are_held() -> None:
    to = SetWeights("v", (("a", 1), ("b", 0)), (("a", 0), ("b", 1)))
    recent = [did(to if n % 2 else to.inverse(), 8.0 + 6.0 * n) for n in range(CONFIG.guard.max_turns + 1)]
    config = CONFIG.tuned(guard={"budgets": {"per_minute": {"set_weights": 99}}})
    assert "not changed" in (why_not(to, recent, config) or "")


def test_a_machine_does_not_come_back_by_a_detour() -> None:
    hosts = tuple(HostSpec(name, "", "", 1.0, 1 << 30) for name in ("h1", "h2", "h3"))
    here = world([], **machines(vm("batch", "h3", 0.2, 0.25), hosts=hosts))
    round_trip = [did(MigrateVm("batch", "h2", "h3"), 70.0), did(MigrateVm("batch", "h1", "h2"), 140.0)]
    assert "came from h1 140 s ago" in (why_not(MigrateVm("batch", "h3", "h1"), round_trip, here=here) or "")


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        (SetCpuLimit("batch", 0.25, 1.0), True),
        (SetCpuLimit("batch", 0.25, 1.05), False),
        (SetCpuLimit("batch", 1.05, 0.25), False),
        (SetMemory("batch", 1 << 30, 5 << 30), False),
        (SetVcpus("batch", 1, 4), True),
        (SetVcpus("batch", 1, 5), False),
    ],
)
def test_no_step_is_larger_than_allowed(action: Action, allowed: bool) -> None:
    said = why_not(action, [])
    assert said is None if allowed else "step too large" in (said or "")


def test_the_planner_takes_large_changes_in_several_steps_up_and_down() -> None:
    small = vm("shop", "h1", 0.01, 0.1, priority=10, cpu_cores_max=0.8, relation=RELATION)
    rising = foreseen(pair_state("c1", "v", 10, 30.0, destination="shop", links=()), {5: 30.0, 15: 30.0, 30: 30.0})
    here = world([rising], **machines(small))
    limits = []
    for _ in range(3):
        found = plan(PlanningContext.of(here, CONFIG))
        assert guard(found, PlanningContext.of(here, CONFIG), []).refused == ()
        for step in found.steps:
            here = apply(here, step.action)
        limits.append(here.vms["shop"].cores_limit)
    assert limits[0] == pytest.approx(0.4)
    assert limits[1] == limits[2] >= 0.7
    calm = replace(here.vms["shop"], cores_limit=0.8, calm=True)
    quiet = world([pair_state("c1", "v", 10, 0.0, destination="shop", links=())], **machines(calm))
    (step,) = plan(PlanningContext.of(quiet, CONFIG)).steps
    assert step.action == SetCpuLimit("shop", 0.8, pytest.approx(0.2))


def test_a_host_has_a_budget_of_its_own() -> None:
    config = CONFIG.tuned(guard={"budgets": {"per_host": 2}})
    two = [did(SetCpuLimit("other", 0.1, 0.2), 5.0), did(MigrateVm("batch", "h1", "h9"), 100.0)]
    assert why_not(UP, two, config) is None
    two.append(did(SetCpuLimit("batch", 0.1, 0.2), 20.0))
    assert "actions on h1" in (why_not(UP, two, config) or "")
    assert why_not(SetCpuLimit("third", 0.25, 0.3), two, config) is None


def test_a_tenant_cannot_have_all_of_a_minute() -> None:
    config = CONFIG.tuned(
        guard={"budgets": {"per_tenant": 2}},
        declared={"tenants": {"10.0.0.1": "retail", "batch": "retail", "10.0.0.2": "lab"}},
    )

    def reserve(vip: str, key: str) -> ReserveBandwidth:
        return ReserveBandwidth(key, Pair("c", vip), 1.0, (), 10.0)

    spent = [did(reserve("10.0.0.1", "k1"), 5.0), did(UP, 20.0)]
    assert "for retail" in (why_not(reserve("10.0.0.1", "k2"), spent, config) or "")
    assert why_not(reserve("10.0.0.2", "k3"), spent, config) is None
    assert why_not(reserve("10.0.0.3", "k4"), spent, config) is None  # of nobody's: only the other budgets count


def test_only_so_many_machines_move_at_once_in_the_whole_network() -> None:
    names = [f"h{n}" for n in range(8)]
    hosts = tuple(HostSpec(name, "", "", 1.0, 1 << 30) for name in names)
    here = world([], **machines(*(vm(f"v{n}", f"h{n}", 0.1, 0.2) for n in range(4)), hosts=hosts))
    steps = tuple(Step(MigrateVm(f"v{n}", f"h{n}", f"h{n + 4}"), "", Reason(), NOW, 1.0) for n in range(4))
    found = guard(Plan(steps), PlanningContext.of(here, CONFIG), [])
    assert len(found.allowed) == CONFIG.moves.at_once
    assert all("2 machines are moving" in one.why_not for one in found.refused)

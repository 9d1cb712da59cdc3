"""Actions that nobody follows any more are taken over, and what has failed is not tried again blindly."""

from dataclasses import replace

import pytest
from fake_world import CONFIG, HOSTS, START, Simulation
from worlds import machines, vm, world

from cpdb import ActionRecord, ActionTiming, OutcomeKind, Reservation, Store, StoreError
from orchestrator import MigrateVm, ReserveBandwidth, Step, guard
from orchestrator.act.executor import Executor
from orchestrator.context import PlanningContext
from orchestrator.duty import APPLYING
from orchestrator.plan import Plan
from orchestrator.proposal import Reason

MOVE = MigrateVm("batch1", "hA", "hB")


def pending(store: Store, issued_at: float) -> int:
    return store.journal.add_action(
        ActionRecord(MOVE.kind, MOVE.target, MOVE.to_json(), "", {}, "predictive", issued_at, ActionTiming(None, 1.0))
    )


def outcome(store: Store, number: int) -> OutcomeKind:
    row = store.journal.action(number)
    assert row is not None
    return row.outcome


def test_an_action_of_long_ago_gets_its_end(store: Store) -> None:
    number = pending(store, START - 86_400)
    Simulation(store).run(3)
    assert outcome(store, number) is OutcomeKind.FAILED


def test_what_somebody_applies_is_left_to_them_until_they_are_gone(store: Store) -> None:
    sim = Simulation(store).run(3)
    store.leases.hold(APPLYING, "a person", sim.now, 40.0)
    number = pending(store, sim.now)
    sim.run(39)
    assert outcome(store, number) is OutcomeKind.PENDING
    sim.run(3)
    assert outcome(store, number) is OutcomeKind.FAILED


def test_a_move_that_went_on_without_its_process_is_done(store: Store) -> None:
    sim = Simulation(store).run(3)
    number = pending(store, sim.now)
    sim.hypervisors.machines["batch1"] = replace(sim.hypervisors.machines["batch1"], host="hB")
    sim.run(3)
    assert outcome(store, number) is OutcomeKind.DONE
    row = store.journal.action(number)
    assert row is not None and row.timing.ready_at is None  # that no one looked is no lead time


class Away:
    """What is wanted cannot be written; everything else can be read."""

    def reserve(self, _item: Reservation) -> int:
        raise StoreError("database: gone")


def test_a_database_that_fails_in_between_leaves_no_action_open_for_ever(store: Store) -> None:
    sim = Simulation(store).run(3)
    executor = sim.orchestrator._executor
    assert isinstance(executor, Executor)
    pair = sim.pairs()[0]
    step = Step(ReserveBandwidth("k", pair, 1e5, (), 8.0), "", Reason(), sim.now, 1.0)
    executor.store = replace(store, wanted=Away())
    with pytest.raises(StoreError):
        executor.begin(step, sim.now)
    executor.store = store
    sim.run(35)
    (row,) = [one for one in store.journal.actions() if one.kind == "reserve_bandwidth" and one.target == "k"]
    assert row.outcome is OutcomeKind.FAILED
    assert step.action not in executor.in_flight()


def failed(ago_s: float, outcome: OutcomeKind = OutcomeKind.FAILED) -> ActionRecord:
    row = ActionRecord(
        MOVE.kind, MOVE.target, MOVE.to_json(), "", {}, "predictive", 1_000.0 - ago_s, ActionTiming(None, 1.0)
    )
    return replace(row, outcome=outcome, sentence="no memory", id=round(ago_s))


@pytest.mark.parametrize(
    ("ago_s", "rest_s"),
    [((20.0,), 30), ((40.0,), None), ((50.0, 100.0), 60), ((70.0, 100.0), None), ((100.0, 200.0, 300.0), 120)],
)
def test_each_failure_in_a_row_doubles_the_rest(ago_s: tuple[float, ...], rest_s: int | None) -> None:
    config = CONFIG.tuned(guard={"retry_s": 30.0, "move_cooldown_s": 0.0})
    here = replace(world([], **machines(vm("batch1", "hA", 0.2, 0.25), hosts=HOSTS)), now=1_000.0)
    found = guard(
        Plan((Step(MOVE, "", Reason(), 1_000.0, 1.0),)),
        PlanningContext.of(here, config),
        [failed(one) for one in ago_s],
    )
    if rest_s is None:
        assert not any("next try" in one.why_not for one in found.refused)
    else:
        assert f"next try after {rest_s} s" in found.refused[0].why_not


def test_a_success_in_between_ends_the_row() -> None:
    config = CONFIG.tuned(guard={"retry_s": 30.0, "move_cooldown_s": 0.0, "oscillation_s": 0.0})
    here = replace(world([], **machines(vm("batch1", "hA", 0.2, 0.25), hosts=HOSTS)), now=1_000.0)
    rows = [failed(40.0), failed(60.0, OutcomeKind.DONE), failed(100.0), failed(150.0)]
    found = guard(Plan((Step(MOVE, "", Reason(), 1_000.0, 1.0),)), PlanningContext.of(here, config), rows)
    assert not any("next try" in one.why_not for one in found.refused)

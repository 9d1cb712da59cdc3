"""New weights are done when the controller says that they are followed, and fail with its words when they are not."""

from dataclasses import replace

import pytest
from fake_world import SEARCH, SHOP, Simulation

from cpdb import ActionRecord, InstallStatus, OutcomeKind, SplitReport, Store, WantedWeights, WeightsReport
from orchestrator import SetWeights, Step
from orchestrator.act.executor import Executor
from orchestrator.proposal import Reason

EVEN = SetWeights(SHOP, (), (("shop1", 50), ("search1", 50)))


@pytest.fixture
def sim(store: Store) -> Simulation:
    """A service with two destinations, whose weights nobody else changes."""
    made = Simulation(store)
    vips = {one.address: one for one in store.inventory.virtual_ips()}
    both = vips[SHOP].destinations + vips[SEARCH].destinations
    store.inventory.declare_virtual_ips([replace(vips[SHOP], destinations=both), vips[SEARCH]])
    made.config = made.config.tuned(weights={"enabled": False})
    made.orchestrator = made.fresh()
    return made.run(3)


def begin(sim: Simulation, action: SetWeights = EVEN) -> ActionRecord:
    executor = sim.orchestrator._executor
    assert isinstance(executor, Executor)
    row = executor.begin(Step(action, "a test", Reason(), sim.now, 1.0), sim.now)
    assert row is not None
    return row


def ended(sim: Simulation, begun: ActionRecord) -> ActionRecord:
    assert begun.id is not None
    row = sim.store.journal.action(begun.id)
    assert row is not None
    return row


def tell(sim: Simulation, generation: int, status: str, detail: str) -> None:
    word = WeightsReport(SHOP, "controller", generation, InstallStatus(status), detail, sim.now)
    sim.store.wanted.observe([word])


def generation(sim: Simulation) -> int:
    (wanted,) = sim.store.wanted.weights()
    return wanted.generation


def test_they_are_done_when_the_controller_says_so_and_that_is_their_lead_time(sim: Simulation) -> None:
    sim.controller_alive = False
    begun = begin(sim)
    sim.run(2)
    assert ended(sim, begun).outcome is OutcomeKind.PENDING
    sim.controller_alive = True
    sim.run(1)
    row = ended(sim, begun)
    assert (row.outcome, row.sentence) == (OutcomeKind.DONE, "followed: new connections go by them on leaf1")
    assert row.timing.ready_at == begun.issued_at + 3


def test_a_word_about_earlier_weights_or_another_thing_says_nothing_about_these(sim: Simulation) -> None:
    sim.controller_alive = False
    begun = begin(sim)
    tell(sim, generation(sim) - 1, "installed", "older")
    sim.store.wanted.observe([SplitReport(SHOP, "leaf1", generation(sim), InstallStatus.INSTALLED, "", sim.now)])
    sim.run(2)
    assert ended(sim, begun).outcome is OutcomeKind.PENDING


def test_who_gets_nothing_makes_them_fail_at_once_with_the_reason(sim: Simulation) -> None:
    sim.away.add("search1")
    begun = begin(sim)
    sim.run(1)
    row = ended(sim, begun)
    assert (row.outcome, row.sentence) == (OutcomeKind.FAILED, "not followed: search1 gets nothing new")
    assert row.timing.ready_at is None


@pytest.mark.parametrize(("word", "told"), [("", "the controller says nothing"), ("leaf3 is away", "leaf3 is away")])
def test_they_fail_when_patience_ends_with_the_last_word_there_was(sim: Simulation, word: str, told: str) -> None:
    sim.controller_alive = False
    begun = begin(sim)
    if word:
        tell(sim, generation(sim), "waiting", word)
    sim.run(5)
    assert ended(sim, begun).outcome is OutcomeKind.PENDING
    sim.run(1)
    row = ended(sim, begun)
    assert (row.outcome, row.sentence) == (OutcomeKind.FAILED, f"not known to be followed after 5 s: {told}")


@pytest.mark.parametrize("heard", [True, False])
def test_after_a_restart_the_controller_is_still_who_says_it(sim: Simulation, heard: bool) -> None:
    sim.controller_alive = False
    begun = begin(sim)
    sim.orchestrator = sim.fresh()
    sim.run(20)
    assert ended(sim, begun).outcome is OutcomeKind.PENDING
    sim.controller_alive = heard
    sim.run(20)
    row = ended(sim, begun)
    assert row.outcome is (OutcomeKind.DONE if heard else OutcomeKind.FAILED)
    assert row.timing.ready_at is None and "restart" in row.sentence


def test_after_a_restart_other_weights_than_these_are_no_success(sim: Simulation) -> None:
    begun = begin(sim)
    sim.orchestrator = sim.fresh()
    sim.store.wanted.want_weights(WantedWeights(SHOP, {"shop1": 1}, "somebody", "a test"))
    sim.run(40)
    assert ended(sim, begun).outcome is OutcomeKind.FAILED

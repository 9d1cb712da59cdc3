"""The whole loop on fakes in virtual time: before a surge, without one, and when things go wrong."""

import random
from dataclasses import replace

import pytest
from fake_queues import FakeQueues, settled
from fake_world import BACKUP, CAPACITY, CONFIG, SHOP, START, Simulation, paths

from cpdb import ActionRecord, ActionTiming, OutcomeKind, Pair, Store, StoreError
from orchestrator import Orchestrator, QueueKeeper, QueueSpec, explain
from orchestrator.cycle import up_to_date

SURGES = ((60.0, 70.0), (90.0, 100.0))


def acted(store: Store, kind: str) -> list[ActionRecord]:
    """Actions of a kind that were begun, oldest first."""
    skip = (OutcomeKind.SKIPPED, OutcomeKind.ADVISED)
    return [one for one in reversed(store.journal.actions()) if one.kind == kind and one.outcome not in skip]


def test_a_foreseen_surge_finds_everything_ready(store: Store) -> None:
    sim = Simulation(store, surges=SURGES).run(66)
    for kind in ("reserve_bandwidth", "set_cpu_limit", "migrate_vm"):
        first = acted(store, kind)[0]
        assert first.outcome is OutcomeKind.DONE, first.sentence
        assert first.timing.ready_at is not None
        assert first.timing.ready_at < START + 60, kind
    assert sim.hypervisors.machines["batch1"].host == "hB"
    assert sim.hypervisors.machines["shop1"].cores_limit > 0.4
    (held,) = store.wanted.reservations(sim.now)
    assert held.pair == Pair("c1", SHOP)
    assert [one.pair for one in held.limits] == [Pair("c4", BACKUP)]


def test_leases_lapse_and_limits_go_back_after_the_last_surge(store: Store) -> None:
    sim = Simulation(store, surges=SURGES[:1]).run(115)
    assert store.wanted.reservations(sim.now) == []
    assert sim.hypervisors.machines["shop1"].cores_limit == pytest.approx(0.2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", ["predictive", "reactive"])
def test_calm_leads_to_no_action(store: Store, seed: int, policy: str) -> None:
    config = CONFIG.tuned(policy=policy)  # type: ignore[arg-type]
    sim = Simulation(store, config=config, rng=random.Random(seed)).run(90)
    assert store.journal.actions() == []
    assert sim.hypervisors.started == []
    assert store.wanted.reservations(sim.now) == []


def test_the_reactive_policy_acts_only_once_the_surge_is_there(store: Store) -> None:
    Simulation(store, config=CONFIG.tuned(policy="reactive"), surges=SURGES).run(75)
    begun = [one.issued_at - START for one in store.journal.actions()]
    assert begun
    assert min(begun) > 60


def test_without_permission_it_advises_and_touches_nothing(store: Store) -> None:
    sim = Simulation(store, config=CONFIG.tuned(act=False), surges=SURGES).run(70)
    rows = store.journal.actions()
    assert {one.outcome for one in rows} <= {OutcomeKind.ADVISED, OutcomeKind.SKIPPED}
    advised = [one for one in rows if one.outcome is OutcomeKind.ADVISED]
    assert {one.kind for one in advised} == {"reserve_bandwidth", "set_cpu_limit", "migrate_vm"}
    assert len(advised) <= 6  # the same advice is not repeated every second
    assert sim.hypervisors.started == []
    assert store.wanted.reservations(sim.now) == []


def test_advice_is_told_once_for_each_need_and_judged_by_what_was_measured_without_it(store: Store) -> None:
    Simulation(store, config=CONFIG.tuned(act=False), surges=SURGES).run(135)
    advised = [one for one in store.journal.actions() if one.outcome is OutcomeKind.ADVISED]
    raised = [one for one in advised if one.kind == "set_cpu_limit"]
    assert len(raised) == len(SURGES)
    for one in raised:
        assert one.verdict["code"] == "kept" and one.verdict["needed"]
        assert one.verdict["spared_s"] > 5
        assert "acting would have spared" in "\n".join(explain(one))
    assert all(one.verdict for one in advised)


def test_a_restarted_orchestrator_judges_what_the_old_one_advised(store: Store) -> None:
    sim = Simulation(store, config=CONFIG.tuned(act=False), surges=SURGES[:1]).run(62)
    assert not any(one.verdict for one in store.journal.actions())
    sim.orchestrator.close()
    sim.orchestrator = sim.fresh()
    sim.run(45)
    raised = [one for one in store.journal.actions() if one.kind == "set_cpu_limit"]
    assert [one.verdict["code"] for one in raised] == ["kept"]


def test_every_action_can_be_explained_and_is_held_to_its_promise(store: Store) -> None:
    Simulation(store, surges=SURGES).run(120)
    done = [one for one in store.journal.actions() if one.outcome is OutcomeKind.DONE and one.issued_at < START + 90]
    # What only gives back promises nothing.
    done = [one for one in done if one.kind != "release_bandwidth"]
    assert len(done) >= 3
    for one in done:
        assert one.verdict["sentence"]
        text = "\n".join(explain(one))
        assert one.why in text
        assert "outcome: done" in text
        assert "promise:" in text
    first, *_, later = acted(store, "reserve_bandwidth")
    for one in (first, later):
        assert one.verdict["needed"] and one.verdict["in_time"]
        assert one.verdict["ahead_s"] > 0
        assert one.verdict["spared_s"] > 0
    # By then it has seen what a connection of a surge brings.
    assert later.verdict["code"] == "kept"


def test_a_surge_that_does_not_come_is_called_a_false_alarm(store: Store) -> None:
    sim = Simulation(store, surges=SURGES[:1])
    foreseen = sim.rate
    real = Simulation.rate

    def traffic(pair: Pair, t: float) -> float:
        return real(sim, pair, t) if t > sim.now else 2.0

    sim.rate = traffic  # type: ignore[method-assign]
    assert foreseen(Pair("c1", SHOP), START + 61) > 20
    sim.run(85)
    first = acted(store, "reserve_bandwidth")[0]
    assert first.verdict["code"] == "unneeded"
    assert "did not come" in first.verdict["sentence"]


def test_a_switch_that_does_not_answer_is_a_failure_and_is_not_hammered(store: Store) -> None:
    Simulation(store, surges=SURGES, controller_alive=False).run(75)
    rows = acted(store, "reserve_bandwidth")
    assert rows[0].outcome is OutcomeKind.FAILED
    assert "no switch reported" in rows[0].sentence
    assert len(rows) == 1


def test_a_failed_migration_is_recorded_and_the_loop_goes_on(store: Store) -> None:
    sim = Simulation(store, surges=SURGES)
    sim.hypervisors.fail["migrate_vm", "batch1"] = "hB: connection refused"
    sim.run(66)
    first = acted(store, "migrate_vm")[0]
    assert (first.outcome, first.sentence) == (OutcomeKind.FAILED, "hB: connection refused")
    assert acted(store, "set_cpu_limit")[0].outcome is OutcomeKind.DONE


def test_a_machine_that_vanishes_leaves_the_rest_working(store: Store) -> None:
    def gone(sim: Simulation) -> None:
        if sim.now == START + 20:
            sim.hypervisors.remove(["batch1"])

    sim = Simulation(store, surges=SURGES).run(70, gone)
    assert acted(store, "migrate_vm") == []
    assert acted(store, "reserve_bandwidth")[0].outcome is OutcomeKind.DONE
    assert "batch1" not in sim.orchestrator.world(sim.now).vms


def test_old_facts_stop_it_and_it_says_so(store: Store) -> None:
    sim = Simulation(store, surges=SURGES).run(54)
    report = sim.orchestrator.cycle(sim.now + 8)
    assert report.issued == ()
    sim.run(1)
    later = sim.orchestrator.cycle(sim.now)
    assert later.world_age_s < 2


def moving_machine(store: Store) -> Simulation:
    """A simulation at the moment at which its migration has begun and not ended."""
    sim = Simulation(store, surges=SURGES)
    while not acted(store, "migrate_vm") and sim.now < START + 60:
        sim.run(1)
    return sim


def test_a_lost_database_costs_cycles_not_outcomes(store: Store) -> None:
    sim = moving_machine(store)
    (moving,) = acted(store, "migrate_vm")
    assert moving.outcome is OutcomeKind.PENDING
    journal = sim.orchestrator._executor.store
    sim.orchestrator._executor.store = replace(journal, journal=Broken())  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        sim.orchestrator.cycle(sim.now + 3)
    sim.orchestrator._executor.store = journal
    sim.orchestrator.cycle(sim.now + 3)
    assert acted(store, "migrate_vm")[0].outcome is OutcomeKind.DONE


class Broken:
    """A journal whose database is away."""

    def amend_action(self, _record: ActionRecord) -> None:
        raise StoreError("database: gone")


def test_a_restarted_orchestrator_learns_what_became_of_the_old_actions(store: Store) -> None:
    sim = moving_machine(store)
    assert acted(store, "migrate_vm")[0].outcome is OutcomeKind.PENDING
    sim.orchestrator = sim.fresh()
    sim.hypervisors.finished(sim.now + 3)  # the dead process's driver took the answer with it
    sim.run(round(CONFIG.timing.duty_s) + 4)  # first it waits for the dead one's lease to end
    first = acted(store, "migrate_vm")[0]
    assert first.outcome is OutcomeKind.DONE
    assert "restart" in first.sentence
    assert len(acted(store, "migrate_vm")) == 1


def test_what_a_dead_process_never_achieved_is_closed_as_failed(store: Store) -> None:
    sim = moving_machine(store)
    sim.hypervisors.close()
    sim.orchestrator = sim.fresh()
    sim.run(40)
    first = acted(store, "migrate_vm")[0]
    assert first.outcome is OutcomeKind.FAILED
    assert "restarted" in first.sentence


def test_lead_times_are_learnt_and_make_it_refuse_what_is_too_late(store: Store) -> None:
    slow = {"set_cpu_limit": 0.3, "set_vcpus": 0.5, "set_memory": 0.2, "migrate_vm": 2.5}
    sim = Simulation(store, surges=((70.0, 80.0),))
    sim.hypervisors.latencies_s = slow
    body = {"vm": "batch1", "from": "hB", "to": "hA"}
    for n in range(6):  # moves of long ago that took 40 s each
        row = ActionRecord("migrate_vm", "other", body, "", {}, "predictive", START - 500 + n, ActionTiming(None, 4.0))
        store.journal.add_action(
            replace(row, outcome=OutcomeKind.DONE, timing=ActionTiming(None, 4.0, START - 460 + n))
        )
    sim.run(69)
    late = [one for one in store.journal.actions() if one.outcome is OutcomeKind.SKIPPED]
    assert any("too late" in one.sentence for one in late)
    assert sim.hypervisors.machines["batch1"].host == "hA"


def test_what_was_done_after_the_last_measurement_is_not_done_again(store: Store) -> None:
    sim = Simulation(store, surges=SURGES).run(59)
    raised = sim.hypervisors.machines["shop1"].cores_limit
    assert raised > 0.4
    seen = sim.orchestrator.world(sim.now)
    stale = replace(seen, vms={**seen.vms, "shop1": replace(seen.vms["shop1"], cores_limit=0.2, seen_at=START + 56)})
    assert up_to_date(stale, store.journal.actions()).vms["shop1"].cores_limit == raised
    later = replace(seen, vms={**seen.vms, "shop1": replace(seen.vms["shop1"], cores_limit=0.3, seen_at=START + 90)})
    assert up_to_date(later, store.journal.actions()).vms["shop1"].cores_limit == 0.3


def test_a_surge_through_a_queue_is_marked_ahead_and_the_queue_goes_with_the_orchestrator(store: Store) -> None:
    spec = QueueSpec("leaf2>hA", "leaf2-eth21", CAPACITY)
    sim = Simulation(store, config=CONFIG.tuned(declared={"queues": (spec,)}), surges=SURGES)
    queues = FakeQueues((spec,))
    keeper = QueueKeeper(queues, act=True)
    sim.orchestrator = Orchestrator(sim.config, store, sim.hypervisors, paths, keeper)
    assert settled(keeper, sim.now, {spec.link})
    sim.run(66)
    (held,) = store.wanted.reservations(sim.now)
    assert (held.pair, held.dscp) == (Pair("c1", SHOP), 46)
    first = acted(store, "reserve_bandwidth")[0]
    assert first.outcome is OutcomeKind.DONE
    assert first.timing.ready_at is not None
    assert first.timing.ready_at < START + 60
    assert any("DSCP 46" in line for line in explain(first))
    sim.orchestrator.close()
    assert queues.standing == set()

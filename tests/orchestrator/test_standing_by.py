"""Two orchestrators on one database: one works, the other waits, and takes over when the first is gone."""

import structlog
from fake_queues import FakeQueues, settled
from fake_world import CAPACITY, CONFIG, START, Simulation, paths

from cpdb import OutcomeKind, Store, VmLoad
from orchestrator import Orchestrator, QueueKeeper, QueueSpec
from orchestrator.duty import ACTING, Turn

SURGES = ((60.0, 70.0), (90.0, 100.0))


def kinds(store: Store) -> list[str]:
    return [one.kind for one in store.journal.actions() if one.outcome is not OutcomeKind.SKIPPED]


def test_the_second_stands_by_and_does_nothing(store: Store) -> None:
    second: list[Orchestrator] = []

    def beside(sim: Simulation) -> None:
        if not second:
            sim.orchestrator.observe(sim.now)
            second.append(sim.fresh())
        second[0].observe(sim.now)
        report = second[0].cycle(sim.now)
        assert report.standby
        assert report.issued == report.advised == ()

    sim = Simulation(store, surges=SURGES).run(66, beside)
    assert not any(one.standby for one in sim.reports)
    assert kinds(store).count("migrate_vm") == 1
    measured = [one.t for one in store.facts.loads(VmLoad, START + 10, START + 11) if one.vm == "shop1"]
    assert measured == [START + 11]  # and it measures nothing twice


def test_the_second_takes_over_when_nothing_is_heard_of_the_first(store: Store) -> None:
    sim = Simulation(store, surges=SURGES).run(20)
    sim.orchestrator = sim.fresh()  # the first was killed
    waits = round(CONFIG.timing.duty_s)
    sim.run(waits + 2)
    standing = [one.standby for one in sim.reports[20:]]
    assert standing[0]
    assert not standing[-1]
    assert standing == sorted(standing, reverse=True)
    sim.run(60 - waits)
    assert "migrate_vm" in kinds(store)


def test_who_ends_in_good_order_leaves_no_gap(store: Store) -> None:
    sim = Simulation(store).run(10)
    sim.orchestrator.close()
    assert store.leases.holder(ACTING, sim.now) is None
    sim.orchestrator = sim.fresh()
    sim.run(3)
    assert not any(one.standby for one in sim.reports)


def test_one_that_wakes_up_late_does_not_take_the_lease_back(store: Store) -> None:
    sim = Simulation(store).run(10)
    late, sim.orchestrator = sim.orchestrator, sim.fresh()
    sim.run(round(CONFIG.timing.duty_s) + 1)
    assert not sim.reports[-1].standby
    assert late.cycle(sim.now).standby
    sim.run(1)
    assert not sim.reports[-1].standby


def test_an_adviser_beside_one_who_acts_neither_waits_nor_meddles(store: Store) -> None:
    sim = Simulation(store, surges=SURGES).run(5)
    adviser = Orchestrator(CONFIG.tuned(act=False), store, sim.hypervisors, paths)
    reports = []

    def beside(sim: Simulation) -> None:
        adviser.observe(sim.now)
        reports.append(adviser.cycle(sim.now))

    sim.run(65, beside)
    assert not any(one.standby for one in (*reports, *sim.reports))
    assert all(one.issued == () for one in reports)
    measured = [one.t for one in store.facts.loads(VmLoad, START + 10, START + 11) if one.vm == "shop1"]
    assert measured == [START + 11]
    done = [one for one in store.journal.actions() if one.outcome is OutcomeKind.DONE]
    assert done
    assert not any("restart" in one.sentence for one in done)  # it takes no action of the other's for an orphan


def test_who_stands_by_leaves_the_queues_alone_when_it_ends(store: Store) -> None:
    spec = QueueSpec("leaf2>hA", "leaf2-eth21", CAPACITY)
    sim = Simulation(store, config=CONFIG.tuned(declared={"queues": (spec,)})).run(2)
    queues = FakeQueues((spec,))
    first, second = QueueKeeper(queues, act=True), QueueKeeper(queues, act=True)
    assert settled(first, sim.now, {spec.link})
    waiting = Orchestrator(sim.config, store, sim.hypervisors, paths, second)
    assert waiting.cycle(sim.now).standby
    waiting.close()
    assert queues.standing == {spec.link}
    first.close()
    assert queues.standing == set()


def test_it_says_once_that_it_waits_and_once_that_it_goes_on(store: Store) -> None:
    structlog.reset_defaults()
    first, second = Turn(CONFIG, store, "a"), Turn(CONFIG, store, "b")
    with structlog.testing.capture_logs() as said:
        for second_s in range(20):
            if second_s < 5:
                first.take(START + second_s)
            second.take(START + second_s)
    texts = [one["event"] for one in said]
    assert [text.split(":")[0] for text in texts] == ["standing by", "on duty"]
    assert said[0]["other"] == "a"
    second.give_back()
    assert first.take(START + 20)

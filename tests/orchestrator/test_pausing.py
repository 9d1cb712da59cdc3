"""A paused orchestrator goes on advising and starts nothing; what it held runs out; then it acts again."""

from fake_world import CONFIG, SHOP, START, Simulation

from cpdb import OutcomeKind, Pair, Pause, Store

SURGE = ((60.0, 80.0),)


def test_paused_it_advises_and_starts_nothing_and_resumed_it_acts(store: Store) -> None:
    store.pauses.pause(Pause(START, "anna@desk", "changing cables", START + 70.0))
    world = Simulation(store, surges=SURGE).run(69)
    said = [one for one in store.journal.actions() if one.outcome is OutcomeKind.ADVISED]
    assert said and all(one.sentence == "advice only: paused by anna@desk" for one in said)
    assert not any(report.issued or report.renewed for report in world.reports)
    assert store.wanted.reservations(world.now) == [] and world.hypervisors.started == []
    world.run(11)
    assert any(report.issued for report in world.reports)


def test_a_lease_that_is_held_when_the_pause_comes_runs_out(store: Store) -> None:
    world = Simulation(store, surges=SURGE).run(64)
    assert [one.pair for one in store.wanted.reservations(world.now)] == [Pair("c1", SHOP)]
    store.pauses.pause(Pause(world.now, "anna@desk"))
    world.run(int(CONFIG.bandwidth.lease_s) + 1)
    assert store.wanted.reservations(world.now) == []
    assert not any(report.renewed or report.issued for report in world.reports[64:])

"""Bandwidth on request through the whole loop: asked, decided, held, renewed, ended - and told at every step."""

import pytest
from fake_world import BACKUP, CONFIG, NO_SURGES, SEARCH, SHOP, Simulation

from cpdb import (
    BandwidthRequest,
    InstallStatus,
    OutcomeKind,
    Pair,
    Pause,
    RequestState,
    ReservationReport,
    SettingsError,
    Store,
)
from orchestrator import NOT_OBTAINED, Asker, OrchestratorConfig, explain, request_bandwidth, request_of

PAIR = Pair("c2", SEARCH)
RATE = 500_000.0


def ask(sim: Simulation, rate: float = RATE, lasting_s: float = 20.0, **more) -> int:
    asker = Asker(sim.store, "me", sim.now, **more)
    return request_bandwidth(asker, PAIR, rate, sim.now + lasting_s, "a video call")


def told(sim: Simulation, number: int) -> BandwidthRequest:
    return next(one for one in sim.store.requests.since(0.0) if one.id == number)


def simulation(store: Store, config: OrchestratorConfig = CONFIG) -> Simulation:
    return Simulation(store, config=config, surges=NO_SURGES).run(20)


def test_a_request_is_granted_held_and_over_at_its_end(store: Store) -> None:
    sim = simulation(store)
    number, asked_at = ask(sim), sim.now
    sim.run(3)
    found = told(sim, number)
    assert (found.answer.state, found.answer.granted_bytes_per_s) == (RequestState.GRANTED, RATE)
    held = [one for one in store.wanted.reservations(sim.now) if request_of(one.key) == number]
    assert {limit.pair for one in held for limit in one.limits} == {Pair("c4", BACKUP)}
    assert "a video call" not in held[0].key
    sim.run(15)
    assert [one.created_at for one in held] == [
        one.created_at for one in store.wanted.reservations(sim.now) if request_of(one.key) == number
    ]
    sim.run(3)
    assert sim.now - asked_at > 20
    assert store.wanted.reservations(sim.now) == []
    assert told(sim, number).answer.state is RequestState.ENDED
    rows = [one for one in store.journal.actions() if request_of(one.target) == number]
    assert {one.outcome for one in rows} == {OutcomeKind.DONE}
    assert any(f"request {number} by me" in line for line in explain(rows[0]))


def test_nobody_is_disturbed_where_there_is_room_for_all(store: Store) -> None:
    sim = Simulation(store, surges=NO_SURGES, backup_bytes_per_s=200_000.0).run(20)
    ask(sim)
    sim.run(5)
    for held in store.wanted.reservations(sim.now):
        assert all(one.bytes_per_s > 200_000.0 for one in held.limits)


def test_without_permission_or_in_a_pause_it_only_says_what_would_be(store: Store) -> None:
    sim = simulation(store, CONFIG.tuned(act=False))
    number = ask(sim)
    sim.run(3)
    found = told(sim, number)
    assert found.answer.state is RequestState.ASKED
    assert found.answer.why.startswith("advice only (the orchestrator may not act): would get 4.0 Mbit/s")
    assert store.wanted.reservations(sim.now) == []
    sim.config = CONFIG
    sim.now += 6
    sim.orchestrator.close()
    sim.orchestrator = sim.fresh()
    store.pauses.pause(Pause(sim.now, "somebody", "", sim.now + 3))
    sim.run(2)
    assert "paused by somebody" in told(sim, number).answer.why or told(sim, number).answer.state is RequestState.ASKED
    sim.run(4)
    assert told(sim, number).answer.state is RequestState.GRANTED


def test_what_nobody_can_have_is_refused_with_what_would_fit(store: Store) -> None:
    sim = simulation(store)
    number = ask(sim, 9e6)
    sim.run(2)
    found = told(sim, number)
    assert found.answer.state is RequestState.PARTLY
    assert found.answer.granted_bytes_per_s < 1_350_000.0
    assert "fit" in found.answer.why
    other = ask(sim, 5e5, priority=0)
    sim.run(2)
    assert told(sim, other).answer.state is RequestState.REFUSED
    assert "nothing would fit" in told(sim, other).answer.why
    assert {request_of(one.key) for one in store.wanted.reservations(sim.now)} == {number}


def test_a_withdrawn_request_is_given_back(store: Store) -> None:
    sim = simulation(store)
    number = ask(sim)
    sim.run(3)
    assert store.wanted.reservations(sim.now)
    assert store.requests.withdraw(number, sim.now)
    sim.run(2)
    assert store.wanted.reservations(sim.now) == []
    assert told(sim, number).answer.state is RequestState.ENDED


def test_a_dead_orchestrator_leaves_nothing_behind_and_its_successor_goes_on(store: Store) -> None:
    sim = simulation(store)
    number = ask(sim, lasting_s=60.0)
    sim.run(3)
    sim.now += CONFIG.bandwidth.lease_s + 1
    assert store.wanted.reservations(sim.now) == []
    sim.orchestrator = sim.fresh()
    sim.run(4)
    assert told(sim, number).answer.state is RequestState.GRANTED
    assert any(request_of(one.key) == number for one in store.wanted.reservations(sim.now))


def test_what_a_switch_refuses_raises_an_alarm_that_ends_with_the_cause(store: Store) -> None:
    sim = simulation(store)
    sim.controller_alive = False
    number = ask(sim, lasting_s=60.0)
    sim.run(1, refuse)
    sim.run(2, refuse)
    (alarm,) = [one for one in store.alarms.open() if one.kind == NOT_OBTAINED]
    assert "leaf1 refused" in alarm.detail
    assert "the switch has no meters" in alarm.detail
    assert "leaf1 refused" in told(sim, number).answer.why
    failed = [one for one in store.journal.actions() if one.outcome is OutcomeKind.FAILED]
    assert "the switch has no meters" in failed[0].sentence
    sim.controller_alive = True
    sim.run(3)
    assert store.alarms.open() == []


def refuse(sim: Simulation) -> None:
    """A controller whose switch has no meters."""
    sim.store.wanted.observe(
        [
            ReservationReport(
                one.key, "leaf1", one.generation, InstallStatus.REFUSED, "the switch has no meters", sim.now
            )
            for one in sim.store.wanted.reservations(sim.now)
        ]
    )


def test_what_is_obtained_is_measured_and_written_down(store: Store) -> None:
    sim = simulation(store)
    number = ask(sim, lasting_s=60.0)
    sim.run(12)
    found = told(sim, number)
    assert found.answer.obtained_bytes_per_s is not None
    assert 0 < found.answer.obtained_bytes_per_s < 100_000.0
    assert not store.alarms.open()


@pytest.mark.parametrize(
    ("subject", "rate", "lasting_s"), [(PAIR, 0.0, 10.0), (PAIR, 1e5, 0.0), ("10.9.9.9", 1e5, 10.0)]
)
def test_what_cannot_be_asked_for_is_an_error_in_one_line(
    store: Store, subject: Pair | str, rate: float, lasting_s: float
) -> None:
    sim = Simulation(store)
    with pytest.raises(SettingsError) as caught:
        request_bandwidth(Asker(store, "me", sim.now), subject, rate, sim.now + lasting_s, "r")
    assert "\n" not in str(caught.value)
    assert request_bandwidth(Asker(store, "me", sim.now), SHOP, 1e5, sim.now + 10, "r") == 1

"""A destination that dies is out within a second, who waits for it is elsewhere within three; in virtual time."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from simulated import HOSTS, VIP, World, address, ip, mac
from test_health import asked, behind, status, weights

from cpdb import HealthStatus, MachineReport
from ryu_apps.rules import PortId, virtual_mac
from ryu_apps.services.health import FLAPS_S, Health, ProbeTarget
from ryu_apps.services.virtual_ips import SILENT_FOR_S

# As in the controller's loops
ASK_EVERY_S, TICK_S = 0.05, 0.5
Speak = Callable[[World, str], bool]


def live(world: World, seconds: float, speaks: Speak, until: Callable[[World], bool] = lambda _: False) -> float:
    """Time passes as in the controller's loops; returns after how long `until` held, or all of it."""
    start, ticked = world.now, -1.0
    while world.now - start < seconds and not until(world):
        world.now = round(world.now + ASK_EVERY_S, 3)
        network = world.network
        effects = network.ask(world.now) if network.services.is_due(world.now) else []
        if world.now - ticked >= TICK_S:
            effects, ticked = effects + network.tick(world.now), world.now
        world.react([one for one in effects if type(one).__name__ == "Alert"])
        for name in asked(world, effects):
            if speaks(world, name):
                world.speak(name)
    return world.now - start


def everyone(_world: World, _name: str) -> bool:
    return True


def but(*silent: str) -> Speak:
    return lambda _world, name: name not in silent


def begun() -> World:
    world = World()
    world.start(behind())
    live(world, 5.0, everyone)
    assert weights(world) == [100, 100]
    return world


@pytest.mark.parametrize("moment", [n * 0.07 for n in range(12)])
def test_new_connections_go_elsewhere_within_a_second_and_waiting_sources_within_three(moment: float) -> None:
    world = begun()
    served = world.send("c1", ip("c1", "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP))[0][0]
    other = "s2" if served == "s1" else "s1"
    pair = world.network.services.pairs.of_addresses(address("c1"), VIP)
    assert pair is not None
    live(world, moment, everyone)
    out_s = live(world, 5.0, but(served), lambda one: sorted(weights(one)) == [0, 100])
    assert out_s <= 1.0
    # It goes on asking, and nobody answers it.
    pair.active = world.now
    moved_s = live(world, 5.0, but(served), lambda _: pair.destination is not None and pair.destination.name == other)
    assert out_s + moved_s <= 3.0
    assert world.send("c1", ip("c1", "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP))[0][0] == other


def test_a_port_that_goes_down_takes_its_machine_out_at_once() -> None:
    world = begun()
    world.network.port_changed(HOSTS["s1"], False, world.now)
    world.network.services.is_due(world.now)
    assert live(world, 5.0, but("s1"), lambda one: weights(one) == [0, 100]) <= 2 * ASK_EVERY_S


def test_packets_without_any_back_make_it_be_asked_at_once() -> None:
    world = begun()
    # With ten thousand destinations each would be asked every 50 s.
    probes = world.network.services.destinations.health
    probes._probes = probes._probes.model_copy(update={"every_s": 50.0})
    live(world, 60.0, everyone)
    world.network.port_counted(HOSTS["s1"], 40, 30, world.now)
    live(world, 1.0, but("s1"))
    assert status(world)["s1"] == "up"
    world.network.port_counted(HOSTS["s1"], 40, 0, world.now)
    assert live(world, 5.0, but("s1"), lambda one: weights(one) == [0, 100]) <= 1.0


def test_where_nothing_was_ever_counted_silence_says_nothing() -> None:
    world = begun()
    asked_before = world.network.services.destinations.health._states
    world.network.port_counted(HOSTS["s1"], 1000, 0, world.now)
    assert not any(one.suspected for one in asked_before.values())


def test_who_is_suspected_and_answers_stays() -> None:
    world = begun()
    for _ in range(20):
        world.network.services.destinations.evidence.suspect((mac("s1"),))
        live(world, 0.3, everyone)
        assert weights(world) == [100, 100]


def test_who_sends_but_does_not_answer_gets_nothing_new_and_keeps_its_sources() -> None:
    world = begun()
    served = world.send("c1", ip("c1", "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP))[0][0]
    pair = world.network.services.pairs.of_addresses(address("c1"), VIP)
    assert pair is not None and pair.destination is not None
    for _ in range(10):
        world.network.port_counted(HOSTS[served], 40, 40, world.now)
        pair.active = world.now
        live(world, 1.0, but(served))
    assert sorted(weights(world)) == [0, 100] and pair.destination.name == served


def test_all_down_keep_what_they_had_and_it_is_said() -> None:
    world = begun()
    live(world, 3.0, but("s1"))
    assert weights(world) == [0, 100]
    live(world, 5.0, but("s1", "s2"))
    assert (status(world), weights(world)) == ({"s1": "down", "s2": "down"}, [100, 100])
    assert world.alarms.counts["nobody_answers"] == 0
    live(world, 2 * SILENT_FOR_S, but("s1", "s2"))
    assert world.alarms.counts["nobody_answers"] > 0
    before = world.alarms.counts["nobody_answers"]
    live(world, 5.0, everyone)
    told = world.alarms.counts["nobody_answers"]
    live(world, 5.0, everyone)
    assert world.alarms.counts["nobody_answers"] == told and told - before <= 5


def test_short_silences_are_no_alarm() -> None:
    world = begun()
    for _ in range(4):
        live(world, 0.6 * SILENT_FOR_S, but("s1", "s2"))
        live(world, 2 * SILENT_FOR_S, everyone)
    assert world.alarms.counts["nobody_answers"] == 0 and set(status(world).values()) == {"up"}


def test_a_flapping_one_comes_back_ever_later() -> None:
    one, health, now = ProbeTarget("10.0.0.11", "02:00:00:00:00:11"), Health(), 0.0
    waits = []

    def turns(wanted: HealthStatus, answers: bool, now: float) -> float:
        while health.status(one) is not wanted:
            if health.due([one], [one], now) and answers:
                health.answered(one, True, now + 0.01)
            now += ASK_EVERY_S
        return now

    now = turns(HealthStatus.UP, True, now)
    for _ in range(7):
        fell = turns(HealthStatus.DOWN, False, now)
        now = turns(HealthStatus.UP, True, fell)
        waits.append(now - fell)
    assert all(later > 1.4 * before for before, later in pairwise(waits))
    assert waits[0] < 2.0 and waits[-1] > 10.0
    fell = turns(HealthStatus.DOWN, False, now + FLAPS_S)
    assert turns(HealthStatus.UP, True, fell) - fell < 2.0


def test_a_controller_that_was_busy_blames_nobody() -> None:
    world = begun()
    for _ in range(30):
        live(world, 0.1, everyone)
        world.now += 1.6
    assert weights(world) == [100, 100]


def test_slow_answers_are_waited_for() -> None:
    """A busy guest that takes 0.6 s for every answer is alive."""
    world = begun()
    due: list[tuple[float, str]] = []
    down = 0
    for step in range(1200):
        world.now = round(world.now + ASK_EVERY_S, 3)
        effects = world.network.ask(world.now)
        # From 0.15 s slower and slower, as load rises
        due += [(world.now + min(0.6, 0.15 + step * 0.001), name) for name in asked(world, effects)]
        for at, name in [one for one in due if one[0] <= world.now]:
            due.remove((at, name))
            world.speak(name)
        down += weights(world) != [100, 100]
    assert down == 0


def test_evidence_of_somebody_else_s_destination_is_nobody_s() -> None:
    world = begun()
    world.network.port_counted(PortId(0x11, 99), 40, 0, world.now)
    world.network.port_counted(HOSTS["c1"], 40, 0, world.now)
    live(world, 1.0, everyone)
    assert weights(world) == [100, 100]


def test_what_a_hypervisor_says_makes_it_be_asked_at_once() -> None:
    world = begun()
    probes = world.network.services.destinations.health
    probes._probes = probes._probes.model_copy(update={"every_s": 50.0})
    live(world, 60.0, everyone)

    def told(state: str) -> None:
        report = MachineReport("s1", "hA", state, "", world.now)
        world.network.declare(replace(behind(), machines=(report,)), world.now)

    told("running")
    live(world, 1.0, but("s1"))
    assert weights(world) == [100, 100]
    # A word that is old, or wrong, puts nobody out.
    told("off")
    live(world, 2.0, everyone)
    assert weights(world) == [100, 100]
    told("off")
    assert live(world, 5.0, but("s1"), lambda one: weights(one) == [0, 100]) <= 1.0

"""The library of scenarios: seeded, sound, and each what its name says."""

import numpy as np
import pytest

from backtest import RecordingError
from backtest.whatif import (
    ATTACKERS,
    FAMILIES,
    FORESEEABLE,
    EventKind,
    OfferedLoad,
    check_ways,
    describe_scenarios,
    least_costs,
    make_scenario,
    scenario_scene,
)

SCENE = scenario_scene()


def needs(load: OfferedLoad) -> dict[str, np.ndarray]:
    """Cores that the machines of each service would need together, by its first destination."""
    found = {name: load.cores[:, load.vms.index(name)].copy() for name in load.vms}
    for column, pair in enumerate(load.pairs):
        first = next(vip for vip in SCENE.virtual_ips if vip.address == pair.virtual_ip).destinations[0].name
        price = SCENE.costs[first]
        found[first] += load.connections_per_s[:, column] * price.cpu_ms_per_connection / 1e3
        found[first] += load.bytes_per_s[:, column] * price.cpu_ms_per_mb / 1e9
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_makes_a_world_and_another_seed_another(family: str) -> None:
    one, again, other = make_scenario(family, 1), make_scenario(family, 1), make_scenario(family, 2)
    assert (one.bytes_per_s == again.bytes_per_s).all() and one.events == again.events
    assert (one.bytes_per_s != other.bytes_per_s).any()
    for values in (one.bytes_per_s, one.connections_per_s, one.cores):
        assert np.isfinite(values).all() and (values >= 0).all() and len(values) == one.seconds
    assert one.known.all() and one.seconds >= 300
    check_ways(SCENE, one)
    hosts, links = {host.name for host in SCENE.hosts}, {f"{link.a}>{link.b}" for link in SCENE.links}
    assert all(event.name in hosts | links | {""} for event in one.events)


def test_there_are_many_and_each_says_what_it_is() -> None:
    assert len(FAMILIES) >= 12
    assert all(len(sentence) > 40 and sentence.endswith(".") for sentence in describe_scenarios().values())
    assert set(ATTACKERS) | FORESEEABLE <= set(FAMILIES)
    assert {event.kind for family in FAMILIES for event in make_scenario(family, 1).events} == set(EventKind)


def test_a_name_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(RecordingError, match="there is none of that name; there are recurring_surge, "):
        make_scenario("armageddon", 1)


@pytest.mark.parametrize("seed", range(1, 6))
def test_in_calm_nothing_is_short_even_with_base_limits(seed: int) -> None:
    load = make_scenario("calm", seed)
    base = {vm.name: vm.cpu_cores_min for vm in SCENE.vms}
    assert all((cores <= base[name]).all() for name, cores in needs(load).items())
    assert load.bytes_per_s.sum(axis=1).max() < 0.8 * min(link.capacity_bytes_per_s or 0 for link in SCENE.links)


@pytest.mark.parametrize("family", ["recurring_surge", "flash_crowd", "slow_ramp", "on_off", "drifting_phase"])
def test_surges_need_more_than_base_limits_and_can_nearly_be_had(family: str) -> None:
    load = make_scenario(family, 1)
    judged = np.arange(load.seconds) >= load.seconds // 2
    assert needs(load)["shop1"][judged].max() > 1.5 * 0.4
    short = np.maximum(0.0, needs(load)["shop1"] - 0.4)[judged].sum()
    assert least_costs(SCENE, load, judged).sum() < 9 * short


def test_a_recurring_surge_recurs_and_a_drifting_one_drifts() -> None:
    def starts(family: str) -> np.ndarray:
        load = make_scenario(family, 1)
        high = load.connections_per_s[:, 0] > 35
        return np.flatnonzero(high[1:] & ~high[:-1] & ~np.roll(high, 2)[1:])

    regular, drifting = np.diff(starts("recurring_surge")), np.diff(starts("drifting_phase"))
    assert (np.abs(regular[regular > 20] - 40) <= 4).all() and len(regular) >= 6
    assert np.abs(drifting[drifting > 20] - 40).max() > 3

"""What a second costs, by hand; and that nothing can cost less than the bound."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whatif_scenes import SHOP, small_load, small_run, small_scene

from backtest.whatif import DoneAction, RequestCost, least_costs, price_run, weigh_priorities
from cpdb import MBIT, Destination, SettingsError, VirtualIp
from orchestrator import VmSpec

SCENE = small_scene()
R = 9.0


def test_short_and_idle_cores_by_hand() -> None:
    load = small_load(SCENE)
    # shop1 (base 0.5): short by 0.3; fits; 0.2 above base and need; below base nothing idles that is not above it.
    run = small_run(SCENE, load, need=[1.0, 0.6, 0.2, 0.1], allowed=[0.7, 0.6, 0.7, 0.5])
    cost = price_run(SCENE, load, run, load.known)
    assert cost.short_cores == pytest.approx([0.3, 0, 0, 0])
    assert cost.idle_cores == pytest.approx([0, 0, 0.2, 0])
    assert cost.by_second(R) == pytest.approx([2.7, 0, 0.2, 0])


def test_waiting_bytes_weigh_by_the_narrowest_link_and_by_priority() -> None:
    load = small_load(SCENE)
    run = small_run(SCENE, load)
    run.pairs.need[1], run.pairs.used[2] = [1 * MBIT, 2 * MBIT], [1 * MBIT, 2 * MBIT]
    cost = price_run(SCENE, load, run, load.known)
    # Both go to hA over 8 Mbit/s; of two priorities the higher one weighs 1, the lower one half.
    assert cost.short_link_s[1] == pytest.approx([1 / 8, 2 / 8])
    assert cost.weighted_link_s == pytest.approx([0, 1 / 8 + 1 / 8, 0, 0])
    assert cost.by_second(R) == pytest.approx([0, 9 / 4, 0, 0])


def test_actions_cost_what_they_copy_and_how_long_they_stop_a_machine() -> None:
    load = small_load(SCENE)
    moved = DoneAction(2.5, "migrate_vm", "batch", "", "", None, 3e6, 1e6, 0.5, 0.8)
    run = replace(
        small_run(SCENE, load),
        actions=(moved, DoneAction(2.5, "set_weights", "shop", "", "cooldown"), replace(moved, t=99.0)),
    )
    cost = price_run(SCENE, load, run, load.known)
    assert cost.copy_link_s == pytest.approx([0, 0, 3, 0])
    assert cost.pause_core_s == pytest.approx([0, 0, 0.4, 0])
    assert cost.by_second(R) == pytest.approx([0, 0, 3.4, 0])


def test_the_way_follows_a_machine_that_moves() -> None:
    scene = small_scene(links=(*SCENE.links[:3], replace(SCENE.links[3], capacity_bytes_per_s=2 * MBIT)))
    load = small_load(scene)
    run = small_run(scene, load)
    run.pairs.need[0, 0], run.pairs.need[1:, 0], run.pairs.used[1:, 0] = [1 * MBIT] * 3
    assert run.vms.where is not None
    run.vms.where[2:, 0] = 1
    assert price_run(scene, load, run, load.known).short_link_s[:, 0] == pytest.approx([1 / 8, 1 / 8, 1 / 2, 1 / 2])


def test_ranks_of_priorities() -> None:
    services = tuple(VirtualIp(str(number), "", priority) for number, priority in enumerate((5, 5, -1, 70)))
    assert weigh_priorities(services) == pytest.approx({"0": 2 / 3, "1": 2 / 3, "2": 1 / 3, "3": 1})


def test_a_way_that_nothing_declares_is_asked_for() -> None:
    scene = small_scene(links=SCENE.links[1:])
    load = small_load(scene)
    with pytest.raises(SettingsError, match=r"nothing leads from c1 to hA; add the \[\[link\]\]s"):
        price_run(scene, load, small_run(scene, load), load.known)


def test_the_bound_of_what_fits_is_nothing() -> None:
    load = small_load(SCENE)
    load.bytes_per_s[:] = [4 * MBIT, 4 * MBIT]
    load.cores[:] = [1.5, 0.5, 1.0]
    assert least_costs(SCENE, load, load.known) == pytest.approx([0, 0, 0, 0], abs=1e-6)


def test_the_bound_gives_a_full_link_to_whom_it_is_worth_most() -> None:
    load = small_load(SCENE)
    load.bytes_per_s[1] = [6 * MBIT, 6 * MBIT]
    # 4 of 12 do not fit through 8: those of the lower priority, which weigh half.
    assert least_costs(SCENE, load, load.known) == pytest.approx([0, R * 0.5 * 4 / 8, 0, 0])


def test_the_bound_moves_what_may_move_and_nothing_else() -> None:
    load = small_load(SCENE)
    load.cores[0] = [1.5, 0.5, 1.0]
    fixed = small_scene(host_of={"shop1": "hA", "bulk1": "hA", "batch": "hA"})
    assert least_costs(fixed, load, load.known)[0] == pytest.approx(0, abs=1e-6)
    still = small_scene(host_of=fixed.host_of, vms=(*fixed.vms[:2], VmSpec("batch", 0, 0.25, 1.0)))
    assert least_costs(still, load, load.known)[0] == pytest.approx(R * 1.0)
    load.cores[0] = [1.9, 0.0, 0.0]
    assert least_costs(still, load, load.known)[0] == pytest.approx(R * 0.4)


def test_the_bound_counts_the_cpu_of_all_requests_that_are_offered() -> None:
    scene = small_scene(costs=dict.fromkeys(SCENE.host_of, RequestCost(cpu_ms_per_mb=2000.0)))
    load = small_load(scene)
    load.bytes_per_s[0, 0] = 1.25e6
    # 2.5 cores for a machine of 1.5, and 10 Mbit/s through a link of 8.
    assert least_costs(scene, load, load.known)[0] == pytest.approx(R * (1.0 + 0.25))


def test_the_bound_spreads_requests_over_destinations() -> None:
    both = (Destination("shop1", "10.0.0.11", "02:00:00:00:00:0b"), Destination("batch", "10.0.0.13", "", 0))
    costs = dict.fromkeys(SCENE.host_of, RequestCost(cpu_ms_per_connection=10.0))
    scene = small_scene(costs=costs, virtual_ips=(VirtualIp(SHOP, "shop", 10, both), SCENE.virtual_ips[1]))
    load = small_load(scene)
    load.connections_per_s[0, 0] = 280
    assert least_costs(scene, load, load.known)[0] == pytest.approx(R * 0.3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_no_schedule_costs_less_than_the_bound(seed: int) -> None:
    """Any limits, places and rates that the scene allows, each second anew: what they cost is never below the bound."""
    rng = np.random.default_rng(seed)
    scene = small_scene(costs={name: RequestCost(rng.uniform(0, 5), rng.uniform(0, 500)) for name in SCENE.host_of})
    load = small_load(scene, 3)
    load.bytes_per_s[:] = rng.uniform(0, 10 * MBIT, load.bytes_per_s.shape)
    load.connections_per_s[:] = rng.uniform(0, 100, load.connections_per_s.shape)
    load.cores[:] = rng.uniform(0, 2, load.cores.shape)
    run = small_run(scene, load)
    served = rng.uniform(0, 1, load.bytes_per_s.shape)
    total = np.maximum(1.0, (served * load.bytes_per_s).sum(axis=1, keepdims=True) / (8 * MBIT))
    carried = served / total * load.bytes_per_s
    run.pairs.used[:] = carried
    need = load.cores.copy()
    for column, name in enumerate(("shop1", "bulk1")):
        price = scene.costs[name]
        work = load.connections_per_s[:, column] * price.cpu_ms_per_connection
        work += load.bytes_per_s[:, column] * price.cpu_ms_per_mb / 1e6
        need[:, column] += work / 1e3
    most = np.array([vm.cpu_cores_max for vm in scene.vms])
    limits = rng.uniform(0, 1, need.shape) * most
    where = np.array([0, 0, rng.integers(2)])
    for host in range(2):
        here = where == host
        over = np.maximum(1.0, limits[:, here].sum(axis=1, keepdims=True) / scene.hosts[host].cpu_cores_capacity)
        limits[:, here] /= over
    run.vms.need[:], run.vms.allowed[:] = need, limits
    cost = price_run(scene, load, run, load.known).by_second(R)
    assert (least_costs(scene, load, load.known) <= cost + 1e-6).all()

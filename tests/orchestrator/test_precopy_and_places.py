"""A migration is estimated before it is begun, and goes where memory, CPU and the network can bear it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, GIB, RELATION, changed, foreseen, machines, pair_state, vm, world

from orchestrator import (
    HostSpec,
    LinkState,
    MemoryState,
    MigrateVm,
    OrchestratorConfig,
    Plan,
    World,
    apply,
    plan,
    pre_copy,
)
from orchestrator.context import PlanningContext
from orchestrator.pair_table import LinkKey
from orchestrator.strategies.destinations import DOWNTIME_S, MOST_ROUNDS

MEMORY, RATE = st.floats(1e6, 1e12), st.floats(1e5, 1e10)
DIRTY = st.floats(0, 2e10)
PEAKS = {5: 2.0, 15: 20.0, 30: 20.0}


# -- the estimate


@given(MEMORY, DIRTY, RATE)
def test_all_memory_is_sent_at_least_once_and_the_times_add_up(memory: float, dirty: float, rate: float) -> None:
    found = pre_copy(memory, dirty, rate)
    assert found.bytes_sent >= memory * (1 - 1e-9)
    assert found.total_s == pytest.approx(found.bytes_sent / rate)
    assert found.rounds <= MOST_ROUNDS
    assert found.converges == (found.downtime_s <= DOWNTIME_S)


@given(MEMORY, st.floats(0, 0.95), RATE)
def test_what_writes_slower_than_it_is_copied_converges_as_the_formula_says(
    memory: float, share: float, rate: float
) -> None:
    found = pre_copy(memory, share * rate, rate)
    # Liu et al.: memory * (1 - share^(rounds + 1)) / (1 - share)
    expected = memory * (1 - share ** (found.rounds + 1)) / (1 - share)
    assert found.bytes_sent == pytest.approx(expected, rel=1e-6)
    if memory * share**MOST_ROUNDS <= DOWNTIME_S * rate:
        assert found.converges


@given(MEMORY, st.floats(1.0, 50), RATE)
def test_what_writes_faster_than_it_is_copied_never_converges(memory: float, factor: float, rate: float) -> None:
    assert pre_copy(memory, factor * rate, rate).converges == (memory <= DOWNTIME_S * rate)


@given(MEMORY, MEMORY, DIRTY, DIRTY, RATE)
def test_larger_and_busier_guests_never_take_less(
    memory_a: float, memory_b: float, dirty_a: float, dirty_b: float, rate: float
) -> None:
    small, large = sorted((memory_a, memory_b))
    calm, busy = sorted((dirty_a, dirty_b))
    slack = 1 + DOWNTIME_S * rate / small  # a round more or less may end it a little sooner
    assert pre_copy(small, calm, rate).bytes_sent <= pre_copy(large, calm, rate).bytes_sent * slack
    assert pre_copy(small, calm, rate).bytes_sent <= pre_copy(small, busy, rate).bytes_sent * slack


def test_an_unknown_guest_is_taken_to_need_twice_its_memory_and_no_way_takes_for_ever() -> None:
    assert pre_copy(8 * GIB, None, 125e6).bytes_sent == pytest.approx(16 * GIB, rel=0.01)
    assert not pre_copy(GIB, 0.0, 0.0).converges


# -- what it decides


def planned(start: World, config: OrchestratorConfig = CONFIG) -> Plan:
    return plan(PlanningContext.of(start, config))


def moves(found: Plan) -> list[MigrateVm]:
    return [one.action for one in found.steps if isinstance(one.action, MigrateVm)]


def crowded(memory_bytes: int = 128 << 20, dirty_bytes_per_s: float | None = None) -> World:
    """A surge that h1 cannot carry beside its least important machine."""
    surging = foreseen(pair_state("c1", "shop", 10, 2.0, destination="shop", links=()), PEAKS)
    shop = vm("shop", "h1", 0.05, 0.2, priority=10, cpu_cores_max=0.8, relation=RELATION)
    batch = vm("batch", "h1", 0.25, 0.25, movable=True)
    batch = replace(batch, memory=MemoryState(memory_bytes, dirty_bytes_per_s=dirty_bytes_per_s))
    large = tuple(HostSpec(name, "", "", 1.0, 64 * GIB) for name in ("h1", "h2"))
    return world([surging], **machines(shop, batch, vm("steady", "h1", 0.35, 0.5, priority=10), hosts=large))


def refused(found: Plan, words: str) -> bool:
    assert moves(found) == []
    return any(words in one.why_not for one in found.refusals)


def test_a_move_is_estimated_and_can_say_so() -> None:
    (step,) = [one for one in planned(crowded()).steps if isinstance(one.action, MigrateVm)]
    assert step.reason.to_json()["pre_copy"]["total_s"] == pytest.approx(2 * 128 * 1.048576 / 125, rel=0.2)
    assert step.reason.to_json()["circumstances"]["size_bytes"] == 128 << 20


def test_a_guest_that_writes_faster_than_it_can_be_copied_stays() -> None:
    assert refused(planned(crowded(GIB, dirty_bytes_per_s=200e6)), "would not converge")


def test_a_large_guest_is_too_late_before_it_was_ever_moved_and_a_huge_one_is_not_begun() -> None:
    assert moves(planned(crowded(GIB, 0.0)))
    assert refused(planned(crowded(2 * GIB, 20e6)), "too late")
    assert refused(planned(crowded(16 * GIB, 0.0)), "too late")
    bounded = CONFIG.tuned(moves={"limit_s": 30.0})
    assert refused(planned(crowded(16 * GIB, 0.0), bounded), "it may take 30 s")


ACCESS_1, ACCESS_2 = ("leaf", "h1"), ("leaf", "h2")


def between(source: str, destination: str) -> tuple[LinkKey, ...]:
    """One leaf: clients and hosts hang on it."""
    return ((source, "leaf"), ("leaf", destination))


def on_links(start: World, capacity: float, load: float, link: LinkKey = ACCESS_2) -> World:
    state = LinkState(link, capacity, load)
    return changed(start, ways=between, links={**start.links, link: state})


def test_a_copy_over_shared_links_takes_only_what_they_have_left() -> None:
    shared = CONFIG.tuned(moves={"over_links": True})
    wide = on_links(crowded(), 125e6, 20e6)
    assert moves(planned(wide, shared))
    (step,) = [one for one in planned(wide, shared).steps if isinstance(one.action, MigrateVm)]
    (alone,) = [one for one in planned(wide).steps if isinstance(one.action, MigrateVm)]
    assert step.reason.to_json()["pre_copy"]["total_s"] > alone.reason.to_json()["pre_copy"]["total_s"]
    full = on_links(crowded(), 125e6, 110e6)
    assert refused(planned(full, shared), "its own traffic would load leaf>h2")
    assert moves(planned(full))  # on a network of its own it does not matter


def test_a_copy_does_not_load_a_link_that_will_be_short() -> None:
    start = on_links(crowded(), 125e6, 1e6)
    coming = foreseen(pair_state("c7", "v7", 10, 100.0, links=(ACCESS_2,)), {5: 100.0, 15: 3900.0, 30: 3900.0})
    start = replace(start, pairs={**start.pairs, coming.pair: coming})
    assert refused(planned(start, CONFIG.tuned(moves={"over_links": True})), "within 15 s")


def test_the_pairs_of_a_machine_need_room_on_the_way_to_its_new_host() -> None:
    start = crowded()
    served = pair_state("c5", "bulk", 0, 20.0, destination="batch", links=(("c5", "leaf"), ACCESS_1))
    start = replace(start, pairs={**start.pairs, served.pair: served})
    assert moves(planned(on_links(start, 10e6, 1e6)))
    assert refused(planned(on_links(start, 1e6, 0.6e6)), "leaf>h2 on the way to h2 would carry")


# -- where there is a choice


def fleet(*hosts: HostSpec, batches: int = 3, **sizes: float) -> World:
    surging = foreseen(pair_state("c1", "shop", 10, 2.0, destination="shop", links=()), PEAKS)
    shop = vm("shop", "h1", 0.05, 0.2, priority=10, cpu_cores_max=0.8, relation=RELATION)
    low = [vm(f"b{n}", "h1", sizes.get(f"b{n}", 0.2), 0.4, movable=True) for n in range(batches)]
    return world([surging], **machines(shop, *low, hosts=(HostSpec("h1", "", "", 1.0, 4 * GIB), *hosts)))


def test_the_optimiser_moves_the_one_that_suffices_instead_of_two_that_are_smaller() -> None:
    start = fleet(HostSpec("h2", "", "", 1.0, GIB), HostSpec("h3", "", "", 1.0, GIB), b0=0.1, b1=0.1, b2=0.35)
    assert [one.vm for one in moves(planned(start))] == ["b2"]


def test_machines_are_spread_where_one_host_cannot_take_them_all() -> None:
    start = fleet(HostSpec("h2", "", "", 0.3, GIB), HostSpec("h3", "", "", 0.3, GIB), b0=0.25, b1=0.25, b2=0.25)
    found = moves(planned(start))
    assert len({one.vm for one in found}) == 2
    assert {one.after for one in found} == {"h2", "h3"}


def test_less_important_machines_go_first_where_either_would_do() -> None:
    start = fleet(HostSpec("h2", "", "", 1.0, GIB), HostSpec("h3", "", "", 1.0, GIB), batches=2, b0=0.3, b1=0.3)
    for kept, sent in (("b0", "b1"), ("b1", "b0")):
        one = start.vms[kept]
        assert one.spec is not None
        raised = replace(one, spec=replace(one.spec, priority=5))
        assert [one.vm for one in moves(planned(replace(start, vms={**start.vms, kept: raised})))] == [sent]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.05, 0.4), min_size=2, max_size=5),
    st.lists(st.floats(0.1, 2.0), min_size=2, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_no_choice_makes_another_host_short_or_wakes_a_cordoned_one(
    loads: list[float], capacities: list[float], cordons: list[bool]
) -> None:
    others = [HostSpec(f"h{n + 2}", "", "", cores, GIB, cordoned=cordons[n]) for n, cores in enumerate(capacities)]
    start = fleet(*others, batches=len(loads), **{f"b{n}": load for n, load in enumerate(loads)})
    after = start
    for action in moves(planned(start)):
        assert not start.hosts[action.after].cordoned
        after = apply(after, action)
        for host in others:
            used = sum(min(one.cores_limit, one.cores_used) for one in after.on_host(host.name))
            assert used <= CONFIG.cpu.host_headroom * host.cpu_cores_capacity + 1e-6
            assert sum(one.memory.bytes for one in after.on_host(host.name)) <= GIB
    assert moves(planned(after)) == []

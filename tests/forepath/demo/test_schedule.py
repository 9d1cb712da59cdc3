"""The schedule is data drawn from a seed: equal for equal seeds, equal for each policy, and only that."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forepath.demo.layout import MBIT, LabLayout
from forepath.demo.scene import GROWTH, pooled, scene
from forepath.demo.schedule import WARM_UP, Phases, Request, Schedule, make_schedule, request_cpu_s

PHASES = Phases(warmup_cycles=2, cycles=2)


def relative(schedule: Schedule, name: str) -> list[tuple[str, Request]]:
    segment = next(s for s in schedule.segments if s.name == name)
    return [
        (client, replace(r, at_s=round(r.at_s - segment.start_s, 6)))
        for client, rows in schedule.requests.items()
        for r in rows
        # A surge's last request may be late by its jitter, never into the next cycle's surge.
        if segment.start_s <= r.at_s < segment.end_s
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_same_seed_gives_the_same_schedule(seed: int) -> None:
    assert make_schedule(seed, phases=PHASES) == make_schedule(seed, phases=PHASES)


def test_seeds_move_everything_that_could_be_learnt_by_heart() -> None:
    made = [make_schedule(seed, phases=PHASES).character for seed in range(40)]
    assert len({c["period_s"] for c in made}) == len({c["phase_s"] for c in made}) == 40
    assert {c["client"] for c in made} == {"c1", "c2", "c3"}
    assert {c["service"] for c in made} == {"shop", "search"}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_surge_has_its_size_and_place(seed: int) -> None:
    schedule = make_schedule(seed, phases=PHASES)
    assert 28 <= schedule.period_s <= 34
    assert len(schedule.windows) == 8
    for window in schedule.windows:
        segment = next(s for s in schedule.segments if s.name == window.segment)
        assert segment.start_s + 8 < window.start_s < window.end_s < segment.end_s
        rows = [r for r in schedule.requests[window.client] if r.surge and window.start_s <= r.at_s < window.end_s]
        offered = sum(r.bytes for r in rows) / (window.end_s - window.start_s)
        assert 4.2 * MBIT < offered < 5.9 * MBIT
        assert all(r.service == window.service for r in rows)
    gaps = [b.start_s - a.start_s for a, b in itertools.pairwise(schedule.windows)]
    assert all(abs(gap - schedule.period_s) <= 1.0 for gap in gaps)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_each_policy_meets_the_same_traffic_and_the_warm_up_does_not_tell_it(seed: int) -> None:
    schedule = make_schedule(seed, phases=PHASES)
    static, reactive, predictive = (relative(schedule, name) for name in PHASES.policies)
    assert static == reactive == predictive
    assert relative(schedule, WARM_UP) != static


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_calm_is_the_same_traffic_without_surges(seed: int) -> None:
    surge, calm = make_schedule(seed, phases=PHASES), make_schedule(seed, "calm", PHASES)
    assert calm.windows == ()
    for client, rows in calm.requests.items():
        assert list(rows) == [r for r in surge.requests[client] if not r.surge]
    assert calm.streams == surge.streams


def test_the_competitor_alone_fits_the_bottleneck_and_with_the_surge_does_not() -> None:
    layout = LabLayout()
    for seed in range(20):
        schedule = make_schedule(seed, phases=PHASES)
        (stream,) = schedule.streams
        rates = [rate for _, rate in stream.rates]
        capacity = layout.hypervisor("hA").access_bytes_per_s
        assert max(rates) < 0.8 * capacity
        assert min(rates) + 4.8 * MBIT > capacity


def test_requests_are_in_order_and_ask_for_work() -> None:
    for rows in make_schedule(3, phases=PHASES).requests.values():
        assert [r.at_s for r in rows] == sorted(r.at_s for r in rows)
        assert all(r.cpu_ms > 0 for r in rows)


def test_a_saved_schedule_is_the_schedule(tmp_path: Path) -> None:
    schedule = make_schedule(5, phases=PHASES)
    schedule.save(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json") == schedule


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(ValueError, match="surge, calm, crowd"):
        make_schedule(1, "storm")


def test_a_crowd_is_the_same_surge_of_all_clients_that_needs_more_than_a_machine_can_have() -> None:
    surge, crowd = make_schedule(5, phases=PHASES), make_schedule(5, "crowd", PHASES)
    assert crowd.windows == surge.windows
    window = crowd.windows[0]
    machine = LabLayout().vm(next(iter(LabLayout().service(window.service).weights)))
    own = {client: [r for r in rows if r.surge and r.at_s < window.end_s] for client, rows in crowd.requests.items()}
    assert all(own.values()) and max(map(len, own.values())) - min(map(len, own.values())) <= 1
    busy = [r for rows in own.values() for r in rows if r.at_s >= window.start_s + 1]
    cores = sum(map(request_cpu_s, busy)) / (window.end_s - window.start_s - 1)
    assert cores > GROWTH * machine.quota_cores


def test_in_a_crowds_scene_machines_that_stand_by_are_those_of_a_pool() -> None:
    layout = LabLayout()
    declared = scene(layout, Path("x.db"), {one.name: "test:///" for one in layout.hypervisors}, {})
    found = pooled(declared, layout)
    members = {one.virtual_ip: [member.name for member in one.member] for one in found.pool}
    assert members == {"shop": ["shop2"], "search": ["search2"]}
    assert not {"shop2", "search2"} & {one.name for one in (*found.vm, *found.node)}
    own = {one.name: [destination.name for destination in one.destination] for one in found.virtual_ip}
    assert own == {"shop": ["shop1"], "search": ["search1"], "backup": ["backup1"]}

"""Durations become lead times: the narrowest group with enough samples speaks, old ones fade, none is forgotten."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from fake_world import START, Simulation
from hypothesis import given
from hypothesis import strategies as st

from cpdb import ActionRecord, ActionTiming, OutcomeKind, Store
from orchestrator import OrchestratorConfig, lead_rows
from orchestrator.lead_times import (
    GIB,
    HALF_LIFE_S,
    Circumstances,
    Lasted,
    LeadLedger,
    LeadTimes,
    circumstances,
    lead_times,
    quantile,
)

NOW = 1_000_000.0
MOVE = "migrate_vm"
CONFIG = OrchestratorConfig()


def samples(
    seconds: Sequence[float], host: str = "h1", gib: float = 1.0, load: float | None = None, age_s: float = 100.0
) -> list[Lasted]:
    about = Circumstances(host, int(gib * GIB), load)
    return [Lasted(MOVE, about, one, NOW - age_s - n) for n, one in enumerate(seconds)]


def done(seconds: float, ended_at: float, about: Circumstances, kind: str = MOVE) -> ActionRecord:
    reason = {"circumstances": about.to_json()}
    body = {"vm": "v", "from": "a", "to": "b"}
    row = ActionRecord(kind, "v", body, "", reason, "predictive", ended_at - seconds, ActionTiming(None, 1.0))
    return replace(row, timing=ActionTiming(None, 1.0, ended_at), outcome=OutcomeKind.DONE)


def p95(times: LeadTimes, host: str, gib: float = 1.0, load: float | None = None) -> float:
    return times.p95(MOVE, Circumstances(host, int(gib * GIB), load))


def test_each_host_and_each_size_has_a_time_of_its_own() -> None:
    known = samples([1.0] * 6) + samples([9.0] * 6, host="h2") + samples([20.0] * 6, gib=8.0)
    times = lead_times(known, NOW)
    assert [p95(times, "h1"), p95(times, "h2"), p95(times, "h1", 7.0)] == [1.0, 9.0, 20.0]


def test_a_busy_host_has_a_time_of_its_own() -> None:
    times = lead_times(samples([1.0] * 6, load=0.2) + samples([5.0] * 6, load=0.9), NOW)
    assert [p95(times, "h1", load=0.1), p95(times, "h1", load=0.95)] == [1.0, 5.0]
    assert p95(times, "h1") == 5.0  # of unknown load: the worse of both


def test_what_was_never_seen_there_is_as_elsewhere_then_as_configured() -> None:
    times = lead_times(samples([2.0] * 10), NOW)
    assert p95(times, "elsewhere") == 2.0
    assert p95(times, "elsewhere", gib=64.0) == 2.0
    assert times.p95("set_vcpus") == CONFIG.timing.lead_priors_s["set_vcpus"]
    assert times.p95("set_vcpus", priors_s={"set_vcpus": 7.0}) == 7.0


def test_few_samples_only_lengthen_what_is_configured() -> None:
    prior = CONFIG.timing.lead_priors_s[MOVE]
    assert p95(lead_times(samples([0.1] * 4), NOW), "h1") == prior
    assert p95(lead_times(samples([0.1, 30.0]), NOW), "h1") == 30.0


def test_old_durations_fade() -> None:
    old, new = samples([30.0] * 50, age_s=6 * HALF_LIFE_S), samples([2.0] * 50)
    assert p95(lead_times(old + new, NOW), "h1") == 2.0
    assert p95(lead_times(samples([30.0] * 50) + new, NOW), "h1") == 30.0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_of_equal_age_the_quantile_is_the_ordinary_one(seconds: list[float], level: float) -> None:
    found = quantile([Lasted(MOVE, Circumstances(), one, NOW) for one in seconds], NOW, level)
    assert sum(one <= found for one in seconds) >= level * len(seconds) - 1e-6
    assert sum(one < found for one in seconds) <= level * len(seconds) + 1e-6


@pytest.mark.parametrize("about", [Circumstances(), Circumstances("h", 5 * GIB, 0.7)])
def test_circumstances_survive_the_journal(about: Circumstances) -> None:
    assert circumstances(about.to_json()) == about
    assert circumstances({}) == Circumstances()


def test_a_restart_and_time_forget_nothing(store: Store) -> None:
    here = Circumstances("h1", GIB)
    for n in range(6):
        store.journal.add_action(done(12.0, NOW - 3 * 86_400 + n, here))
    restarted = LeadLedger(store)
    assert restarted.times((), NOW).p95(MOVE, here) == 12.0
    for n in range(60):
        store.journal.add_action(done(3.0, NOW + n, here))
    recent = store.journal.actions(since=NOW - 600)
    assert restarted.times(recent, NOW + 60).p95(MOVE, here) == 3.0
    assert restarted.times((), NOW + 61).p95(MOVE, here) == 3.0


def test_only_the_newest_that_were_done_are_read(store: Store) -> None:
    for n in range(20):
        store.journal.add_action(done(0.5, NOW + n, Circumstances("h1")))
    store.journal.add_action(replace(done(5.0, NOW + 99, Circumstances()), outcome=OutcomeKind.FAILED))
    assert [one.timing.ready_at for one in store.journal.done(0.0, limit=3)] == [NOW + 19, NOW + 18, NOW + 17]
    assert len(store.journal.done(NOW + 9, limit=50)) == 10


def test_what_is_done_in_the_loop_is_told_by_host_and_size(store: Store) -> None:
    sim = Simulation(store, surges=((60.0, 70.0),)).run(75)
    rows = lead_rows(store.journal.actions(), sim.now)
    assert sim.now > START
    kinds = {(one.kind, one.host) for one in rows}
    assert {("migrate_vm", "hA"), ("set_cpu_limit", "hA"), ("reserve_bandwidth", "leaf2>hA")} <= kinds
    (moved,) = [one for one in rows if (one.kind, one.host, one.load) == ("migrate_vm", "hA", "any")]
    assert (moved.size, moved.samples, moved.used) == ("<= 1 GiB", 1, False)
    assert 2.0 <= moved.p50_s <= moved.p95_s <= 3.5

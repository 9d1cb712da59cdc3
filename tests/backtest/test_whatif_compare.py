"""Policies side by side: every figure of the document follows from the timeline, by the definitions alone."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whatif_scenes import small_load, small_run, small_scene

from backtest import RecordingError
from backtest.whatif import (
    Comparison,
    DoneAction,
    OfferedLoad,
    PolicyRun,
    ReplayPolicy,
    ReplayTask,
    compare_runs,
    timeline_rows,
    warm_up_seconds,
)
from cpdb import MBIT

SCENE = small_scene()
STATIC, REACTIVE, PREDICTIVE, ORACLE = ReplayPolicy


def run_of(load: OfferedLoad, policy: ReplayPolicy, short: float) -> PolicyRun:
    """shop1 lacks so many cores in each second."""
    return small_run(SCENE, load, [0.5 + short] * load.seconds, [0.5] * load.seconds, policy)


def compared(shorts: dict[ReplayPolicy, float], seconds: int = 40, warm_up_s: int = 20) -> Comparison:
    load = small_load(SCENE, seconds)
    task = ReplayTask("load.csv", "forepath.toml", SCENE, load, warm_up_s)
    return compare_runs(task, [run_of(load, policy, short) for policy, short in shorts.items()])


def test_what_foresight_gained() -> None:
    found = compared({STATIC: 3.0, REACTIVE: 1.0, PREDICTIVE: 0.4, ORACLE: 0.2}).document()
    assert list(found["policies"]) == ["static", "reactive", "predictive", "oracle"]
    assert found["seconds"] == 20 and found["warm_up_s"] == 20
    assert found["policies"]["reactive"]["cost"] == pytest.approx(9 * 20)
    assert found["gain_share"] == pytest.approx(0.75)
    assert found["interval"] == pytest.approx([0.75, 0.75])
    costs = "predicting costs 72, reacting 180, 60 % less"
    assert found["verdict"].startswith(f"Predicting would have helped here: {costs} (gain share 0.75")


@pytest.mark.parametrize(
    ("shorts", "gain", "says"),
    [
        ({REACTIVE: 1.0, PREDICTIVE: 1.5, ORACLE: 0.5}, -1.0, "Reacting is better here"),
        ({REACTIVE: 1.0, PREDICTIVE: 1.0, ORACLE: 0.5}, 0.0, "No better than reacting here"),
        ({REACTIVE: 1.0, PREDICTIVE: 0.9, ORACLE: 0.995}, None, "Nothing to gain by foresight"),
        ({REACTIVE: 0.0, PREDICTIVE: 0.0, ORACLE: 0.0}, None, "Nothing to gain by foresight"),
        ({REACTIVE: 1.0, PREDICTIVE: 0.9}, None, "No oracle"),
        ({STATIC: 1.0}, None, "No verdict without both"),
    ],
)
def test_what_is_said_where_there_is_little_to_say(
    shorts: dict[ReplayPolicy, float], gain: float | None, says: str
) -> None:
    found = compared(shorts)
    document = found.document()
    assert document["gain_share"] == (None if gain is None else pytest.approx(gain))
    assert (document["interval"] is None) == (gain is None)
    assert says in document["verdict"] and "\n" not in document["verdict"]


def test_an_interval_is_as_wide_as_the_seconds_differ() -> None:
    load = small_load(SCENE, 600)
    rng = np.random.default_rng(3)
    runs = [run_of(load, policy, short) for policy, short in {REACTIVE: 1.0, PREDICTIVE: 0.5, ORACLE: 0.2}.items()]
    runs[1].vms.need[:, 0] += 0.4 * np.sign(rng.standard_normal(600))
    low, high = compare_runs(ReplayTask("", "", SCENE, load, 0), runs).interval or (0.0, 0.0)
    assert 0.4 < low < 0.63 < high < 0.8


def test_seconds_that_nobody_knows_are_not_judged() -> None:
    load = small_load(SCENE, 10)
    load.known[[1, 6, 7]] = False
    task = ReplayTask("", "", SCENE, load, 5)
    found = compare_runs(task, [run_of(load, REACTIVE, 1.0)])
    assert found.document()["seconds"] == 3
    assert found.document()["policies"]["reactive"]["short_core_s"] == pytest.approx(3)
    assert {row[1] for row in timeline_rows(found)} == {"5", "8", "9"}


@pytest.mark.parametrize(("warm_up", "seconds"), [(0.5, 50), (0.0, 0), (0.255, 25), (1, 1), (99, 99)])
def test_a_warm_up_is_a_share_or_seconds(warm_up: float, seconds: int) -> None:
    assert warm_up_seconds("x.csv", small_load(SCENE, 100), warm_up) == seconds


@pytest.mark.parametrize("warm_up", [100, 3600])
def test_a_recording_must_outlast_its_warm_up(warm_up: float) -> None:
    with pytest.raises(RecordingError, match=r"x.csv: has 100 s, and --warm-up .* nothing is left to judge; give"):
        warm_up_seconds("x.csv", small_load(SCENE, 100), warm_up)


def recomputed(rows: list[tuple[str, ...]]) -> dict[str, float]:
    """What anybody makes of the timeline with a pocket calculator; the first judged second finds nobody waiting."""
    base = {"shop1": 0.5, "bulk1": 0.25, "batch": 0.25}
    weight = {"c1>shop": 1.0, "c2>bulk": 0.5}
    total: dict[str, float] = defaultdict(float)
    short: dict[str, set[str]] = defaultdict(set)
    waiting: dict[str, list[float]] = defaultdict(list)
    for _, t, kind, name, *figures, where in rows:
        need, allowed, used = map(float, figures)
        if kind == "vm":
            assert where in ("hA", "hB")
            total["short_core_s"] += max(0.0, need - allowed)
            total["idle_core_s"] += max(0.0, allowed - max(need, base[name]))
            short["cpu"] |= {t} if need > allowed else set()
        if kind == "pair":
            assert where == {"c1>shop": "shop1", "c2>bulk": "bulk1"}[name]
            # The newest first; who has waited four seconds has given up.
            line = waiting[name] = [need, *waiting[name][:3]]
            for age in reversed(range(len(line))):
                taken = min(line[age], used)
                line[age], used = line[age] - taken, used - taken
            lacking = sum(line)
            total["short_bytes"] += lacking
            total["short_link_s"] += lacking / (8 * MBIT)
            total["weighted"] += weight[name] * lacking / (8 * MBIT)
            total["offered_bytes"] += need
            short["bandwidth"] |= {t} if lacking else set()
    total["cost"] = 9 * total["short_core_s"] + total["idle_core_s"] + 9 * total["weighted"]
    return {**total, "short_cpu_s": len(short["cpu"]), "short_bandwidth_s": len(short["bandwidth"])}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_shortage_and_cost_follow_from_the_timeline(seed: int) -> None:
    rng = np.random.default_rng(seed)
    load = small_load(SCENE, 12)
    load.bytes_per_s[:] = rng.uniform(0, 8 * MBIT, load.bytes_per_s.shape)
    run = small_run(SCENE, load)
    run.vms.need[:], run.vms.allowed[:] = rng.uniform(0, 2, (2, *run.vms.need.shape))
    run.pairs.used[:] *= rng.choice([0.5, 1.0], run.pairs.used.shape)
    found = compare_runs(ReplayTask("", "", SCENE, load, 4), [run])
    figures = found.document()["policies"]["reactive"]
    for name, value in recomputed(list(timeline_rows(found))).items():
        if name != "weighted":
            assert figures[name] == pytest.approx(value, rel=1e-6), name
    assert figures["cost"] == pytest.approx(sum(figures["cost_by_part"].values()))


def test_latency_competitors_and_actions() -> None:
    load = small_load(SCENE, 10)
    load.bytes_per_s[:] = [100.0, 50.0]
    run = small_run(SCENE, load)
    run.latency_s[:, 0] = np.arange(10)
    run.delivered_bytes[:, 1] = 40.0
    action = DoneAction(7.0, "set_cpu_limit", "shop1", "")
    actions = (action, replace(action, t=2.0), replace(action, needed=False), replace(action, code="deadband"))
    found = compare_runs(ReplayTask("", "", SCENE, load, 5), [replace(run, actions=actions)]).document()
    figures = found["policies"]["reactive"]
    # Of 750 bytes the 250 of c2 came at once and 100 each after 5 to 9 s.
    assert figures["p95_latency_s"] == 9 and figures["competitors_delivered_share"] == pytest.approx(0.8)
    assert figures["actions"] == {"set_cpu_limit": {"done": 2, "refused": 1, "unneeded": 1}}


def test_where_nothing_is_there_figures_are_numbers() -> None:
    figures = compared({STATIC: 0.0}).document()["policies"]["static"]
    assert figures["p95_latency_s"] == 0 and figures["competitors_delivered_share"] == 1
    assert all(math.isfinite(value) for value in figures.values() if isinstance(value, (int, float)))

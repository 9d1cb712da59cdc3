"""Alarms and limits for machines: the measures by hand, and no look into the future."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from backtest.machines import (
    LIMIT_LEVELS,
    RULES,
    LimitCourse,
    MachinePlan,
    OverloadWatch,
    chance,
    judged,
    level_at,
    replay_machines,
    scores,
    verdict,
)
from backtest.reading import Recording, RecordingError

SIMPLE = ("naive", "ewma", "train_mean", "seasonal_naive")
DAY = 288


def recording(seed: int = 1, days: int = 6, count: int = 4) -> Recording:
    """Machines that are busy at the same hours of each day, so that overload can be foreseen."""
    rng = np.random.default_rng(seed)
    at = np.arange(days * DAY)
    shape = 40 + 45 * np.sin(2 * np.pi * at / DAY + rng.uniform(0, 6, (count, 1))) ** 3
    usage = np.clip(shape + rng.normal(0, 3, shape.shape), 0, 100)
    return Recording("made-up.csv", tuple(f"vm{n}_max" for n in range(count)), 300.0, 0.0, usage)


def test_an_alarm_is_judged_by_hand_counted_rows() -> None:
    usage = np.array([[10.0] * 6 + [90.0] + [10.0] * 5])
    watch = OverloadWatch(usage, threshold=80.0, ahead=2, season=4)
    assert np.flatnonzero(watch.exceeded()[0]).tolist() == [4, 5]
    assert np.flatnonzero(watch.judged(3)[0]).tolist() == [3, 4, 5, 7, 8, 9]
    alarm = np.zeros((1, 12), dtype=bool)
    alarm[0, [5, 8]] = True
    found = verdict(alarm, watch, first=3)
    assert found.true_positive_rate == pytest.approx(1 / 2)
    assert found.false_positive_rate == pytest.approx(1 / 4)
    assert found.precision == pytest.approx(1 / 2)
    assert (found.onsets, found.early_share, found.median_lead_rows) == (1, 1.0, 1.0)


def test_a_chance_falls_with_the_threshold_and_agrees_with_the_quantiles() -> None:
    levels = (0.05, 0.5, 0.9, 0.99)
    quantiles = np.array([[10.0, 40.0, 60.0, 90.0]])
    chances = [float(chance(quantiles, levels, threshold)[0]) for threshold in (1, 10, 25, 40, 60, 75, 90, 99, 150)]
    assert all(high > low for high, low in itertools.pairwise(chances))
    assert chances[3] == pytest.approx(0.5)
    assert chances[6] == pytest.approx(0.01)


def test_a_level_keeps_the_rate_of_false_alarms_where_it_was_set() -> None:
    rng = np.random.default_rng(2)
    usage = rng.uniform(0, 100, (20, 2000))
    watch = OverloadWatch(usage, threshold=99.0, ahead=3, season=50)
    score = rng.normal(size=usage.shape)
    level = level_at(score, watch, range(2000), 0.05)
    assert verdict(score >= level, watch, 0).false_positive_rate == pytest.approx(0.05, abs=0.01)


def test_scores_of_simple_rules_know_nothing_of_later_rows() -> None:
    usage = np.random.default_rng(3).uniform(0, 100, (3, 200))
    other = usage.copy()
    other[:, 120:] = 0.0
    first, second = (scores(OverloadWatch(one, 80.0, 6, 48), one) for one in (usage, other))
    for name, score in first.items():
        assert (score[:, :120] == second[name][:, :120]).all(), name


def test_slack_and_throttling_are_opposites() -> None:
    usage = recording().values
    course = LimitCourse(usage, 100.0, 6, first=3 * DAY, season=DAY)
    origins = course.origins()
    everything = judged(course, np.full((len(usage), len(origins)), 100.0))
    nothing = judged(course, np.zeros((len(usage), len(origins))))
    assert everything["throttle_rate"] == 0.0
    assert nothing["throttle_rate"] > 0.8
    assert nothing["slack"] < 0.2 < 0.4 < everything["slack"]
    for name, rule in RULES.items():
        found = judged(course, rule(course, origins))
        assert 0.0 <= found["slack"] < everything["slack"] + 1e-9, name


def test_limits_know_nothing_of_later_rows() -> None:
    usage = recording().values
    course = LimitCourse(usage, 100.0, 6, first=3 * DAY, season=DAY)
    half = len(course.origins()) // 2
    changed = usage.copy()
    changed[:, course.origins()[half] + 1 :] = 99.0
    for name, rule in RULES.items():
        before, after = (rule(replace(course, usage=one), course.origins()) for one in (usage, changed))
        assert (before[:, : half + 1] == after[:, : half + 1]).all(), name


def test_foresight_warns_of_what_comes_every_day_and_beats_what_was_measured() -> None:
    report = replay_machines(recording(), MachinePlan(threshold=70.0, models=SIMPLE))
    alarms = report["alarms"]
    assert alarms["forepath"]["0.05"]["true_positive_rate"] > alarms["now"]["0.05"]["true_positive_rate"]
    assert alarms["forepath"]["0.05"]["false_positive_rate"] < 0.15
    rates = [report["limits"][f"forepath_q{level * 100:g}"]["throttle_rate"] for level in LIMIT_LEVELS]
    assert rates == sorted(rates, reverse=True)


def test_gaps_and_short_files_are_refused_in_one_line() -> None:
    whole = recording(days=4)
    holed = whole.values.copy()
    holed[0, 5] = np.nan
    with pytest.raises(RecordingError, match="missing in places"):
        replay_machines(replace(whole, values=holed), MachinePlan(models=SIMPLE))
    with pytest.raises(RecordingError, match="too few rows"):
        replay_machines(replace(whole, values=whole.values[:, :60]), MachinePlan(models=SIMPLE))

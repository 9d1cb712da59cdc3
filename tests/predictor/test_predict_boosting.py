"""Gradient boosting learns what series have in common, sees nothing of the future, and is not bought by one source."""

import pickle

import numpy as np
import pytest

from predictor.data.view import ForecastSpec, SeriesView, Target
from predictor.models.boosting import GradientBoosting, _fair_rows
from predictor.models.boosting.features import (
    CALENDAR_CYCLES,
    FeatureContext,
    RowOrigins,
    calendar_cells,
    describe_rows,
    find_leaders,
)
from predictor.models.boosting.forests import BoostingEffort, TrainingRows, grow_forest

LEVELS = (0.05, 0.1, 0.5, 0.9, 0.95)
SPEC = ForecastSpec((Target(0, 0, 1), Target(0, 4, 1), Target(0, 0, 5, peak=True)), LEVELS)


def cycles(series: int, cells: int, seed: int = 5) -> np.ndarray:
    """Cycles of 24 cells of very different size, with noise."""
    rng = np.random.default_rng(seed)
    phase = rng.random((series, 1))
    shape = 1.2 + np.sin(2 * np.pi * (np.arange(cells) / 24 + phase))
    size = 10.0 ** rng.uniform(1, 6, (series, 1))
    return (size * np.maximum(shape + 0.15 * rng.standard_normal((series, cells)), 0.0)).astype(np.float32)


@pytest.fixture(scope="module")
def taught() -> tuple[GradientBoosting, SeriesView]:
    view = SeriesView(cycles(8, 330)[None])
    model = GradientBoosting(SPEC, 1)
    model.fit(view.until(260))
    model.update(view.until(260))
    return pickle.loads(pickle.dumps(model)), view


def test_it_beats_the_last_value_by_far_where_there_is_a_shape_and_its_quantiles_hold(taught):
    model, view = taught
    origins = np.arange(260, 320)
    quantiles = model.predict(view, origins)
    assert quantiles.shape == (60, 8, 3, 5)
    assert np.isfinite(quantiles).all()
    truth = view.rates[0][:, origins + 5].T
    far = np.abs(truth - view.rates[0][:, origins].T).sum()
    assert np.abs(truth - quantiles[:, :, 1, 2]).sum() < 0.5 * far
    assert 0.75 < np.mean(truth <= quantiles[:, :, 1, 3]) < 0.99
    peak = np.stack([view.rates[0][:, o + 1 : o + 6].max(axis=1) for o in origins])
    assert 0.7 < np.mean(peak <= quantiles[:, :, 2, 3]) <= 1


def test_what_it_says_at_an_origin_does_not_depend_on_later_cells(taught):
    model, view = taught
    spoilt = view.rates.copy()
    spoilt[..., 291:] = 1e9
    spoilt[:, 3, 300:] = np.nan
    origins = np.arange(270, 310)
    before, after = (model.predict(one, origins) for one in (view, SeriesView(spoilt)))
    assert np.array_equal(before[:21], after[:21])
    assert not np.array_equal(before[21:], after[21:])


@pytest.mark.parametrize("origin", [40, 99, 150])
@pytest.mark.parametrize("target", SPEC.targets)
def test_no_feature_sees_the_future(origin, target):
    rates = np.stack([cycles(5, 200), cycles(5, 200, seed=6)])
    spoilt = rates.copy()
    spoilt[..., origin + 1 :] = 1e9
    rows = RowOrigins(np.arange(5), np.full(5, origin))
    peers = np.array([[1, -1], [0, 2], [-1, -1], [4, 1], [3, 0]])
    periods = np.array([24.0, 9.5, np.nan, 3.0, 60.0])
    told = [
        describe_rows(FeatureContext(SeriesView(one), periods, peers, (12, 24)), rows, target)
        for one in (rates, spoilt)
    ]
    assert np.array_equal(*told)
    assert np.isfinite(told[0]).all()


def test_features_do_not_depend_on_the_unit_of_the_rates():
    rates = cycles(4, 200)[None]
    rows = RowOrigins(np.arange(4), np.full(4, 150))
    peers = np.array([[1], [2], [3], [0]])
    scenes = [
        FeatureContext(SeriesView(rates * unit), np.full(4, 24.0), peers, usual=(3e3 * unit,)) for unit in (1, 1024)
    ]
    told = [describe_rows(context, rows, SPEC.targets[1]) for context in scenes]
    assert told[0] == pytest.approx(told[1], rel=1e-3, abs=1e-4)


def test_a_peer_is_one_whose_moves_come_before():
    rng = np.random.default_rng(2)
    leader = np.where(rng.random(400) < 0.1, 50.0, 1.0) + rng.random(400)
    follower = np.roll(leader, 1) * 3
    others = 10 * rng.random((4, 400))
    peers = find_leaders(np.vstack([others[:2], follower[None], others[2:], leader[None]]), 1)
    assert peers[2, 0] == 5
    assert find_leaders(np.ones((1, 400)), 2).tolist() == [[-1, -1]]


def test_the_calendar_is_used_once_the_history_holds_enough_of_it():
    day = SeriesView(np.zeros((1, 1, 96 * CALENDAR_CYCLES)), step_s=900.0)
    assert 96 in calendar_cells(day)
    assert 96 not in calendar_cells(day.until(96 * CALENDAR_CYCLES - 1))


def test_one_source_with_many_series_has_no_more_say_than_the_others():
    groups = np.array([0] * 50 + [1, 2])
    view = SeriesView(np.ones((1, 52, 100), dtype=np.float32), groups=groups)
    who, when = (part.ravel() for part in np.meshgrid(np.arange(52), np.arange(100), indexing="ij"))
    chosen, _ = _fair_rows(view, RowOrigins(who, when), 240, np.random.default_rng(1))
    counts = np.bincount(groups[chosen])
    assert counts.sum() == 240
    assert counts.max() <= counts.min() + 1


@pytest.mark.parametrize("rows", [300, 5_000, 400_000])
@pytest.mark.parametrize("groups", [1, 6])
def test_effort_grows_with_the_budget_and_stays_within_reason(rows, groups):
    small, large = (BoostingEffort.within(budget_s / groups, rows) for budget_s in (2.0, 200.0))
    assert small.rows <= large.rows <= rows
    assert small.rows * small.rounds * small.members <= large.rows * large.rounds * large.members
    assert large.members <= 4


def test_the_more_rounds_there_are_the_less_each_may_change():
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((400, 3))
    lesson = TrainingRows(inputs, inputs.sum(axis=1), np.ones(400), moments=2000)
    fitted = [grow_forest(lesson, BoostingEffort(400, rounds, 1), 1).members[0.5][0] for rounds in (60, 120)]
    assert [trees.max_iter for trees in fitted] == [60, 120]
    assert fitted[0].learning_rate == pytest.approx(2 * fitted[1].learning_rate)


def test_too_little_history_says_nothing():
    model = GradientBoosting(SPEC)
    view = SeriesView(np.ones((1, 2, 30), dtype=np.float32))
    model.fit(view)
    model.update(view)
    assert np.isnan(model.predict(view, view.last)).all()

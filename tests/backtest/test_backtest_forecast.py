"""A backtest sees nothing of the future, scores everybody on the same rows, and is the live forecaster at work."""

import json

import numpy as np
import pytest
from recordings import recording, waves

from backtest import BacktestPlan, RecordingError, backtest, forecast_page
from backtest.live_models import view_of
from backtest.run import names_of, question_of

PLAN = BacktestPlan(horizons=(1, 4), windows=(5,), models=("auto", "naive", "boosting"), fit_budget_s=0.2, season=20)


@pytest.fixture(scope="module")
def outcome():
    return backtest(recording(waves()), PLAN)


def test_no_forecast_changes_when_the_future_does(outcome):
    from_row = 230
    values = waves()
    values[:, from_row:] = 7e6 * np.random.default_rng(9).random(values[:, from_row:].shape)
    values[1, from_row + 3 :] = np.nan
    other = backtest(recording(values), PLAN)
    for name, answer in outcome.answers.items():
        for number, window in enumerate(outcome.question.asked):
            before = outcome.question.origins(window) < from_row
            assert before.sum() > 25
            said = [one.quantiles_by_target[number][:, before] for one in (answer, other.answers[name])]
            assert np.array_equal(*said), name
            if name != "train_mean":
                assert not np.array_equal(
                    answer.quantiles_by_target[number], other.answers[name].quantiles_by_target[number]
                ), name


def test_every_method_is_scored_on_every_test_row(outcome):
    question = outcome.question
    for answer in outcome.answers.values():
        for window, point, quantiles in zip(question.asked, answer.points, answer.quantiles_by_target, strict=True):
            rows = question.origins(window) + window.last
            assert rows[-1] == 259
            assert rows[0] == question.split + (window.length if window.length > 1 else 0)
            assert point.shape == (4, len(rows))
            assert np.isfinite(point).all()
            assert (quantiles >= 0).all()


def test_what_recurs_is_foreseen_and_auto_follows_the_best(outcome):
    models = outcome.report["models"]
    for at in ("1", "4"):
        best = outcome.report["best_simple"]["horizons"][at]["wape"]
        assert models["auto"]["horizons"][at]["wape"] < 1.05 * best
        assert models["auto"]["horizons"][at]["skill"] == pytest.approx(
            1 - models["auto"]["horizons"][at]["wape"] / best
        )
    assert models["gradient_boosting"]["horizons"]["4"]["wape"] < 0.7 * models["naive"]["horizons"]["4"]["wape"]
    assert models["gradient_boosting"]["fit_seconds"] > 0
    assert 0.6 < models["auto"]["horizons"]["1"]["coverage_q90"] <= 1


def test_the_page_holds_all_it_needs(outcome):
    text = forecast_page(outcome.question, outcome.report, outcome.answers)
    assert text.count("<svg") >= 4
    for outside in ("http", "src=", "<script", "@import"):
        assert outside not in text
    assert text.count("url(") == text.count("url(#")
    assert "nan" not in text.lower()
    json.dumps(outcome.report)


def test_gaps_stay_gaps():
    values = waves()
    values[:, 100:130] = np.nan
    values[2, 200:] = np.nan
    found = backtest(recording(values), BacktestPlan(horizons=(1,), models=("auto",), fit_budget_s=0.5)).report
    whole = backtest(recording(np.nan_to_num(values)), BacktestPlan(horizons=(1,), models=("naive",))).report
    assert found["missing"] == pytest.approx((4 * 30 + 60) / values.size)
    assert found["models"]["naive"]["horizons"]["1"]["wape"] != whole["models"]["naive"]["horizons"]["1"]["wape"]
    assert np.isfinite(found["models"]["auto"]["horizons"]["1"]["wape"])


def test_columns_that_are_not_scored_go_with_the_series_of_their_name():
    made = recording(waves(4))
    named = type(made)(made.name, ("a_avg", "a_max", "b_avg", "other"), 1.0, 0.0, made.values)
    view = view_of(question_of(named, BacktestPlan(series=("*_avg",))))
    assert view.rates.shape == (2, 2, 260)
    assert view.rates[1, 0] == pytest.approx(made.values[1], rel=1e-6)
    assert np.isnan(view.rates[1, 1]).all()


def test_wrong_questions_are_refused_in_one_line():
    with pytest.raises(RecordingError, match=r"--models guess.*there are auto, naive"):
        names_of(BacktestPlan(models=("guess",)))
    with pytest.raises(RecordingError, match="zero or missing throughout"):
        question_of(recording(np.zeros((2, 100))), BacktestPlan())
    for plan in (BacktestPlan(horizons=(60,)), BacktestPlan(train_fraction=1.5), BacktestPlan(train_fraction=0.99)):
        with pytest.raises(RecordingError, match="--train-fraction"):
            question_of(recording(np.ones((2, 100))), plan)

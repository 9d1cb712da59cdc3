"""Fits happen elsewhere, and one that fails or hangs harms nobody."""

import multiprocessing
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from synthetic_models import Failing, Obedient, Sleeping, Spinning

from predictor.config import WorkLimits
from predictor.data.view import SeriesView
from predictor.models import Model
from predictor.service.workers import LEAST_FIT_S, FitSchedule, FitWorker, plan_budget_s

VIEW = SeriesView(np.ones((2, 3, 50), dtype=np.float32))
PATIENCE_S = 60.0


@pytest.fixture
def background() -> Iterator[FitWorker]:
    one = FitWorker(cpu_budget_s=0.2)
    yield one
    one.close()


def collected(background: FitWorker, enough: int = 1) -> list[Model]:
    """Waits for so many answers, good or bad."""
    fitted: list[Model] = []
    before, end = background.failures, time.monotonic() + PATIENCE_S
    while len(fitted) + background.failures - before < enough and time.monotonic() < end:
        fitted += background.collect()
        time.sleep(0.02)
    return fitted


def test_a_copy_is_fitted_in_another_process_on_one_thread(background):
    original = Obedient()
    assert background.submit([original], VIEW)
    (fitted,) = collected(background)
    assert fitted.process not in (0, os.getpid())
    assert fitted.threads == "1"
    assert original.process == 0


@pytest.mark.parametrize("culprit", [Failing, Spinning, Sleeping])
def test_a_culprit_is_counted_and_the_next_model_is_fitted(background, culprit):
    assert background.submit([culprit(), Obedient()], VIEW)
    fitted = collected(background, 2)
    assert [model.name for model in fitted] == ["obedient"]
    assert background.failures == 1


def test_a_round_of_fits_plans_with_its_share_and_with_less_on_a_busy_machine():
    usual = WorkLimits(refit_every_s=30.0, fit_share=0.2, fit_budget_s=15.0)
    assert plan_budget_s(usual, pace=1.0, since_s=30.0) == pytest.approx(6.0)
    assert plan_budget_s(usual, pace=0.1, since_s=30.0) == pytest.approx(3.0)
    assert plan_budget_s(usual, pace=0.0, since_s=30.0) == pytest.approx(LEAST_FIT_S)
    assert plan_budget_s(usual, pace=1.0, since_s=0.0) == pytest.approx(LEAST_FIT_S)
    # What has changed is learnt sooner, for less; a long pause is not made up for.
    assert plan_budget_s(usual, pace=1.0, since_s=15.0) == pytest.approx(3.0)
    assert plan_budget_s(usual, pace=1.0, since_s=900.0) == pytest.approx(6.0)
    # A plan is not exact: well below the time after which a fit is ended.
    assert plan_budget_s(WorkLimits(refit_every_s=600.0, fit_budget_s=15.0), pace=1.0, since_s=600.0) < 10.0


def test_the_share_is_divided_among_those_who_plan_with_it():
    budgets = [Obedient(), Obedient(), Obedient()]
    for one in budgets[:2]:
        one.fit_budget_s = 0.0
    schedule = FitSchedule(WorkLimits(refit_every_s=30.0, fit_share=0.2), 1, background=True)
    try:
        schedule.begin_when_due(budgets, SeriesView(np.ones((2, 3, 60), dtype=np.float32)), 0.0)
        assert [getattr(one, "fit_budget_s", None) for one in budgets] == [LEAST_FIT_S / 2, LEAST_FIT_S / 2, None]
    finally:
        schedule.close()


def test_a_second_job_waits_for_its_turn(background):
    assert background.submit([Sleeping()], VIEW)
    assert background.busy
    assert not background.submit([Obedient()], VIEW)


def test_closing_ends_a_hanging_fit():
    background = FitWorker(cpu_budget_s=100.0)
    background.submit([Sleeping()], VIEW)
    while not multiprocessing.active_children():
        time.sleep(0.01)
    (process,) = multiprocessing.active_children()
    background.close()
    assert not background.busy
    assert not process.is_alive()
    assert not background.submit([Obedient()], VIEW)

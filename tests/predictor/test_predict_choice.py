"""The better model gets the word, and loses it when the world has changed."""

import numpy as np
import pytest

from cpdb import NO_MODEL
from predictor.data.view import ALL, Target
from predictor.ensemble.composition import Calibration, Composition, Truth
from predictor.ensemble.weights import Contest, LossScoreboard
from predictor.models.quantiles import pinball_loss

MODELS = ("naive", "ewma", "clever")
TARGETS = (Target(0, 0, 5), Target(0, 0, 15))
CONTEST = Contest(MODELS, TARGETS, ("naive", "ewma"), "ewma", half_life=60.0)
FIRST = np.array([0])


def scoreboard(series: int = 1) -> LossScoreboard:
    book = LossScoreboard(CONTEST)
    book.resize(series)
    return book


def play(
    book: LossScoreboard, losses: tuple[float, float, float], cells: range, rows: np.ndarray | None = None
) -> None:
    rows = np.arange(book.series) if rows is None else rows
    for cell in cells:
        book.add(np.broadcast_to(np.array(losses)[:, None, None], (3, len(rows), 1)), FIRST, rows, cell)


def say(book: LossScoreboard, model: str, series: int = 0) -> float:
    return float(book.weights(np.ones(book.loss.shape, dtype=bool))[MODELS.index(model), series, 0])


def test_weights_are_shares_among_those_who_are_able():
    book = scoreboard()
    play(book, (1.0, 1.0, 0.5), range(50))
    able = np.ones(book.loss.shape, dtype=bool)
    able[2] = False
    weights = book.weights(able)
    assert np.allclose(weights.sum(axis=0), 1.0)
    assert (weights[2] == 0).all()
    assert (book.weights(np.zeros_like(able)) == 0).all()


def test_a_few_lucky_windows_prove_nothing_and_many_good_ones_do():
    book = scoreboard()
    play(book, (1.0, 1.0, 0.1), range(5))
    assert say(book, "clever") == 0.0
    play(book, (1.0, 1.0, 0.4), range(5, 65))
    assert say(book, "clever") > 0.9


def test_where_the_best_hardly_errs_the_second_best_is_soon_silent():
    close, clear = scoreboard(), scoreboard()
    play(clear, (0.15, 1.0, 0.03), range(30))
    assert say(clear, "naive") < 0.05
    # The same distance matters less where even the best loses nearly as much as the reference.
    play(close, (1.02, 1.0, 0.9), range(30))
    assert say(close, "naive") > say(clear, "naive")


def test_next_to_nothing_and_very_much_are_losses_too():
    for losses in ((1e-30, 1e-30, 0.0), (1e30, 1e-8, 1e-8), (0.0, 0.0, 0.0)):
        book = scoreboard()
        play(book, losses, range(30))
        weights = book.weights(np.ones(book.loss.shape, dtype=bool))
        assert np.isfinite(weights).all() and np.allclose(weights.sum(axis=0), 1.0)


def test_a_model_that_fails_after_a_change_is_demoted_within_a_few_windows():
    book = scoreboard()
    play(book, (1.0, 1.0, 0.4), range(120))
    play(book, (1.0, 1.0, 2.5), range(120, 160))
    assert say(book, "clever") < 0.1


def test_silence_during_a_surge_is_no_merit():
    book = scoreboard()
    play(book, (1.0, 1.0, 1.0), range(60))
    play(book, (9.0, 10.0, np.nan), range(60, 90))
    assert say(book, "clever") < say(book, "naive")


def test_a_joining_series_begins_with_what_all_others_say_together():
    book = scoreboard(20)
    play(book, (1.0, 1.0, 0.4), range(60))
    before = say(book, "clever")
    book.resize(25)
    assert say(book, "clever") == before
    assert say(book, "clever", 24) > 0.5
    assert say(scoreboard(25), "clever", 24) == 0.0


def test_one_series_with_a_mind_of_its_own_is_not_outvoted_for_long():
    book = scoreboard(50)
    play(book, (1.0, 1.0, 0.5), range(60), np.arange(49))
    play(book, (1.0, 1.0, 1.5), range(60), np.array([49]))
    assert say(book, "clever", 0) > 0.9
    assert say(book, "clever", 49) < 0.1


def test_scores_fade_by_time_and_not_by_how_often_one_is_judged():
    often, seldom = scoreboard(), scoreboard()
    for book, step in ((often, 1), (seldom, 10)):
        play(book, (1.0, 1.0, 1.0), range(0, 400, step))
    before = often.count[0, 0, 0], seldom.count[0, 0, 0]
    for book in (often, seldom):
        play(book, (1.0, 1.0, 1.0), range(450, 451))
    factor = 0.5 ** (50 / 60)
    assert often.count[0, 0, 0] == pytest.approx(before[0] * factor + 1, rel=0.05)
    assert seldom.count[0, 0, 0] == pytest.approx(before[1] * factor + 1, rel=0.2)


def test_the_blend_loses_hardly_more_than_the_best_model_of_each_series():
    rng = np.random.default_rng(1)
    levels = (0.1, 0.5, 0.9)
    composition = Composition(CONTEST, levels)
    composition.resize(3)
    own, final = [], []
    for cell in range(600):
        noise = rng.normal(0, [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]])[..., None, None]
        forecasts = (100 + noise + np.array([-1.5, 0.0, 1.5])).astype(np.float32)
        actual = rng.normal(100, 1, (3, 1))
        blend, _ = composition.blend(list(np.repeat(forecasts, 2, axis=2)))
        final.append(pinball_loss(blend[:, :1], actual, levels))
        own.append(composition.learn(forecasts, blend[:, :1], Truth(actual, FIRST, ALL, cell))[0])
    best = np.mean(own[200:], axis=0).min(axis=0)
    assert (np.mean(final[200:], axis=0) <= 1.03 * best).all()


def test_where_nobody_speaks_nothing_is_said():
    composition = Composition(CONTEST, (0.1, 0.5, 0.9))
    composition.resize(2)
    quantiles = np.full((2, 2, 3), 5.0, dtype=np.float32)
    quantiles[1] = np.nan
    final, chosen = composition.blend([quantiles, None, None])
    assert np.isnan(final[1]).all() and (chosen[1] == NO_MODEL).all()
    assert (final[0] == 5).all() and (chosen[0] == 0).all()


def test_calibration_brings_coverage_near_the_level():
    rng = np.random.default_rng(1)
    levels = (0.1, 0.5, 0.9)
    calibration = Calibration(1, levels)
    calibration.resize(20)
    narrow = np.broadcast_to(100 + np.array([-6.0, 0.0, 6.0]), (20, 1, 3))
    hits = []
    for step in range(600):
        final = calibration.apply(narrow)
        actual = rng.normal(100, 8, (20, 1))
        if step > 300:
            hits.append(actual <= final[..., 2])
        calibration.learn(final, actual, FIRST, ALL)
    uncalibrated = 0.773  # of a normal distribution below 6 / 8 of its standard deviation
    assert uncalibrated + 0.06 < np.mean(hits) < 0.95

"""The better model gets the word, and loses it when the world has changed."""

import numpy as np

from predictor.calibration import Calibration
from predictor.choice import Ledger
from predictor.issues import Issue, Verdict

MODELS = ("naive", "ewma", "clever")
FADE = 0.5 ** (1 / 60)


def ledger() -> Ledger:
    book = Ledger(MODELS, (5, 15), "ewma", ("naive", "ewma"))
    book.resize(1)
    return book


def play(book: Ledger, losses: tuple[float, float, float], windows: int) -> None:
    for _ in range(windows):
        book.fade(0, FADE)
        book.add(0, np.broadcast_to(np.array(losses)[:, None, None], (3, 1, 4)))


def say(book: Ledger, model: str) -> float:
    return float(book.weights(np.ones(book.loss.shape, dtype=bool))[MODELS.index(model), 0, 0, 0])


def test_weights_are_shares_among_those_who_are_able():
    book = ledger()
    play(book, (1.0, 1.0, 0.5), 50)
    able = np.ones(book.loss.shape, dtype=bool)
    able[2] = False
    weights = book.weights(able)
    assert np.allclose(weights.sum(axis=0), 1.0)
    assert (weights[2] == 0).all()
    assert (book.weights(np.zeros_like(able)) == 0).all()


def test_a_few_lucky_windows_prove_nothing_and_many_good_ones_do():
    book = ledger()
    play(book, (1.0, 1.0, 0.1), 5)
    assert say(book, "clever") == 0.0
    play(book, (1.0, 1.0, 0.4), 60)
    assert say(book, "clever") > 0.9


def test_a_model_that_fails_after_a_change_is_demoted_within_a_few_windows():
    book = ledger()
    play(book, (1.0, 1.0, 0.4), 120)
    play(book, (1.0, 1.0, 2.5), 40)
    assert say(book, "clever") < 0.1


def test_silence_during_a_surge_is_no_merit():
    book = ledger()
    play(book, (1.0, 1.0, 1.0), 60)
    play(book, (9.0, 10.0, np.nan), 30)
    assert say(book, "clever") < say(book, "naive")


def test_a_joining_pair_leaves_the_records_of_others_alone():
    book = ledger()
    play(book, (1.0, 1.0, 0.4), 60)
    before = say(book, "clever")
    book.resize(3)
    assert say(book, "clever") == before
    assert book.loss.shape[1] == 3


def test_calibration_brings_coverage_near_the_level():
    rng = np.random.default_rng(1)
    levels = (0.1, 0.5, 0.9)
    calibration = Calibration(1, levels)
    calibration.resize(20)
    narrow = np.broadcast_to(100 + np.array([-6.0, 0.0, 6.0]), (20, 1, 4, 3))
    hits = []
    for step in range(600):
        final = calibration.apply(narrow)
        actual = rng.normal(100, 8, (20, 4))
        if step > 300:
            hits.append(actual <= final[:, 0, :, 2])
        issue = Issue(0.0, 0, final[None], final, np.zeros((20, 1, 4), int), np.ones(20, bool))
        calibration.learn(Verdict(issue, 0, actual, np.zeros((1, 20, 4)), np.zeros((20, 4))))
    uncalibrated = 0.773  # of a normal distribution below 6 / 8 of its standard deviation
    assert np.mean(hits) > uncalibrated + 0.06
    assert np.mean(hits) < 0.95

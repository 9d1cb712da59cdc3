"""Who will talk: probabilities that come true, better than a running average where there is a pattern, never ahead."""

import numpy as np
import pytest

from predictor.trust.activity import ActivityModel, rolling_probabilities

HORIZONS = (1, 5, 15)


def precision(labels, scores):
    """Average precision, tied scores taken together."""
    order = np.argsort(-scores, kind="stable")
    hits, last = np.cumsum(labels[order]), np.append(np.diff(scores[order]) != 0, True)
    share, recall = (hits / np.arange(1, len(hits) + 1))[last], hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * share).sum())


def bursts(seed, series=20, cells=500):
    """On and off, each series with silences of a length of its own."""
    rng = np.random.default_rng(seed)
    rates = np.zeros((series, cells))
    for one in range(series):
        cell, length = int(rng.integers(20)), int(rng.integers(8, 30))
        while cell < cells:
            rates[one, cell : cell + 4] = rng.uniform(1e3, 1e5)
            cell += 4 + length + int(rng.integers(-1, 2))
    return rates


def talks(rates, horizon):
    """1 where any of the next `horizon` cells speaks, for each cell whose window is over."""
    cells = rates.shape[1] - horizon
    return np.stack([(rates[:, cell + 1 : cell + 1 + horizon] > 0).any(axis=1) for cell in range(cells)], axis=1)


def test_rhythm_is_foreseen_better_than_by_a_running_average():
    rates = bursts(1)
    said = rolling_probabilities(rates, HORIZONS)
    average, level = np.zeros_like(rates), np.zeros(len(rates))
    for cell in range(rates.shape[1]):
        level = 0.8 * level + 0.2 * (rates[:, cell] > 0)
        average[:, cell] = level
    for number, horizon in enumerate(HORIZONS):
        truth = talks(rates, horizon)[:, 250:]
        part = slice(250, 250 + truth.shape[1])
        ours = precision(truth.ravel(), said[number, :, part].ravel())
        assert ours > precision(truth.ravel(), average[:, part].ravel()) + 0.02


def test_probabilities_come_true():
    rng = np.random.default_rng(2)
    often = rng.uniform(0.02, 0.6, (60, 1))
    rates = np.where(rng.random((60, 400)) < often, 1000.0, 0.0)
    said = rolling_probabilities(rates, (5,))[0]
    truth = talks(rates, 5)[:, 200:]
    sayings = said[:, 200 : 200 + truth.shape[1]]
    for low in (0.1, 0.3, 0.5, 0.7, 0.9):
        here = (sayings >= low - 0.1) & (sayings < low + 0.1)
        assert abs(truth[here].mean() - sayings[here].mean()) < 0.08


def test_longer_windows_are_likelier_where_talk_is_chance():
    rng = np.random.default_rng(3)
    said = rolling_probabilities(np.where(rng.random((40, 300)) < 0.05, 1.0, 0.0), HORIZONS)[:, :, -1]
    assert (np.diff(said, axis=0) > 0).all()


def test_what_comes_later_changes_nothing():
    rates = bursts(4, series=6, cells=200)
    other = rates.copy()
    other[:, 120:] = 1e9
    one, two = rolling_probabilities(rates, HORIZONS), rolling_probabilities(other, HORIZONS)
    assert (one[:, :, :120] == two[:, :, :120]).all()
    assert (one[:, :, 130:] != two[:, :, 130:]).any()


def test_a_gap_is_no_silence():
    rates = np.full((4, 100), 500.0)
    gap, silence = rates.copy(), rates.copy()
    gap[:, 70:], silence[:, 70:] = np.nan, 0.0
    after_gap, after_silence = (rolling_probabilities(one, (5,))[0, :, -1] for one in (gap, silence))
    assert (after_gap > 0.9).all()
    assert (after_silence < after_gap - 0.3).all()


def test_series_that_join_and_those_never_known():
    model = ActivityModel((5,))
    for _ in range(30):
        model.step(np.array([100.0, 0.0]))
    model.step(np.array([100.0, 0.0, 50.0, np.nan]))
    said = model.probabilities()[:, 0]
    assert said.shape == (4,)
    assert np.isnan(said).tolist() == [False, False, False, True]
    assert said[0] > 0.9 > 0.2 > said[1]


def test_many_series_teach_no_slower_than_a_sample_of_them():
    rates = np.where(np.random.default_rng(5).random((3000, 60)) < 0.3, 1.0, 0.0)
    model = ActivityModel((5,))
    for cell in range(60):
        model.step(rates[:, cell])
    assert np.median(model.probabilities()) == pytest.approx(1 - 0.7**5, abs=0.12)


def test_what_was_learnt_goes_on_after_a_restart():
    rates = bursts(6, series=8, cells=300)
    model = ActivityModel(HORIZONS)
    for cell in range(300):
        model.step(rates[:, cell])
    heir = ActivityModel(HORIZONS)
    heir.restore(model.state())
    assert heir.probabilities() == pytest.approx(model.probabilities(), abs=1e-6)
    with pytest.raises(ValueError, match="activity: "):
        ActivityModel((1, 2)).restore(model.state())

"""DriftDetector: a lasting change is noticed soon, an outlier is not one, and calm stays without alarms."""

import numpy as np
import pytest

from predictor.trust.tracker import DriftDetector

OVERLAP = 5


def losses(rng, series, cells, scale=1.0):
    """Losses of windows of five cells that begin at every cell: a running mean of skewed noise."""
    noise = rng.gamma(1.5, scale / 1.5, (series, cells + OVERLAP - 1))
    return np.stack([noise[:, cell : cell + OVERLAP].mean(axis=1) for cell in range(cells)], axis=1)


def alarms(drift, stream):
    return np.stack([drift.step(stream[:, cell]) for cell in range(stream.shape[1])], axis=1)


def test_calm_is_left_in_peace():
    drift = DriftDetector(OVERLAP)
    alarms(drift, losses(np.random.default_rng(1), 200, 1000))
    assert drift.total <= 10  # of 200,000 chances


@pytest.mark.parametrize("times", [4.0, 10.0])
def test_a_lasting_change_is_noticed_within_a_minute(times):
    rng = np.random.default_rng(2)
    drift = DriftDetector(OVERLAP)
    alarms(drift, losses(rng, 50, 200))
    before = drift.total
    seen = alarms(drift, losses(rng, 50, 60, scale=times))
    assert before <= 2
    assert seen.any(axis=1).mean() > 0.95
    assert drift.changed.mean() > 0.9


def test_a_series_has_changed_for_a_while_only():
    rng = np.random.default_rng(3)
    drift = DriftDetector(OVERLAP, aftermath=30)
    alarms(drift, np.concatenate([losses(rng, 20, 100), losses(rng, 20, 40, scale=8.0)], axis=1))
    assert drift.changed.any()
    alarms(drift, losses(rng, 20, 60, scale=8.0))
    assert not drift.changed.any()


def test_one_outlier_is_no_drift():
    rng = np.random.default_rng(4)
    stream = losses(rng, 30, 200)
    stream[:, 150:155] = 1e6  # one cell's spike, seen by five windows
    drift = DriftDetector(OVERLAP)
    assert not alarms(drift, stream).any()


def test_gaps_say_nothing_and_new_series_may_join():
    drift = DriftDetector(OVERLAP)
    stream = losses(np.random.default_rng(5), 3, 100)
    alarms(drift, stream)
    held = drift.state()
    for _ in range(50):
        assert not drift.step(np.full(5, np.nan)).any()
    assert drift.state()["sum"][:3] == pytest.approx(held["sum"])
    heir = DriftDetector(OVERLAP)
    heir.restore(drift.state())
    assert (heir.step(np.full(5, 0.5)) == drift.step(np.full(5, 0.5))).all()
    assert heir.state()["usual"] == pytest.approx(drift.state()["usual"])

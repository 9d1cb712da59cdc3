"""Cold start: a new pair looks like its peers first, and like itself soon."""

import numpy as np
import pytest

from predictor.ensemble.peers import EQUAL_CELLS, PeerSnapshot, blend_peers

LEVELS = (0.1, 0.5, 0.9)
SHAPE = np.array([0.5, 1.0, 2.0])
MATURE = 60


def crowd(means, known, services, own=None):
    """Pairs whose quantiles is SHAPE times their mean, in one horizon and one quantity, each of a source of its own."""
    means = np.asarray(means, dtype=float)
    forecasts = (means[:, None] * SHAPE)[:, None, None]
    forecasts[np.asarray(known) < 5] = np.nan
    if own is not None:
        forecasts[-1] = own
    return PeerSnapshot(
        forecasts, means[:, None], np.asarray(known, float), np.asarray(services), np.arange(len(means))
    )


def quantiles(of):
    return blend_peers(of, LEVELS, MATURE, np.random.default_rng(1))[0][-1, 0, 0]


def test_without_a_past_it_is_expected_to_be_like_its_peers():
    said = quantiles(crowd([100, 100, 100, np.nan], [90, 90, 90, 0], [1, 1, 1, 1]))
    assert said == pytest.approx(100 * SHAPE)
    strangers = quantiles(crowd([100, 100, 100, np.nan], [90, 90, 90, 0], [2, 2, 2, 1]))
    assert np.isnan(strangers).all()


def test_unlike_peers_make_a_wide_fan():
    alike = quantiles(crowd([100, 100, 100, np.nan], [90, 90, 90, 0], [1] * 4))
    unlike = quantiles(crowd([10, 100, 1000, np.nan], [90, 90, 90, 0], [1] * 4))
    assert unlike[2] - unlike[0] > 3 * (alike[2] - alike[0])


def test_own_history_takes_over():
    wild = np.array([0.0, 5.0, 5000.0])
    said = [quantiles(crowd([100, 100, 100, 5], [90, 90, 90, known], [1] * 4, wild)) for known in (5, 20, 59)]
    peaks = [one[2] for one in said]
    assert peaks == sorted(peaks)
    assert said[0][2] < 0.3 * wild[2]
    grown = quantiles(crowd([100, 100, 100, 5], [90, 90, 90, MATURE], [1] * 4, wild))
    assert grown == pytest.approx(wild)


def test_peers_are_scaled_to_what_is_known_of_the_new_one():
    own = 5 * SHAPE
    share = EQUAL_CELLS / (EQUAL_CELLS + EQUAL_CELLS)
    said = quantiles(crowd([100, 100, 5], [90, 90, EQUAL_CELLS], [1] * 3, own))
    assert said[1] == pytest.approx(share * 5 + (1 - share) * (share * 5 + (1 - share) * 100))


def test_the_others_stay_as_they_are():
    before = crowd([100, 50, 20, np.nan], [90, 90, 90, 0], [1] * 4)
    after, helped = blend_peers(before, LEVELS, MATURE, np.random.default_rng(1))
    assert (after[:3] == before.forecasts[:3]).all() and helped.tolist() == [3]


def test_a_source_is_a_peer_too_but_says_less():
    base = crowd([100, 10, np.nan], [90, 90, 0], [1, 2, 1])
    both = PeerSnapshot(base.forecasts, base.means, base.known, base.services, np.array([1, 2, 2]))
    said = blend_peers(both, LEVELS, MATURE, np.random.default_rng(1))[0][-1, 0, 0]
    assert said[0] == pytest.approx(5.0)
    assert said[2] == pytest.approx(200.0)
    assert 10 < said[1] <= 100


def test_where_all_are_new_the_eldest_are_asked_but_nobody_asks_itself():
    wild = np.array([0.0, 5.0, 5000.0])
    together = quantiles(crowd([100, 100, 100, 5], [25, 25, 25, 25], [1] * 4, wild))
    assert 0.2 * wild[2] < together[2] < 0.6 * wild[2]
    alone = quantiles(crowd([100, 100, 100, 5], [25, 25, 25, 25], [2, 2, 2, 1], wild))
    assert alone == pytest.approx(wild)

"""Bulk forecasts and scores, moves of horizons, and what is remembered over a restart."""

import math
from array import array
from dataclasses import replace

import pytest

from cpdb import (
    Forecast,
    ForecastBatch,
    HorizonMove,
    Pair,
    Quantity,
    RetentionPolicy,
    ScoreBatch,
    Store,
    Subject,
    SubjectKind,
    Trust,
    TrustArrays,
    open_store,
)

PAIR, VM = Subject(SubjectKind.PAIR, "c1", "10.0.0.101"), Subject(SubjectKind.VM, "shop1")
ISSUE = ForecastBatch(
    issued_at=10.0,
    tier="fast",
    subjects=(PAIR, VM),
    horizons_s=(5, 15),
    quantities=(Quantity.BYTES_PEAK,),
    levels=(0.5, 0.9),
    models=("naive", "ewma"),
    chosen=bytes([1, 255, 0, 0]),
    quantiles=array("f", [1.0, 3.0, math.nan, math.nan, 5.0, 6.0, 7.0, 8.0]).tobytes(),
    activity=array("f", [0.5, 0.25, math.nan, math.nan]).tobytes(),
    trusts=TrustArrays(array("H", [5, 0]).tobytes(), array("f", [0.5, 1.0, math.nan, math.nan]).tobytes(), (0.25, 1.5)),
)
SCORES = ScoreBatch(
    scored_at=20.0,
    subjects=(PAIR, VM),
    models=("naive",),
    horizons_s=(5,),
    quantities=(Quantity.BYTES_PEAK,),
    pinball=array("f", [0.5, 2.0]).tobytes(),
    covered=array("f", [1.0, 0.5]).tobytes(),
    count=array("I", [7, 8]).tobytes(),
)


def test_a_bulk_forecast_comes_back_as_written(store: Store) -> None:
    store.forecasts.add_batch(ISSUE)
    assert store.forecasts.batch(now=12.0, max_age_s=5.0) == ISSUE
    assert store.forecasts.batch(now=9.0, max_age_s=5.0) is None
    assert store.forecasts.batch(now=20.0, max_age_s=5.0) is None


def test_each_tier_has_an_issue_of_its_own(store: Store) -> None:
    slow = replace(ISSUE, tier="slow", issued_at=11.0)
    store.forecasts.add_batch(ISSUE)
    store.forecasts.add_batch(slow)
    assert store.forecasts.batch(12.0, 5.0) == ISSUE
    assert store.forecasts.batch(12.0, 5.0, "slow") == slow


def test_the_latest_forecasts_are_the_pairs_of_the_fast_tier(store: Store) -> None:
    store.forecasts.add_batch(ISSUE)
    (found,) = store.forecasts.latest(12.0, 5.0)
    expected = Forecast(Pair("c1", "10.0.0.101"), 10.0, 5, Quantity.BYTES_PEAK, "ewma", {0.5: 1.0, 0.9: 3.0})
    assert replace(found, id=None) == replace(expected, trust=Trust(5, 0.5, 1.0, 0.25, 1.5))


def test_an_issue_says_how_far_each_subject_is_trusted_and_why_no_farther() -> None:
    assert ISSUE.trust(PAIR).doubt() == "not trusted beyond 5 s: error 0.50 of 0.25 allowed"
    assert ISSUE.trust(VM).doubt() == "not trusted: too few scores"
    old = replace(ISSUE, trusts=TrustArrays(ISSUE.trusts.horizon_s))
    assert (old.trust(PAIR).reaches(5), old.trust(PAIR).reaches(15)) == (True, False)
    assert not replace(ISSUE, trusts=replace(ISSUE.trusts, horizon_s=b"")).trust(PAIR).reaches(5)


def test_subjects_are_those_of_the_issue_also_when_they_change(store: Store, url: str) -> None:
    reader = open_store(url)
    only = replace(
        ISSUE,
        issued_at=11.0,
        subjects=(VM,),
        chosen=b"\0\0",
        quantiles=bytes(16),
        activity=b"",
        trusts=TrustArrays(),
    )
    store.forecasts.add_batch(ISSUE)
    assert reader.forecasts.batch(12.0, 5.0) == ISSUE
    store.forecasts.add_batch(only)
    assert reader.forecasts.batch(12.0, 5.0) == only
    store.forecasts.add_batch(replace(ISSUE, issued_at=12.0))
    assert reader.forecasts.batch(12.0, 5.0) == replace(ISSUE, issued_at=12.0)
    reader.close()


def test_an_array_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="quantiles: 4 bytes"):
        replace(ISSUE, quantiles=bytes(4))
    with pytest.raises(ValueError, match="count"):
        replace(SCORES, count=b"")


def test_bulk_scores_come_back(store: Store) -> None:
    store.forecasts.add_score_batch(SCORES)
    assert store.forecasts.score_batches(0.0) == [SCORES]
    assert store.forecasts.score_batches(20.0) == []


def test_moves_of_horizons_come_back(store: Store) -> None:
    move = HorizonMove(5.0, PAIR, 15, 5, "the error rose")
    store.forecasts.add_moves([move])
    assert store.forecasts.moves(0.0) == [move]
    assert store.forecasts.moves(5.0) == []


def test_what_was_learnt_survives_a_restart(store: Store, url: str) -> None:
    assert store.forecasts.recall("weights") is None
    store.forecasts.remember("weights", b"old", 1.0)
    store.forecasts.remember("weights", b"\0new", 2.0)
    store.forecasts.remember("other", b"", 2.0)
    again = open_store(url)
    assert (again.forecasts.recall("weights"), again.forecasts.recall("other")) == (b"\0new", b"")
    again.close()


def test_a_list_of_subjects_that_was_forgotten_is_written_again(store: Store) -> None:
    """A predictor that paused longer than forecasts are kept goes on with the list that it knows."""
    store.forecasts.add_batch(ISSUE)
    store.forecasts.add_batch(replace(ISSUE, issued_at=11.0, subjects=(VM, PAIR)))
    store.forecasts.add_batch(replace(ISSUE, issued_at=12.0))
    store.retain(1000.0, RetentionPolicy(), budget_s=60.0)
    back = replace(ISSUE, issued_at=1001.0)
    store.forecasts.add_batch(back)
    assert store.forecasts.batch(1002.0, 5.0) == back


# ---- what is packed, opened


def test_values_are_asked_by_name() -> None:
    peak = Quantity.BYTES_PEAK
    assert ISSUE.value(PAIR, 5, peak, 0.5) == 1.0
    assert (ISSUE.value(PAIR, 5, peak, 0.99), ISSUE.value(PAIR, 5, peak, 0.0)) == (3.0, 1.0)
    # Nobody was chosen, a horizon and a quantity and a subject that are not in it
    assert ISSUE.value(PAIR, 15, peak, 0.5) is None
    assert ISSUE.value(VM, 60, peak, 0.5) is None
    assert ISSUE.value(VM, 5, Quantity.CPU_PEAK, 0.5) is None
    assert ISSUE.value(Subject(SubjectKind.VM, "other"), 5, peak, 0.5) is None
    assert ISSUE.value(VM, 15, peak, 0.9) == 8.0
    assert (ISSUE.active(PAIR, 15), ISSUE.active(VM, 15), ISSUE.active(PAIR, 60)) == (0.25, None, None)
    assert (ISSUE.trusted_s(PAIR), ISSUE.trusted_s(VM), ISSUE.trusted_s(Subject(SubjectKind.VM, "other"))) == (5, 0, 0)
    bare = replace(ISSUE, activity=b"", trusts=replace(ISSUE.trusts, horizon_s=b""))
    assert (bare.active(PAIR, 5), bare.trusted_s(PAIR)) == (None, 0)


def test_rows_and_the_array_say_the_same() -> None:
    rows = list(ISSUE.rows())
    assert [(row.subject, row.horizon_s, row.model) for row in rows] == [
        (PAIR, 5, "ewma"),
        (VM, 5, "naive"),
        (VM, 15, "naive"),
    ]
    values = ISSUE.array()
    assert values.shape == ISSUE.shape == (2, 2, 1, 2)
    for row in rows:
        place = ISSUE.subjects.index(row.subject), ISSUE.horizons_s.index(row.horizon_s), 0
        assert list(row.quantiles.values()) == [values[(*place, level)] for level in range(2)]
        assert row.at(0.6) == row.quantiles[0.5]
    assert list(ISSUE.rows((VM,), (15,))) == rows[2:]
    assert list(ISSUE.rows(quantities=(Quantity.CPU_PEAK,))) == []
    nobody = replace(ISSUE, subjects=(), chosen=b"", quantiles=b"", activity=b"", trusts=TrustArrays())
    assert (list(nobody.rows()), nobody.array().nbytes) == ([], 0)


def test_scores_are_rows_of_what_was_asked() -> None:
    assert [(row.subject, row.model, row.pinball, row.covered, row.count) for row in SCORES.rows()] == [
        (PAIR, "naive", 0.5, 1.0, 7),
        (VM, "naive", 2.0, 0.5, 8),
    ]
    assert [row.subject for row in SCORES.rows((VM,))] == [VM]
    assert list(replace(SCORES, count=bytes(8)).rows()) == []

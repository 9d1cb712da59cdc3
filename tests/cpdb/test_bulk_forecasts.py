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
    open_store,
)

PAIR, VM = Subject(SubjectKind.PAIR, "c1", "10.0.0.101"), Subject(SubjectKind.VM, "shop1")
ISSUE = ForecastBatch(
    issued_at=10.0,
    lane="fast",
    subjects=(PAIR, VM),
    horizons_s=(5, 15),
    quantities=(Quantity.BYTES_PEAK,),
    levels=(0.5, 0.9),
    models=("naive", "ewma"),
    chosen=bytes([1, 255, 0, 0]),
    values=array("f", [1.0, 3.0, math.nan, math.nan, 5.0, 6.0, 7.0, 8.0]).tobytes(),
    talks=array("f", [0.5, 0.25, math.nan, math.nan]).tobytes(),
    horizon_s=array("H", [15, 0]).tobytes(),
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


def test_each_lane_has_an_issue_of_its_own(store: Store) -> None:
    slow = replace(ISSUE, lane="slow", issued_at=11.0)
    store.forecasts.add_batch(ISSUE)
    store.forecasts.add_batch(slow)
    assert store.forecasts.batch(12.0, 5.0) == ISSUE
    assert store.forecasts.batch(12.0, 5.0, "slow") == slow


def test_the_latest_forecasts_are_the_pairs_of_the_fast_lane(store: Store) -> None:
    store.forecasts.add_batch(ISSUE)
    (found,) = store.forecasts.latest(12.0, 5.0)
    expected = Forecast(Pair("c1", "10.0.0.101"), 10.0, 5, Quantity.BYTES_PEAK, "ewma", {0.5: 1.0, 0.9: 3.0})
    assert replace(found, id=None) == expected


def test_subjects_are_those_of_the_issue_also_when_they_change(store: Store, url: str) -> None:
    reader = open_store(url)
    only = replace(ISSUE, issued_at=11.0, subjects=(VM,), chosen=b"\0\0", values=bytes(16), talks=b"", horizon_s=b"")
    store.forecasts.add_batch(ISSUE)
    assert reader.forecasts.batch(12.0, 5.0) == ISSUE
    store.forecasts.add_batch(only)
    assert reader.forecasts.batch(12.0, 5.0) == only
    store.forecasts.add_batch(replace(ISSUE, issued_at=12.0))
    assert reader.forecasts.batch(12.0, 5.0) == replace(ISSUE, issued_at=12.0)
    reader.close()


def test_an_array_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="values: 4 bytes"):
        replace(ISSUE, values=bytes(4))
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


def test_old_foresight_is_forgotten(store: Store) -> None:
    store.forecasts.add_batch(ISSUE)
    store.forecasts.add_score_batch(SCORES)
    assert store.forecasts.forget_before(15.0) == 1
    assert store.forecasts.batch(12.0, 5.0) is None
    assert store.forecasts.score_batches(0.0) == [SCORES]

"""A copy under way is judged by its rounds alone: it is broken off when it gets nowhere or takes too long."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.act.libvirt.migration import (
    JobFigures,
    Order,
    RoundHistory,
    Terms,
    Whereabouts,
    figures,
    ordered,
    overrun_s,
    settled,
)

MIB = 1 << 20
PLAIN = Terms(32e6, limit_s=30.0)


def after(*began_with_mib: float) -> RoundHistory:
    """The course of a copy whose rounds began with so much, the first being all memory."""
    course = RoundHistory()
    for number, amount in enumerate(began_with_mib, start=1):
        course = course.seen(JobFigures(number, int(amount * MIB)))
        course = course.seen(JobFigures(number, int(amount * MIB / 2)))
    return course


def order_of(course: RoundHistory, terms: Terms = PLAIN, elapsed_s: float = 5.0) -> Order:
    return ordered(course, JobFigures(course.rounds, course.began_with, 1, 33e6, 34e6), elapsed_s, terms)[0]


def test_rounds_that_do_not_get_smaller_end_it() -> None:
    assert order_of(after(128, 36, 39, 32)) is Order.GO_ON
    assert order_of(after(128, 36, 39, 32, 39)) is Order.ABORT


def test_one_round_that_gained_little_is_forgiven() -> None:
    assert order_of(after(128, 36, 34, 17, 16, 8, 4)) is Order.GO_ON


@given(st.floats(1, 1000), st.lists(st.floats(0.01, 0.79), min_size=1, max_size=12))
def test_what_shrinks_by_a_fifth_each_round_is_never_broken_off_for_that(memory: float, shares: list[float]) -> None:
    sizes = [memory]
    for share in shares:
        sizes.append(sizes[-1] * share)
    assert order_of(after(*sizes)) is Order.GO_ON


@given(st.lists(st.integers(0, 200), min_size=2, max_size=30), st.booleans())
def test_the_least_never_rises_and_rounds_never_go_back(sizes: list[int], converging: bool) -> None:
    courses, course = [], RoundHistory()
    for number, size in enumerate(sizes):
        course = course.seen(JobFigures(number // 2 if converging else number, size * MIB))
        courses.append(course)
    assert all(b.least <= a.least and b.rounds >= a.rounds for a, b in pairwise(courses))


def test_an_overrun_ends_it_and_says_what_was_left() -> None:
    order, why = ordered(RoundHistory(1), JobFigures(1, 9 * MIB), 30.0, PLAIN)
    assert order is Order.ABORT
    assert why == "it took longer than 30 s (9 MiB were left)"


def test_post_copy_only_where_allowed_and_never_a_second_time() -> None:
    allowed = Terms(32e6, 30.0, post_copy=True)
    stuck = after(128, 36, 39, 38, 39)
    assert order_of(stuck, allowed) is Order.SWITCH
    assert order_of(after(128, 20), allowed, elapsed_s=31.0) is Order.SWITCH
    # Once the guest runs on the other side, breaking off would lose it.
    assert order_of(RoundHistory(5, 1, 1.0, 9, switched=True), allowed, elapsed_s=1e6) is Order.GO_ON


def test_a_guest_that_may_be_slowed_down_gets_all_the_time_there_is() -> None:
    slowed = Terms(32e6, 30.0, auto_converge=True)
    stuck = after(128, 36, 39, 38, 39)
    assert order_of(stuck, slowed) is Order.GO_ON
    assert order_of(stuck, slowed, elapsed_s=30.0) is Order.ABORT


@given(st.floats(1, 1000), st.one_of(st.none(), st.floats(0, 1000)))
def test_an_estimate_shortens_the_limit_and_never_lengthens_it(limit_s: float, expected_s: float | None) -> None:
    found = overrun_s(limit_s, expected_s)
    assert 0 < found <= limit_s
    if expected_s is not None:
        assert found >= min(limit_s, expected_s)


def test_a_job_is_read_in_bytes_and_seconds() -> None:
    stats = {"memory_iteration": 3, "memory_remaining": 5, "memory_processed": 7_000_000, "memory_bps": 9,
             "memory_dirty_rate": 100, "memory_page_size": 4096, "downtime": 75}  # fmt: skip
    look = JobFigures.of(stats)
    assert (look.dirty_bytes_per_s, look.downtime_s) == (409_600.0, 0.075)
    assert figures(look, 1.31) == "1.3 s, 7 MB in 3 rounds, stopped for 75 ms"
    # The first round cannot tell, and nothing found is not nothing written.
    assert JobFigures.of(stats | {"memory_iteration": 1}).dirty_bytes_per_s is None
    assert JobFigures.of(stats | {"memory_dirty_rate": 0}).dirty_bytes_per_s is None


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([Whereabouts(True, None)], Whereabouts(True, None)),
        ([Whereabouts(None, None), Whereabouts(False, True)], Whereabouts(False, True)),
        ([Whereabouts(False, False), Whereabouts(False, None, lost=True)], Whereabouts(False, None, lost=True)),
    ],
    ids=["arrived", "stayed", "lost"],
)
def test_it_is_looked_for_until_one_side_knows(answers: list[Whereabouts], expected: Whereabouts) -> None:
    left = list(answers)
    assert settled(lambda: left.pop(0) if len(left) > 1 else left[0], limit_s=5.0) == expected
    assert len(left) == 1

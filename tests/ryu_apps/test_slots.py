"""Slots follow weights to within one, move only when they must, and their rules say exactly the same."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps.services.buckets import BUCKETS, compress_buckets, divide_buckets, expand_prefixes, quotas

weights = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 1000), min_size=1)


@given(weights)
def test_each_destination_is_within_one_slot_of_its_exact_share(given_weights: dict[str, int]) -> None:
    total, held = sum(given_weights.values()), Counter(divide_buckets(given_weights))
    for name, weight in given_weights.items():
        assert abs(held[name] - BUCKETS * weight / max(total, 1)) < 1
    assert held[None] == (0 if total else BUCKETS)


def test_equal_weights_differ_by_less_than_one_percent() -> None:
    for count in range(2, 11):
        held = Counter(divide_buckets({f"d{n}": 100 for n in range(count)}))
        mean = BUCKETS / count
        assert max(held.values()) <= mean * 1.01
        assert min(held.values()) >= mean * 0.99


@given(weights, weights)
def test_a_change_moves_no_more_slots_than_the_quotas_differ_by(before: dict[str, int], after: dict[str, int]) -> None:
    old = divide_buckets(before)
    new = divide_buckets(after, old)
    moved = sum(a != b for a, b in zip(old, new, strict=True))
    have, want = quotas(before), quotas(after)
    grown = sum(max(0, count - have.get(name, 0)) for name, count in want.items())
    assert moved == (grown if any(want.values()) else sum(have.values()))


@given(weights)
def test_dividing_again_moves_nothing(given_weights: dict[str, int]) -> None:
    table = divide_buckets(given_weights)
    assert divide_buckets(given_weights, table) == table


@settings(max_examples=40)
@given(st.lists(weights, min_size=1, max_size=4))
def test_prefixes_say_what_the_table_says(states: list[dict[str, int]]) -> None:
    table = divide_buckets(states[0])
    for state in states[1:]:
        table = divide_buckets(state, table)
    assert expand_prefixes(compress_buckets(table)) == table


def test_few_prefixes_are_enough_for_what_is_usual() -> None:
    assert len(compress_buckets(divide_buckets({"a": 1}))) == 1
    assert len(compress_buckets(divide_buckets({"a": 3, "b": 1}))) == 2
    eight = divide_buckets({f"d{n}": 100 for n in range(8)})
    assert len(compress_buckets(eight)) == 8
    # One of eight goes: its slots are dealt out, the rest stays.
    seven = divide_buckets({f"d{n}": 100 for n in range(7)}, eight)
    assert sum(a != b for a, b in zip(eight, seven, strict=True)) == 128
    assert len(compress_buckets(seven)) <= 60


def test_rules_stay_few_through_many_changes() -> None:
    rng = Random(1)
    now = {f"d{n}": 100 for n in range(8)}
    table = divide_buckets(now)
    for _ in range(60):
        now[f"d{rng.randrange(8)}"] = rng.randrange(10, 301)
        table = divide_buckets(now, table)
    assert len(compress_buckets(table)) <= 150

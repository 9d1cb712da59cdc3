"""Evenly spaced series: the same rates at every step, zero where a pair was silent, nothing where nobody looked."""

from array import array

import pytest

from cpdb import Batch, FlowKey, Pair, RetentionPolicy, Store, Window, tier_of

T0 = 1_700_000_040
C1, C2 = FlowKey("c1", "10.0.0.1", "shop1"), FlowKey("c2", "10.0.0.1", None)
P1, P2 = Pair("c1", "10.0.0.1"), Pair("c2", "10.0.0.1")


@pytest.fixture
def filled(store: Store) -> Store:
    """Two minutes: c1 says 60 bytes each second, c2 from the second minute on 6; the last 10 s were not looked at."""
    for n in range(1, 111):
        said = {C1: 60} | ({C2: 6} if n > 60 else {})
        counts = [array("q", [size // step for size in said.values()]) for step in (1, 6, 60)]
        batch = Batch("switch/a", float(T0 + n), 1.0, list(said), counts[0], counts[1], counts[2], complete=True)
        store.facts.add_batches([batch])
    store.retain(T0 + 200.0, RetentionPolicy(), budget_s=60.0)
    return store


@pytest.mark.parametrize("step_s", [1, 5, 10, 30, 60])
def test_a_rate_is_the_same_at_every_step(filled: Store, step_s: int) -> None:
    window = Window(step_s, T0, T0 + 120)
    rows = dict(filled.series.rows(window))
    assert filled.series.pairs(window) == [P1, P2]
    assert list(rows) == list(range(T0 + step_s, T0 + 121, step_s))
    measured = {t: rates for t, rates in rows.items() if t <= T0 + 110}
    assert all(rates[P1] == pytest.approx(60.0) for rates in measured.values())
    assert all(rates[P2] == pytest.approx(6.0) for t, rates in measured.items() if t > T0 + 60)
    assert all(rates.get(P2, 0.0) == 0.0 for t, rates in measured.items() if t <= T0 + 60)


@pytest.mark.parametrize("step_s", [1, 10])
def test_where_nobody_looked_there_is_nothing(filled: Store, step_s: int) -> None:
    rows = dict(filled.series.rows(Window(step_s, T0 + 100, T0 + 120)))
    assert [P1 in rates for rates in rows.values()] == [True] * (10 // step_s) + [False] * (10 // step_s)


@pytest.mark.parametrize("quantity,rate", [("bytes", 60.0), ("packets", 10.0), ("connections", 1.0)])
def test_each_quantity_can_be_read(filled: Store, quantity: str, rate: float) -> None:
    rows = dict(filled.series.rows(Window(10, T0, T0 + 20, quantity)))
    assert [rates[P1] for rates in rows.values()] == [pytest.approx(rate)] * 2


def test_a_silent_pair_is_zero_and_not_missing(filled: Store) -> None:
    said = [array("q", [1])] * 3
    filled.facts.add_batches([Batch("switch/a", T0 + 115.0, 5.0, [C2], *said, complete=True)])  # type: ignore[misc, arg-type]
    rows = dict(filled.series.rows(Window(5, T0 + 110, T0 + 115)))
    assert rows == {T0 + 115: {P1: 0.0, P2: pytest.approx(0.2)}}


def test_a_step_that_nothing_divides_is_refused() -> None:
    assert [tier_of(step) for step in (1, 9, 10, 50, 60, 300)] == [1, 1, 10, 10, 60, 60]
    with pytest.raises(ValueError, match="multiples of 10"):
        tier_of(15)

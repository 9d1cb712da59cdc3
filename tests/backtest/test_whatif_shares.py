"""Fair shares: cases by hand, and the law that defines them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.whatif.shares import Crossings, max_min_shares
from backtest.whatif.waiting import PATIENCE_S, WaitingLine


def test_who_asks_for_little_gets_it_and_the_others_share_the_rest() -> None:
    # Bertsekas and Gallager's example in small: flow 0 crosses both links, 1 and 2 the first, 3 the second.
    crossings = Crossings.of([(0, 1), (0,), (0,), (1,)])
    rates = max_min_shares(np.array([9.0, 1.0, 9.0, 9.0]), crossings, np.array([7.0, 10.0]))
    assert rates.tolist() == pytest.approx([3.0, 1.0, 3.0, 7.0])


def test_what_is_guaranteed_comes_first() -> None:
    crossings = Crossings.of([(0,), (0,), (0,)])
    floors = np.array([6.0, 0.0, 0.0])
    rates = max_min_shares(np.array([8.0, 8.0, 1.0]), crossings, np.array([10.0]), floors)
    # 4 are left: 1 for the third, 1.5 for each of the others.
    assert rates.tolist() == pytest.approx([7.5, 1.5, 1.0])


Network = tuple[list[float], list[tuple[int, ...]], list[float]]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    links = draw(st.integers(1, 5))
    ways = draw(st.lists(st.sets(st.integers(0, links - 1), max_size=links).map(tuple), min_size=1, max_size=8))
    amounts = st.floats(0, 1e6).map(lambda value: round(value, 3))
    demands = [draw(amounts) for _ in ways]
    return demands, ways, [draw(amounts) for _ in range(links)]


@given(networks())
@settings(max_examples=200, deadline=None)
def test_nobody_can_get_more_but_from_a_poorer_one(
    network: tuple[list[float], list[tuple[int, ...]], list[float]],
) -> None:
    demands, ways, capacities = network
    rates = max_min_shares(np.array(demands), Crossings.of(ways), np.array(capacities))
    load = [sum(rate for rate, way in zip(rates, ways, strict=True) if link in way) for link in range(len(capacities))]
    assert all(carried <= capacity * (1 + 1e-6) + 1e-6 for carried, capacity in zip(load, capacities, strict=True))
    for rate, demand, way in zip(rates, demands, ways, strict=True):
        assert -1e-9 <= rate <= demand + 1e-9
        # Whoever lacks something has a link that is full and on which nobody has more.
        short = rate < demand - 1e-3
        assert not short or any(
            load[link] >= capacities[link] * (1 - 1e-6) - 1e-3
            and all(rate >= other - 1e-3 for other, its in zip(rates, ways, strict=True) if link in its)
            for link in way
        )


def test_what_has_waited_too_long_is_given_up() -> None:
    line = WaitingLine(1)
    gone = []
    for second in range(PATIENCE_S + 1):
        line.join(np.array([10.0 if second == 0 else 0.0]))
        line.serve(np.array([1.0]))
        gone.append(line.give_up().item())
    # Served in each of four seconds; what is left is given up at the end of the fourth.
    assert gone == [0.0, 0.0, 0.0, 6.0, 0.0]
    assert line.total.item() == 0.0

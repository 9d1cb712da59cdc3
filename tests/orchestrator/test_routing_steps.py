"""Updates of splits: at every prefix no link is promised more than it has, nothing loops, nothing gets lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_nets import Switches, diamond, random_net, random_splits

from orchestrator.optimise import Install, Remove, Shift, Tunnels, steps, tunnels


def walked(net: Tunnels, old: np.ndarray, new: np.ndarray, demand: np.ndarray) -> tuple[Switches, bool]:
    """Obeys the messages one by one, checking after each."""
    update = steps(net, old, new, demand)
    switches = Switches(net, old)
    assert switches.lost() == []
    before, after = net.utilisation(old, demand), net.utilisation(new, demand)
    ceiling = np.maximum(1.0, np.maximum(before, after)) + 1e-6
    for message in update.messages:
        switches.take(message)
        assert switches.lost() == []
        assert (net.utilisation(switches.splits, demand) <= ceiling).all()
        assert np.bincount(net.pair_of, switches.splits) == pytest.approx(np.ones(len(net.pairs)))
    used = {(net.paths[k], node) for k in np.flatnonzero(switches.splits > 0) for node in net.paths[k][1:-1]}
    assert set(switches.rules) == used
    return switches, not update.left


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), fill=st.sampled_from([0.3, 0.8, 0.95]))
def test_every_prefix_is_safe_on_random_networks(seed: int, fill: float) -> None:
    rng = np.random.default_rng(seed)
    net = random_net(rng)
    old, new = random_splits(rng, net), random_splits(rng, net)
    demand = rng.exponential(1.0, len(net.pairs))
    demand *= fill / max(net.mlu(old, demand)[0], net.mlu(new, demand)[0])
    switches, whole = walked(net, old, new, demand)
    if whole:
        assert switches.splits == pytest.approx(new, abs=1e-8)
    # With a fifth of every link to spare, a few stages always suffice.
    assert whole or fill > 0.8


def test_with_room_each_pair_moves_at_once() -> None:
    net = diamond()
    update = steps(net, np.array([1.0, 0.0, 1.0]), np.array([0.25, 0.75, 1.0]), np.array([4.0, 1.0]))
    assert [type(message) for message in update.messages] == [Install, Shift]
    assert update.messages[-1] == Shift((0, 3), (0.25, 0.75))


def test_nothing_to_change_is_no_message() -> None:
    net = diamond()
    assert steps(net, net.equal(), net.equal(), np.array([4.0, 1.0])).messages == ()


def test_a_path_without_traffic_is_forgotten_last() -> None:
    net = diamond()
    update = steps(net, np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), np.array([4.0, 1.0]))
    assert isinstance(update.messages[-1], Remove)
    assert update.messages[-1].path == (0, 1, 3)


def swap(slack: float) -> tuple[Tunnels, np.ndarray, np.ndarray, np.ndarray]:
    """Two pairs that must change places on two links which either of them nearly fills."""
    capacity = {
        ("a", "m"): 99.0,
        ("b", "m"): 99.0,
        ("m", "x"): 10.0,
        ("m", "y"): 10.0,
        ("x", "z"): 99.0,
        ("y", "z"): 99.0,
    }
    paths = {(s, "z"): [(s, "m", "x", "z"), (s, "m", "y", "z")] for s in ("a", "b")}
    demand = np.full(2, 10.0 * (1 - slack))
    return tunnels(paths, capacity), np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0]), demand


@pytest.mark.parametrize("slack", [0.5, 0.3, 0.1])
def test_pairs_change_places_in_parts(slack: float) -> None:
    switches, whole = walked(*swap(slack))
    assert whole
    assert switches.splits == pytest.approx([0.0, 1.0, 1.0, 0.0], abs=1e-8)


def test_what_cannot_be_without_congestion_is_left_and_named() -> None:
    net, old, new, demand = swap(0.0)
    update = steps(net, old, new, demand)
    assert set(update.left) == {("a", "z"), ("b", "z")}
    assert update.messages == ()


def test_three_pairs_need_a_detour() -> None:
    capacity = {("s", m): 10.0 for m in "abc"} | {(m, "t"): 10.0 for m in "abc"}
    ways = [("s", m, "t") for m in "abc"]
    net = tunnels({("s", "t"): ways, ("s", "a"): [("s", "a")], ("s", "b"): [("s", "b")]}, capacity)
    demand = np.array([9.0, 1.0, 1.0])
    switches, whole = walked(net, np.array([1.0, 0, 0, 1, 1]), np.array([0, 1.0, 0, 1, 1]), demand)
    assert whole
    assert switches.splits[:3] == pytest.approx([0.0, 1.0, 0.0])


def test_what_was_too_full_before_never_gets_fuller() -> None:
    net = diamond(upper=10.0, lower=10.0)
    walked(net, np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.5, 1.0]), np.array([15.0, 1.0]))

"""Groups an ordered change of splits into batches: inside one, shifts may come in any order, and pair by pair."""

import numpy as np

from orchestrator.routing.paths import Floats, Tunnels
from orchestrator.routing.steps import TOLERANCE, Shift, steps


def first_batch(tunnels: Tunnels, old: Floats, new: Floats, demand: Floats) -> Floats:
    """The splits (P) after the first batch of messages from `old` to `new`; `old` itself when nothing can be moved.

    Switches take over a batch in any order, and the traffic of one pair moves bit by bit. So all paths count at their
    larger share of before and after: that still fits, as it does between the stages of Hong et al. (SIGCOMM 2013).
    Only the first shift is taken whatever it does, because `steps` has found it to be the least harm.
    """
    found = steps(tunnels, old, new, demand)
    ceiling = np.maximum(
        1.0, np.maximum(tunnels.utilisation(old, demand), tunnels.utilisation(new, demand)) + TOLERANCE
    )
    larger, splits = old.copy(), old.copy()
    taken: set[int] = set()
    number = {pair: place for place, pair in enumerate(tunnels.pairs)}
    for shift in (one for one in found.messages if isinstance(one, Shift)):
        place = number[shift.pair]
        paths = slice(int(tunnels.first[place]), int(tunnels.first[place]) + int(tunnels.count[place]))
        tried = larger.copy()
        tried[paths] = np.maximum(splits[paths], shift.shares)
        fits = (tunnels.utilisation(tried, demand) <= ceiling).all()
        if place in taken or (taken and not fits):
            break
        larger, taken = tried, taken | {place}
        splits[paths] = shift.shares
    return splits

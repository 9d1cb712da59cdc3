"""Says of all links at once what they will carry at most: a plan looks closer only where that may be too much."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cpdb import BytesPerS
from orchestrator.demand import Demand
from orchestrator.foreseen import Floats
from orchestrator.pair_table import LinkKey
from orchestrator.sums import NO_CORRECTION, link_corrections
from orchestrator.world import World


class LinkBounds(NamedTuple):
    """Of the links whose capacity is known: that, and what they will carry even if every pair needed its most at once.

    In bytes/s. Nothing that is asked about a link's need - of its pairs, of others, with a correction - exceeds it.
    """

    keys: tuple[LinkKey, ...]
    capacity: Floats
    most: Floats

    @classmethod
    def of(cls, world: World, demand: Demand, horizon_s: int, copying: Callable[[LinkKey], BytesPerS]) -> "LinkBounds":
        """Within one horizon; `copying`: what copies of machines take from a link."""
        known = [one for one in world.links.values() if one.capacity_bytes_per_s]
        keys, groups = tuple(one.key for one in known), world.table.on_link
        places = np.array([groups.places.get(key, -1) for key in keys], dtype=np.int64)
        asked = demand.table(horizon_s).of_groups(groups).sums[-1]
        found = link_corrections(demand, horizon_s)
        told = [found.get(key, NO_CORRECTION) for key in keys] if found else []
        more = np.maximum(0.0, np.array(told)[:, :2]).sum(axis=1) if told else 0.0
        others = np.array([max(one.bytes_per_s, copying(one.key)) for one in known])
        capacity = np.array([one.capacity_bytes_per_s or 0.0 for one in known])
        return cls(keys, capacity, np.append(asked, 0.0)[places] + others + more)

    def above(self, share: float, more: BytesPerS = 0.0) -> list[LinkKey]:
        """Links that may have to carry more than this share of what they can, with so much more on each."""
        least = share * self.capacity * (1.0 - 1e-9)
        return [self.keys[number] for number in np.flatnonzero(self.most + more > least).tolist()]

"""The network as routing decides about it: paths between switches, and the tunnels of all traffic over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import networkx as nx
import numpy as np

from cpdb import HeavyPair, WantedSplit
from orchestrator.actions import Ends, Path
from orchestrator.observe.matrices import expected_rate, path_inside
from orchestrator.optimise import Tunnels, place_pairs
from orchestrator.pair_table import LinkKey
from orchestrator.world import World

Rates = Mapping[Ends, float]
# Links without a known capacity never are the fullest.
UNKNOWN_BYTES_PER_S = 1e12


@dataclass(frozen=True)
class RouteNet:
    """Directed links between switches that are up, with capacities in bytes/s."""

    capacity: Mapping[LinkKey, float]

    def whole(self, path: Path) -> bool:
        """Whether all links of a path are up."""
        return len(path) > 1 and all(hop in self.capacity for hop in pairwise(path))

    def alternatives(self, ends: Ends, most: int) -> list[Path]:
        """The shortest simple paths between two switches (Yen 1971, as networkx has it), over known capacities only."""
        graph = nx.DiGraph([link for link, size in self.capacity.items() if size < UNKNOWN_BYTES_PER_S])
        try:
            return [tuple(path) for path in islice(nx.shortest_simple_paths(graph, *ends), most)]
        except (nx.NetworkXNoPath, nx.NodeNotFound):
            return []


# Pairs from this share of the traffic between two switches on are placed by what they carry, at most so many; by which
# of all others they are, nothing much can be told.
HEAVY, MOST_HEAVY = 0.01, 64
# Loads may be so far from the split's (share of a link's capacity) before pairs are placed anew.
FAR = 0.03


@dataclass(frozen=True)
class Carried:
    """What pairs between two switches will carry, bytes/s, by the names of their ends."""

    rates: Mapping[Ends, float]

    @property
    def heavy(self) -> list[tuple[Ends, float]]:
        """The pairs that matter by themselves, largest first, each with its share of the whole."""
        total = sum(self.rates.values())
        found = sorted(self.rates.items(), key=lambda one: (-one[1], one[0]))[:MOST_HEAVY]
        return [(ends, rate / total) for ends, rate in found if rate > HEAVY * total]

    def placed(self, paths: Sequence[Path], ratios: Sequence[float], row: WantedSplit | None) -> tuple[HeavyPair, ...]:
        """The heavy pairs on these paths; they stay where `row` has them as far as the ratios allow."""
        before: dict[Ends, np.ndarray] = {}
        for one in row.heavy if row else ():
            shares = dict(zip(row.paths if row else (), one.ratios, strict=False))
            before[one.source, one.destination] = np.array([shares.get(path, 0.0) for path in paths])
        known = [before.get(ends) for ends, _ in self.heavy]
        found = place_pairs(np.array(ratios), [share for _, share in self.heavy], known)
        return tuple(
            HeavyPair(*ends, share, tuple(own.tolist())) for (ends, share), own in zip(self.heavy, found, strict=True)
        )

    def deviation(self, row: WantedSplit) -> float:
        """By how much a path gets more or less than its ratio, at most, bytes/s: as pairs are placed now."""
        total, ratios = sum(self.rates.values()), np.array(row.ratios)
        placed = sum((one.share * np.array(one.ratios) for one in row.heavy), np.zeros(len(ratios)))
        light = np.maximum(ratios - placed, 0.0)
        light = light / light.sum() if light.sum() > 0 else ratios
        own = {(one.source, one.destination): np.array(one.ratios) for one in row.heavy}
        known = sum((self.rates.get(ends, 0.0) * shares for ends, shares in own.items()), np.zeros(len(ratios)))
        # A pair that has become heavy may be anywhere: on the path with the least room.
        strange = max((share for ends, share in self.heavy if ends not in own), default=0.0) * total
        loads = known + (total - known.sum()) * light
        return float(np.abs(loads - total * ratios).max()) + strange


def carried(world: World, capacity: Mapping[LinkKey, float]) -> dict[Ends, Carried]:
    """By the switches between which it goes; pairs whose connections are placed one by one are left out."""
    rates: dict[Ends, dict[Ends, float]] = {}
    for state in world.pairs.values():
        path = path_inside(capacity, state)
        if path and state.destination is not None:
            own = rates.setdefault((path[0], path[-1]), {})
            ends = state.pair.source, state.destination
            own[ends] = own.get(ends, 0.0) + expected_rate(state, 0.5)
    return {ends: Carried(own) for ends, own in rates.items()}


@dataclass(frozen=True)
class Board:
    """Tunnels of all traffic between switches (`ends`), then one for what each link carries besides."""

    ends: tuple[Ends, ...]
    links: tuple[LinkKey, ...]
    tunnels: Tunnels

    @classmethod
    def of(cls, net: RouteNet, paths: Mapping[Ends, list[Path]]) -> "Board":
        """`paths` gives at least one for each pair of switches; the first is where traffic goes without a split."""
        ends = tuple(paths)
        links = tuple(net.capacity)
        flat: list[Path] = [path for one in ends for path in paths[one]] + list(links)
        counts = [len(paths[one]) for one in ends] + [1] * len(links)
        pair_of = np.repeat(np.arange(len(counts)), counts)
        capacity = np.array([net.capacity[link] for link in links])
        others = [(f"others on {a}", b) for a, b in links]
        return cls(ends, links, Tunnels((*ends, *others), tuple(flat), pair_of, links, capacity))

    def demand(self, rates: Rates, background: Mapping[LinkKey, float]) -> np.ndarray:
        """One matrix (N)."""
        values = [rates.get(one, 0.0) for one in self.ends] + [background.get(link, 0.0) for link in self.links]
        return np.array(values)

    def splits(self, rows: Mapping[Ends, WantedSplit]) -> np.ndarray:
        """The splits in force (P): a path that is not among these tunnels is down, the others take its share."""
        found = self.tunnels.shortest()
        for place, ends in enumerate(self.ends):
            row = rows.get(ends)
            if row is None:
                continue
            share = dict(zip(row.paths, row.ratios, strict=False))
            own = self.paths(place)
            shares = np.array([share.get(path, 0.0) for path in self.choices(place)])
            if shares.sum() > 0:
                found[own] = shares / shares.sum()
        return found

    def paths(self, place: int) -> slice:
        """Where the paths of one pair of switches are among all paths."""
        first = int(self.tunnels.first[place])
        return slice(first, first + int(self.tunnels.count[place]))

    def choices(self, place: int) -> list[Path]:
        """The paths of one pair of switches."""
        return [tuple(str(node) for node in path) for path in self.tunnels.paths[self.paths(place)]]

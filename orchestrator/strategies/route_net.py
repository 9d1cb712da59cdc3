"""The network as routing decides about it: paths between switches, and the tunnels of all traffic over them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, pairwise

import networkx as nx
import numpy as np

from cpdb import WantedSplit
from orchestrator.actions import Ends, Path
from orchestrator.optimise import Tunnels
from orchestrator.world import LinkKey

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
        """The shortest simple paths between two switches (Yen 1971, as networkx has it)."""
        graph = nx.DiGraph(list(self.capacity))
        try:
            return [tuple(path) for path in islice(nx.shortest_simple_paths(graph, *ends), most)]
        except (nx.NetworkXNoPath, nx.NodeNotFound):
            return []


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

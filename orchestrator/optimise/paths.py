"""Holds the paths that a pair's traffic may be split over, as matrices, so that all loads are one multiplication."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cpdb import ForepathError
from orchestrator.optimise.model import UNLIMITED, LinearProgram, Term, sums_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Node = str | int
Hop = tuple[Node, Node]
Path = tuple[Node, ...]

ALTERNATIVES = 4
MOST_NAMED = 12


class RoutingError(ForepathError):
    """A topology or a set of paths cannot be used; the text names each problem."""


@dataclass(frozen=True)
class Tunnels:
    """Paths by pair over links with capacities. N pairs, P paths (all of pair 0, then of pair 1, ...), L links.

    Splits are P shares, those of one pair adding up to 1. Demands are N values, or S x N for S matrices, in the unit
    of the capacities.
    """

    pairs: tuple[Hop, ...]
    paths: tuple[Path, ...]
    pair_of: Ints
    links: tuple[Hop, ...]
    capacity: Floats

    @cached_property
    def usage(self) -> Any:
        """L x P: 1 / capacity where a path crosses a link (sparse, by rows)."""
        number = {link: place for place, link in enumerate(self.links)}
        crossed = [number[hop] for path in self.paths for hop in pairwise(path)]
        path = np.repeat(np.arange(len(self.paths)), [len(path) - 1 for path in self.paths])
        shape = (len(self.links), len(self.paths))
        return sparse.csr_matrix((1 / self.capacity[crossed], (crossed, path)), shape=shape)

    @cached_property
    def first(self) -> Ints:
        """Place of each pair's first path; its paths are ordered by preference."""
        return np.searchsorted(self.pair_of, np.arange(len(self.pairs)))

    @cached_property
    def count(self) -> Ints:
        """How many paths each pair has."""
        return np.bincount(self.pair_of, minlength=len(self.pairs))

    def shortest(self) -> Floats:
        """Everything on each pair's first path."""
        splits = np.zeros(len(self.paths))
        splits[self.first] = 1.0
        return splits

    def equal(self) -> Floats:
        """The same share on each path of a pair."""
        return np.asarray(1.0 / self.count[self.pair_of])

    def utilisation(self, splits: Floats, demand: Floats) -> Floats:
        """Load over capacity of each link: S x L for demands S x N, L for N."""
        traffic = splits[:, None] * np.atleast_2d(demand).T[self.pair_of]
        load: Floats = np.asarray(self.usage @ traffic).T
        return load if demand.ndim > 1 else load[0]

    def mlu(self, splits: Floats, demand: Floats) -> Floats:
        """The maximum link utilisation: S values for demands S x N."""
        return np.asarray(self.utilisation(splits, np.atleast_2d(demand)).max(axis=1))


def tunnels(paths: Mapping[Hop, Sequence[Path]], capacity: Mapping[Hop, float]) -> Tunnels:
    """The matrices of these paths. Raises RoutingError naming every path that cannot be."""
    wrong = list(_wrong(paths, capacity))
    if wrong:
        raise RoutingError("; ".join(wrong))
    pairs = tuple(paths)
    flat = tuple(tuple(path) for pair in pairs for path in paths[pair])
    pair_of = np.repeat(np.arange(len(pairs)), [len(paths[pair]) for pair in pairs])
    links = tuple(capacity)
    return Tunnels(pairs, flat, pair_of, links, np.array([float(capacity[link]) for link in links]))


def _wrong(paths: Mapping[Hop, Sequence[Path]], capacity: Mapping[Hop, float]) -> Iterable[str]:
    for link, size in capacity.items():
        if not (np.isfinite(size) and size > 0):
            yield f"link {_arrow(link)}: capacity {size:g}; it must be above 0"
    for pair, choices in paths.items():
        if not choices:
            yield f"{_arrow(pair)} has no path; give at least one"
        for path in choices:
            if len(path) < 2 or (path[0], path[-1]) != tuple(pair):
                yield f"path {_arrow(path)} does not lead {_arrow(pair)}"
            if len(set(path)) < len(path):
                yield f"path {_arrow(path)} visits a node twice"
            yield from (
                f"path {_arrow(path)} uses the link {_arrow(hop)}, which does not exist"
                for hop in pairwise(path)
                if hop not in capacity
            )


def _arrow(nodes: Sequence[Node]) -> str:
    return " > ".join(str(node) for node in nodes)


def shortest_paths(capacity: Mapping[Hop, float], pairs: Iterable[Hop], most: int = ALTERNATIVES) -> dict[Hop, Any]:
    """The `most` shortest simple paths of each pair, fewest hops first (Yen 1971, as networkx has it).

    Raises RoutingError naming every pair that cannot be reached.
    """
    graph = nx.DiGraph()
    graph.add_edges_from(capacity)
    found: dict[Hop, list[Path]] = {}
    lost = []
    for source, target in pairs:
        try:
            found[source, target] = [
                tuple(path) for path in islice(nx.shortest_simple_paths(graph, source, target), most)
            ]
        except (nx.NetworkXNoPath, nx.NodeNotFound):
            lost.append(_arrow((source, target)))
    if lost:
        more = f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
        raise RoutingError(f"no path leads {', '.join(lost[:MOST_NAMED])}{more}; add links, or leave these pairs out")
    return found


@dataclass(frozen=True, slots=True)
class Optimum:
    """The least maximum link utilisation of a matrix, and splits that reach it (one of several, perhaps)."""

    mlu: float
    splits: Floats


def optimum(tunnels: Tunnels, demand: Floats) -> Optimum:
    """Minimises u subject to load_e(w, d) <= u capacity_e and sum_k w_pk = 1: a linear program, solved by HiGHS.

    `demand` has N values. A matrix without traffic has the optimum 0, with everything on the first paths.
    """
    scale = float(tunnels.mlu(tunnels.equal(), demand)[0])
    if scale <= 0:
        return Optimum(0.0, tunnels.shortest())
    # In units of what an equal split reaches: the solver's tolerances are absolute.
    loads = tunnels.usage @ sparse.diags(demand[tunnels.pair_of] / scale)
    program = LinearProgram()
    shares = program.add_variables(np.zeros(len(tunnels.paths)))
    peak = program.add_variables(np.ones(1))
    program.add_rows(-UNLIMITED, 0.0, [Term(shares, loads), Term(peak, np.full((len(tunnels.links), 1), -1.0))])
    program.add_rows(1.0, 1.0, [Term(shares, sums_of(tunnels.pair_of))])
    solved = program.solve()
    if solved is None:
        raise RoutingError("the linear program of a matrix has no solution")
    splits = tidy(tunnels, solved.values[shares])
    return Optimum(float(tunnels.mlu(splits, demand)[0]), splits)


def tidy(tunnels: Tunnels, splits: Floats) -> Floats:
    """Splits without the solver's dust: at least 0, and adding up to 1 for each pair."""
    splits = np.where(splits < 1e-9, 0.0, splits)
    return np.asarray(splits / np.bincount(tunnels.pair_of, splits)[tunnels.pair_of])

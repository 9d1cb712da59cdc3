"""Networks to route on, and a careful walk through them that trusts nothing."""

import networkx as nx
import numpy as np

from orchestrator.optimise import Install, Message, Remove, Shift, Tunnels, shortest_paths, tunnels


def diamond(upper: float = 10.0, lower: float = 10.0) -> Tunnels:
    """Node 0 to node 3 over 1 (upper) or over 2 (lower), and back over 1."""
    capacity = {(0, 1): upper, (1, 3): upper, (0, 2): lower, (2, 3): lower, (3, 1): upper, (1, 0): upper}
    return tunnels({(0, 3): [(0, 1, 3), (0, 2, 3)], (3, 0): [(3, 1, 0)]}, capacity)


def random_net(rng: np.random.Generator, nodes: int = 8, pairs: int = 15) -> Tunnels:
    """A ring with chords both ways, capacities 5 to 20, and pairs over up to 3 shortest paths."""
    graph = nx.cycle_graph(nodes)
    graph.add_edges_from(rng.integers(0, nodes, (nodes, 2)).tolist())
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    capacity = {hop: float(rng.uniform(5, 20)) for a, b in graph.edges for hop in ((a, b), (b, a))}
    ends = [(a, b) for a in range(nodes) for b in range(nodes) if a != b]
    chosen = [ends[place] for place in rng.permutation(len(ends))[:pairs]]
    return tunnels(shortest_paths(capacity, chosen, 3), capacity)


def random_splits(rng: np.random.Generator, net: Tunnels) -> np.ndarray:
    """Shares of each pair, some of them 0."""
    raw = rng.exponential(1.0, len(net.paths)) * (rng.random(len(net.paths)) < 0.7)
    raw[net.first] += 1e-3 * (np.bincount(net.pair_of, raw) == 0)
    return np.asarray(raw / np.bincount(net.pair_of, raw)[net.pair_of])


class Switches:
    """Rules at the nodes of the network, and where traffic would go just now."""

    def __init__(self, net: Tunnels, splits: np.ndarray) -> None:
        self.net, self.splits = net, splits.copy()
        used = [net.paths[place] for place in np.flatnonzero(splits > 0)]
        self.rules = {(path, node): path[at + 1] for path in used for at, node in enumerate(path[1:-1], 1)}

    def take(self, message: Message) -> None:
        """Obeys one message."""
        if isinstance(message, Install):
            self.rules[message.path, message.node] = message.towards
        elif isinstance(message, Remove):
            del self.rules[message.path, message.node]
        else:
            assert isinstance(message, Shift)
            pair = self.net.pairs.index(message.pair)
            self.splits[self.net.pair_of == pair] = message.shares

    def lost(self) -> list[tuple[int | str, ...]]:
        """Paths that carry traffic which does not arrive, hop by hop, at the pair's end."""
        return [self.net.paths[place] for place in np.flatnonzero(self.splits > 0) if not self._arrives(place)]

    def _arrives(self, place: int) -> bool:
        path, (_, end) = self.net.paths[place], self.net.pairs[self.net.pair_of[place]]
        at, visited = path[1], {path[0]}
        while at != end:
            if at in visited or (path, at) not in self.rules:
                return False
            visited.add(at)
            at = self.rules[path, at]
        return True

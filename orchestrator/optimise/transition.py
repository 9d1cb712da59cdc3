"""Orders the changes from one set of splits to the next so that no link is ever promised more than it has."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

from orchestrator.optimise.model import UNLIMITED, LinearProgram, Term, sums_of
from orchestrator.optimise.paths import Floats, Hop, Ints, Node, Path, Tunnels, tidy

MOST_STAGES = 4
MARGIN = 1e-7


class SplitEnds(NamedTuple):
    """The splits (P each) that a change leads from and to."""

    old: Floats
    new: Floats


def stages(tunnels: Tunnels, ends: SplitEnds, demand: Floats, ceiling: Floats, pairs: Ints) -> list[Floats]:
    """Splits from the first end to the second such that between neighbours the shifts of `pairs` may come in any order.

    That holds when every path at its larger share of the two, all together, fits below each link's ceiling: with a
    slack of s on each link 1 / s - 1 stages between are enough (Hong et al., SIGCOMM 2013). Empty when 4 are not.
    """
    for between in range(1, MOST_STAGES + 1):
        found = _through(_Part(tunnels, ends, demand, pairs), ceiling, between)
        if found:
            return [*found, ends.new]
    return []


class _Part:
    """The pairs that are on their way, and what all others put on the links."""

    def __init__(self, tunnels: Tunnels, ends: SplitEnds, demand: Floats, pairs: Ints) -> None:
        self.tunnels, self.ends = tunnels, ends
        moving = np.zeros(len(tunnels.pairs), dtype=bool)
        moving[pairs] = True
        self.paths = np.flatnonzero(moving[tunnels.pair_of])
        self.pair = np.searchsorted(np.flatnonzero(moving), tunnels.pair_of[self.paths])
        still = np.where(moving[tunnels.pair_of], 0.0, ends.old)
        self.base = tunnels.utilisation(still, demand)
        traffic = demand[tunnels.pair_of[self.paths]]
        self.loads = (tunnels.usage[:, self.paths] @ sparse.diags(traffic)).tocsr()


def _through(part: _Part, ceiling: Floats, between: int) -> list[Floats]:
    """Splits of so many stages between; [] where there are none. Per crossing: the larger of its two stages fits."""
    program, size = LinearProgram(), len(part.paths)
    shares = [program.add_variables(np.zeros(size), upper=1.0) for _ in range(between)]
    sums, one = sums_of(part.pair), sparse.eye_array(size)
    for crossing in range(between + 1):
        larger = program.add_variables(np.zeros(size), upper=1.0)
        for stage in (crossing - 1, crossing):
            if 0 <= stage < between:
                program.add_rows(-UNLIMITED, 0.0, [Term(shares[stage], one), Term(larger, -one)])
            else:
                end = (part.ends.old if stage < 0 else part.ends.new)[part.paths]
                program.add_rows(end, UNLIMITED, [Term(larger, one)])
        program.add_rows(-UNLIMITED, ceiling - MARGIN - part.base, [Term(larger, part.loads)])
    for columns in shares:
        program.add_rows(1.0, 1.0, [Term(columns, sums)])
    solved = program.solve()
    return [] if solved is None else [_whole(part, solved.values[columns]) for columns in shares]


def _whole(part: _Part, shares: Floats) -> Floats:
    splits = part.ends.old.copy()
    splits[part.paths] = shares
    return tidy(part.tunnels, splits)


# A shift that can only be done in part is worth a message from this share of it on.
LEAST_PART = 0.05
# A link may be this much above its ceiling: the arithmetic's error, not traffic.
TOLERANCE = 1e-9
MOST_PASSES = 50


@dataclass(frozen=True, slots=True)
class Install:
    """Teach a node on the way where a path goes on: traffic comes only once every later node knows."""

    path: Path
    node: Node
    towards: Node


@dataclass(frozen=True, slots=True)
class Shift:
    """Give a pair these shares over its paths, at its first node, in one message."""

    pair: Hop
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a path that carries nothing any more."""

    path: Path
    node: Node


Message = Install | Shift | Remove


@dataclass(frozen=True, slots=True)
class Update:
    """Messages in order, and the pairs that could not be brought to their new splits without congestion."""

    messages: tuple[Message, ...]
    splits: Floats
    left: tuple[Hop, ...] = ()


@dataclass(slots=True)
class _Move:
    """Where the splits are on their way, and what each link may carry until the end."""

    tunnels: Tunnels
    splits: Floats
    target: Floats
    demand: Floats
    ceiling: Floats
    load: Floats
    shifts: list[tuple[int, Floats]] = field(default_factory=list)

    def pending(self) -> Ints:
        """Pairs that are not yet where they should be, the ones that relieve the fullest links first."""
        away = np.abs(self.splits - self.target) > TOLERANCE
        pairs = np.unique(self.tunnels.pair_of[away])
        change = (self.target - self.splits) * self.demand[self.tunnels.pair_of]
        full = np.clip(self.load / self.ceiling, 0.0, None) ** 8
        relief = np.bincount(self.tunnels.pair_of, change * (self.tunnels.usage.T @ full))
        return np.asarray(pairs[np.argsort(relief[pairs], kind="stable")])

    def room(self, pair: int) -> tuple[float, Floats]:
        """The share of its change that a pair may make now, and what that change does to each link."""
        paths = self._paths(pair)
        change = (self.target - self.splits)[paths] * self.demand[pair]
        delta = np.asarray(self.tunnels.usage[:, paths] @ change)
        rising = delta > TOLERANCE
        free = self.ceiling[rising] + TOLERANCE - self.load[rising]
        return float(min(1.0, (free / delta[rising]).min(initial=1.0))), delta

    def shift(self, pair: int, shares: Floats, delta: Floats) -> None:
        """Notes a shift as done."""
        self.splits[self._paths(pair)] = shares
        self.load = self.load + delta
        self.shifts.append((pair, shares))

    def shares(self, pair: int, part: float) -> Floats:
        """The pair's shares after that part of its change."""
        paths = self._paths(pair)
        if part >= 1:
            return self.target[paths].copy()
        return np.asarray(self.splits[paths] + part * (self.target - self.splits)[paths])

    def _paths(self, pair: int) -> slice:
        first = int(self.tunnels.first[pair])
        return slice(first, first + int(self.tunnels.count[pair]))


def steps(tunnels: Tunnels, old: Floats, new: Floats, demand: Floats) -> Update:
    """Messages that lead from `old` to `new` splits (P each), at a demand (N) that must hold all the while.

    After every message each link carries at most its capacity, or what it had before or will have after where that
    is more. Whole shifts first, then parts of shifts, then detours over intermediate splits found by a linear program
    (as SWAN does: Hong et al., SIGCOMM 2013). What even that cannot reach is left and named. A path's rules are there
    before its first traffic and go after its last, so that nothing loops or gets lost.
    """
    before, after = tunnels.utilisation(old, demand), tunnels.utilisation(new, demand)
    ceiling = np.maximum(1.0, np.maximum(before, after))
    move = _Move(tunnels, old.copy(), new, demand, ceiling, before)
    _walk(move)
    pending = move.pending()
    if len(pending):
        _detour(move, pending)
    left = tuple(tunnels.pairs[pair] for pair in move.pending())
    return Update(tuple(_messages(tunnels, old, move)), move.splits, left)


def _walk(move: _Move) -> None:
    for _ in range(MOST_PASSES):
        whole = _pass(move, 1.0)
        if not whole and not _pass(move, LEAST_PART):
            return


def _pass(move: _Move, least: float) -> int:
    done = 0
    for pair in move.pending():
        part, delta = move.room(pair)
        if part >= least:
            move.shift(pair, move.shares(pair, part), delta * part)
            done += 1
    return done


def _detour(move: _Move, pending: Ints) -> None:
    for splits in stages(move.tunnels, SplitEnds(move.splits, move.target), move.demand, move.ceiling, pending):
        goal, move.target = move.target, splits
        for pair in move.pending():
            _, delta = move.room(pair)
            move.shift(pair, move.shares(pair, 1.0), delta)
        move.target = goal


def _messages(tunnels: Tunnels, old: Floats, move: _Move) -> Iterator[Message]:
    ever = old > 0
    used = ever.copy()
    for pair, shares in move.shifts:
        first = tunnels.first[pair]
        used[first : first + len(shares)] |= shares > 0
    for path in np.flatnonzero(used & ~ever):
        nodes = tunnels.paths[path]
        yield from (Install(nodes, node, towards) for node, towards in reversed(list(pairwise(nodes))[1:]))
    for pair, shares in move.shifts:
        yield Shift(tunnels.pairs[pair], tuple(shares.tolist()))
    for path in np.flatnonzero(used & (move.splits <= 0)):
        nodes = tunnels.paths[path]
        yield from (Remove(nodes, node) for node in nodes[1:-1])


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

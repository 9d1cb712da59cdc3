"""The same question to an optimiser (HiGHS): exact on what it may choose from, within a time limit, with a bound."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

from orchestrator.optimise.model import UNLIMITED, LinearProgram, Solution, Term, sums_of
from orchestrator.optimise.placement import Bools, Floats, Ints, Problem, cost, loads, shortage
from orchestrator.optimise.placement_greedy import improve

# So many destinations each guest may choose from, besides where it is and where the greedy answer puts it.
CHOICES = 6
# A guest that stays on a closed host costs this much: more than any move, less than an infeasible problem.
STAYING_CLOSED = 1e4
GAP = 1e-3
# Binary variables of one program: with so many HiGHS is done in some tenths of a second.
LARGEST = 600


@dataclass(frozen=True, slots=True)
class Solved:
    """An answer (guest -> host), whether it is proven best among the choices given, and who found it."""

    where: Ints
    proven: bool
    by: str


@dataclass(frozen=True, slots=True)
class _Choices:
    """What may change: parallel arrays of (guest, host) pairs, one binary variable each."""

    guest: Ints
    host: Ints


def solve(problem: Problem, time_limit_s: float = 1.0, choices: int = CHOICES) -> Solved:
    """The cheapest answer that HiGHS finds within the limit, never dearer than the greedy one, which is the fallback.

    In large problems guests on hosts that will not be short stay where they are, and the others choose among up to
    2 * `choices` hosts, the nearest and those with most room. What is too large for one
    program is improved part by part, a few of the greedy answer's origins at a time with all else as it stands.
    """
    greedy = improve(problem)
    open_ones = _choices(problem, greedy, choices)
    if not len(open_ones.guest):
        return Solved(greedy, proven=True, by="greedy")
    parts = _parts(problem, open_ones)
    where, proven = greedy, len(parts) == 1
    for part in parts:
        found = _optimised(problem, where, part, time_limit_s / len(parts))
        if found is not None and _judged(problem, found.where) <= _judged(problem, where):
            where, proven = found.where, proven and found.proven
        else:
            proven = False
    return Solved(where, proven, "greedy" if where is greedy else "milp")


def _parts(problem: Problem, choices: _Choices) -> list[_Choices]:
    """Choices by today's host of their guests, a few hosts at a time; hosts follow one another by number."""
    order = np.argsort(problem.now[choices.guest], kind="stable")
    guest, host = choices.guest[order], choices.host[order]
    parts = max(1, round(len(guest) / LARGEST))
    edges = [0]
    for number in range(1, parts):
        home = problem.now[guest]
        # A host's guests are not torn apart, or one part could not see what the other leaves.
        edges.append(int(np.searchsorted(home, home[number * len(guest) // parts])))
    edges = [*dict.fromkeys(edges), len(guest)]
    return [_Choices(guest[first:last], host[first:last]) for first, last in pairwise(edges)]


def _judged(problem: Problem, where: Ints) -> float:
    return cost(problem, where).total + STAYING_CLOSED * float((problem.closed[where] & problem.movable).sum())


def _troubled(problem: Problem) -> Ints:
    """Movable guests with a reason to move; in a small problem all of them, as one may have to make room."""
    if problem.guests * problem.hosts <= LARGEST:
        return np.flatnonzero(problem.movable)
    rows = np.arange(problem.guests)
    short = shortage(problem, loads(problem, problem.now)) > 0
    far = problem.moving[rows, problem.now] > problem.moving.min(axis=1)
    reason = short[problem.now] | problem.closed[problem.now] | far | _crowded(problem)
    troubled: Ints = np.flatnonzero(problem.movable & reason)
    return troubled


def _crowded(problem: Problem) -> Bools:
    """Guests that share a host with one from whom they must stay apart."""
    grouped = np.flatnonzero(problem.apart >= 0)
    _, group, count = np.unique(
        problem.apart[grouped] * problem.hosts + problem.now[grouped], return_inverse=True, return_counts=True
    )
    crowded = np.zeros(problem.guests, dtype=bool)
    crowded[grouped] = count[group] > 1
    return crowded


def _choices(problem: Problem, greedy: Ints, count: int) -> _Choices:
    # Room is judged in the worst scenario, in shares of capacity, by the resource that is scarcest.
    room = (1.0 - loads(problem, greedy) / problem.capacity).min(axis=(0, 1))
    room = np.where(problem.closed, -np.inf, room)
    found: set[tuple[int, int]] = set()
    for guest in np.union1d(_troubled(problem), np.flatnonzero(greedy != problem.now)):
        allowed = np.isfinite(problem.moving[guest]) & ~problem.closed
        near = np.argsort(np.where(allowed, problem.moving[guest] - 1e-3 * room, np.inf), kind="stable")[:count]
        roomy = np.argsort(np.where(allowed, -room, np.inf), kind="stable")[:count]
        hosts = {int(problem.now[guest]), int(greedy[guest]), *map(int, near), *map(int, roomy)}
        found |= {(int(guest), host) for host in hosts if allowed[host] or host == problem.now[guest]}
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    return _Choices(pairs[:, 0], pairs[:, 1])


class _Optimised(NamedTuple):
    """An answer of the optimiser (guest -> host), and whether it is proven best among its choices."""

    where: Ints
    proven: bool


def _optimised(problem: Problem, base: Ints, choices: _Choices, time_limit_s: float) -> _Optimised | None:
    solved = _ChoiceProgram(problem, base, choices).solve(time_limit_s)
    if solved is None:
        return None
    where = base.copy()
    chosen = solved.values[: len(choices.guest)] > 0.5
    where[choices.guest[chosen]] = choices.host[chosen]
    return _Optimised(where, solved.proven)


class _ChoiceProgram:
    """One binary variable for each choice, and what each host is short of in each scenario and resource."""

    def __init__(self, problem: Problem, base: Ints, choices: _Choices) -> None:
        self._problem, self._base, self._choices = problem, base, choices
        self._hosts, self._place = np.unique(choices.host, return_inverse=True)
        self._fixed = np.ones(problem.guests, dtype=bool)
        self._fixed[choices.guest] = False
        self._program = LinearProgram()
        price = problem.moving[choices.guest, choices.host] + STAYING_CLOSED * problem.closed[choices.host]
        self._chosen = self._program.add_variables(price, upper=1.0, integer=True)
        _, guest = np.unique(choices.guest, return_inverse=True)
        self._program.add_rows(1.0, 1.0, [Term(self._chosen, sums_of(guest))])
        self._fit_memory()
        self._keep_apart()
        self._price_shortages()

    def solve(self, time_limit_s: float) -> Solution | None:
        """The choices first, then shortages."""
        return self._program.solve(time_limit_s, GAP)

    def _staying(self, weights: Floats) -> Floats:
        """Per involved host: the sum of weights of guests that have no choice."""
        fixed, hosts = self._fixed, self._problem.hosts
        held = np.bincount(self._base[fixed], weights=weights[fixed], minlength=hosts)
        return np.asarray(held, dtype=np.float64)[self._hosts]

    def _fit_memory(self) -> None:
        problem = self._problem
        # A host that is over-full today may stay so, but takes nobody.
        today = np.bincount(problem.now, weights=problem.memory, minlength=problem.hosts)[self._hosts]
        room = np.maximum(problem.memory_capacity[self._hosts], today) - self._staying(problem.memory)
        filled = sums_of(self._place, problem.memory[self._choices.guest])
        self._program.add_rows(-UNLIMITED, room, [Term(self._chosen, filled)])

    def _keep_apart(self) -> None:
        problem, choices = self._problem, self._choices
        group = problem.apart[choices.guest]
        member = np.flatnonzero(group >= 0)
        if not len(member):
            return
        keys, rows = np.unique(group[member] * problem.hosts + choices.host[member], return_inverse=True)
        held = np.flatnonzero(self._fixed & (problem.apart >= 0))
        taken = np.isin(keys, problem.apart[held] * problem.hosts + self._base[held])
        # Rivals that cannot both leave today are borne with: nobody may join them.
        able = np.zeros(len(keys))
        stays = problem.now[choices.guest[member]] == choices.host[member]
        np.add.at(able, rows, stays & ~problem.movable[choices.guest[member]])
        most = np.where(taken, 0.0, np.maximum(1.0, able))
        self._program.add_rows(-UNLIMITED, most, [Term(self._chosen[member], sums_of(rows))])

    def _price_shortages(self) -> None:
        """Load on a host minus what it is short of must not exceed its capacity."""
        problem = self._problem
        scenarios, resources, _ = problem.need.shape
        each = sparse.eye_array(len(self._hosts))
        for scenario, resource in np.ndindex(scenarios, resources):
            need = problem.need[scenario, resource]
            short = self._program.add_variables(np.full(len(self._hosts), problem.price[resource] / scenarios))
            loads = Term(self._chosen, sums_of(self._place, need[self._choices.guest]))
            room = problem.capacity[resource, self._hosts] - self._staying(need)
            self._program.add_rows(-UNLIMITED, room, [loads, Term(short, -each)])


def lower_bound(problem: Problem, time_limit_s: float = 5.0) -> float:
    """No answer can cost less: every guest may leave its host at its cheapest price, as if all others had room.

    Hosts then depend on one another only in that all of them together cannot carry more than they have: each is a
    small knapsack of whom to send away, and what HiGHS proves about them all is the bound.
    """
    rows = np.arange(problem.guests)
    away = problem.moving.copy()
    away[rows, problem.now] = np.inf
    away[:, problem.closed] = np.inf
    leave, stay = away.min(axis=1), problem.moving[rows, problem.now]
    able = problem.movable & np.isfinite(leave)
    program, scenarios = LinearProgram(), problem.need.shape[0]
    # Who is able and on a closed host must leave.
    must = (able & problem.closed[problem.now]).astype(float)
    leaving = program.add_variables(np.where(able, leave - stay, 0.0), must, able.astype(float), integer=True)
    for scenario, resource in np.ndindex(scenarios, problem.need.shape[1]):
        need, capacity = problem.need[scenario, resource], problem.capacity[resource]
        short = program.add_variables(np.full(problem.hosts, problem.price[resource] / scenarios))
        # Per host: load less what leaves less what is short, at most the capacity.
        room = capacity - np.bincount(problem.now, need, minlength=problem.hosts)
        left = Term(leaving, -sums_of(problem.now, need, problem.hosts))
        program.add_rows(-UNLIMITED, room, [left, Term(short, -sparse.eye_array(problem.hosts))])
        # What hosts are short of together is at least what they all lack together.
        lack = max(0.0, float(need.sum() - capacity.sum()))
        program.add_rows(lack, UNLIMITED, [Term(short, np.ones((1, problem.hosts)))])
    solved = program.solve(time_limit_s, GAP)
    return (solved.bound if solved is not None else 0.0) + float(stay.sum())

"""The same question to an optimiser (HiGHS): exact on what it may choose from, within a time limit, with a bound."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

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
        if found is not None and _judged(problem, found[0]) <= _judged(problem, where):
            where, proven = found[0], proven and found[1]
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


def _optimised(problem: Problem, base: Ints, choices: _Choices, time_limit_s: float) -> tuple[Ints, bool] | None:
    hosts = np.unique(choices.host)
    rows = _Rows(len(choices.guest), hosts, (problem, base))
    rows.each_guest_once(choices)
    rows.memory_fits(choices)
    rows.groups_apart(choices)
    rows.shortages(choices)
    integrality = np.zeros(rows.columns)
    integrality[: len(choices.guest)] = 1
    upper = np.full(rows.columns, np.inf)
    upper[: len(choices.guest)] = 1.0
    result = milp(
        rows.objective(choices),
        integrality=integrality,
        bounds=Bounds(0.0, upper),
        constraints=rows.constraint(),
        options={"time_limit": time_limit_s, "mip_rel_gap": GAP},
    )
    if result.x is None:
        return None
    where = base.copy()
    chosen = result.x[: len(choices.guest)] > 0.5
    where[choices.guest[chosen]] = choices.host[chosen]
    return where, bool(result.status == 0)


class _Rows:
    """Collects the constraints; columns are the choices, then shortages by scenario, resource and host."""

    def __init__(self, choices: int, hosts: Ints, given: tuple[Problem, Ints]) -> None:
        self._problem, self._base = problem, _ = given
        self._hosts = hosts
        self._place = np.full(problem.hosts, -1)
        self._place[hosts] = np.arange(len(hosts))
        self._first_short = choices
        self._scenarios, self._resources, _ = problem.need.shape
        self.columns = choices + self._scenarios * self._resources * len(hosts)
        self._entries: list[tuple[Ints, Ints, Floats]] = []
        self._low: list[Floats] = []
        self._high: list[Floats] = []
        self._count = 0

    def _add(self, entries: tuple[Any, Any, Any], low: Any, high: Any) -> None:
        rows, columns, values = entries
        self._entries.append((rows + self._count, columns, values))
        self._low.append(low)
        self._high.append(high)
        self._count += len(high)

    def each_guest_once(self, choices: _Choices) -> None:
        guests, rows = np.unique(choices.guest, return_inverse=True)
        ones = np.ones(len(guests))
        self._add((rows, np.arange(len(rows)), np.ones(len(rows))), ones, ones)

    def _staying(self, choices: _Choices, weights: Floats) -> Floats:
        """Per involved host: the sum of weights of guests that have no choice."""
        fixed = np.ones(self._problem.guests, dtype=bool)
        fixed[choices.guest] = False
        held = np.bincount(self._base[fixed], weights=weights[fixed], minlength=self._problem.hosts)
        return np.asarray(held, dtype=np.float64)[self._hosts]

    def memory_fits(self, choices: _Choices) -> None:
        problem = self._problem
        # A host that is over-full today may stay so, but takes nobody.
        today = np.bincount(problem.now, weights=problem.memory, minlength=problem.hosts)[self._hosts]
        room = np.maximum(problem.memory_capacity[self._hosts], today) - self._staying(choices, problem.memory)
        entries = self._place[choices.host], np.arange(len(choices.guest)), problem.memory[choices.guest]
        self._add(entries, np.full(len(room), -np.inf), room)

    def groups_apart(self, choices: _Choices) -> None:
        problem = self._problem
        group = problem.apart[choices.guest]
        member = np.flatnonzero(group >= 0)
        if not len(member):
            return
        keys, rows = np.unique(group[member] * problem.hosts + choices.host[member], return_inverse=True)
        fixed = np.ones(problem.guests, dtype=bool)
        fixed[choices.guest] = False
        held = np.flatnonzero(fixed & (problem.apart >= 0))
        taken = np.isin(keys, problem.apart[held] * problem.hosts + self._base[held])
        # Rivals that cannot both leave today are borne with: nobody may join them.
        able = np.zeros(len(keys))
        stays = problem.now[choices.guest[member]] == choices.host[member]
        np.add.at(able, rows, stays & ~problem.movable[choices.guest[member]])
        high = np.where(taken, 0.0, np.maximum(1.0, able))
        self._add((rows, member, np.ones(len(member))), np.full(len(keys), -np.inf), high)

    def shortages(self, choices: _Choices) -> None:
        """Load on a host minus what it is short of must not exceed its capacity."""
        problem, count = self._problem, len(self._hosts)
        here = self._place[choices.host]
        for scenario in range(self._scenarios):
            for resource in range(self._resources):
                need = problem.need[scenario, resource]
                first = self._first_short + (scenario * self._resources + resource) * count
                rows = np.concatenate([here, np.arange(count)])
                columns = np.concatenate([np.arange(len(here)), first + np.arange(count)])
                values = np.concatenate([need[choices.guest], -np.ones(count)])
                high = problem.capacity[resource, self._hosts] - self._staying(choices, need)
                self._add((rows, columns, values), np.full(count, -np.inf), high)

    def objective(self, choices: _Choices) -> Floats:
        problem = self._problem
        price = problem.moving[choices.guest, choices.host] + STAYING_CLOSED * problem.closed[choices.host]
        short = np.repeat(np.tile(problem.price, self._scenarios), len(self._hosts)) / self._scenarios
        return np.concatenate([price, short])

    def constraint(self) -> LinearConstraint:
        rows, columns, values = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        matrix = csr_array((values, (rows, columns)), shape=(self._count, self.columns))
        return LinearConstraint(matrix, np.concatenate(self._low), np.concatenate(self._high))


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
    scenarios, resources, _ = problem.need.shape
    size = scenarios * resources * problem.hosts
    short = np.repeat(np.tile(problem.price, scenarios), problem.hosts) / scenarios
    upper = np.concatenate([able.astype(float), np.full(size, np.inf)])
    result = milp(
        np.concatenate([np.where(able, leave - stay, 0.0), short]),
        integrality=np.concatenate([able.astype(float), np.zeros(size)]),
        bounds=Bounds(np.concatenate([able * problem.closed[problem.now], np.zeros(size)]), upper),
        constraints=[_departures(problem), _in_all(problem)],
        options={"time_limit": time_limit_s, "mip_rel_gap": GAP},
    )
    return float(result.mip_dual_bound) + float(stay.sum())


def _departures(problem: Problem) -> LinearConstraint:
    """Per scenario, resource and host: load less what leaves less what is short, at most the capacity."""
    scenarios, resources, _ = problem.need.shape
    index = np.arange(scenarios * resources * problem.hosts)
    entries: list[tuple[Ints, Ints, Floats]] = [(index, problem.guests + index, -np.ones(len(index)))]
    high = []
    for number in range(scenarios * resources):
        need = problem.need[number // resources, number % resources]
        entries.append((number * problem.hosts + problem.now, np.arange(problem.guests), -need))
        high.append(problem.capacity[number % resources] - np.bincount(problem.now, need, minlength=problem.hosts))
    rows, columns, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = csr_array((values, (rows, columns)), shape=(len(index), problem.guests + len(index)))
    return LinearConstraint(matrix, np.full(len(index), -np.inf), np.concatenate(high))


def _in_all(problem: Problem) -> LinearConstraint:
    """Per scenario and resource: what hosts are short of together is at least what they all lack together."""
    scenarios, resources, _ = problem.need.shape
    index = np.arange(scenarios * resources * problem.hosts)
    matrix = csr_array(
        (np.ones(len(index)), (index // problem.hosts, problem.guests + index)),
        shape=(scenarios * resources, problem.guests + len(index)),
    )
    lack = (problem.need.sum(axis=-1) - problem.capacity.sum(axis=-1)).reshape(-1)
    return LinearConstraint(matrix, np.maximum(lack, 0.0), np.full(len(lack), np.inf))

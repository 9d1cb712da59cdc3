"""States what is to be placed, and what an answer costs; every solver is judged by this one file."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
NOWHERE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Guests (V) on hosts (H) with R elastic resources in S equally likely scenarios.

    `need` is S x R x V and `capacity` R x H in the same units (say cores, bytes/s): short of these, guests are slow.
    `memory` (V) and `memory_capacity` (H) are hard: a host without room cannot take a guest at all.
    `price` (R) is the cost of one unit short, `moving` (V x H) that of having the guest on that host, 0 where it
    is now unless another host is nearer to those who will call it (then its own entry is above 0), infinite where
    it may not go. `apart` (V) numbers groups of which a host may carry one member at most, -1 for none.
    `closed` (H) tells hosts under maintenance: they take no one and should be left.
    """

    need: Floats
    capacity: Floats
    memory: Floats
    memory_capacity: Floats
    price: Floats
    moving: Floats
    now: Ints
    movable: Bools
    apart: Ints
    closed: Bools

    @property
    def guests(self) -> int:
        """Number of guests."""
        return len(self.now)

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return len(self.memory_capacity)


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer costs: `shortage` is expected and priced, `moving` what the moves cost, `moves` how many."""

    shortage: float
    moving: float
    moves: int

    @property
    def total(self) -> float:
        """What solvers minimise."""
        return self.shortage + self.moving


def loads(problem: Problem, where: Ints) -> Floats:
    """S x R x H: what each host has to carry when guest v is on host `where[v]`."""
    scenarios, resources, _ = problem.need.shape
    carried = np.zeros((scenarios, resources, problem.hosts))
    for scenario in range(scenarios):
        for resource in range(resources):
            weights = problem.need[scenario, resource]
            carried[scenario, resource] = np.bincount(where, weights=weights, minlength=problem.hosts)
    return carried


def shortage(problem: Problem, carried: Floats) -> Floats:
    """Hosts' expected priced shortage (H) at loads S x R x H."""
    short = np.maximum(carried - problem.capacity, 0.0).mean(axis=0)
    priced: Floats = problem.price @ short
    return priced


def cost(problem: Problem, where: Ints) -> Cost:
    """The price of an answer (guest -> host)."""
    moving = float(problem.moving[np.arange(problem.guests), where].sum())
    short = float(shortage(problem, loads(problem, where)).sum())
    return Cost(short, moving, int((where != problem.now).sum()))


def problems_of(problem: Problem, where: Ints) -> list[str]:
    """What forbids an answer; [] when nothing does. What is wrong already today is no fault of an answer."""
    found = []
    moved = where != problem.now
    if (moved & ~problem.movable).any():
        found.append("moves a guest that may not move")
    if np.isinf(problem.moving[np.flatnonzero(moved), where[moved]]).any() or problem.closed[where[moved]].any():
        found.append("moves a guest to where it may not go")
    held = np.bincount(where, weights=problem.memory, minlength=problem.hosts)
    before = np.bincount(problem.now, weights=problem.memory, minlength=problem.hosts)
    if (held > np.maximum(problem.memory_capacity, before) + 1e-6).any():
        found.append("fills a host's memory beyond its capacity")
    if _crowds(problem, where) - _crowds(problem, problem.now):
        found.append("puts guests together that must stay apart")
    return found


def _crowds(problem: Problem, where: Ints) -> set[tuple[int, int]]:
    grouped = problem.apart >= 0
    places, counts = np.unique(np.stack([problem.apart[grouped], where[grouped]]), axis=1, return_counts=True)
    return {(int(group), int(host)) for (group, host), count in zip(places.T, counts, strict=True) if count > 1}


def merged(problem: Problem, together: Ints) -> tuple[Problem, Ints]:
    """Guests with the same number >= 0 in `together` (V) become one that moves as a whole.

    Returns the smaller problem and, for each old guest, its number there. A group that is scattered today is
    counted where its first member is; raises ValueError when members of one group must also stay apart.
    """
    keys = np.where(together >= 0, together, together.max(initial=0) + 1 + np.arange(problem.guests))
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == problem.guests:
        return problem, np.arange(problem.guests)
    apart = np.full(len(first), NOWHERE)
    for guest in np.flatnonzero(problem.apart >= 0):
        unit = inverse[guest]
        if apart[unit] not in (NOWHERE, problem.apart[guest]) or (np.flatnonzero(inverse == unit) != guest).any():
            raise ValueError("guests that must stay together belong to a group that must stay apart")
        apart[unit] = problem.apart[guest]
    small = replace(
        problem,
        need=_summed(problem.need, inverse, len(first)),
        memory=_summed(problem.memory, inverse, len(first)),
        moving=_summed(problem.moving.T, inverse, len(first)).T,
        now=problem.now[first],
        movable=np.bincount(inverse, weights=~problem.movable) == 0,
        apart=apart,
    )
    return small, inverse


def _summed(values: Any, inverse: Ints, units: int) -> Floats:
    """Sums of the last axis over the members of each unit."""
    flat = values.reshape(-1, values.shape[-1])
    sums = np.stack([np.bincount(inverse, weights=row, minlength=units) for row in flat])
    return sums.astype(float).reshape(*values.shape[:-1], units)

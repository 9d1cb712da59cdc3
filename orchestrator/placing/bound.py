"""Says what no answer can undercut, so that a gap can be shown even where nothing is proven best."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from orchestrator.placing.milp import GAP
from orchestrator.placing.problem import Floats, Ints, Problem


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

"""Placing machines on hosts: seconds of the greedy answer and of the optimiser, and how far both are from the best."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from orchestrator.optimise import Problem, cost, improve, lower_bound, problems_of, solve
from tools.bench.figures import BenchTarget, Result

LIMIT_S = 2.0
# What the optimiser may take of it; the rest is for finding and checking the greedy answer.
OPTIMISER_S = 1.2
CORES, MEMORY_GIB, NETWORK_BYTES_PER_S = 32.0, 128.0, 1.25e9
# A share of hosts this large is about to run short: made so, or there would be nothing to plan.
BUSY_SHARE, BUSY_FACTOR = 0.15, 2.2
Answer = TypeVar("Answer")


def scene(hosts: int, vms: int, seed: int) -> Problem:
    """A made-up data centre at half load, of which some hosts are about to run short and one is to be emptied."""
    rng = np.random.default_rng(seed)
    now = rng.integers(0, hosts, vms)
    typical = 0.5 * CORES * hosts / vms
    cores = rng.gamma(2.0, typical / 2.0, vms) * np.where((rng.random(hosts) < BUSY_SHARE)[now], BUSY_FACTOR, 1.0)
    network = cores * NETWORK_BYTES_PER_S / CORES * rng.uniform(0.2, 1.2, vms)
    # Forecast quantiles as scenarios: a usual, a high and a very high demand, each machine with its own spread.
    spread = rng.uniform(0.05, 0.4, vms)
    need = np.stack([np.stack([cores * (1 + k * spread), network * (1 + k * spread)]) for k in (0.0, 0.7, 1.6)])
    memory = rng.choice([2.0, 4.0, 8.0], vms, p=[0.5, 0.35, 0.15]) * min(1.0, 9.0 * hosts / vms)
    priority = rng.integers(0, 3, vms)
    # Copying costs by size, and disturbing what matters costs more.
    moving = np.repeat((0.05 * memory * (1 + priority))[:, None], hosts, axis=1)
    moving[np.arange(vms), now] = 0.0
    return Problem(
        need=need,
        capacity=np.stack([np.full(hosts, CORES), np.full(hosts, NETWORK_BYTES_PER_S)]),
        memory=memory,
        memory_capacity=np.full(hosts, MEMORY_GIB),
        price=np.array([1.0, 1.0 / (NETWORK_BYTES_PER_S / CORES)]),
        moving=moving,
        now=now,
        movable=rng.random(vms) < 0.85,
        apart=np.where(rng.random(vms) < 0.1, rng.integers(0, max(1, vms // 20), vms), -1),
        closed=np.arange(hosts) == 0,
    )


def measure(hosts: int, vms: int, seed: int) -> Result:
    """Both answers on the same scene; costs are in cores short, moves included."""
    problem = scene(hosts, vms, seed)
    greedy, greedy_s = _timed(lambda: improve(problem))
    solved, solve_s = _timed(lambda: solve(problem, OPTIMISER_S))
    bound, bound_s = _timed(lambda: lower_bound(problem))
    wrong = [*problems_of(problem, greedy), *problems_of(problem, solved.where)]
    if wrong:
        raise AssertionError(f"an answer {wrong[0]}")
    before, cheap, best = (cost(problem, where) for where in (problem.now, greedy, solved.where))
    figures = {
        "hosts": float(hosts),
        "vms": float(vms),
        "cost_without_moves": before.total,
        "greedy_cost": cheap.total,
        "greedy_moves": float(cheap.moves),
        "greedy_seconds": greedy_s,
        "greedy_gap": _gap(cheap.total, bound),
        "milp_cost": best.total,
        "milp_moves": float(best.moves),
        "milp_seconds": solve_s,
        "milp_gap": _gap(best.total, bound),
        "milp_proven_among_its_choices": float(solved.proven),
        "lower_bound": bound,
        "lower_bound_seconds": bound_s,
    }
    targets = [
        BenchTarget("greedy, seconds", greedy_s, LIMIT_S, "lower"),
        BenchTarget("optimiser with its greedy start, seconds", solve_s, LIMIT_S, "lower"),
        BenchTarget("optimiser's cost in units of the greedy one's", best.total / max(cheap.total, 1e-9), 1.0, "lower"),
    ]
    return Result(figures, targets)


def _gap(total: float, bound: float) -> float:
    """How much dearer than what nothing can undercut, as a share."""
    return total / bound - 1.0 if bound > 0 else float(total > 1e-9)


def _timed(work: Callable[[], Answer]) -> tuple[Answer, float]:
    begun = time.perf_counter()
    answer = work()
    return answer, time.perf_counter() - begun

"""Which host should carry which guest: one problem, a greedy answer in milliseconds and an optimiser's next to it."""

from orchestrator.placing.bound import lower_bound
from orchestrator.placing.greedy import improve
from orchestrator.placing.milp import Solved, solve
from orchestrator.placing.problem import Cost, Problem, cost, merged, problems_of
from orchestrator.placing.shares import Rows, best_shares

__all__ = [
    "Cost",
    "Problem",
    "Rows",
    "Solved",
    "best_shares",
    "cost",
    "improve",
    "lower_bound",
    "merged",
    "problems_of",
    "solve",
]

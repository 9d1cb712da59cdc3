"""OPTIMISES: where guests should run, how connections are shared out, and how traffic is split over paths.

Placement: one problem, a greedy answer in milliseconds and an optimiser's next to it. Splits: `tunnels` (or
`shortest_paths` for them), a `Strategy` that sees matrices and decides splits (`auto` is the default), `optimum` to
judge it, and `steps` to get from one set of splits to the next without congestion.
"""

from orchestrator.optimise.dividing import place_pairs
from orchestrator.optimise.hedging import Hedge, hedge
from orchestrator.optimise.mixture import Learning, Mixed, auto, mixed
from orchestrator.optimise.paths import Optimum, RoutingError, Tunnels, optimum, shortest_paths, tunnels
from orchestrator.optimise.placement import Cost, Problem, cost, merged, problems_of
from orchestrator.optimise.placement_greedy import improve
from orchestrator.optimise.placement_milp import Solved, lower_bound, solve
from orchestrator.optimise.scenarios import (
    History,
    MeasuredMatrix,
    Risk,
    Scenarios,
    blended,
    history_for,
    measured,
    of_errors,
    of_quantiles,
    scenarios,
)
from orchestrator.optimise.shares import Rows, best_shares, fair_shares, headroom_bound
from orchestrator.optimise.split_strategies import (
    Ewma,
    Fixed,
    Habits,
    Hedged,
    LastMatrix,
    PointForecast,
    Strategy,
    scheduled,
)
from orchestrator.optimise.transition import Install, Message, Remove, Shift, SplitEnds, Update, first_batch, steps

__all__ = [
    "Cost",
    "Ewma",
    "Fixed",
    "Habits",
    "Hedge",
    "Hedged",
    "History",
    "Install",
    "LastMatrix",
    "Learning",
    "MeasuredMatrix",
    "Message",
    "Mixed",
    "Optimum",
    "PointForecast",
    "Problem",
    "Remove",
    "Risk",
    "RoutingError",
    "Rows",
    "Scenarios",
    "Shift",
    "Solved",
    "SplitEnds",
    "Strategy",
    "Tunnels",
    "Update",
    "auto",
    "best_shares",
    "blended",
    "cost",
    "fair_shares",
    "first_batch",
    "headroom_bound",
    "hedge",
    "history_for",
    "improve",
    "lower_bound",
    "measured",
    "merged",
    "mixed",
    "of_errors",
    "of_quantiles",
    "optimum",
    "place_pairs",
    "problems_of",
    "scenarios",
    "scheduled",
    "shortest_paths",
    "solve",
    "steps",
    "tunnels",
]

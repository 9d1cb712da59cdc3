"""DECIDES PATHS: splits each pair's traffic over its paths so that no guess about the traffic has to be right.

The door: `tunnels` (or `shortest_paths` for them), a `Strategy` that sees matrices and decides splits (`auto` is the
default), `optimum` to judge it, and `steps` to get from one set of splits to the next without congestion.
"""

from orchestrator.routing.hedged import Habits, Hedged, auto, scheduled
from orchestrator.routing.hedging import Hedge, hedge
from orchestrator.routing.oracle import Optimum, optimum
from orchestrator.routing.paths import RoutingError, Tunnels, shortest_paths, tunnels
from orchestrator.routing.risk import Risk, Scenarios, scenarios
from orchestrator.routing.scenarios import History, Seen, blended, history_for, measured, of_errors, of_quantiles
from orchestrator.routing.steps import Install, Message, Remove, Shift, Update, steps
from orchestrator.routing.strategies import Ewma, Fixed, LastMatrix, PointForecast, Strategy

__all__ = [
    "Ewma",
    "Fixed",
    "Habits",
    "Hedge",
    "Hedged",
    "History",
    "Install",
    "LastMatrix",
    "Message",
    "Optimum",
    "PointForecast",
    "Remove",
    "Risk",
    "RoutingError",
    "Scenarios",
    "Seen",
    "Shift",
    "Strategy",
    "Tunnels",
    "Update",
    "auto",
    "blended",
    "hedge",
    "history_for",
    "measured",
    "of_errors",
    "of_quantiles",
    "optimum",
    "scenarios",
    "scheduled",
    "shortest_paths",
    "steps",
    "tunnels",
]

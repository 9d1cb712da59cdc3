"""WHAT IF: replays recordings through the live predictor and planner, and says what they would have been worth.

The door of the room: `read` a `Recording`, make a `Plan`, run the `backtest`, write the `page`;
for routing `read_matrices`, `route` them, write the `route_page`.
"""

from backtest.machines import MachinePlan, replay_machines
from backtest.page import page
from backtest.reading import Recording, RecordingError, read
from backtest.route_page import route_page
from backtest.route_reading import Matrices, read_matrices
from backtest.route_run import Routed, route, splits_document
from backtest.run import Outcome, Plan, backtest

__all__ = [
    "MachinePlan",
    "Matrices",
    "Outcome",
    "Plan",
    "Recording",
    "RecordingError",
    "Routed",
    "backtest",
    "page",
    "read",
    "read_matrices",
    "replay_machines",
    "route",
    "route_page",
    "splits_document",
]

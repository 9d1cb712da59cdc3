"""WHAT IF: replays recordings through the live predictor and the optimiser of splits, and says what they were worth.

The door of the room: `read` a `Recording`, make a `BacktestPlan`, run the `backtest`, write the `forecast_page`;
for routing `read_matrices`, `route` them, write the `route_page`.
"""

from backtest.machines import MachinePlan, replay_machines
from backtest.pages import forecast_page, route_page
from backtest.reading import Recording, RecordingError, read
from backtest.route_reading import Matrices, read_matrices
from backtest.route_run import RouteReplay, route, splits_document
from backtest.run import BacktestPlan, Outcome, backtest

__all__ = [
    "BacktestPlan",
    "MachinePlan",
    "Matrices",
    "Outcome",
    "Recording",
    "RecordingError",
    "RouteReplay",
    "backtest",
    "forecast_page",
    "read",
    "read_matrices",
    "replay_machines",
    "route",
    "route_page",
    "splits_document",
]

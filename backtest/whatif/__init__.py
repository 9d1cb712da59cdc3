"""What if: recorded or invented load through the live predictor and planner, under several policies, at what cost.

The door of this part: `read_load` what was offered, run each `ReplayPolicy`, and compare what the runs cost.
"""

from backtest.whatif.recording import TimeSpan, read_load, show_pair
from backtest.whatif.records import (
    DoneAction,
    EventKind,
    ObjectSeries,
    OfferedLoad,
    PolicyRun,
    ReplayPolicy,
    ReplayScene,
    RequestCost,
    SceneEvent,
)

__all__ = [
    "DoneAction",
    "EventKind",
    "ObjectSeries",
    "OfferedLoad",
    "PolicyRun",
    "ReplayPolicy",
    "ReplayScene",
    "RequestCost",
    "SceneEvent",
    "TimeSpan",
    "read_load",
    "show_pair",
]

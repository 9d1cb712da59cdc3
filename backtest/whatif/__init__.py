"""What if: recorded or invented load through the live predictor and planner, under several policies, at what cost.

The door of this part: `read_load` what was offered, run each `ReplayPolicy`, and compare what the runs cost.
"""

from backtest.whatif.bound import least_costs
from backtest.whatif.compare import (
    SHORT_BYTES,
    SHORT_CORES,
    TIMELINE_COLUMNS,
    Comparison,
    ReplayTask,
    compare_runs,
    timeline_rows,
    warm_up_seconds,
    weighted_quantile,
)
from backtest.whatif.cost import WayFinder, check_ways, price_run, short_cores, weigh_priorities
from backtest.whatif.engine import EPOCH_S, ReplayEngine
from backtest.whatif.evidence import replayed_minutes
from backtest.whatif.page import whatif_page
from backtest.whatif.policies import play_policy, replay
from backtest.whatif.recorded import recorded_durations, recorded_load
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
from backtest.whatif.scenarios import (
    ATTACKERS,
    FAMILIES,
    FORESEEABLE,
    describe_scenarios,
    make_scenario,
    scenario_scene,
)

__all__ = [
    "ATTACKERS",
    "EPOCH_S",
    "FAMILIES",
    "FORESEEABLE",
    "SHORT_BYTES",
    "SHORT_CORES",
    "TIMELINE_COLUMNS",
    "Comparison",
    "DoneAction",
    "EventKind",
    "ObjectSeries",
    "OfferedLoad",
    "PolicyRun",
    "ReplayEngine",
    "ReplayPolicy",
    "ReplayScene",
    "ReplayTask",
    "RequestCost",
    "SceneEvent",
    "TimeSpan",
    "WayFinder",
    "check_ways",
    "compare_runs",
    "describe_scenarios",
    "least_costs",
    "make_scenario",
    "play_policy",
    "price_run",
    "read_load",
    "recorded_durations",
    "recorded_load",
    "replay",
    "replayed_minutes",
    "scenario_scene",
    "short_cores",
    "show_pair",
    "timeline_rows",
    "warm_up_seconds",
    "weigh_priorities",
    "weighted_quantile",
    "whatif_page",
]

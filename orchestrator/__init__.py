"""DECIDES, ACTS: turns forecasts and the world into demand, a plan (pure), actions, outcomes and verdicts.

The door of the room: `Orchestrator` with `run` for the process; `demands`, `plan` and `apply` for whoever wants to know
what would be done without doing it.
"""

from orchestrator.act import (
    FakeHypervisors,
    FakePool,
    FakeVm,
    Finished,
    Hypervisors,
    LibvirtHypervisors,
    LibvirtPool,
    OvsQueues,
    QueueKeeper,
    Scaling,
    Timing,
    passed,
    whole,
)
from orchestrator.actions import (
    KINDS,
    Action,
    MigrateVm,
    ReleaseBandwidth,
    ReserveBandwidth,
    ScaleIn,
    ScaleOut,
    SetCpuLimit,
    SetMemory,
    SetNetworkRate,
    SetRoutes,
    SetVcpus,
    SetWeights,
    VmAction,
    from_json,
)
from orchestrator.approval import Approval
from orchestrator.config import OrchestratorConfig, OrchestratorSection, RouteSettings, problem_lines
from orchestrator.context import PlanningContext
from orchestrator.cycle import CycleReport, Orchestrator
from orchestrator.declared import (
    RESTS_AS,
    TWICE,
    GoldenImage,
    HostSpec,
    Manner,
    PoolMember,
    PoolSpec,
    Probe,
    QueueSpec,
    TenantCap,
    VmSpec,
)
from orchestrator.demand import demands
from orchestrator.demand_table import together
from orchestrator.duty import ACTING, ADVISING
from orchestrator.foresight_settings import LearningSettings, critical_level
from orchestrator.guards.guard import guard
from orchestrator.judge.explain import described, explain, explained, kept, promised
from orchestrator.judge.report import JudgementReport, KindReport, MissedNeeds, sum_up
from orchestrator.judge.standing import KindStanding, read_standings, told_standing
from orchestrator.lead_times import LeadRow, LeadTimes, lead_rows
from orchestrator.loop import collect_seldom, run
from orchestrator.machine_alarms import MachineNews
from orchestrator.observe.gather import Gatherer, Paths
from orchestrator.observe.matrices import NO_CHOICE, RouteUse, judge_routes, routes_in_use
from orchestrator.pair_table import PairState
from orchestrator.plan import Plan, plan
from orchestrator.proposal import Reason, Step
from orchestrator.requests import NOT_OBTAINED, Asker, request_bandwidth
from orchestrator.strategies.destinations import pre_copy
from orchestrator.strategies.requests import request_of
from orchestrator.strategies.services import candidates
from orchestrator.sums import HELD_SHARE, SumForecast, reconcile
from orchestrator.verdicts import PromiseVerdict, VerdictCode, verdict_from_json
from orchestrator.world import LinkState, MemoryState, NetworkState, VmState, WantedState, World, apply

__all__ = [
    "ACTING",
    "ADVISING",
    "HELD_SHARE",
    "KINDS",
    "NOT_OBTAINED",
    "NO_CHOICE",
    "RESTS_AS",
    "TWICE",
    "Action",
    "Approval",
    "Asker",
    "CycleReport",
    "FakeHypervisors",
    "FakePool",
    "FakeVm",
    "Finished",
    "Gatherer",
    "GoldenImage",
    "HostSpec",
    "Hypervisors",
    "JudgementReport",
    "KindReport",
    "KindStanding",
    "LeadRow",
    "LeadTimes",
    "LearningSettings",
    "LibvirtHypervisors",
    "LibvirtPool",
    "LinkState",
    "MachineNews",
    "Manner",
    "MemoryState",
    "MigrateVm",
    "MissedNeeds",
    "NetworkState",
    "Orchestrator",
    "OrchestratorConfig",
    "OrchestratorSection",
    "OvsQueues",
    "PairState",
    "Paths",
    "Plan",
    "PlanningContext",
    "PoolMember",
    "PoolSpec",
    "Probe",
    "PromiseVerdict",
    "QueueKeeper",
    "QueueSpec",
    "Reason",
    "ReleaseBandwidth",
    "ReserveBandwidth",
    "RouteSettings",
    "RouteUse",
    "ScaleIn",
    "ScaleOut",
    "Scaling",
    "SetCpuLimit",
    "SetMemory",
    "SetNetworkRate",
    "SetRoutes",
    "SetVcpus",
    "SetWeights",
    "Step",
    "SumForecast",
    "TenantCap",
    "Timing",
    "VerdictCode",
    "VmAction",
    "VmSpec",
    "VmState",
    "WantedState",
    "World",
    "apply",
    "candidates",
    "collect_seldom",
    "critical_level",
    "demands",
    "described",
    "explain",
    "explained",
    "from_json",
    "guard",
    "judge_routes",
    "kept",
    "lead_rows",
    "passed",
    "plan",
    "pre_copy",
    "problem_lines",
    "promised",
    "read_standings",
    "reconcile",
    "request_bandwidth",
    "request_of",
    "routes_in_use",
    "run",
    "sum_up",
    "together",
    "told_standing",
    "verdict_from_json",
    "whole",
]

"""DECIDES, ACTS: turns forecasts and the world into demand, a plan (pure), actions, outcomes and verdicts.

The door of the room: `Orchestrator` with `run` for the process; `demands`, `plan` and `apply` for whoever wants to know
what would be done without doing it.
"""

from orchestrator.actions import (
    KINDS,
    Action,
    MigrateVm,
    ReleaseBandwidth,
    ReserveBandwidth,
    SetCpuLimit,
    SetMemory,
    SetVcpus,
    SetWeights,
    VmAction,
    from_json,
)
from orchestrator.approval import Approval
from orchestrator.config import HostSpec, OrchestratorConfig, QueueSpec, VmSpec, problems
from orchestrator.cycle import CycleReport, Orchestrator
from orchestrator.demand import Demand, critical_level, demands, together
from orchestrator.drivers import Finished, Hypervisors
from orchestrator.drivers.fake import FakeHypervisors, FakeVm
from orchestrator.drivers.libvirt_driver import LibvirtHypervisors
from orchestrator.drivers.queues import OvsQueues
from orchestrator.duty import ACTING, ADVISING
from orchestrator.explain import described, explain, explained, kept, promised
from orchestrator.gather import Gatherer, Paths
from orchestrator.guard import guard
from orchestrator.lead import LeadRow, lead_rows
from orchestrator.loop import run
from orchestrator.plan import plan
from orchestrator.precopy import PreCopy, pre_copy
from orchestrator.queue_keeper import QueueKeeper, whole
from orchestrator.steps import Plan, Refusal, Step
from orchestrator.verdict import verdict
from orchestrator.world import LinkState, PairState, VmState, World, apply

__all__ = [
    "ACTING",
    "ADVISING",
    "KINDS",
    "Action",
    "Approval",
    "CycleReport",
    "Demand",
    "FakeHypervisors",
    "FakeVm",
    "Finished",
    "Gatherer",
    "HostSpec",
    "Hypervisors",
    "LeadRow",
    "LibvirtHypervisors",
    "LinkState",
    "MigrateVm",
    "Orchestrator",
    "OrchestratorConfig",
    "OvsQueues",
    "PairState",
    "Paths",
    "Plan",
    "PreCopy",
    "QueueKeeper",
    "QueueSpec",
    "Refusal",
    "ReleaseBandwidth",
    "ReserveBandwidth",
    "SetCpuLimit",
    "SetMemory",
    "SetVcpus",
    "SetWeights",
    "Step",
    "VmAction",
    "VmSpec",
    "VmState",
    "World",
    "apply",
    "critical_level",
    "demands",
    "described",
    "explain",
    "explained",
    "from_json",
    "guard",
    "kept",
    "lead_rows",
    "plan",
    "pre_copy",
    "problems",
    "promised",
    "run",
    "together",
    "verdict",
    "whole",
]

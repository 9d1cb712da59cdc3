"""ACTS: carries actions out on hypervisors, pools of machines and switch queues, and follows each to its outcome."""

from orchestrator.act.executor import Executor
from orchestrator.act.fake import FakeHypervisors, FakePool, FakeVm
from orchestrator.act.hypervisors import Finished, Hypervisors
from orchestrator.act.libvirt import LibvirtHypervisors, LibvirtPool
from orchestrator.act.ovs_qos import OvsQueues, QueueKeeper, whole
from orchestrator.act.pool_decorator import Scaling, Timing
from orchestrator.act.workflow_log import passed

__all__ = [
    "Executor",
    "FakeHypervisors",
    "FakePool",
    "FakeVm",
    "Finished",
    "Hypervisors",
    "LibvirtHypervisors",
    "LibvirtPool",
    "OvsQueues",
    "QueueKeeper",
    "Scaling",
    "Timing",
    "passed",
    "whole",
]

"""An orchestrator on real hosts that wants certain actions, whatever the world's traffic would say."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from failing_hosts import FailingHosts

from cpdb import ActionRecord, Communication, OutcomeKind, Store
from orchestrator import (
    Action,
    LibvirtHypervisors,
    LibvirtPool,
    MigrateVm,
    Orchestrator,
    OrchestratorConfig,
    ScaleOut,
    Scaling,
    SetCpuLimit,
    Step,
    VmSpec,
    World,
    decide,
)
from orchestrator.context import PlanningContext
from orchestrator.plan import Plan
from orchestrator.proposal import Reason

EVERY_S = 0.25
WANTED = OrchestratorConfig(
    act=True, declared={"vms": (VmSpec("g1", 0, 0.5, 1.0, 2, movable=True), VmSpec("g2", 0, 0.5, 1.0, 2))}
)


def unshown(action: Action, world: World) -> bool:
    """Whether the world does not show the action as done, as a planner would find."""
    if isinstance(action, ScaleOut):
        return True
    vm = world.vms.get(action.target)
    if vm is None:
        return False
    if isinstance(action, MigrateVm):
        return vm.host != action.after
    return not isinstance(action, SetCpuLimit) or abs(vm.cores_limit - action.after) > 0.02


@dataclass
class Trial:
    """`wants` may be changed while it runs; `turn` is one cycle of the loop."""

    hosts: FailingHosts
    store: Store
    config: OrchestratorConfig
    migration_limit_s: float = 60.0
    wants: list[Action] = field(default_factory=list)
    longest_turn_s: float = 0.0

    def __post_init__(self) -> None:
        drivers = LibvirtHypervisors(self.config.declared.hosts, migration_limit_s=self.migration_limit_s)
        coat = Scaling(drivers, LibvirtPool(self.config.declared.hosts), self.store, self.config)
        self.orchestrator = Orchestrator(self.config, self.store, coat, lambda _from, _to: ())

    def plan(self, context: PlanningContext, _strategies: object) -> Plan:
        """Steps for what is wanted and not shown."""
        world = context.world
        missing = [one for one in self.wants if unshown(one, world)]
        return Plan(tuple(Step(one, "wanted", Reason(), world.now, 1.0) for one in missing))

    def turn(self) -> None:
        began, now = time.monotonic(), time.time()
        self.store.facts.add_communications([Communication("c1", "10.0.0.101", "g1", now, 1.0, 1_000, 10, 1)])
        self.orchestrator.observe(now)
        self.orchestrator.cycle(now)
        self.longest_turn_s = max(self.longest_turn_s, time.monotonic() - began)

    def until(self, what: str, true: Callable[[], Any], limit_s: float = 30.0) -> Any:
        """Turns until it is true."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            self.turn()
            if found := true():
                return found
            time.sleep(EVERY_S)
        raise AssertionError(
            f"not within {limit_s:g} s: {what}; {[one.sentence for one in self.store.journal.actions()]}"
        )

    def rows(self, kind: str | None = None) -> list[ActionRecord]:
        """What was tried, oldest first."""
        tried = [one for one in self.store.journal.actions() if one.outcome is not OutcomeKind.SKIPPED]
        return [one for one in tried if kind in (None, one.kind)][::-1]

    def ended(self, kind: str, limit_s: float = 30.0) -> ActionRecord:
        """The newest of a kind, once it has ended."""

        def newest() -> ActionRecord | None:
            found = self.rows(kind)
            return found[-1] if found and found[-1].outcome is not OutcomeKind.PENDING else None

        row: ActionRecord = self.until(f"{kind} ends", newest, limit_s)
        return row

    def refusals(self) -> list[str]:
        return [one.sentence for one in self.store.journal.actions() if one.outcome is OutcomeKind.SKIPPED]


__all__ = ["WANTED", "Trial", "decide"]

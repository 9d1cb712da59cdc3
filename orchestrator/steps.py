"""What a plan is made of: steps with their reasons, and what was considered and refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpdb import ActionRecord, ActionTiming, Json, Seconds
from orchestrator.actions import Action
from orchestrator.config import NOW, OrchestratorConfig
from orchestrator.demand import Rate
from orchestrator.lead_times import NOWHERE, Circumstances
from orchestrator.world import LinkState, World


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was considered and not done; `action` is None when there was not even a candidate."""

    subject: str
    why_not: str
    action: Action | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for the journal."""
        return {"action": self.action.describe() if self.action else self.subject, "why_not": self.why_not}


@dataclass(frozen=True, slots=True)
class Step:
    """One action of a plan. `renewal` prolongs what already stands; `waits` must follow an earlier step's end."""

    action: Action
    why: str
    reason: Json
    needed_at: Seconds
    lead_s: Seconds
    renewal: bool = False
    waits: bool = False


def record(step: Step, policy: str, now: Seconds) -> ActionRecord:
    """The journal's row for a step that is about to be carried out."""
    return ActionRecord(
        kind=step.action.kind,
        target=step.action.target,
        body=step.action.to_json(),
        why=step.why,
        reason=step.reason,
        policy=policy,
        issued_at=now,
        timing=ActionTiming(step.needed_at, step.lead_s),
    )


def on_host(world: World, host: str, size_bytes: int = 0) -> Circumstances:
    """Under what an action on a host is carried out: its load is the share of its cores in use."""
    spec = world.hosts.get(host)
    used = sum(vm.cores_used for vm in world.on_host(host))
    return Circumstances(host, size_bytes, used / spec.cpu_cores_capacity if spec else None)


def on_link(link: LinkState) -> Circumstances:
    """The same for what is done for a link."""
    capacity = link.capacity_bytes_per_s
    return Circumstances(link.name, 0, link.bytes_per_s / capacity if capacity else None)


def acting_horizons(
    world: World, kind: str, config: OrchestratorConfig, about: Circumstances = NOWHERE
) -> tuple[int, ...]:
    """The horizons that this kind of action looks at: now, and the shortest that its lead time fits into.

    Looking further would act earlier than needed, and hold others back for nothing.
    """
    if config.policy == "reactive":
        return (NOW,)
    horizon_s = world.leads.horizon_s(kind, config, about)
    return (NOW,) if horizon_s is None else (NOW, horizon_s)


def evidence(rate: Rate, horizon_s: int, config: OrchestratorConfig) -> dict[str, Any] | None:
    """The forecast behind a rate as plain data, None when only measurements are."""
    forecast = rate.forecast
    if forecast is None or horizon_s == NOW:
        return None
    return {
        "pair": str(forecast.pair),
        "quantity": forecast.quantity.value,
        "model": forecast.model,
        "issued_at": forecast.issued_at,
        "horizon_s": horizon_s,
        "level": config.demand.level,
        "q05": forecast.at(0.05),
        "q50": forecast.at(0.5),
        "q90": forecast.at(0.9),
        "value": forecast.at(config.demand.level),
    }


def when(horizon_s: int) -> str:
    """The horizon for people."""
    return "now" if horizon_s == NOW else f"within {horizon_s} s"


def foreseen(proof: Mapping[str, Any] | None) -> str:
    """How a need is known, for people."""
    return f"forecast by {proof['model']}" if proof else "measured"

"""Makes a step of a move for which there is a cause, or says why it would not work, come too late or not pay."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cpdb import Json, Pair
from orchestrator.actions import MigrateVm
from orchestrator.demand import NOW
from orchestrator.moving.destination import Scene, copy_of, move_s
from orchestrator.needs import too_short
from orchestrator.steps import Refusal, Step, on_host, when


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a machine should go where it should go: `why` for people, `reason` for the journal (with its promise).

    `leading` is the pair whose need must last for the move to pay; None when it pays anyway. Without an `urgent` need
    nothing is too late.
    """

    why: str
    horizon_s: int
    reason: Json
    leading: Pair | None = None
    urgent: bool = True
    refused: tuple[Json, ...] = field(default_factory=tuple)


def judged(scene: Scene, action: MigrateVm, cause: Cause) -> Step | Refusal:
    """The move as a step with its estimate, or why not."""
    subject = f"migrate {action.vm} away from {action.before}"
    vm, host = scene.world.vms[action.vm], scene.world.hosts[action.after]
    copied = copy_of(scene, host, vm, cause.horizon_s)
    if isinstance(copied, str):
        return Refusal(subject, copied, action)
    lead_s = move_s(scene, vm, copied)
    if cause.urgent and cause.horizon_s != NOW and lead_s > cause.horizon_s:
        text = f"too late: it takes up to {lead_s:.1f} s, the shortage is expected {when(cause.horizon_s)}"
        return Refusal(subject, text, action)
    if cause.horizon_s != NOW and cause.leading is not None:
        brief = too_short(scene.world, cause.leading, ("a move", lead_s), scene.config)
        if brief is not None:
            return Refusal(subject, brief, action)
    reason: dict[str, Any] = {
        "circumstances": on_host(scene.world, action.before, vm.memory_bytes).to_json(),
        "alternatives": list(cause.refused),
        "pre_copy": asdict(copied),
    }
    action = replace(action, bytes_per_s=copied.bytes_sent / copied.total_s, expected_s=copied.total_s)
    return Step(action, cause.why, {**cause.reason, **reason}, scene.world.now + cause.horizon_s, lead_s)

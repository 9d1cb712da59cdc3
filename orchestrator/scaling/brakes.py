"""The brake on coming and going: after either, nothing is taken away from a service for a while."""

from collections.abc import Sequence

from cpdb import ActionRecord, OutcomeKind, Seconds
from orchestrator.actions import Action, ScaleIn, ScaleOut
from orchestrator.config import OrchestratorConfig

KINDS = frozenset({ScaleOut.kind, ScaleIn.kind})


def scaled_lately(action: Action, done: Sequence[ActionRecord], now: Seconds, config: OrchestratorConfig) -> str | None:
    """Why a machine may not leave yet; coming in is never held up by this. `done`: newest first."""
    if not isinstance(action, ScaleIn):
        return None
    pool = config.pool(action.virtual_ip)
    cooldown_s = pool.manner.cooldown_s if pool else 0.0
    for one in done:
        same = one.kind in KINDS and one.body.get("virtual_ip") == action.virtual_ip
        if same and one.outcome is OutcomeKind.DONE:
            ago = now - (one.ready_at or one.issued_at)
            what = "came" if one.kind == ScaleOut.kind else "left"
            return f"cooldown: {one.target} {what} {ago:.0f} s ago" if ago < cooldown_s else None
    return None

"""What the orchestrator did in a replay, out of its own journal, and what that cost."""

from collections.abc import Iterator
from dataclasses import replace

from backtest.whatif.engine import EPOCH_S, ReplayEngine
from backtest.whatif.records import DoneAction
from cpdb import ActionRecord, Json, OutcomeKind, Store
from orchestrator import MigrateVm, from_json

# A machine that is migrated alive stands still while the last of its memory is copied.
PAUSE_S = 0.3
FAILED = "failed"


def done_actions(store: Store, engine: ReplayEngine) -> tuple[DoneAction, ...]:
    """All that was decided, in the order of decision: what was done, what failed, and what was refused."""
    return tuple(_actions(store.journal.actions()[::-1], engine))


def _actions(records: list[ActionRecord], engine: ReplayEngine) -> Iterator[DoneAction]:
    for one in records:
        if one.outcome in (OutcomeKind.ADVISED, OutcomeKind.PENDING):
            continue
        done = one.outcome is OutcomeKind.DONE
        code = "" if done else _code(one)
        found = DoneAction(one.issued_at - EPOCH_S, one.kind, one.target, one.why or one.sentence, code, _needed(one))
        action = from_json(one.kind, one.body) if done else None
        yield _moved(found, action, engine) if isinstance(action, MigrateVm) else found


def _moved(found: DoneAction, action: MigrateVm, engine: ReplayEngine) -> DoneAction:
    """With what the copy took: of the links between the hosts, or of the network that copies have for themselves."""
    size = engine.stage.hypervisors.machines[action.vm].memory_bytes
    if action.bytes_per_s and action.expected_s:
        size = round(action.bytes_per_s * action.expected_s)
    return replace(
        found,
        copied_bytes=float(size),
        link_bytes_per_s=engine.copy_bytes_per_s(action),
        pause_s=PAUSE_S,
        cores_meanwhile=engine.recorder.vms.needed(int(found.t), action.vm),
    )


def _code(record: ActionRecord) -> str:
    """The refusal's code; what was begun and did not come off has failed."""
    first: Json = next(iter(record.reason.get("alternatives") or ()), {})
    return str(first.get("code", FAILED)) if record.outcome is OutcomeKind.SKIPPED else FAILED


def _needed(record: ActionRecord) -> bool | None:
    """Whether what it was done for came; None where nobody could tell."""
    found = record.verdict.get("needed")
    return None if found is None else bool(found)

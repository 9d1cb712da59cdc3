"""The stages that a machine passes on its way into a service and out of it, and how far one has come; all pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cpdb import OutcomeKind, Seconds, WorkflowStep
from orchestrator.actions import ScaleAction
from orchestrator.declared import Manner

FORWARD, BACK = "forward", "back"
BEGUN, DONE, FAILED, END = "begun", "done", "failed", "end"
WAKE, ANSWER, JOIN, HEALTHY, RAMP, SERVE = "wake", "answer", "join", "healthy", "ramp", "serve"
DRAIN, QUIET, LEAVE, REST = "drain", "quiet", "leave", "rest"
WAY_OUT = (DRAIN, QUIET, LEAVE, REST)
# What is only written down is there at once, unless the database is away.
WRITING_LIMIT_S = 10.0


def way_in(manner: Manner) -> tuple[str, ...]:
    """From rest to the full share: awake, answering, known to the controller, found healthy, step by step."""
    return (WAKE, ANSWER, JOIN, HEALTHY, *(f"{RAMP} {share:g}" for share in manner.ramp))


def share_of(stage: str) -> float | None:
    """The share of its weight that a machine gets in a stage of the ramp; None for other stages."""
    name, _, share = stage.partition(" ")
    return float(share) if name == RAMP else None


def forward(action: ScaleAction, manner: Manner) -> tuple[str, ...]:
    """The stages of an action."""
    return way_in(manner) if action.comes else WAY_OUT


def back(action: ScaleAction, failed: str, manner: Manner) -> tuple[str, ...]:
    """The stages that undo an action which failed in the stage `failed`.

    Who had traffic is drained first; who was already laid to rest comes in as if it were new.
    """
    if action.comes:
        return WAY_OUT if share_of(failed) is not None else (LEAVE, REST)
    return way_in(manner) if failed == REST else (SERVE,)


def limit_s(stage: str, manner: Manner) -> Seconds:
    """How long a stage may take."""
    if share_of(stage) is not None:
        return manner.ramp_step_s + WRITING_LIMIT_S
    limits = {
        WAKE: manner.wake_limit_s,
        ANSWER: manner.boot_limit_s,
        HEALTHY: manner.health_limit_s,
        QUIET: manner.drain_limit_s,
        REST: manner.wake_limit_s,
    }
    return limits.get(stage, WRITING_LIMIT_S)


@dataclass(frozen=True, slots=True)
class Position:
    """How far an action has come: the stages of its present `way`, the number of the next one, since when it runs.

    `why` is what made it turn back, `end` what was last noted of it.
    """

    way: str
    stages: tuple[str, ...]
    number: int = 0
    since: Seconds | None = None
    why: str = ""
    end: tuple[OutcomeKind, str, Seconds] | None = None

    @property
    def stage(self) -> str | None:
        """The stage that is under way or next; None when all have been passed."""
        return self.stages[self.number] if self.number < len(self.stages) else None


def note(number: int, position: Position, what: str, now: Seconds, **more: Any) -> WorkflowStep:
    """What is written down before (`begun`) and after (`done`, `failed`, `end`) each stage."""
    return WorkflowStep(number, position.stage or END, now, {"way": position.way, "what": what, **more})


def position(notes: Iterable[WorkflowStep], action: ScaleAction, manner: Manner) -> Position:
    """Where the notes of an action, oldest first, say that it stands."""
    found = Position(FORWARD, forward(action, manner))
    for one in notes:
        found = _after(found, one, action, manner)
    return found


def _after(before: Position, one: WorkflowStep, action: ScaleAction, manner: Manner) -> Position:
    what = one.detail.get("what")
    if what == BEGUN and one.step == before.stage:
        since = one.t if before.since is None else before.since
        return Position(before.way, before.stages, before.number, since, before.why)
    if what == DONE and one.step == before.stage:
        return Position(before.way, before.stages, before.number + 1, None, before.why)
    if what == FAILED and before.way == FORWARD:
        return Position(BACK, back(action, one.step, manner), 0, None, str(one.detail.get("why", "")))
    if what == END:
        end = OutcomeKind(one.detail["outcome"]), str(one.detail["sentence"]), one.t
        return Position(before.way, before.stages, before.number, before.since, before.why, end)
    return before


def passed(notes: Sequence[WorkflowStep]) -> list[str]:
    """What an action went through, for people: one line for each stage that was done or failed."""
    first = notes[0].t if notes else 0.0
    ended = [one for one in notes if one.detail.get("what") in (DONE, FAILED)]
    return [f"{one.step} {one.detail['what']} after {one.t - first:.1f} s{_why(one)}" for one in ended]


def _why(one: WorkflowStep) -> str:
    turned = " on the way back" if one.detail.get("way") == BACK else ""
    return turned + (f": {one.detail['why']}" if one.detail.get("why") else "")

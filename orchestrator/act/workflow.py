"""One machine's way in or out, stage by stage: what is done is written down before and after, so anyone can go on."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from cpdb import DriverError, OutcomeKind, Seconds, WorkflowStep
from orchestrator.act import workflow_log as route
from orchestrator.act.hypervisors import Finished
from orchestrator.act.stages import Now, Stages
from orchestrator.act.workflow_log import Position

LOG = structlog.get_logger(__name__)
# Two processes may think that an action is theirs; only the one that holds its lease takes steps.
LEASE_S = 5.0
RENEW_S = 1.0


@dataclass(slots=True)
class ScaleWorkflow:
    """Action `number`. All its memory is in the notes; a new one of the same number continues where they end.

    Whatever fails is undone in reverse. When undoing fails as well, that is said, and the machine is left as it is.
    """

    number: int
    stages: Stages
    holder: str
    _held_at: Seconds | None = None
    _position: Position | None = field(default=None)

    def advance(self, clock: Callable[[], Seconds]) -> Finished | None:
        """As many stages as can be passed now; the outcome once there is one. Raises StoreError."""
        if not self._mine(clock()):
            return None
        while (found := self._ended()) is None:
            if not self._pass(clock):
                return None
        self.let_go()
        return found

    def let_go(self) -> None:
        """Lets another go on at once. Raises StoreError."""
        self._held_at = None
        self.stages.store.leases.release(self._lease, self.holder)

    @property
    def _lease(self) -> str:
        return f"action/{self.number}"

    def _mine(self, now: Seconds) -> bool:
        if self._held_at is not None and 0 <= now - self._held_at < RENEW_S:
            return True
        held = self.stages.store.leases.hold(self._lease, self.holder, now, LEASE_S)
        if held.holder != self.holder:
            self._held_at, self._position = None, None
            return False
        if self._held_at is None or now - self._held_at >= LEASE_S:
            self._position = None  # another may have gone on meanwhile
        self._held_at = now
        return True

    def _at(self) -> Position:
        if self._position is None:
            notes = self.stages.store.workflow.steps_of(self.number)
            self._position = route.position(notes, self.stages.action, self.stages.pool.manner)
        return self._position

    def _pass(self, clock: Callable[[], Seconds]) -> bool:
        """One look at the present stage; False when it has to be waited for."""
        at, now = self._at(), clock()
        if at.stage is None:
            self._end(*self._good(at), now)
            return True
        if at.since is None:
            self._note(route.BEGUN, now)
            at = self._position = replace(at, since=now)
        since = now if at.since is None else at.since
        try:
            waits = self.stages.step(at.stage or "", Now(now, since, at.way == route.BACK))
        except DriverError as error:
            waits = str(error)
            late = at.way == route.FORWARD or now - since > self._limit()
        else:
            late = now - since > self._limit()
        if waits is None:
            self._note(route.DONE, clock())  # what it does may take seconds
            return True
        return late and self._give_up(waits, now, since)

    def _limit(self) -> Seconds:
        return route.limit_s(self._at().stage or "", self.stages.pool.manner)

    def _give_up(self, waits: str, now: Seconds, since: Seconds) -> bool:
        at = self._at()
        why = f"{at.stage}: {waits}" + (f" after {now - since:.1f} s" if now > since else "")
        if at.stage == route.QUIET and (at.way == route.BACK or self.stages.pool.manner.cut_connections):
            LOG.warning("connections are cut", vm=self.stages.member.vm, why=why)
            self._note(route.DONE, now, why=why)
        elif at.way == route.FORWARD:
            LOG.warning("turning back", vm=self.stages.member.vm, why=why)
            self._note(route.FAILED, now, why=why)
        else:
            what = self.stages.action.describe()
            text = f"failed: {what}: {at.why}; and undoing it failed: {why}"
            self._end(OutcomeKind.NOT_REVERTED, text, now)
        return True

    def _good(self, at: Position) -> tuple[OutcomeKind, str]:
        if at.way == route.BACK:
            return OutcomeKind.REVERTED, f"undone: {self.stages.action.describe()}: {at.why}"
        word = "serves" if self.stages.action.comes else "no longer serves"
        return OutcomeKind.DONE, f"done: {self.stages.member.vm} {word} {self.stages.pool.virtual_ip}"

    def _note(self, what: str, now: Seconds, **more: str) -> None:
        self._write(route.note(self.number, self._at(), what, now, **more))
        if what != route.BEGUN:
            self._position = None

    def _end(self, outcome: OutcomeKind, sentence: str, now: Seconds) -> None:
        at = replace(self._at(), number=len(self._at().stages))
        self._write(route.note(self.number, at, route.END, now, outcome=outcome.value, sentence=sentence))
        self._position = None

    def _write(self, note: WorkflowStep) -> None:
        self.stages.store.workflow.note(note)

    def _ended(self) -> Finished | None:
        end = self._at().end
        if end is None:
            return None
        outcome, sentence, t = end
        return Finished(self.number, outcome is OutcomeKind.DONE, sentence, t, outcome)

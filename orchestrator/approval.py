"""Approval by a person: a plan is written down, read, and carried out as it was read - or not at all."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cpdb import ActionRecord, Json, PlanRecord, Seconds, SettingsError, Store
from orchestrator.act import Executor, Hypervisors
from orchestrator.actions import from_json
from orchestrator.config import OrchestratorConfig
from orchestrator.decide import Decider, QueueHealth
from orchestrator.duty import APPLYING, identity
from orchestrator.observe.gather import Paths
from orchestrator.proposal import Step, reason_from_json

VALID_S = 30.0
LOOK_EVERY_S = 0.2
# Nothing of the alphabet takes longer; the slowest is a live migration that is aborted after half of this.
PATIENCE_S = 60.0


class Approval:
    """Makes and carries out plans for one person at a time; independent of a running orchestrator's loop."""

    def __init__(
        self,
        config: OrchestratorConfig,
        store: Store,
        hypervisors: Hypervisors,
        paths: Paths,
        queues: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """As for the orchestrator; `queues` names the links whose guaranteed queue stands."""
        self._config = config
        self._store = store
        self._hypervisors = hypervisors
        self._decider = Decider(config, store, paths, lambda _now: QueueHealth(queues()))
        self._executor = Executor(config, store, hypervisors)
        self._name = identity()

    def propose(self, now: Seconds) -> PlanRecord:
        """What should be done at `now`, kept in the database for `VALID_S` seconds. Touches nothing else."""
        recent = self._decider.recent(now)
        decision = self._decider.decide(self._decider.look(now, (), recent), recent)
        steps = [_step_json(step) for step in decision.ready]
        refusals = [refusal.to_json() for refusal in decision.refused]
        record = PlanRecord(now, now + VALID_S, "open", {"steps": steps, "refusals": refusals})
        return replace(record, id=self._store.journal.add_plan(record))

    def carry_out(
        self, number: int, clock: Callable[[], Seconds], sleep: Callable[[Seconds], None]
    ) -> list[ActionRecord]:
        """Carries out plan `number` and waits for its outcomes. Raises SettingsError when it may no longer be."""
        now = clock()
        record = self._store.journal.plan(number)
        if record is None:
            raise SettingsError(f"plan {number}: there is none; `forepath plan` makes one")
        if record.state == "open" and now > record.expires_at:
            self._store.journal.close_plan(number, "expired")
            raise SettingsError(f"plan {number}: expired {now - record.expires_at:.0f} s ago; make a new one")
        if pause := self._store.pauses.in_force(now):
            raise SettingsError(f"plan {number}: paused by {pause.paused_by}; forepath resume first, then apply again")
        if not self._hold(now):
            raise SettingsError(f"plan {number}: another `forepath apply` is at work; try again when it has ended")
        try:
            if not self._store.journal.close_plan(number, "applied"):
                raise SettingsError(f"plan {number}: is {record.state} already; make a new one with `forepath plan`")
            begun = [self._executor.begin(_step(one), now) for one in record.body["steps"]]
            return self._await([one for one in begun if one is not None], clock, sleep)
        finally:
            self._store.leases.release(APPLYING, self._name)

    def _hold(self, now: Seconds) -> bool:
        """Says that its actions are being followed; without this an orchestrator takes them over."""
        return self._store.leases.hold(APPLYING, self._name, now, self._config.timing.duty_s).holder == self._name

    def _await(
        self, begun: list[ActionRecord], clock: Callable[[], Seconds], sleep: Callable[[Seconds], None]
    ) -> list[ActionRecord]:
        deadline = clock() + PATIENCE_S
        while self._executor.in_flight() and clock() < deadline:
            sleep(LOOK_EVERY_S)
            self._hold(clock())
            self._executor.settle(clock())
        amended = (self._store.journal.action(one.id) for one in begun if one.id is not None)
        return [one for one in amended if one is not None]

    def close(self) -> None:
        """Leaves nothing running."""
        self._hypervisors.close()


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "action": {"kind": step.action.kind, "body": step.action.to_json()},
        "describe": step.action.describe(),
        "why": step.why,
        "reason": step.reason.to_json(),
        "needed_at": step.needed_at,
        "lead_s": step.lead_s,
        "renewal": step.renewal,
        "waits": step.waits,
    }


def _step(row: Json) -> Step:
    action, reason = from_json(row["action"]["kind"], row["action"]["body"]), reason_from_json(row["reason"])
    return Step(action, row["why"], reason, row["needed_at"], row["lead_s"], row["renewal"], row["waits"])

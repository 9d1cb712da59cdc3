"""Carries actions out and follows each to its outcome; after a restart it finds out what became of the old ones."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import structlog

from cpdb import ActionRecord, DriverError, OutcomeKind, Seconds, SettingsError, Store, StoreError
from orchestrator.act.channels import ActionOrder, Effectors, OutcomeView, channel_of, outcome_shown
from orchestrator.act.hypervisors import Finished, Hypervisors
from orchestrator.actions import Action, from_json
from orchestrator.config import OrchestratorConfig
from orchestrator.proposal import Step, record
from orchestrator.world import World

LOG = structlog.get_logger(__name__)


@dataclass(slots=True)
class _OpenAction:
    """An action under way; `generation` is set for what the controller carries out, `adopted` after a restart.

    The world has to show what became of an `orphan`: nobody else can tell.
    """

    record: ActionRecord
    action: Action
    generation: int | None = None
    orphan: bool = False
    adopted: bool = False


@dataclass(slots=True)
class Executor:
    """The one place that acts. Writes down first, acts second, so nothing is ever done that is not recorded."""

    config: OrchestratorConfig
    store: Store
    hypervisors: Hypervisors
    _open: dict[int, _OpenAction] = field(default_factory=dict)
    _ended: list[Finished] = field(default_factory=list)

    def in_flight(self) -> tuple[Action, ...]:
        """Actions whose outcome is not known yet."""
        return tuple(one.action for one in self._open.values())

    def begin(self, step: Step, now: Seconds) -> ActionRecord | None:
        """Records and starts a step; None for a renewal, which is no new action. Raises StoreError."""
        channel = channel_of(step.action)
        if step.renewal and channel.leased:
            channel.start(step.action, ActionOrder(step.why, now), self._through)
            return None
        row = record(step, self.config.policy, now)
        number = self.store.journal.add_action(row)
        entry = _OpenAction(replace(row, id=number), step.action)
        self._open[number] = entry
        try:
            entry.generation = self._start(number, step, now)
        except DriverError as error:
            return self._close(number, OutcomeKind.FAILED, str(error), None)
        except StoreError:
            entry.orphan = True  # what of it came through is read from the world
            raise
        return entry.record

    def _start(self, number: int, step: Step, now: Seconds) -> int | None:
        channel = channel_of(step.action)
        generation = channel.start(step.action, ActionOrder(step.why, now, number), self._through)
        if channel.at_once:
            self._close(number, OutcomeKind.DONE, channel.at_once, now)
        return generation

    @property
    def _through(self) -> Effectors:
        return Effectors(self.store, self.hypervisors)

    def settle(self, now: Seconds) -> list[ActionRecord]:
        """Outcomes that became known since the last call, written to the journal. Raises StoreError."""
        self._ended.extend(self.hypervisors.finished(now))
        done = []
        while self._ended:  # taken off only after it is written: an absent database must not swallow an outcome
            one = self._ended[0]
            if one.number in self._open:
                outcome = one.outcome or (OutcomeKind.DONE if one.ok else OutcomeKind.FAILED)
                # How long it took is not known: the time without an orchestrator is no lead time.
                known = one.ok and not self._open[one.number].adopted
                done.append(self._close(one.number, outcome, one.sentence, one.ready_at if known else None))
            self._ended.pop(0)
        return done + self._settle_wanted(now)

    def _settle_wanted(self, now: Seconds) -> list[ActionRecord]:
        waiting = {number: one for number, one in self._open.items() if one.generation is not None}
        if not waiting:
            return []
        seen = self.store.wanted.observed()
        done = []
        for number, one in waiting.items():
            channel, generation = channel_of(one.action), one.generation or 0
            found = channel.confirmed(one.action, generation, seen)
            limit_s = channel.limit_s(self.config.timing.install_timeout_s)
            if found is None and now - one.record.issued_at > limit_s:
                found = Finished(0, False, channel.overdue(one.action, generation, seen, limit_s), now)
            if found is not None:
                outcome = OutcomeKind.DONE if found.ok else OutcomeKind.FAILED
                done.append(self._close(number, outcome, found.sentence, found.ready_at if found.ok else None))
        return done

    def _close(self, number: int, outcome: OutcomeKind, sentence: str, ready_at: Seconds | None) -> ActionRecord:
        before = self._open[number].record
        timing = replace(before.timing, ready_at=ready_at)
        row = replace(before, outcome=outcome, sentence=sentence, timing=timing)
        self.store.journal.amend_action(row)
        del self._open[number]
        LOG.info("action ended", kind=row.kind, target=row.target, outcome=outcome.value, sentence=sentence)
        return row

    def adopt(self, records: Iterable[ActionRecord], now: Seconds) -> None:
        """Takes over pending actions of a process that is gone; the world will tell what became of them.

        What is done in steps is carried on where it was left, by one who may act. Raises StoreError.
        """
        for row in records:
            if row.outcome is not OutcomeKind.PENDING or row.id is None or row.id in self._open:
                continue
            try:
                self._take_over(row, row.id, now)
            except SettingsError as error:
                self.store.journal.amend_action(replace(row, outcome=OutcomeKind.FAILED, sentence=str(error)))

    def _take_over(self, row: ActionRecord, number: int, now: Seconds) -> None:
        action = from_json(row.kind, row.body)
        channel = channel_of(action)
        if channel.in_steps and not self.config.act:
            return
        self._open[number] = _OpenAction(row, action, orphan=not channel.in_steps, adopted=True)
        LOG.info("action taken over", kind=row.kind, target=row.target, issued_at=row.issued_at)
        if not self.config.act:
            return
        try:
            followed = channel.follow(action, ActionOrder(row.why, now, number), self._through)
            self._open[number].orphan = not followed
        except DriverError as error:
            if channel.in_steps:
                self._close(number, OutcomeKind.FAILED, str(error), None)

    def reconcile(self, world: World) -> list[ActionRecord]:
        """Outcomes of adopted actions, read from the world. Raises StoreError."""
        adopted = [(number, one) for number, one in self._open.items() if one.orphan]
        if not adopted:
            return []
        weights = {one.virtual_ip: one for one in self.store.wanted.weights()}
        splits = {(one.from_switch, one.to_switch): one for one in self.store.wanted.splits()}
        view = OutcomeView(world, weights, splits)
        done = []
        for number, one in adopted:
            found = outcome_shown(one.action, one.record.issued_at, view)
            if found is not None:
                # How long it took is not known: the time without an orchestrator is no lead time.
                done.append(self._close(number, found[0], found[1], None))
        return done

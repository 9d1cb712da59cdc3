"""Carries actions out and follows each to its outcome; after a restart it finds out what became of the old ones."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import structlog

from cpdb import (
    ActionRecord,
    DriverError,
    OutcomeKind,
    Reservation,
    Seconds,
    SettingsError,
    Store,
    StoreError,
    WantedWeights,
)
from orchestrator.actions import (
    Action,
    MachineAction,
    ReleaseBandwidth,
    ReserveBandwidth,
    ScaleIn,
    ScaleOut,
    SetRoutes,
    SetWeights,
    from_json,
)
from orchestrator.config import OrchestratorConfig
from orchestrator.drivers import Finished, Hypervisors
from orchestrator.judge.aftermath import Sight, all_installed, became, overdue, patience_s
from orchestrator.steps import Step, record
from orchestrator.world import World

LOG = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Open:
    """An action under way; `generation` is set for what the controller carries out, `adopted` after a restart.

    The world has to show what became of an `orphan`: nobody else can tell.
    """

    record: ActionRecord
    action: Action
    generation: int | None = None
    orphan: bool = False
    adopted: bool = False


@dataclass(slots=True)
class Ledger:
    """The one place that acts. Writes down first, acts second, so nothing is ever done that is not recorded."""

    config: OrchestratorConfig
    store: Store
    hypervisors: Hypervisors
    _open: dict[int, _Open] = field(default_factory=dict)
    _ended: list[Finished] = field(default_factory=list)

    def in_flight(self) -> tuple[Action, ...]:
        """Actions whose outcome is not known yet."""
        return tuple(one.action for one in self._open.values())

    def begin(self, step: Step, now: Seconds) -> ActionRecord | None:
        """Records and starts a step; None for a renewal, which is no new action. Raises StoreError."""
        if step.renewal and isinstance(step.action, ReserveBandwidth):
            self._reserve(step.action, step.why, now)
            return None
        if step.renewal and isinstance(step.action, SetRoutes):
            self.store.wanted.put_splits(*step.action.wanted(self.config.owner, step.why, now))
            return None
        row = record(step, self.config.policy, now)
        number = self.store.journal.add_action(row)
        entry = _Open(replace(row, id=number), step.action)
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
        action = step.action
        if isinstance(action, ReserveBandwidth):
            return self._reserve(action, step.why, now)
        if isinstance(action, ReleaseBandwidth):
            self.store.wanted.release(action.key)
            self._close(number, OutcomeKind.DONE, "withdrawn; the switches follow at the next poll", now)
            return None
        if isinstance(action, SetWeights):
            wanted = WantedWeights(action.virtual_ip, dict(action.after), self.config.owner, step.why)
            return self.store.wanted.want_weights(wanted)
        if isinstance(action, SetRoutes):
            return self.store.wanted.put_splits(*action.wanted(self.config.owner, step.why, now))
        self.hypervisors.start(number, action, now)
        return None

    def _reserve(self, action: ReserveBandwidth, why: str, now: Seconds) -> int:
        return self.store.wanted.reserve(
            Reservation(
                key=action.key,
                pair=action.pair,
                bytes_per_s=action.bytes_per_s,
                limits=action.limits,
                owner=self.config.owner,
                reason=why,
                created_at=now,
                expires_at=now + action.lease_s,
                dscp=action.dscp,
            )
        )

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
            found = all_installed(one.action, one.generation or 0, seen)
            limit_s = patience_s(one.action, self.config.install_timeout_s)
            if found is None and now - one.record.issued_at > limit_s:
                found = Finished(0, False, overdue(one.action, one.generation or 0, seen, limit_s), now)
            if found is not None:
                outcome = OutcomeKind.DONE if found.ok else OutcomeKind.FAILED
                done.append(self._close(number, outcome, found.sentence, found.ready_at if found.ok else None))
        return done

    def _close(self, number: int, outcome: OutcomeKind, sentence: str, ready_at: Seconds | None) -> ActionRecord:
        row = replace(self._open[number].record, outcome=outcome, sentence=sentence, ready_at=ready_at)
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
        in_steps = isinstance(action, ScaleOut | ScaleIn)
        if in_steps and not self.config.act:
            return
        self._open[number] = _Open(row, action, orphan=not in_steps, adopted=True)
        LOG.info("action taken over", kind=row.kind, target=row.target, issued_at=row.issued_at)
        if not isinstance(action, MachineAction) or not self.config.act:
            return
        try:
            self._open[number].orphan = not self.hypervisors.follow(number, action, now)
        except DriverError as error:
            if in_steps:
                self._close(number, OutcomeKind.FAILED, str(error), None)

    def reconcile(self, world: World) -> list[ActionRecord]:
        """Outcomes of adopted actions, read from the world. Raises StoreError."""
        adopted = [(number, one) for number, one in self._open.items() if one.orphan]
        if not adopted:
            return []
        weights = {one.virtual_ip: one for one in self.store.wanted.weights()}
        splits = {(one.from_switch, one.to_switch): one for one in self.store.wanted.splits()}
        sight = Sight(world, weights, splits)
        done = []
        for number, one in adopted:
            found = became(one.action, one.record.issued_at, sight)
            if found is not None:
                # How long it took is not known: the time without an orchestrator is no lead time.
                done.append(self._close(number, found[0], found[1], None))
        return done

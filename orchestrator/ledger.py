"""Carries actions out and follows each to its outcome; after a restart it finds out what became of the old ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from cpdb import (
    ActionRecord,
    DriverError,
    Observed,
    OutcomeKind,
    Reservation,
    Seconds,
    SettingsError,
    Store,
    WantedWeights,
)
from orchestrator.actions import (
    Action,
    MigrateVm,
    ReleaseBandwidth,
    ReserveBandwidth,
    SetCpuLimit,
    SetVcpus,
    SetWeights,
    VmAction,
    from_json,
)
from orchestrator.config import OrchestratorConfig
from orchestrator.drivers import Finished, Hypervisors
from orchestrator.steps import Step, record
from orchestrator.world import World

LOG = structlog.get_logger(__name__)
# How long the world may take to show what a dead process had begun.
ORPHAN_PATIENCE_S = 30.0
LIMIT_TOLERANCE = 0.02


@dataclass(slots=True)
class _Open:
    """An action under way; `generation` is set for what the controller carries out, `orphan` after a restart."""

    record: ActionRecord
    action: Action
    generation: int | None = None
    orphan: bool = False


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
        row = record(step, self.config.policy, now)
        number = self.store.journal.add_action(row)
        entry = _Open(replace(row, id=number), step.action)
        self._open[number] = entry
        try:
            entry.generation = self._start(number, step, now)
        except DriverError as error:
            return self._close(number, OutcomeKind.FAILED, str(error), None)
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
                outcome = OutcomeKind.DONE if one.ok else OutcomeKind.FAILED
                done.append(self._close(one.number, outcome, one.sentence, one.ready_at if one.ok else None))
            self._ended.pop(0)
        return done + self._settle_wanted(now)

    def _settle_wanted(self, now: Seconds) -> list[ActionRecord]:
        waiting = {number: one for number, one in self._open.items() if one.generation is not None}
        if not waiting:
            return []
        seen = self.store.wanted.observed()
        done = []
        for number, one in waiting.items():
            found = installed(one.action.target, one.generation or 0, seen)
            if found is None and now - one.record.issued_at > self.config.install_timeout_s:
                found = Finished(0, False, f"no switch reported it within {self.config.install_timeout_s:g} s", now)
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

    def adopt(self, records: Iterable[ActionRecord]) -> None:
        """Takes over pending actions of a process that is gone; the world will tell what became of them."""
        for row in records:
            if row.outcome is not OutcomeKind.PENDING or row.id is None or row.id in self._open:
                continue
            try:
                self._open[row.id] = _Open(row, from_json(row.kind, row.body), orphan=True)
            except SettingsError as error:
                self.store.journal.amend_action(replace(row, outcome=OutcomeKind.FAILED, sentence=str(error)))

    def reconcile(self, world: World) -> list[ActionRecord]:
        """Outcomes of adopted actions, read from the world."""
        done = []
        for number, one in list(self._open.items()):
            found = became(one.action, one.record.issued_at, world) if one.orphan else None
            if found is not None:
                done.append(
                    self._close(number, found[0], found[1], world.now if found[0] is OutcomeKind.DONE else None)
                )
        return done


def installed(key: str, generation: int, seen: Sequence[Observed]) -> Finished | None:
    """What the switches say about a wanted thing: all hold it, one refused, or None while that is open."""
    # What a switch no longer holds says nothing about where the pair enters the network now.
    rows = [one for one in seen if one.key == key and one.status != "removed"]
    current = [one for one in rows if one.generation >= generation]
    refused = next((one for one in current if one.status == "refused"), None)
    if refused is not None:
        return Finished(0, False, f"{refused.node} refused: {refused.detail}", refused.observed_at)
    if not current or any(one.status != "installed" for one in current):
        return None
    nodes = ", ".join(sorted(one.node for one in current))
    return Finished(0, True, f"installed on {nodes}", max(one.observed_at for one in current))


def became(action: Action, issued_at: Seconds, world: World) -> tuple[OutcomeKind, str] | None:
    """What the world shows of an action that a dead process began; None while it may still come true."""
    if _shown(action, world):
        return OutcomeKind.DONE, "found done after a restart of the orchestrator"
    if isinstance(action, SetCpuLimit | SetVcpus | MigrateVm) and action.vm not in world.vms and world.vms:
        return OutcomeKind.SKIPPED, f"{action.vm} is gone"
    if world.now - issued_at > ORPHAN_PATIENCE_S:
        return OutcomeKind.FAILED, "the orchestrator was restarted and the world does not show it"
    return None


def _shown(action: Action, world: World) -> bool:
    if isinstance(action, ReserveBandwidth):
        held = world.reservations.get(action.key)
        found = installed(action.key, held.generation, world.observed) if held else None
        return found is not None and found.ok
    if isinstance(action, ReleaseBandwidth):
        return action.key not in world.reservations
    if isinstance(action, SetWeights):
        return True
    vm = world.vms.get(action.vm)
    return vm is not None and _vm_shows(action, vm.host, vm.cores_limit, vm.vcpus)


def _vm_shows(action: VmAction, host: str, cores_limit: float, vcpus: int) -> bool:
    if isinstance(action, MigrateVm):
        return host == action.after
    if isinstance(action, SetCpuLimit):
        return abs(cores_limit - action.after) <= LIMIT_TOLERANCE
    return isinstance(action, SetVcpus) and vcpus == action.after

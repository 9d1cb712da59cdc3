"""Carries actions out and follows each to its outcome; after a restart it finds out what became of the old ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from cpdb import (
    ActionRecord,
    DriverError,
    InstallReport,
    InstallStatus,
    ObservedRecord,
    OutcomeKind,
    Seconds,
    SettingsError,
    Store,
    StoreError,
    WantedSplit,
    WantedWeights,
    WeightsReport,
    split_key,
)
from orchestrator.act.hypervisors import Finished, Hypervisors
from orchestrator.actions import (
    Action,
    MachineAction,
    MigrateVm,
    ReleaseBandwidth,
    ReserveBandwidth,
    ScaleIn,
    ScaleOut,
    SetRoutes,
    SetWeights,
    VmAction,
    from_json,
)
from orchestrator.config import OWNER, OrchestratorConfig
from orchestrator.proposal import Step, record
from orchestrator.world import World

# How long the world may take to show what a dead process had begun.
ORPHAN_PATIENCE_S = 30.0
ROUTES_PATIENCE_S = 30.0
FOUND = "found done after a restart of the orchestrator"
# Kind of what the controller says of wanted weights: one row for each virtual IP
NOT_SHOWN = "the orchestrator was restarted and the world does not show it"


@dataclass(frozen=True, slots=True)
class OutcomeView:
    """All that is looked at: the world, and what the database holds: weights by virtual IP, splits by their ends."""

    world: World
    weights: Mapping[str, WantedWeights] = field(default_factory=dict)
    splits: Mapping[tuple[str, str], WantedSplit] = field(default_factory=dict)


def installed(key: str, generation: int, seen: Sequence[ObservedRecord]) -> Finished | None:
    """What the switches say about a wanted thing: all hold it, one refused, or None while that is open."""
    # What a switch no longer holds says nothing about where the pair enters the network now.
    reports = (one for one in seen if isinstance(one, InstallReport) and one.key == key)
    rows = [one for one in reports if one.status is not InstallStatus.REMOVED]
    current = [one for one in rows if one.generation >= generation]
    refused = next((one for one in current if one.status is InstallStatus.REFUSED), None)
    if refused is not None:
        return Finished(0, False, f"{refused.node} refused: {refused.detail}", refused.observed_at)
    if not current or any(one.status is not InstallStatus.INSTALLED for one in current):
        return None
    nodes = ", ".join(sorted(one.node for one in current))
    return Finished(0, True, f"installed on {nodes}", max(one.observed_at for one in current))


def followed(virtual_ip: str, generation: int, seen: Sequence[ObservedRecord]) -> Finished | None:
    """What the controller says of wanted weights: whether new communications follow them; None while that is open."""
    word = _of_weights(virtual_ip, generation, seen)
    if word is None or word.status not in (InstallStatus.INSTALLED, InstallStatus.REFUSED):
        return None
    ok = word.status is InstallStatus.INSTALLED
    return Finished(0, ok, f"{'followed' if ok else 'not followed'}: {word.detail}", word.observed_at)


def _of_weights(virtual_ip: str, generation: int, seen: Sequence[ObservedRecord]) -> WeightsReport | None:
    own = (one for one in seen if isinstance(one, WeightsReport) and one.key == virtual_ip)
    current = (one for one in own if one.status is not InstallStatus.REMOVED)
    return next((one for one in current if one.generation >= generation), None)


def all_installed(action: Action, generation: int, seen: Sequence[ObservedRecord]) -> Finished | None:
    """As `installed`, for everything that an action has written."""
    if isinstance(action, SetWeights):
        return followed(action.virtual_ip, generation, seen)
    if not isinstance(action, SetRoutes):
        return installed(action.target, generation, seen)
    found = [installed(split_key(*one.ends), generation, seen) for one in action.changes if any(one.after)]
    refused = next((one for one in found if one is not None and not one.ok), None)
    if refused is not None:
        return refused
    ready = [one.ready_at for one in found if one is not None]
    if len(ready) < len(found):
        return None
    return Finished(0, True, f"in force between {len(found)} pairs of switches", max(ready, default=0.0))


def patience_s(action: Action, install_timeout_s: Seconds) -> Seconds:
    """How long the switches may take: traffic that never falls silent changes its path only after a while."""
    return max(ROUTES_PATIENCE_S, install_timeout_s) if isinstance(action, SetRoutes) else install_timeout_s


def overdue(action: Action, generation: int, seen: Sequence[ObservedRecord], limit_s: Seconds) -> str:
    """What to say of an action that nobody confirmed in time: the last word about it, if there is one."""
    if not isinstance(action, SetWeights):
        return f"no switch reported it within {limit_s:g} s"
    last = _of_weights(action.virtual_ip, generation, seen)
    return f"not known to be followed after {limit_s:g} s: {last.detail if last else 'the controller says nothing'}"


def became(action: Action, issued_at: Seconds, sight: OutcomeView) -> tuple[OutcomeKind, str] | None:
    """What can be seen of an action that a dead process began; None while it may still come true."""
    world = sight.world
    shown = _shown(action, sight)
    if shown is not None:
        return (OutcomeKind.DONE, FOUND) if shown.ok else (OutcomeKind.FAILED, shown.sentence)
    if isinstance(action, VmAction) and action.vm not in world.vms and world.vms:
        return OutcomeKind.SKIPPED, f"{action.vm} is gone"
    if world.now - issued_at > ORPHAN_PATIENCE_S:
        return OutcomeKind.FAILED, f"{NOT_SHOWN}{_where(action, world)}"
    return None


def _where(action: Action, world: World) -> str:
    vm = world.vms.get(action.vm) if isinstance(action, MigrateVm) else None
    return f": {vm.name} runs on {vm.host}" if vm else ""


def _shown(action: Action, sight: OutcomeView) -> Finished | None:
    world = sight.world
    if isinstance(action, ReserveBandwidth):
        held = world.wanted.reservations.get(action.key)
        return installed(action.key, held.generation, world.wanted.observed) if held else None
    if isinstance(action, SetWeights):
        wanted = sight.weights.get(action.virtual_ip)
        same = wanted is not None and dict(wanted.weights) == dict(action.after)
        return followed(action.virtual_ip, wanted.generation, world.wanted.observed) if wanted and same else None
    if isinstance(action, SetRoutes):
        return _routes_shown(action, sight)
    return (
        _seen(world) if action.shown_by(world) else None
    )  # what is done in steps is carried on by who takes over, and says itself how it ended


def _routes_shown(action: SetRoutes, sight: OutcomeView) -> Finished | None:
    generation = 0
    for one in action.changes:
        split = sight.splits.get(one.ends)
        if (split.ratios if split else ()) != (one.after if any(one.after) else ()):
            return None
        generation = min(generation or split.generation, split.generation) if split else generation
    return all_installed(action, generation, sight.world.wanted.observed)


def _seen(world: World) -> Finished:
    return Finished(0, True, FOUND, world.now)


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
        if step.renewal and isinstance(step.action, ReserveBandwidth):
            self.store.wanted.reserve(step.action.reservation(OWNER, step.why, now))
            return None
        if step.renewal and isinstance(step.action, SetRoutes):
            self.store.wanted.put_splits(*step.action.wanted(OWNER, step.why, now))
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
        action = step.action
        if isinstance(action, ReserveBandwidth):
            return self.store.wanted.reserve(action.reservation(OWNER, step.why, now))
        if isinstance(action, ReleaseBandwidth):
            self.store.wanted.release(action.key)
            self._close(number, OutcomeKind.DONE, "withdrawn; the switches follow at the next poll", now)
            return None
        if isinstance(action, SetWeights):
            wanted = WantedWeights(action.virtual_ip, dict(action.after), OWNER, step.why)
            return self.store.wanted.want_weights(wanted)
        if isinstance(action, SetRoutes):
            return self.store.wanted.put_splits(*action.wanted(OWNER, step.why, now))
        if isinstance(action, MachineAction):
            self.hypervisors.start(number, action, now)
        return None

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
            limit_s = patience_s(one.action, self.config.timing.install_timeout_s)
            if found is None and now - one.record.issued_at > limit_s:
                found = Finished(0, False, overdue(one.action, one.generation or 0, seen, limit_s), now)
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
        in_steps = isinstance(action, ScaleOut | ScaleIn)
        if in_steps and not self.config.act:
            return
        self._open[number] = _OpenAction(row, action, orphan=not in_steps, adopted=True)
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
        sight = OutcomeView(world, weights, splits)
        done = []
        for number, one in adopted:
            found = became(one.action, one.record.issued_at, sight)
            if found is not None:
                # How long it took is not known: the time without an orchestrator is no lead time.
                done.append(self._close(number, found[0], found[1], None))
        return done

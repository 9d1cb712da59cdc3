"""How each kind of action reaches the world and how it is known that it came true: what tells them apart stands here.

Actions are data; a channel is what the executor needs to carry one kind of them out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from cpdb import (
    InstallReport,
    InstallStatus,
    ObservedRecord,
    OutcomeKind,
    Seconds,
    Store,
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
    SetCpuLimit,
    SetMemory,
    SetNetworkRate,
    SetRoutes,
    SetVcpus,
    SetWeights,
    VmAction,
)
from orchestrator.config import OWNER
from orchestrator.world import World

# How long the world may take to show what a dead process had begun.
ORPHAN_TIMEOUT_S = 30.0
ROUTES_TIMEOUT_S = 30.0
FOUND = "found done after a restart of the orchestrator"
NOT_SHOWN = "the orchestrator was restarted and the world does not show it"

SentAction = TypeVar("SentAction", bound=Action)
SentToMachine = TypeVar("SentToMachine", bound=MachineAction)
SentToVm = TypeVar("SentToVm", bound=VmAction)


@dataclass(frozen=True, slots=True)
class OutcomeView:
    """All that is looked at: the world, and what the database holds: weights by virtual IP, splits by their ends."""

    world: World
    weights: Mapping[str, WantedWeights] = field(default_factory=dict)
    splits: Mapping[tuple[str, str], WantedSplit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Effectors:
    """What can be acted through: what the controller shall do is written to the store, hypervisors are called."""

    store: Store
    hypervisors: Hypervisors


@dataclass(frozen=True, slots=True)
class ActionOrder:
    """When and why something is done; `number` is that of its row in the journal, 0 for renewals, which have none."""

    why: str
    now: Seconds
    number: int = 0


class ActionChannel(Generic[SentAction]):
    """One kind of action. `leased`: it can be renewed; `in_steps`: who takes it over carries it on, or nobody does.

    `at_once` is what to say of one that is done as soon as it is begun, "" where that has to be waited for.
    """

    leased: ClassVar[bool] = False
    in_steps: ClassVar[bool] = False
    at_once: ClassVar[str] = ""

    def start(self, action: SentAction, order: ActionOrder, through: Effectors) -> int | None:
        """Begins it; the generation of what the controller has to install. Raises DriverError and StoreError."""
        raise NotImplementedError

    def follow(self, action: SentAction, order: ActionOrder, through: Effectors) -> bool:  # noqa: ARG002 - an answer
        """Whether somebody will tell the end of one that a dead process began. Raises DriverError."""
        return False

    def confirmed(self, action: SentAction, generation: int, seen: Sequence[ObservedRecord]) -> Finished | None:
        """What was reported of all that it has written; None while that is open."""
        return installed(action.target, generation, seen)

    def limit_s(self, install_timeout_s: Seconds) -> Seconds:
        """How long the switches may take."""
        return install_timeout_s

    def overdue(
        self,
        action: SentAction,  # noqa: ARG002 - weights have more to say
        generation: int,  # noqa: ARG002
        seen: Sequence[ObservedRecord],  # noqa: ARG002
        limit_s: Seconds,
    ) -> str:
        """What to say of one that nobody confirmed in time: the last word about it, if there is one."""
        return f"no switch reported it within {limit_s:g} s"

    def shown(self, action: SentAction, view: OutcomeView) -> Finished | None:
        """What can be seen of one that a dead process began."""
        return Finished(0, True, FOUND, view.world.now) if action.shown_by(view.world) else None

    def lost(self, action: SentAction, world: World) -> str:  # noqa: ARG002 - an answer
        """Why it can no longer come true; "" while it can."""
        return ""

    def where(self, action: SentAction, world: World) -> str:  # noqa: ARG002 - an answer
        """What is known of its target that helps whoever looks for it, "" for nothing."""
        return ""


class _ReserveChannel(ActionChannel[ReserveBandwidth]):
    leased = True

    def start(self, action: ReserveBandwidth, order: ActionOrder, through: Effectors) -> int:
        return through.store.wanted.reserve(action.reservation(OWNER, order.why, order.now))

    def shown(self, action: ReserveBandwidth, view: OutcomeView) -> Finished | None:
        held = view.world.wanted.reservations.get(action.key)
        return installed(action.key, held.generation, view.world.wanted.observed) if held else None


class _ReleaseChannel(ActionChannel[ReleaseBandwidth]):
    at_once = "withdrawn; the switches follow at the next poll"

    def start(self, action: ReleaseBandwidth, order: ActionOrder, through: Effectors) -> None:
        through.store.wanted.release(action.key, order.now)


class _WeightsChannel(ActionChannel[SetWeights]):
    """The controller itself says whether new communications follow: one row for each virtual IP."""

    def start(self, action: SetWeights, order: ActionOrder, through: Effectors) -> int:
        wanted = WantedWeights(action.virtual_ip, dict(action.after), OWNER, order.why)
        return through.store.wanted.want_weights(wanted)

    def confirmed(self, action: SetWeights, generation: int, seen: Sequence[ObservedRecord]) -> Finished | None:
        return followed(action.virtual_ip, generation, seen)

    def overdue(self, action: SetWeights, generation: int, seen: Sequence[ObservedRecord], limit_s: Seconds) -> str:
        last = _of_weights(action.virtual_ip, generation, seen)
        return f"not known to be followed after {limit_s:g} s: {last.detail if last else 'the controller says nothing'}"

    def shown(self, action: SetWeights, view: OutcomeView) -> Finished | None:
        wanted = view.weights.get(action.virtual_ip)
        same = wanted is not None and dict(wanted.weights) == dict(action.after)
        return followed(action.virtual_ip, wanted.generation, view.world.wanted.observed) if wanted and same else None


class _RoutesChannel(ActionChannel[SetRoutes]):
    leased = True

    def start(self, action: SetRoutes, order: ActionOrder, through: Effectors) -> int:
        return through.store.wanted.put_splits(*action.wanted(OWNER, order.why, order.now))

    def confirmed(self, action: SetRoutes, generation: int, seen: Sequence[ObservedRecord]) -> Finished | None:
        found = [installed(split_key(*one.ends), generation, seen) for one in action.changes if any(one.after)]
        refused = next((one for one in found if one is not None and not one.ok), None)
        if refused is not None:
            return refused
        ready = [one.ready_at for one in found if one is not None]
        if len(ready) < len(found):
            return None
        return Finished(0, True, f"in force between {len(found)} pairs of switches", max(ready, default=0.0))

    def limit_s(self, install_timeout_s: Seconds) -> Seconds:
        """Traffic that never falls silent changes its path only after a while."""
        return max(ROUTES_TIMEOUT_S, install_timeout_s)

    def shown(self, action: SetRoutes, view: OutcomeView) -> Finished | None:
        generation = 0
        for change in action.changes:
            split = view.splits.get(change.ends)
            wanted = (change.after, change.heavy) if any(change.after) else ((), ())
            if ((split.ratios, split.heavy) if split else ((), ())) != wanted:
                return None
            generation = min(generation or split.generation, split.generation) if split else generation
        return self.confirmed(action, generation, view.world.wanted.observed)


class _MachineChannel(ActionChannel[SentToMachine]):
    def start(self, action: SentToMachine, order: ActionOrder, through: Effectors) -> None:
        # Between its record and this moment a process may have been stopped for long, and another act in its place.
        through.store.journal.fence.confirm(through.store.engine)
        through.hypervisors.start(order.number, action, order.now)

    def follow(self, action: SentToMachine, order: ActionOrder, through: Effectors) -> bool:
        return through.hypervisors.follow(order.number, action, order.now)


class _ScaleChannel(_MachineChannel[ScaleOut | ScaleIn]):
    in_steps = True


class _VmChannel(_MachineChannel[SentToVm]):
    def lost(self, action: SentToVm, world: World) -> str:
        return f"{action.vm} is gone" if world.vms and action.vm not in world.vms else ""


class _MoveChannel(_VmChannel[MigrateVm]):
    def where(self, action: MigrateVm, world: World) -> str:
        vm = world.vms.get(action.vm)
        return f": {vm.name} runs on {vm.host}" if vm else ""


CHANNELS: Mapping[type[Action], ActionChannel[Any]] = {
    ReserveBandwidth: _ReserveChannel(),
    ReleaseBandwidth: _ReleaseChannel(),
    SetWeights: _WeightsChannel(),
    SetRoutes: _RoutesChannel(),
    **dict.fromkeys((SetCpuLimit, SetVcpus, SetMemory, SetNetworkRate), _VmChannel[VmAction]()),
    MigrateVm: _MoveChannel(),
    **dict.fromkeys((ScaleOut, ScaleIn), _ScaleChannel()),
}


def channel_of(action: Action) -> ActionChannel[Any]:
    """The channel that an action of its kind goes through."""
    return CHANNELS[type(action)]


def outcome_shown(action: Action, issued_at: Seconds, view: OutcomeView) -> tuple[OutcomeKind, str] | None:
    """What can be seen of an action that a dead process began; None while it may still come true."""
    channel, world = channel_of(action), view.world
    shown = channel.shown(action, view)
    if shown is not None:
        return (OutcomeKind.DONE, FOUND) if shown.ok else (OutcomeKind.FAILED, shown.sentence)
    if lost := channel.lost(action, world):
        return OutcomeKind.SKIPPED, lost
    if world.now - issued_at > ORPHAN_TIMEOUT_S:
        return OutcomeKind.FAILED, f"{NOT_SHOWN}{channel.where(action, world)}"
    return None


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

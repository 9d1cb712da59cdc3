"""The one decision: what the live cycle does, what `forepath plan` prints and what `forepath apply` carries out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cpdb import ActionRecord, OutcomeKind, Seconds, Store
from orchestrator.actions import Action, MigrateVm, SetCpuLimit, SetMemory, SetVcpus, from_json
from orchestrator.config import OrchestratorConfig
from orchestrator.context import PlanningContext
from orchestrator.guards.guard import Guarded, guard
from orchestrator.judge.onsets import OnsetLedger
from orchestrator.judge.standing import StandingLedger
from orchestrator.lead_times import LeadLedger
from orchestrator.observe.gather import Gatherer, Paths
from orchestrator.pace import planning_interval_s
from orchestrator.plan import Plan, Strategy, plan, strategies_for
from orchestrator.proposal import Refusal, Step
from orchestrator.strategies import bandwidth
from orchestrator.world import World, apply

JOURNAL_S = 600.0
MACHINE_KINDS = frozenset(kind.kind for kind in (SetCpuLimit, SetVcpus, SetMemory, MigrateVm))


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """Links whose guaranteed queue was lately found whole, and the share of packets that each has lately dropped."""

    ready: frozenset[str] = frozenset()
    losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan for a world, what of it may be done now, and after how long to decide again."""

    world: World
    plan: Plan
    guarded: Guarded
    again_s: Seconds

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """All that is not done, by the strategies and by the guard."""
        return (*self.plan.refusals, *self.guarded.refused)

    @property
    def ready(self) -> tuple[Step, ...]:
        """What may be done at once; the rest is found again when its turn has come."""
        return tuple(step for step in self.guarded.allowed if not step.waits)


class Decider:
    """Looks and decides; keeps what is learnt, which can be learnt again at any time."""

    def __init__(
        self, config: OrchestratorConfig, store: Store, paths: Paths, queues: Callable[[Seconds], QueueHealth]
    ) -> None:
        """`paths(source, destination)` names the nodes on the way; `queues(now)` says which queues stand."""
        self._config = config
        self._store = store
        self._queues = queues
        self._gatherer = Gatherer(store, config, paths)
        self._leads = LeadLedger(store)
        self.standings = StandingLedger(store, config)
        self.onsets = OnsetLedger(store, max(config.timing.duty_s, config.timing.steady_cycle_s))
        self._strategies: tuple[Strategy, ...] = strategies_for(config)

    def recent(self, now: Seconds) -> list[ActionRecord]:
        """The journal's records of the last minutes, newest first. Raises StoreError."""
        return self._store.journal.actions(since=now - JOURNAL_S, again=True)

    def look(self, now: Seconds, in_flight: tuple[Action, ...], recent: Sequence[ActionRecord]) -> World:
        """The world as it was measured. Raises StoreError."""
        self.standings.learn((), now)
        world = self._gatherer.world(now, in_flight, self._leads.times(recent, now))
        queues = self._queues(now)
        return world.changed(network=replace(world.network, queues=queues.ready, queue_losses=queues.losses))

    def decide(self, world: World, recent: Sequence[ActionRecord]) -> Decision:
        """What should be done about a world after what was done lately. Raises StoreError; touches nothing."""
        leads = replace(world.leads, earlier_s=self.standings.earlier_s)
        world = up_to_date(world, recent).changed(leads=leads)
        context = PlanningContext.of(world, self._config, self.standings.margins)
        self.onsets.learn(bandwidth.onset_signs(context), world.now)
        context = replace(context, untimely=self.onsets.untimely)
        wanted = plan(context, self._strategies)
        return Decision(world, wanted, guard(wanted, context, recent), planning_interval_s(context, wanted))


def up_to_date(world: World, recent: Sequence[ActionRecord]) -> World:
    """Adds what was done after a machine was last measured, or it would be done a second time."""
    for record in reversed(recent):
        if record.outcome is not OutcomeKind.DONE or record.timing.ready_at is None or record.kind not in MACHINE_KINDS:
            continue
        vm = world.vms.get(record.target)
        if vm is not None and record.timing.ready_at >= vm.seen_at:
            world = apply(world, from_json(record.kind, record.body))
    return world

"""One turn of the loop: settle what ended, look, demand, plan, guard, act or advise, judge."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from cpdb import ActionRecord, OutcomeKind, Seconds, SettingsError, Store, StoreError
from orchestrator.act import Executor, Hypervisors, QueueKeeper
from orchestrator.actions import Action, from_json
from orchestrator.config import OWNER, OrchestratorConfig
from orchestrator.decide import Decider, Decision, QueueHealth, up_to_date
from orchestrator.duty import Turn
from orchestrator.judge.judge import Judge, is_open
from orchestrator.judge.shortages import ShortageWatch
from orchestrator.judge.standing import KindStanding, objection, with_standing
from orchestrator.machine_alarms import MachineAlarms
from orchestrator.observe.gather import Paths
from orchestrator.plan import Plan
from orchestrator.proposal import WAITING, Reason, Refusal, Step, record
from orchestrator.requests import Answers
from orchestrator.world import World

LOG = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What one cycle saw and did; `advised` is what it would have done without permission to act.

    `standby`: another orchestrator is on duty, so this one looked at nothing. `again_s`: decisions need not be closer.
    """

    now: Seconds
    world_age_s: Seconds
    pairs: int
    plan: Plan = field(default_factory=Plan)
    issued: tuple[ActionRecord, ...] = ()
    renewed: int = 0
    advised: tuple[ActionRecord, ...] = ()
    finished: tuple[ActionRecord, ...] = ()
    refused: tuple[Refusal, ...] = ()
    judged: tuple[ActionRecord, ...] = ()
    standby: bool = False
    again_s: Seconds = 0.0


class Orchestrator:
    """Decides and acts. All its memory is in the database; a restarted one continues."""

    def __init__(
        self,
        config: OrchestratorConfig,
        store: Store,
        hypervisors: Hypervisors,
        paths: Paths,
        queues: QueueKeeper | None = None,
    ) -> None:
        """`paths(source, destination)` names the nodes on the way, both ends included.

        Without `queues`, bandwidth is reserved by meters alone.
        """
        self._config = config
        self._turn = Turn(config, store)
        self._store = store = store.fenced(self._turn.fence)
        self._hypervisors = hypervisors
        self._queues = queues
        self._decider = Decider(config, store, paths, self._queue_health)
        self._executor = Executor(config, store, hypervisors)
        self._answers = Answers(store)
        self._judge = Judge(store)
        self._shortages = ShortageWatch(store, config)
        self._adopted = False
        self._troubles = MachineAlarms(store)

    def keep_time(self, clock: Callable[[], Seconds]) -> None:
        """By which clock leases are held: the database's, where several machines compete."""
        self._turn.clock = clock

    def observe(self, now: Seconds) -> None:
        """Measures hosts and machines and writes their loads, unless another does. Raises StoreError."""
        if not self._turn.take(now) or not self._turn.alone(now):
            return
        hosts, vms = self._hypervisors.loads(now)
        self._store.facts.add_loads([*hosts, *vms])
        self._store.alarms.tell_refusals(OWNER, now)
        self._troubles.tell(vms, now)

    def world(self, now: Seconds) -> World:
        """The world as a plan would see it now. Raises StoreError."""
        recent = self._decider.recent(now)
        return up_to_date(self._decider.look(now, self._executor.in_flight(), recent), recent)

    @property
    def standings(self) -> Mapping[str, KindStanding]:
        """Where each kind of action stands by the verdicts so far."""
        return self._decider.standings.known

    def _queue_health(self, now: Seconds) -> QueueHealth:
        if self._queues is None:
            return QueueHealth()
        stop = self._config.guard.stop_file
        paused = (stop is not None and stop.exists()) or self._store.pauses.in_force(now) is not None
        ready = self._queues.ready(now, paused=paused)
        return QueueHealth(ready, self._queues.losses() if ready else {})

    def cycle(self, now: Seconds) -> CycleReport:
        """Everything once. Raises StoreError when the database is away; the next cycle then simply starts again."""
        finished = self._executor.settle(now)
        if not self._turn.take(now):
            self._adopted = False  # what the other leaves behind is taken over when it is gone
            return CycleReport(now, 0.0, 0, finished=tuple(finished), standby=True)
        recent = self._decider.recent(now)
        if self._turn.heir(now):
            self._executor.adopt(recent if self._adopted else self._store.journal.pending(), now)
            self._adopted = True
        world = self._decider.look(now, self._executor.in_flight(), recent)
        finished += self._executor.reconcile(world)
        if finished:
            recent = self._decider.recent(now)
            world = world.changed(in_flight=self._executor.in_flight())
        decision = self._decider.decide(world, recent)
        self._judge.note([*recent, *finished], now)
        self._note_refusals(decision.refused, recent, now)
        idle = self._idle(now)
        issued, renewed, advised = self._carry_out(decision.ready, recent, now, idle)
        self._decider.standings.alarm(now)
        self._answers.tell(decision.plan.requests, decision.guarded.refused, decision.world, idle)
        judged = self._look_back(decision, recent) if self._turn.alone(now) else ()
        return CycleReport(
            now,
            world.age_s,
            len(world.pairs),
            decision.plan,
            issued,
            renewed,
            advised,
            tuple(finished),
            decision.refused,
            judged,
            again_s=decision.again_s,
        )

    def _carry_out(
        self, steps: Iterable[Step], recent: Sequence[ActionRecord], now: Seconds, idle: str | None
    ) -> tuple[tuple[ActionRecord, ...], int, tuple[ActionRecord, ...]]:
        issued: list[ActionRecord] = []
        advised: list[ActionRecord] = []
        renewed, known = 0, self._decider.standings.known
        for step in (with_standing(one, known, self._config) for one in steps):
            why = idle or objection(step.action, known, self._config)
            if why is not None:
                advised += self._advise(step, recent, now, why)
                continue
            row = self._executor.begin(step, now)
            renewed += row is None
            if row is not None:
                issued.append(row)
                LOG.info("action", kind=row.kind, target=row.target, why=row.why)
        return tuple(issued), renewed, tuple(advised)

    def _look_back(self, decision: Decision, recent: Sequence[ActionRecord]) -> tuple[ActionRecord, ...]:
        """What is short, what has been judged, and what that teaches."""
        now = decision.world.now
        self._shortages.watch(decision.world, self._judge.foresaw, recent)
        judged = self._judge.judge(partial(lasts, decision), now)
        self._decider.standings.learn(judged, now)
        self._decider.onsets.tell(now)
        return judged

    def _idle(self, now: Seconds) -> str | None:
        """Why nothing may be done, None when it may."""
        if not self._config.act:
            return "the orchestrator may not act"
        pause = self._store.pauses.in_force(now)
        return f"paused by {pause.paused_by}" if pause else None

    def _advise(self, step: Step, recent: Sequence[ActionRecord], now: Seconds, why: str) -> Iterable[ActionRecord]:
        row = replace(record(step, self._config.policy, now), outcome=OutcomeKind.ADVISED)
        row = replace(row, sentence=f"advice only: {why}")
        # Once for each need: advice with a promise when the one before has been judged, other advice now and then.
        known = self._judge.advised(row) if is_open(row) else self._told(step.action, row.outcome, recent, now)
        if not known:
            row = replace(row, id=self._store.journal.add_action(row))
            self._judge.note([row], now)
            yield row

    def _note_refusals(self, refused: Iterable[Refusal], recent: Sequence[ActionRecord], now: Seconds) -> None:
        for one in refused:
            action = one.action
            if action is None or one.code in WAITING:
                continue
            if not self._told(action, OutcomeKind.SKIPPED, recent, now):
                step = Step(action, one.subject, Reason(alternatives=(one,)), now, 0.0)
                row = record(step, self._config.policy, now)
                text = f"refused: {one.why_not}"
                self._store.journal.add_action(replace(row, outcome=OutcomeKind.SKIPPED, sentence=text))

    def _told(self, action: Action, outcome: OutcomeKind, recent: Sequence[ActionRecord], now: Seconds) -> bool:
        since = now - self._config.timing.advice_repeat_s
        return any(
            one.outcome is outcome and one.kind == action.kind and one.target == action.target and one.issued_at > since
            for one in recent
        )

    def close(self) -> None:
        """Starts nothing more; leases end by themselves, machines stay as they are, queues go."""
        on_duty = self._turn.on_duty
        self._hypervisors.close()
        if self._queues is not None:
            self._queues.close(remove=on_duty)
        try:
            self._turn.give_back()
        except StoreError as error:
            LOG.warning("the lease was not given back; it ends by itself", error=str(error))


def lasts(decision: Decision, one: ActionRecord) -> bool:
    """Whether an action is still in effect, or the advice would still be given."""
    if one.outcome is OutcomeKind.ADVISED:
        return any((step.action.kind, step.action.target) == (one.kind, one.target) for step in decision.plan.steps)
    try:
        action = from_json(one.kind, one.body)
    except SettingsError:
        return False
    # A place, or what was given back, is watched for its time alone.
    return action.gives and action.shown_by(decision.world)

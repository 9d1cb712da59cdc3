"""What was decided, done and noticed: actions from decision to verdict, their steps, plans, alarms."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Any

from sqlalchemy import Engine

from cpdb.model import ActionRecord, Json, OutcomeKind, PlanRecord, Seconds
from cpdb.refusals import refusals_of
from cpdb.repository import Condition, Repository, transaction
from cpdb.schema import action_steps, actions, alarms, audits, plans, shortages
from cpdb.state.leases import Fence

# A row that could not be stored or read; everything else goes on.
SET_ASIDE = "set_aside"
NEWEST_FIRST = (actions.c.issued_at.desc(), actions.c.id.desc())


class ShortageKind(StrEnum):
    """What was missing."""

    CPU = "cpu"
    MEMORY = "memory"
    HOST = "host"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class ShortageRecord:
    """A machine, host or link was short for so many seconds; `foreseen_by` is the action or advice that foresaw it."""

    kind: ShortageKind
    subject: str
    began_at: Seconds
    seconds: Seconds
    detail: str
    foreseen_by: int | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Who had something changed through the API, from which address, what, and with which words."""

    t: Seconds
    who: str
    origin: str
    what: str
    detail: Json


class Journal:
    """Append and amend; nothing is ever taken out."""

    def __init__(self, engine: Engine, fence: Fence = Fence()) -> None:
        self._engine, self.fence = engine, fence
        self._audits = Repository(engine, audits, AuditRecord)
        self._shortages = Repository(engine, shortages, ShortageRecord)
        self._actions = Repository(engine, actions, ActionRecord)
        self._plans = Repository(engine, plans, PlanRecord)

    def add_action(self, item: ActionRecord) -> int:
        """Writes a new action down before it is carried out; returns its number.

        Raises StoreRefused where another has the `fence`'s lease by now.
        """
        with transaction(self._engine, "writing an action down") as connection:
            number = self._actions.add(item, within=connection)
            self.fence.check(connection)
            return number

    def amend_action(self, item: ActionRecord) -> None:
        """Replaces what is known of the action with this number."""
        if item.id is None:
            raise ValueError("an action without a number was never added")
        self._actions.amend(item, actions.c.id == item.id)

    def actions(
        self, since: Seconds = 0.0, limit: int | None = None, until: Seconds = inf, again: bool = False
    ) -> list[ActionRecord]:
        """Actions with since < issued_at <= until, newest first; `again` is for who asks for the same all the time."""
        at = actions.c.issued_at
        if again:
            return self._actions.read_again(at > since, at <= until, order_by=NEWEST_FIRST)[:limit]
        return self._actions.read(at > since, at <= until, order_by=NEWEST_FIRST, limit=limit)

    def pending(self) -> list[ActionRecord]:
        """Every action without an outcome, however old, oldest first."""
        return self._actions.read(actions.c.outcome == OutcomeKind.PENDING.value, order_by=[actions.c.id])

    def done(self, since: Seconds, limit: int) -> list[ActionRecord]:
        """The newest `limit` actions with issued_at > since that were done at a known time, newest first."""
        done = (actions.c.outcome == OutcomeKind.DONE.value) & actions.c.ready_at.is_not(None)
        return self._actions.read(actions.c.issued_at > since, done, order_by=NEWEST_FIRST, limit=limit)

    def judged(self, since: Seconds, limit: int) -> list[ActionRecord]:
        """Those with a verdict of the newest `limit` actions and pieces of advice since then, newest first."""
        promised = actions.c.outcome.in_((OutcomeKind.DONE.value, OutcomeKind.ADVISED.value))
        found = self._actions.read(actions.c.issued_at > since, promised, order_by=NEWEST_FIRST, limit=limit)
        return [one for one in found if one.verdict]

    def action(self, number: int) -> ActionRecord | None:
        """The action with this number, or None."""
        return self._actions.read_first(actions.c.id == number)

    def keep_shortage(self, item: ShortageRecord) -> ShortageRecord:
        """Writes a shortage down, or what is known of it by now; returns it with its number."""
        if item.id is None:
            return replace(item, id=self._shortages.add(item))
        self._shortages.amend(item, shortages.c.id == item.id)
        return item

    def shortages(self, since: Seconds) -> list[ShortageRecord]:
        """Shortages that began after `since`, oldest first."""
        return self._shortages.read(shortages.c.began_at > since, order_by=[shortages.c.id])

    def add_audit(self, item: AuditRecord) -> int:
        """Writes down who has something changed, before it is; returns its number."""
        return self._audits.add(item)

    def audits(self, since: Seconds, until: Seconds = inf) -> list[AuditRecord]:
        """What people had changed with since < t <= until, newest first."""
        return self._audits.read(
            audits.c.t > since, audits.c.t <= until, order_by=[audits.c.t.desc(), audits.c.id.desc()]
        )

    def add_plan(self, item: PlanRecord) -> int:
        """Keeps a plan; older open plans become superseded. Returns its number."""
        with transaction(self._plans.engine, "keeping a plan") as connection:
            self._plans.change({"state": "superseded"}, plans.c.state == "open", within=connection)
            return self._plans.add(item, within=connection)

    def close_plan(self, number: int, state: str) -> bool:
        """Marks an open plan as applied or expired; False when it was no longer open."""
        return self._plans.change({"state": state}, plans.c.id == number, plans.c.state == "open") > 0

    def plan(self, number: int) -> PlanRecord | None:
        """The plan with this number, or None."""
        return self._plans.read_first(plans.c.id == number)


@dataclass(frozen=True, slots=True)
class WorkflowStep:
    """One step of the action with that number was begun, done or undone, as `step` says."""

    action_id: int
    step: str
    t: Seconds
    detail: Json


class WorkflowLog:
    """How far an action of several steps has come: read by whoever takes over when its orchestrator is gone."""

    def __init__(self, engine: Engine) -> None:
        self._steps = Repository(engine, action_steps, WorkflowStep)

    def note(self, item: WorkflowStep) -> None:
        """Adds a note; it is on disk when this returns."""
        self._steps.add(item)

    def steps_of(self, action_id: int) -> list[WorkflowStep]:
        """All notes about an action, oldest first."""
        return list(self.steps_of_many((action_id,)).get(action_id, []))

    def steps_of_many(self, ids: Collection[int]) -> Mapping[int, list[WorkflowStep]]:
        """Notes by action, oldest first; actions without any are left out."""
        steps: dict[int, list[WorkflowStep]] = {}
        for step in self._steps.read(action_steps.c.action_id.in_(list(ids)), order_by=[action_steps.c.id]):
            steps.setdefault(step.action_id, []).append(step)
        return steps


@dataclass(frozen=True, slots=True)
class Alarm:
    """`kind` names the cause, `key` what it is about, `node` who saw it. Open until `cleared_at`."""

    kind: str
    key: str
    node: str
    detail: str
    first_at: Seconds
    last_at: Seconds
    count: int = 1
    cleared_at: Seconds | None = None


class Alarms:
    """What a person should look at: one open alarm for each (kind, key, node), counted instead of repeated."""

    def __init__(self, engine: Engine) -> None:
        self._alarms = Repository(engine, alarms, Alarm)
        self._told_by: set[str] = set()

    def raise_(self, items: Sequence[Alarm]) -> None:
        """Opens alarms; one that is open already gets the new detail and time, and a higher count."""
        refusals_of(self._alarms.engine).write_apart("alarm", self._raise, items)

    def _raise(self, items: Sequence[Alarm]) -> None:
        with transaction(self._alarms.engine, "raising alarms") as connection:
            for item in items:
                news = {"detail": item.detail, "last_at": item.last_at, "count": alarms.c.count + item.count}
                if not self._alarms.change(news, _same_open(item.kind, item.key, item.node), within=connection):
                    self._alarms.add(item, within=connection)

    def clear(self, kind: str, key: str, node: str, now: Seconds) -> bool:
        """Closes an alarm; False when none was open."""
        return self._alarms.change({"cleared_at": now}, _same_open(kind, key, node)) > 0

    def tell_refusals(self, node: str, now: Seconds) -> None:
        """What this process had to set aside becomes an alarm of `node` while that goes on."""
        fresh, over = refusals_of(self._alarms.engine).news(now)
        if node not in self._told_by:
            # What an earlier process had to set aside
            self._told_by.add(node)
            over += [one.key for one in self.open() if (one.kind, one.node) == (SET_ASIDE, node)]
        for what in over:
            self.clear(SET_ASIDE, what, node, now)
        self.raise_([Alarm(SET_ASIDE, what, node, why, now, now, count) for what, (why, count) in fresh.items()])

    def open(self) -> list[Alarm]:
        """All open alarms, newest first."""
        return self._read(alarms.c.cleared_at.is_(None))

    def at(self, t: Seconds) -> list[Alarm]:
        """Alarms that were open at `t`, with what was last said of them, newest first."""
        return self._read((alarms.c.first_at <= t) & (alarms.c.cleared_at.is_(None) | (alarms.c.cleared_at > t)))

    def since(self, t: Seconds) -> list[Alarm]:
        """All alarms that were raised or seen again after `t`, newest first."""
        return self._read(alarms.c.last_at > t)

    def _read(self, which: Condition) -> list[Alarm]:
        return self._alarms.read(which, order_by=[alarms.c.last_at.desc(), alarms.c.id.desc()])


def _same_open(kind: str, key: str, node: str) -> Any:
    return (alarms.c.kind == kind) & (alarms.c.key == key) & (alarms.c.node == node) & alarms.c.cleared_at.is_(None)

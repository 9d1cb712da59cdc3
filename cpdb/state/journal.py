"""What was decided and done: actions from decision to verdict, and plans that wait for a person."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from cpdb.engine import reported
from cpdb.model import ActionRecord, Json, OutcomeKind, PlanRecord, Seconds
from cpdb.schema import action_steps, actions, alarms, plans

ACTION_COLUMNS = [actions.c[item.name] for item in fields(ActionRecord)]
PLAN_COLUMNS = [plans.c[item.name] for item in fields(PlanRecord)]


class Journal:
    """Append and amend; nothing is ever taken out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_action(self, item: ActionRecord) -> int:
        """Writes a new action down before it is carried out; returns its number."""
        with reported(self._engine, f"recording {item.kind}"), self._engine.begin() as connection:
            result = connection.execute(insert(actions).values(_row(item)))
            return int(result.inserted_primary_key[0])  # type: ignore[index]

    def amend_action(self, item: ActionRecord) -> None:
        """Replaces what is known of the action with this number."""
        if item.id is None:
            raise ValueError("an action without a number was never added")
        with reported(self._engine, f"recording {item.kind}"), self._engine.begin() as connection:
            connection.execute(update(actions).where(actions.c.id == item.id).values(_row(item)))

    def actions(self, since: Seconds = 0.0, limit: int | None = None) -> list[ActionRecord]:
        """Actions with issued_at > since, newest first."""
        query = select(*ACTION_COLUMNS).where(actions.c.issued_at > since)
        query = query.order_by(actions.c.issued_at.desc(), actions.c.id.desc()).limit(limit)
        with reported(self._engine, "reading actions"), self._engine.connect() as connection:
            return [_action(row) for row in connection.execute(query)]

    def pending(self) -> list[ActionRecord]:
        """Every action without an outcome, however old, oldest first."""
        query = select(*ACTION_COLUMNS).where(actions.c.outcome == OutcomeKind.PENDING.value).order_by(actions.c.id)
        with reported(self._engine, "reading pending actions"), self._engine.connect() as connection:
            return [_action(row) for row in connection.execute(query)]

    def done(self, since: Seconds, limit: int) -> list[ActionRecord]:
        """The newest `limit` actions with issued_at > since that were done at a known time, newest first."""
        query = select(*ACTION_COLUMNS).where(
            actions.c.issued_at > since, actions.c.outcome == OutcomeKind.DONE.value, actions.c.ready_at.is_not(None)
        )
        query = query.order_by(actions.c.issued_at.desc(), actions.c.id.desc()).limit(limit)
        with reported(self._engine, "reading durations"), self._engine.connect() as connection:
            return [_action(row) for row in connection.execute(query)]

    def action(self, number: int) -> ActionRecord | None:
        """The action with this number, or None."""
        query = select(*ACTION_COLUMNS).where(actions.c.id == number)
        with reported(self._engine, "reading an action"), self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else _action(row)

    def add_plan(self, item: PlanRecord) -> int:
        """Keeps a plan; older open plans become superseded. Returns its number."""
        with reported(self._engine, "keeping a plan"), self._engine.begin() as connection:
            connection.execute(update(plans).where(plans.c.state == "open").values(state="superseded"))
            result = connection.execute(insert(plans).values(_row(item)))
            return int(result.inserted_primary_key[0])  # type: ignore[index]

    def close_plan(self, number: int, state: str) -> bool:
        """Marks an open plan as applied or expired; False when it was no longer open."""
        change = update(plans).where(plans.c.id == number, plans.c.state == "open").values(state=state)
        with reported(self._engine, "closing a plan"), self._engine.begin() as connection:
            return connection.execute(change).rowcount > 0

    def plan(self, number: int) -> PlanRecord | None:
        """The plan with this number, or None."""
        query = select(*PLAN_COLUMNS).where(plans.c.id == number)
        with reported(self._engine, "reading a plan"), self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else PlanRecord(*row)


def _row(item: ActionRecord | PlanRecord) -> dict[str, Any]:
    row = asdict(item)
    del row["id"]
    return row


def _action(row: Any) -> ActionRecord:
    record = ActionRecord(*row)
    return replace(record, outcome=OutcomeKind(record.outcome))


@dataclass(frozen=True, slots=True)
class WorkflowStep:
    """One step of the action with that number was begun, done or undone, as `step` says."""

    action_id: int
    step: str
    t: Seconds
    detail: Json


STEP_COLUMNS = [action_steps.c[item.name] for item in fields(WorkflowStep)]


class WorkflowLog:
    """Notes are only ever added."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def note(self, item: WorkflowStep) -> None:
        """Adds a note; it is on disk when this returns."""
        row = asdict(item) | {"detail": dict(item.detail)}
        with reported(self._engine, f"noting {item.step}"), self._engine.begin() as connection:
            connection.execute(insert(action_steps).values(row))

    def steps_of(self, action_id: int) -> list[WorkflowStep]:
        """All notes about an action, oldest first."""
        return list(self.steps_of_many((action_id,)).get(action_id, []))

    def steps_of_many(self, ids: Collection[int]) -> Mapping[int, list[WorkflowStep]]:
        """Notes by action, oldest first; actions without any are left out."""
        query: Any = select(*STEP_COLUMNS).where(action_steps.c.action_id.in_(list(ids))).order_by(action_steps.c.id)
        found: dict[int, list[WorkflowStep]] = {}
        with reported(self._engine, "reading the steps of actions"), self._engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.action_id, []).append(WorkflowStep(*row))
        return found


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


ALARM_COLUMNS = [alarms.c[item.name] for item in fields(Alarm)]


class Alarms:
    """Open alarms by (kind, key, node), and those that were."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def raise_(self, items: Sequence[Alarm]) -> None:
        """Opens alarms; one that is open already gets the new detail and time, and a higher count."""
        if not items:
            return
        with reported(self._engine, "raising alarms"), self._engine.begin() as connection:
            for item in items:
                if not self._again(connection, item):
                    connection.execute(insert(alarms).values(asdict(item)))

    def _again(self, connection: Connection, item: Alarm) -> bool:
        news = {"detail": item.detail, "last_at": item.last_at, "count": alarms.c.count + item.count}
        same = _same_open(item.kind, item.key, item.node)
        return connection.execute(update(alarms).where(same).values(news)).rowcount > 0

    def clear(self, kind: str, key: str, node: str, now: Seconds) -> bool:
        """Closes an alarm; False when none was open."""
        with reported(self._engine, f"clearing {kind} of {key}"), self._engine.begin() as connection:
            done = connection.execute(update(alarms).where(_same_open(kind, key, node)).values(cleared_at=now))
            return done.rowcount > 0

    def open(self) -> list[Alarm]:
        """All open alarms, newest first."""
        return self._read(alarms.c.cleared_at.is_(None))

    def since(self, t: Seconds) -> list[Alarm]:
        """All alarms that were raised or seen again after `t`, newest first."""
        return self._read(alarms.c.last_at > t)

    def _read(self, which: Any) -> list[Alarm]:
        query = select(*ALARM_COLUMNS).where(which).order_by(alarms.c.last_at.desc(), alarms.c.id.desc())
        with reported(self._engine, "reading alarms"), self._engine.connect() as connection:
            return [Alarm(*row) for row in connection.execute(query)]


def _same_open(kind: str, key: str, node: str) -> Any:
    return (alarms.c.kind == kind) & (alarms.c.key == key) & (alarms.c.node == node) & alarms.c.cleared_at.is_(None)

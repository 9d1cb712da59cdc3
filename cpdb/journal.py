"""What was decided and done: actions from decision to verdict, and plans that wait for a person."""

from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import Engine, insert, select, update

from cpdb.engine import reported
from cpdb.records import ActionRecord, OutcomeKind, PlanRecord, Seconds
from cpdb.schema import actions, plans

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

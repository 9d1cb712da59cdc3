"""How far an action of several steps has come: read by whoever takes over when its orchestrator is gone."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Engine, insert, select

from cpdb.change_schema import action_steps
from cpdb.engine import reported
from cpdb.records import Json, Seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of the action with that number was begun, done or undone, as `step` says."""

    action_id: int
    step: str
    t: Seconds
    detail: Json


COLUMNS = [action_steps.c[item.name] for item in fields(Progress)]


class Steps:
    """Notes are only ever added."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def note(self, item: Progress) -> None:
        """Adds a note; it is on disk when this returns."""
        row = asdict(item) | {"detail": dict(item.detail)}
        with reported(self._engine, f"noting {item.step}"), self._engine.begin() as connection:
            connection.execute(insert(action_steps).values(row))

    def of(self, action_id: int) -> list[Progress]:
        """All notes about an action, oldest first."""
        return list(self.of_many((action_id,)).get(action_id, []))

    def of_many(self, ids: Collection[int]) -> Mapping[int, list[Progress]]:
        """Notes by action, oldest first; actions without any are left out."""
        query: Any = select(*COLUMNS).where(action_steps.c.action_id.in_(list(ids))).order_by(action_steps.c.id)
        found: dict[int, list[Progress]] = {}
        with reported(self._engine, "reading the steps of actions"), self._engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.action_id, []).append(Progress(*row))
        return found

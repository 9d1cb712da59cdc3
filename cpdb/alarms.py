"""What a person should look at: one open alarm for each cause, counted instead of repeated."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from cpdb.change_schema import alarms
from cpdb.engine import reported
from cpdb.records import Seconds


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


COLUMNS = [alarms.c[item.name] for item in fields(Alarm)]


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
        same = _open(item.kind, item.key, item.node)
        return connection.execute(update(alarms).where(same).values(news)).rowcount > 0

    def clear(self, kind: str, key: str, node: str, now: Seconds) -> bool:
        """Closes an alarm; False when none was open."""
        with reported(self._engine, f"clearing {kind} of {key}"), self._engine.begin() as connection:
            done = connection.execute(update(alarms).where(_open(kind, key, node)).values(cleared_at=now))
            return done.rowcount > 0

    def open(self) -> list[Alarm]:
        """All open alarms, newest first."""
        return self._read(alarms.c.cleared_at.is_(None))

    def since(self, t: Seconds) -> list[Alarm]:
        """All alarms that were raised or seen again after `t`, newest first."""
        return self._read(alarms.c.last_at > t)

    def _read(self, which: Any) -> list[Alarm]:
        query = select(*COLUMNS).where(which).order_by(alarms.c.last_at.desc(), alarms.c.id.desc())
        with reported(self._engine, "reading alarms"), self._engine.connect() as connection:
            return [Alarm(*row) for row in connection.execute(query)]


def _open(kind: str, key: str, node: str) -> Any:
    return (alarms.c.kind == kind) & (alarms.c.key == key) & (alarms.c.node == node) & alarms.c.cleared_at.is_(None)

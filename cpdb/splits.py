"""How traffic between two switches is to be split over paths: wanted here, installed by the controller."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select

from cpdb.change_schema import wanted_splits
from cpdb.engine import reported
from cpdb.records import Seconds
from cpdb.wanted import next_generation

# Tags are VLAN numbers of a range of our own; 4095 is reserved.
FIRST_TAG, LAST_TAG = 3072, 4094


@dataclass(frozen=True, slots=True)
class WantedSplit:
    """Paths from one switch to another, each with its ratio (they sum to 1) and the tag that its packets carry.

    Without an end it holds until it is replaced or removed.
    """

    from_switch: str
    to_switch: str
    paths: tuple[tuple[str, ...], ...]
    ratios: tuple[float, ...]
    tags: tuple[int, ...]
    owner: str
    reason: str
    changed_at: Seconds
    expires_at: Seconds | None = None
    generation: int = 0


COLUMNS = [wanted_splits.c[item.name] for item in fields(WantedSplit)]


class Splits:
    """Level-triggered, like everything that is wanted: one row for each pair of switches."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, items: Iterable[WantedSplit], removed: Sequence[tuple[str, str]] = ()) -> int:
        """Replaces these and takes away `removed` in one step; returns the generation of all of them."""
        with reported(self._engine, "writing wanted paths"), self._engine.begin() as connection:
            generation = next_generation(connection)
            for from_switch, to_switch in removed:
                _delete(connection, from_switch, to_switch)
            for item in items:
                _delete(connection, item.from_switch, item.to_switch)
                connection.execute(insert(wanted_splits).values(_row(item) | {"generation": generation}))
            return generation

    def all(self) -> list[WantedSplit]:
        """Everything wanted, by switches."""
        query = select(*COLUMNS).order_by(wanted_splits.c.from_switch, wanted_splits.c.to_switch)
        with reported(self._engine, "reading wanted paths"), self._engine.connect() as connection:
            return [_split(row._mapping) for row in connection.execute(query)]

    def clear(self) -> None:
        """Withdraws all of it: everything goes the shortest way again."""
        with reported(self._engine, "clearing wanted paths"), self._engine.begin() as connection:
            if connection.execute(delete(wanted_splits)).rowcount:
                next_generation(connection)


def _delete(connection: Connection, from_switch: str, to_switch: str) -> None:
    same = (wanted_splits.c.from_switch == from_switch) & (wanted_splits.c.to_switch == to_switch)
    connection.execute(delete(wanted_splits).where(same))


def _row(item: WantedSplit) -> dict[str, Any]:
    row = {one.name: getattr(item, one.name) for one in fields(WantedSplit)}
    return row | {"paths": [list(path) for path in item.paths], "ratios": list(item.ratios), "tags": list(item.tags)}


def _split(row: Any) -> WantedSplit:
    known = dict(row)
    known["paths"] = tuple(tuple(path) for path in row["paths"])
    known["ratios"] = tuple(float(one) for one in row["ratios"])
    known["tags"] = tuple(int(one) for one in row["tags"])
    return WantedSplit(**known)

"""Carries rows to the database beside the event loop: bounded, in batches, and never in the way of a switch."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from cpdb import Communication, ForepathError, Link, LinkLoad, Node, Observed, Store

Seconds = float
Row = Communication | LinkLoad | Observed | Node | Link

_log = structlog.get_logger("ryu_apps.writer")


def store_rows(store: Store, rows: Iterable[Row]) -> None:
    """Writes rows of all kinds, each kind in one transaction. Nodes first: rows may name them."""
    by_kind: dict[type, list[Any]] = {}
    for row in rows:
        by_kind.setdefault(type(row), []).append(row)
    if Node in by_kind:
        store.inventory.put_nodes(by_kind[Node])
    if Link in by_kind:
        store.inventory.put_links(by_kind[Link])
    store.facts.add_communications(by_kind.get(Communication, []))
    store.facts.add_loads(by_kind.get(LinkLoad, []))
    if Observed in by_kind:
        store.wanted.observe(by_kind[Observed])


@dataclass(slots=True)
class Writer:
    """A bounded queue before the database; `lost` counts rows that it cost."""

    most: int
    lost: int = 0
    _rows: deque[Row] = field(default_factory=deque)

    def offer(self, rows: Iterable[Row]) -> None:
        """Takes rows; when full, the oldest go."""
        self._rows.extend(rows)
        while len(self._rows) > self.most:
            self._rows.popleft()
            self.lost += 1

    def flush(self, write: Callable[[list[Row]], None]) -> int:
        """Hands everything that waits to `write`; on failure these rows are lost, counted and reported once."""
        rows = list(self._rows)
        self._rows.clear()
        if not rows:
            return 0
        try:
            write(rows)
        except ForepathError as error:
            self.lost += len(rows)
            _log.warning("rows lost", rows=len(rows), lost_in_all=self.lost, reason=str(error))
            return 0
        return len(rows)

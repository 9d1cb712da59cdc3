"""What was foreseen: forecasts, and the scores that they earned when their time came."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select

from cpdb.engine import reported
from cpdb.names import Names
from cpdb.records import Forecast, Pair, Quantity, Score, Seconds
from cpdb.schema import forecasts, nodes, scores, virtual_ips


class Foresight:
    """Written by the predictor, read by everyone."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names

    def add_forecasts(self, rows: Sequence[Forecast]) -> None:
        """Appends forecasts in one transaction."""
        if not rows:
            return
        with reported(self._engine, "writing forecasts"), self._engine.begin() as connection:
            keys = self._keys(connection, {row.pair for row in rows})
            values = [
                keys[row.pair]
                | {
                    "issued_at": row.issued_at,
                    "horizon_s": row.horizon_s,
                    "quantity": row.quantity.value,
                    "model": row.model,
                    "quantiles": {str(level): value for level, value in row.quantiles.items()},
                }
                for row in rows
            ]
            connection.execute(insert(forecasts), values)

    def _keys(self, connection: Connection, pairs: set[Pair]) -> dict[Pair, dict[str, Any]]:
        node_ids = self._names.node_ids(connection, {pair.source for pair in pairs})
        vip_ids = self._names.vip_ids(connection, {pair.virtual_ip for pair in pairs})
        return {pair: {"source_id": node_ids[pair.source], "virtual_ip_id": vip_ids[pair.virtual_ip]} for pair in pairs}

    def latest(self, now: Seconds, max_age_s: Seconds) -> list[Forecast]:
        """The newest issue of forecasts not older than `max_age_s` and not from the future of `now`."""
        newest = select(func.max(forecasts.c.issued_at)).where(
            forecasts.c.issued_at <= now, forecasts.c.issued_at >= now - max_age_s
        )
        return self._read(forecasts.c.issued_at == newest.scalar_subquery())

    def issued_between(self, since: Seconds, until: Seconds) -> list[Forecast]:
        """Forecasts with since < issued_at <= until, oldest first."""
        return self._read((forecasts.c.issued_at > since) & (forecasts.c.issued_at <= until))

    def _read(self, condition: object) -> list[Forecast]:
        query = (
            select(nodes.c.name, virtual_ips.c.address, forecasts)
            .join(nodes, nodes.c.id == forecasts.c.source_id)
            .join(virtual_ips, virtual_ips.c.id == forecasts.c.virtual_ip_id)
            .where(condition)  # type: ignore[arg-type]
            .order_by(forecasts.c.id)
        )
        with reported(self._engine, "reading forecasts"), self._engine.connect() as connection:
            return [
                Forecast(
                    pair=Pair(row.name, row.address),
                    issued_at=row.issued_at,
                    horizon_s=row.horizon_s,
                    quantity=Quantity(row.quantity),
                    model=row.model,
                    quantiles={float(level): value for level, value in row.quantiles.items()},
                    id=row.id,
                )
                for row in connection.execute(query)
            ]

    def add_scores(self, rows: Sequence[Score]) -> None:
        """Appends scores in one transaction."""
        if not rows:
            return
        with reported(self._engine, "writing scores"), self._engine.begin() as connection:
            keys = self._keys(connection, {row.pair for row in rows})
            values = [
                keys[row.pair]
                | {
                    "issued_at": row.issued_at,
                    "scored_at": row.scored_at,
                    "horizon_s": row.horizon_s,
                    "quantity": row.quantity.value,
                    "model": row.model,
                    "actual": row.actual,
                    "pinball": row.pinball,
                    "covered_q90": row.covered_q90,
                }
                for row in rows
            ]
            connection.execute(insert(scores), values)

    def scores(self, since: Seconds) -> list[Score]:
        """Scores with scored_at > since, oldest first."""
        query = (
            select(nodes.c.name, virtual_ips.c.address, scores)
            .join(nodes, nodes.c.id == scores.c.source_id)
            .join(virtual_ips, virtual_ips.c.id == scores.c.virtual_ip_id)
            .where(scores.c.scored_at > since)
            .order_by(scores.c.id)
        )
        with reported(self._engine, "reading scores"), self._engine.connect() as connection:
            return [
                Score(
                    pair=Pair(row.name, row.address),
                    issued_at=row.issued_at,
                    scored_at=row.scored_at,
                    horizon_s=row.horizon_s,
                    quantity=Quantity(row.quantity),
                    model=row.model,
                    actual=row.actual,
                    pinball=row.pinball,
                    covered_q90=row.covered_q90,
                )
                for row in connection.execute(query)
            ]

    def forget_before(self, t: Seconds) -> int:
        """Deletes forecasts and scores older than `t`; returns how many."""
        with reported(self._engine, "deleting old forecasts"), self._engine.begin() as connection:
            gone = connection.execute(delete(forecasts).where(forecasts.c.issued_at < t)).rowcount
            return gone + connection.execute(delete(scores).where(scores.c.scored_at < t)).rowcount

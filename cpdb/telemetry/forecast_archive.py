"""What was foreseen: forecasts, the scores that they earned when their time came, and what was learnt on the way."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, Row, Select, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from cpdb.engine import reported
from cpdb.forecasts import (
    FAST,
    Forecast,
    ForecastBatch,
    HorizonMove,
    Score,
    ScoreBatch,
    Subject,
    SubjectKind,
    batches_of,
    forecasts_of,
)
from cpdb.model import Pair, Quantity, Seconds
from cpdb.schema import forecast_batches, horizon_moves, memories, nodes, rosters, score_batches, scores, virtual_ips
from cpdb.telemetry.names import Names, insert_ignore

KINDS = {one.value: one for one in SubjectKind}


class SubjectLists:
    """Numbers of lists of subjects; the last list written and the last one read are remembered."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._written: tuple[tuple[Subject, ...], int] | None = None
        self._read: tuple[int, tuple[Subject, ...]] | None = None

    def number(self, subjects: tuple[Subject, ...]) -> int:
        """The list's number; an unknown list is added in a transaction of its own."""
        written = self._written
        if written is not None and written[0] == subjects:
            return written[1]
        text = json.dumps(subjects, separators=(",", ":"), ensure_ascii=False).encode()
        digest = hashlib.blake2b(text, digest_size=32).hexdigest()
        with self._engine.begin() as connection:
            insert_ignore(connection, rosters, [{"digest": digest, "body": zlib.compress(text, 1)}])
            number = int(connection.execute(select(rosters.c.id).where(rosters.c.digest == digest)).scalar_one())
        self._written = subjects, number
        return number

    def subjects(self, number: int) -> tuple[Subject, ...]:
        """The list with this number. The same object as last time when the number is."""
        read = self._read
        if read is not None and read[0] == number:
            return read[1]
        with self._engine.connect() as connection:
            body = connection.execute(select(rosters.c.body).where(rosters.c.id == number)).scalar_one()
        found = tuple(Subject(KINDS[kind], a, b) for kind, a, b in json.loads(zlib.decompress(body)))
        self._read = number, found
        return found

    def forget(self) -> None:
        """Lists may have been deleted: what is remembered no longer holds."""
        self._written = self._read = None


class ForecastArchive:
    """Written by the predictor, read by everyone."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names
        self._rosters = SubjectLists(engine)

    def add_batch(self, batch: ForecastBatch) -> None:
        """Appends one issue of forecasts, whatever its number of subjects, as one row."""
        with reported(self._engine, "writing forecasts"):
            _append(self._engine, self._rosters, forecast_batches, _row_of(batch), batch.subjects)

    def batch(self, now: Seconds, max_age_s: Seconds, tier: str = FAST) -> ForecastBatch | None:
        """The newest issue of this tier that is not older than `max_age_s` and not from the future of `now`."""
        found = _read_batches(self._engine, self._rosters, _newest(now, max_age_s, tier).limit(1))
        return found[0][1] if found else None

    def add_forecasts(self, rows: Sequence[Forecast]) -> None:
        """Appends forecasts of pairs; those of one moment become one issue of the fast tier."""
        for batch in batches_of(rows):
            self.add_batch(batch)

    def latest(self, now: Seconds, max_age_s: Seconds) -> list[Forecast]:
        """The pairs' forecasts in the newest issue not older than `max_age_s` and not from the future of `now`."""
        found = _read_batches(self._engine, self._rosters, _newest(now, max_age_s, FAST).limit(1))
        return [row for number, batch in found for row in forecasts_of(batch, number)]

    def issued_between(self, since: Seconds, until: Seconds) -> list[Forecast]:
        """Forecasts of pairs with since < issued_at <= until, oldest first."""
        table = forecast_batches
        query = select(table).where(table.c.issued_at > since, table.c.issued_at <= until, table.c.tier == FAST)
        found = _read_batches(self._engine, self._rosters, query.order_by(table.c.issued_at, table.c.id))
        return [row for number, batch in found for row in forecasts_of(batch, number)]

    def add_scores(self, rows: Sequence[Score]) -> None:
        """Appends scores in one transaction."""
        if not rows:
            return
        with reported(self._engine, "writing scores"):
            keys = _pair_keys(self._names, {row.pair for row in rows})
        with reported(self._engine, "writing scores"), self._engine.begin() as connection:
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

    def add_score_batch(self, batch: ScoreBatch) -> None:
        """Appends the scores of one moment as one row."""
        with reported(self._engine, "writing scores"):
            _append(self._engine, self._rosters, score_batches, _row_of_scores(batch), batch.subjects)

    def score_batches(self, since: Seconds) -> list[ScoreBatch]:
        """Score batches with scored_at > since, oldest first."""
        table = score_batches
        query = select(table).where(table.c.scored_at > since).order_by(table.c.scored_at, table.c.id)
        with reported(self._engine, "reading scores"):
            with self._engine.connect() as connection:
                rows = connection.execute(query).all()
            return [_scores_of(row, self._rosters.subjects(row.roster_id)) for row in rows]

    def add_moves(self, moves: Sequence[HorizonMove]) -> None:
        """Records changes of adaptive horizons in one transaction."""
        rows = [
            {
                "t": one.t,
                "kind": one.subject.kind.value,
                "a": one.subject.a,
                "b": one.subject.b,
                "from_s": one.from_s,
                "to_s": one.to_s,
                "reason": one.reason,
            }
            for one in moves
        ]
        if rows:
            with reported(self._engine, "writing horizon moves"), self._engine.begin() as connection:
                connection.execute(insert(horizon_moves), rows)

    def moves(self, since: Seconds) -> list[HorizonMove]:
        """Changes of adaptive horizons with t > since, oldest first."""
        table = horizon_moves
        query = select(table).where(table.c.t > since).order_by(table.c.t, table.c.id)
        with reported(self._engine, "reading horizon moves"), self._engine.connect() as connection:
            return [
                HorizonMove(t, Subject(SubjectKind(kind), a, b), from_s, to_s, reason)
                for _, t, kind, a, b, from_s, to_s, reason in connection.execute(query)
            ]

    def remember(self, key: str, blob: bytes, now: Seconds) -> None:
        """Keeps `blob` under `key` in place of what was kept there; it survives a restart."""
        with reported(self._engine, f"remembering {key}"), self._engine.begin() as connection:
            connection.execute(delete(memories).where(memories.c.key == key))
            connection.execute(insert(memories), {"key": key, "remembered_at": now, "body": blob})

    def recall(self, key: str) -> bytes | None:
        """What was kept under `key`, or None."""
        with reported(self._engine, f"recalling {key}"), self._engine.connect() as connection:
            found = connection.execute(select(memories.c.body).where(memories.c.key == key)).scalar()
        return None if found is None else bytes(found)

    def forget_before(self, t: Seconds) -> int:
        """Deletes forecasts, scores and moves older than `t`; returns how many rows."""
        with reported(self._engine, "deleting old forecasts"), self._engine.begin() as connection:
            return sum(
                connection.execute(delete(column.table).where(column < t)).rowcount
                for column in (
                    forecast_batches.c.issued_at,
                    scores.c.scored_at,
                    score_batches.c.scored_at,
                    horizon_moves.c.t,
                )
            )


def _append(
    engine: Engine, lists: SubjectLists, table: Table, row: dict[str, Any], subjects: tuple[Subject, ...]
) -> None:
    try:
        _insert(engine, table, row | {"roster_id": lists.number(subjects)})
    except IntegrityError:
        # The list had not been referred to for so long that it was forgotten.
        lists.forget()
        _insert(engine, table, row | {"roster_id": lists.number(subjects)})


def _insert(engine: Engine, table: Table, row: dict[str, Any]) -> None:
    with engine.begin() as connection:
        connection.execute(insert(table), row)


def _read_batches(engine: Engine, lists: SubjectLists, query: Select[Any]) -> list[tuple[int, ForecastBatch]]:
    with reported(engine, "reading forecasts"):
        with engine.connect() as connection:
            rows = connection.execute(query).all()
        return [(row.id, _batch_of(row, lists.subjects(row.roster_id))) for row in rows]


def _pair_keys(names: Names, pairs: set[Pair]) -> dict[Pair, dict[str, Any]]:
    node_ids = names.node_ids({pair.source for pair in pairs})
    vip_ids = names.vip_ids({pair.virtual_ip for pair in pairs})
    return {pair: {"source_id": node_ids[pair.source], "virtual_ip_id": vip_ids[pair.virtual_ip]} for pair in pairs}


def _newest(now: Seconds, max_age_s: Seconds, tier: str) -> Select[Any]:
    table = forecast_batches
    recent = (table.c.issued_at <= now) & (table.c.issued_at >= now - max_age_s) & (table.c.tier == tier)
    return select(table).where(recent).order_by(table.c.issued_at.desc(), table.c.id.desc())


def _row_of(batch: ForecastBatch) -> dict[str, Any]:
    return {
        "tier": batch.tier,
        "issued_at": batch.issued_at,
        "head": {
            "horizons_s": batch.horizons_s,
            "quantities": batch.quantities,
            "levels": batch.levels,
            "models": batch.models,
        },
        "chosen": batch.chosen,
        "quantiles": batch.quantiles,
        "activity": batch.activity,
        "horizon_s": batch.horizon_s,
    }


def _batch_of(row: Row[Any], subjects: tuple[Subject, ...]) -> ForecastBatch:
    return ForecastBatch(
        issued_at=row.issued_at,
        tier=row.tier,
        subjects=subjects,
        horizons_s=tuple(row.head["horizons_s"]),
        quantities=tuple(map(Quantity, row.head["quantities"])),
        levels=tuple(row.head["levels"]),
        models=tuple(row.head["models"]),
        chosen=bytes(row.chosen),
        quantiles=bytes(row.quantiles),
        activity=bytes(row.activity),
        horizon_s=bytes(row.horizon_s),
    )


def _row_of_scores(batch: ScoreBatch) -> dict[str, Any]:
    return {
        "scored_at": batch.scored_at,
        "head": {"models": batch.models, "horizons_s": batch.horizons_s, "quantities": batch.quantities},
        "pinball": batch.pinball,
        "covered": batch.covered,
        "count": batch.count,
    }


def _scores_of(row: Row[Any], subjects: tuple[Subject, ...]) -> ScoreBatch:
    return ScoreBatch(
        scored_at=row.scored_at,
        subjects=subjects,
        models=tuple(row.head["models"]),
        horizons_s=tuple(row.head["horizons_s"]),
        quantities=tuple(map(Quantity, row.head["quantities"])),
        pinball=bytes(row.pinball),
        covered=bytes(row.covered),
        count=bytes(row._mapping["count"]),
    )

"""What was foreseen: forecasts, the scores that they earned when their time came, and what was learnt on the way."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from math import inf
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Engine, Table, insert, select
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
from cpdb.model import Quantity, Seconds
from cpdb.refusals import refusals_of
from cpdb.repository import Condition, Repository, codec_of, insert_ignore, transaction
from cpdb.schema import forecast_batches, horizon_moves, memories, nodes, rosters, score_batches, scores, virtual_ips
from cpdb.telemetry.names import Names
from cpdb.telemetry.retention import COARSE_S

MOST_LISTS = 12
KINDS = {kind.value: kind for kind in SubjectKind}


class SubjectLists:
    """Numbers of lists of subjects; the last list written and the last ones read are remembered."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._written: tuple[tuple[Subject, ...], int] | None = None
        self._read: dict[int, tuple[Subject, ...]] = {}

    def number(self, subjects: tuple[Subject, ...]) -> int:
        """The list's number; an unknown list is added in a transaction of its own."""
        written = self._written
        if written is not None and written[0] == subjects:
            return written[1]
        text = json.dumps(subjects, separators=(",", ":"), ensure_ascii=False).encode()
        digest = hashlib.blake2b(text, digest_size=32).hexdigest()
        with self.engine.begin() as connection:
            insert_ignore(connection, rosters, [{"digest": digest, "body": zlib.compress(text, 1)}])
            number = int(connection.execute(select(rosters.c.id).where(rosters.c.digest == digest)).scalar_one())
        self._written = subjects, number
        return number

    def subjects(self, number: int) -> tuple[Subject, ...]:
        """The list with this number. The same object as last time when the number is."""
        if number in self._read:
            return self._read[number]
        with self.engine.connect() as connection:
            body = connection.execute(select(rosters.c.body).where(rosters.c.id == number)).scalar_one()
        subjects = tuple(Subject(KINDS[kind], a, b) for kind, a, b in json.loads(zlib.decompress(body)))
        while len(self._read) >= MOST_LISTS:  # one for each tier, and some room for lists that change
            del self._read[next(iter(self._read))]
        self._read[number] = subjects
        return subjects

    def forget(self) -> None:
        """Lists may have been deleted: what is remembered no longer holds."""
        self._written = None
        self._read.clear()


Packed = TypeVar("Packed", ForecastBatch, ScoreBatch)


class PackedBatches(Generic[Packed]):
    """One table of batches, a row each: subjects as the number of their list, arrays as bytes, the rest in `head`.

    A field that is itself a record lies in the places of its own fields.
    """

    def __init__(self, lists: SubjectLists, table: Table, record: type[Packed]) -> None:
        self._lists, self._table = lists, table
        self._record: Any = record
        stored = [item for item in fields(record) if item.init and item.name != "subjects"]
        self._parts: dict[str, Any] = {item.name: item.type for item in stored if is_dataclass(item.type)}
        paths = {item.name: item.name for item in stored if item.name not in self._parts}
        paths |= {one.name: f"{part}.{one.name}" for part, kind in self._parts.items() for one in fields(kind)}
        # Column, or name in `head` -> how it is taken from a batch
        self._own = {name: attrgetter(path) for name, path in paths.items() if name in table.c}
        self._head = {name: attrgetter(path) for name, path in paths.items() if name not in table.c}

    def add(self, batch: Packed) -> None:
        """Appends a batch, whatever its number of subjects, as one row."""
        row = {name: take(batch) for name, take in self._own.items()}
        row["head"] = {name: take(batch) for name, take in self._head.items()}
        with reported(self._lists.engine, f"writing {self._table.name}"):
            try:
                self._insert(row, batch.subjects)
            except IntegrityError:
                # The list had not been referred to for so long that it was forgotten.
                self._lists.forget()
                self._insert(row, batch.subjects)

    def _insert(self, row: Mapping[str, Any], subjects: tuple[Subject, ...]) -> None:
        number = self._lists.number(subjects)
        with self._lists.engine.begin() as connection:
            connection.execute(insert(self._table), {**row, "roster_id": number})

    def read(self, *where: Condition, order_by: Iterable[Any], limit: int | None = None) -> list[tuple[int, Packed]]:
        """Numbers and batches that meet all conditions, in this order."""
        query = select(self._table).where(*where).order_by(*order_by).limit(limit)
        with reported(self._lists.engine, f"reading {self._table.name}"), self._lists.engine.connect() as connection:
            found: list[tuple[int, Mapping[Any, Any]]] = [
                (row["id"], row) for row in connection.execute(query).mappings().all()
            ]
        return list(refusals_of(self._lists.engine).read_apart(self._table.name, found, self._numbered))

    def has(self, where: Condition) -> bool:
        """Whether any meets the condition."""
        query = select(self._table.c.id).where(where).limit(1)
        with reported(self._lists.engine, f"reading {self._table.name}"), self._lists.engine.connect() as connection:
            return connection.execute(query).first() is not None

    def _numbered(self, row: Sequence[Any]) -> tuple[int, Packed]:
        number, content = row
        return number, self._batch(content)

    def _batch(self, row: Mapping[Any, Any]) -> Any:
        head = {name: tuple(row["head"].get(name, ())) for name in self._head}  # rows of older versions lack some
        head["quantities"] = tuple(map(Quantity, head["quantities"]))
        values = head | {name: row[name] for name in self._own}
        for part, kind in self._parts.items():
            values[part] = kind(**{one.name: values.pop(one.name) for one in fields(kind)})
        return self._record(subjects=self._lists.subjects(row["roster_id"]), **values)


Numbered = list[tuple[int, ForecastBatch]]


def _newest(held: PackedBatches[ForecastBatch], now: Seconds, max_age_s: Seconds, tier: str) -> Numbered:
    at = forecast_batches.c
    recent = (at.issued_at <= now) & (at.issued_at >= now - max_age_s) & (at.tier == tier)
    return held.read(recent, order_by=[at.issued_at.desc(), at.id.desc()], limit=1)


def _kept(held: PackedBatches[ForecastBatch], t: Seconds, max_age_s: Seconds, tier: str) -> Numbered:
    if found := _newest(held, t, max_age_s, tier):
        return found
    at, far_s = forecast_batches.c, COARSE_S + max_age_s
    later = (at.issued_at > t) & (at.issued_at <= t + far_s) & (at.tier == tier)
    # Where nothing came after it, nothing was thinned out: nobody forecast any more.
    return _newest(held, t, far_s, tier) if held.has(later) else []


class Memory(NamedTuple):
    """What a process learnt, under a key of its own."""

    key: str
    remembered_at: Seconds
    body: bytes


class ForecastArchive:
    """Written by the predictor, read by everyone."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names
        lists = SubjectLists(engine)
        self._forecasts = PackedBatches(lists, forecast_batches, ForecastBatch)
        self._scores = PackedBatches(lists, score_batches, ScoreBatch)
        self._moves = Repository(engine, horizon_moves, HorizonMove)
        self._memories = Repository(engine, memories, Memory)

    def add_batch(self, batch: ForecastBatch) -> None:
        """Appends one issue of forecasts, whatever its number of subjects, as one row."""
        self._forecasts.add(batch)

    def batch(self, now: Seconds, max_age_s: Seconds, tier: str = FAST) -> ForecastBatch | None:
        """The newest issue of this tier that is not older than `max_age_s` and not from the future of `now`."""
        return next((batch for _, batch in _newest(self._forecasts, now, max_age_s, tier)), None)

    def issue_at(self, t: Seconds, max_age_s: Seconds, tier: str = FAST) -> ForecastBatch | None:
        """As `batch`; of a moment around which not all issues were kept, the last kept one before it."""
        return next((batch for _, batch in _kept(self._forecasts, t, max_age_s, tier)), None)

    def add_forecasts(self, rows: Sequence[Forecast]) -> None:
        """Appends forecasts of pairs; those of one moment become one issue of the fast tier."""
        for batch in batches_of(rows):
            self.add_batch(batch)

    def latest(self, now: Seconds, max_age_s: Seconds) -> list[Forecast]:
        """The pairs' forecasts in the issue that `issue_at` gives of the fast tier."""
        return [
            row for number, batch in _kept(self._forecasts, now, max_age_s, FAST) for row in forecasts_of(batch, number)
        ]

    def issued_between(self, since: Seconds, until: Seconds) -> list[Forecast]:
        """Forecasts of pairs with since < issued_at <= until, oldest first."""
        at = forecast_batches.c
        issued = (at.issued_at > since) & (at.issued_at <= until) & (at.tier == FAST)
        batches = self._forecasts.read(issued, order_by=[at.issued_at, at.id])
        return [row for number, batch in batches for row in forecasts_of(batch, number)]

    def add_scores(self, rows: Sequence[Score]) -> None:
        """Appends scores in one transaction."""
        if not rows:
            return
        with reported(self._engine, "writing scores"):
            sources = self._names.node_ids({row.pair.source for row in rows})
            vips = self._names.vip_ids({row.pair.virtual_ip for row in rows})
        values = [codec_of(Score).encode(row) for row in rows]
        numbered = [
            row | {"source_id": sources[row.pop("source")], "virtual_ip_id": vips[row.pop("virtual_ip")]}
            for row in values
        ]
        with transaction(self._engine, "writing scores") as connection:
            connection.execute(insert(scores), numbered)

    def scores(self, since: Seconds) -> list[Score]:
        """Scores with scored_at > since, oldest first."""
        codec = codec_of(Score)
        query = (
            select(nodes.c.name, virtual_ips.c.address, *(scores.c[name] for name in codec.columns[2:]))
            .join(nodes, nodes.c.id == scores.c.source_id)
            .join(virtual_ips, virtual_ips.c.id == scores.c.virtual_ip_id)
            .where(scores.c.scored_at > since)
            .order_by(scores.c.id)
        )
        with transaction(self._engine, "reading scores") as connection:
            return [codec.decode(row) for row in connection.execute(query)]

    def add_score_batch(self, batch: ScoreBatch) -> None:
        """Appends the scores of one moment as one row."""
        self._scores.add(batch)

    def score_batches(self, since: Seconds, until: Seconds = inf) -> list[ScoreBatch]:
        """Score batches with since < scored_at <= until, oldest first."""
        at = score_batches.c
        scored = (at.scored_at > since) & (at.scored_at <= until)
        return [batch for _, batch in self._scores.read(scored, order_by=[at.scored_at, at.id])]

    def add_moves(self, moves: Sequence[HorizonMove]) -> None:
        """Records changes of adaptive horizons in one transaction."""
        self._moves.add_all(moves)

    def moves(self, since: Seconds, until: Seconds = inf) -> list[HorizonMove]:
        """Changes of adaptive horizons with since < t <= until, oldest first."""
        at = horizon_moves.c
        return self._moves.read(at.t > since, at.t <= until, order_by=[at.t, at.id])

    def remember(self, key: str, blob: bytes, now: Seconds) -> None:
        """Keeps `blob` under `key` in place of what was kept there; it survives a restart."""
        self._memories.put_all([Memory(key, now, blob)])

    def recall(self, key: str) -> bytes | None:
        """What was kept under `key`, or None."""
        memory = self._memories.read_first(memories.c.key == key)
        return memory.body if memory else None

"""One way in and out for every table of records: a field is a column, whatever else a record is made of.

A field that is itself a record (a pair, a subject) lies in the columns of its own fields. A tuple of records lies in
one JSON column, as a list of such rows.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from enum import Enum
from operator import attrgetter
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    cast,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from cpdb.engine import reported
from cpdb.refusals import refusals_of

R = TypeVar("R")
S = TypeVar("S")
Condition = ColumnElement[bool]
# The table gives it; no record brings its own.
NUMBER = "id"
SCALARS = frozenset((str, int, float, bool, bytes, NoneType))


class RecordCodec(Generic[R]):
    """Between records of one type (a dataclass or NamedTuple) and flat rows."""

    def __init__(self, record: type[R]) -> None:
        self._record = record
        hints = get_type_hints(record)
        self._parts = [(name, _part(hints[name])) for name in _names(record)]
        self.plain = all(part is None for _, part in self._parts)
        self.columns: tuple[str, ...] = tuple(
            column
            for name, part in self._parts
            for column in (part.columns if isinstance(part, RecordCodec) else (name,))
        )

    def encode(self, item: R) -> dict[str, Any]:
        """The record's row, without its number."""
        row: dict[str, Any] = {}
        for name, part in self._parts:
            value = getattr(item, name)
            if type(value) in SCALARS:
                row[name] = value
            elif isinstance(part, RecordCodec):
                row |= part.encode(value)
            else:
                row[name] = _stored(value)
        row.pop(NUMBER, None)
        return row

    def decode(self, row: Iterable[Any]) -> R:
        """The record of a row whose values come in the order of `columns`."""
        return self._record(*row) if self.plain else self._take(iter(row))

    def _take(self, values: Iterator[Any]) -> R:
        return self._record(*[_converted(part, values) for _, part in self._parts])


_Part = RecordCodec[Any] | Callable[[Any], Any] | None
_codecs: dict[type[Any], RecordCodec[Any]] = {}


def codec_of(record: type[R]) -> RecordCodec[R]:
    """The codec of this type, made once."""
    if record not in _codecs:
        _codecs[record] = RecordCodec(record)
    return _codecs[record]


def _names(record: type[Any]) -> Iterable[str]:
    return [item.name for item in fields(record)] if is_dataclass(record) else record._fields


def _is_record(kind: object) -> bool:
    return isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields"))


def _part(hint: Any) -> _Part:
    """How a value of this type is made from what a column holds; None: it is what the column holds."""
    options = [item for item in get_args(hint) if item is not NoneType]
    if NoneType in get_args(hint) and len(options) == 1:
        return _part(options[0])
    if _is_record(hint):
        return codec_of(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if get_origin(hint) is tuple:
        inner = _part(options[0])
        if isinstance(inner, RecordCodec):
            return lambda rows: tuple(inner.decode([row[name] for name in inner.columns]) for row in rows)
        return tuple if inner is None else lambda values: tuple(map(inner, values))
    return None


def _converted(part: _Part, values: Iterator[Any]) -> Any:
    if isinstance(part, RecordCodec):
        return part._take(values)
    value = next(values)
    return value if part is None or value is None else part(value)


def _stored(value: Any) -> Any:
    if type(value) in SCALARS:
        return value
    if isinstance(value, Enum):
        return value.value
    if _is_record(type(value)):
        return codec_of(type(value)).encode(value)
    if isinstance(value, tuple):
        return [_stored(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


@contextmanager
def transaction(engine: Engine, doing: str) -> Iterator[Connection]:
    """One transaction; what fails in it raises StoreError with what was being done."""
    with reported(engine, doing), engine.begin() as connection:
        yield connection


def insert_ignore(connection: Connection, table: Table, rows: list[dict[str, object]]) -> None:
    """Inserts rows and passes over those that break a uniqueness rule: two processes may name the same thing."""
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


def _appending(
    engine: Engine, table: Table, codec: RecordCodec[R]
) -> tuple[str, Callable[[R], tuple[Any, ...]]] | None:
    """A statement that SQLite's driver takes with values as they are, and what it asks of a record, in order.

    SQLAlchemy would look at each value. None where that is needed: it turns those of other types into what is stored.
    """
    as_they_are = all(isinstance(table.c[name].type, Integer | Float | String) for name in codec.columns)
    if engine.dialect.name != "sqlite" or not as_they_are or not codec.plain or len(codec.columns) < 2:
        return None
    compiled = insert(table).compile(engine, column_keys=codec.columns)
    names = getattr(compiled, "positiontup", None) or ()
    return (str(compiled), attrgetter(*names)) if sorted(names) == sorted(codec.columns) else None


def _as_it_is(record: Any) -> Any:
    return record


class Repository(Generic[R]):
    """Rows of one table as records of one type. `within` joins a transaction of the caller's. All raise StoreError."""

    def __init__(self, engine: Engine, table: Table, record: type[R]) -> None:
        self.engine, self.table = engine, table
        self._codec: RecordCodec[R] = codec_of(record)
        self._columns = [table.c[name] for name in self._codec.columns]
        # Made once: SQLAlchemy looks at each column of a new one.
        self._every = select(*self._columns)
        self._as_texts = select(*(cast(one, Text) if isinstance(one.type, JSON) else one for one in self._columns))
        self._known: dict[Hashable, tuple[list[tuple[Any, ...]], dict[tuple[Any, ...], Any]]] = {}
        self._key = _key(table)
        self._appending = _appending(engine, table, self._codec)
        self._apart = refusals_of(engine).read_apart
        self._what = table.name.replace("_", " ")

    def read(
        self,
        *where: Condition,
        order_by: Iterable[Any] = (),
        limit: int | None = None,
        within: Connection | None = None,
    ) -> list[R]:
        """Records that meet all conditions, in this order."""
        query = self._every.where(*where).order_by(*order_by).limit(limit)
        with self._joined(within, "reading") as connection:
            return list(self._apart(self._what, connection.execute(query).all(), self._codec.decode))

    def read_again(
        self, *where: Condition, order_by: Iterable[Any] = (), then: Callable[[R], S] = _as_it_is, part: Hashable = None
    ) -> list[S]:
        """The same for what seldom changes: of a row that is as it was, what `then` made of its record before.

        `part` names the part of the table that the conditions choose: of each, what it held last is kept.
        """
        query = self._as_texts.where(*where).order_by(*order_by)
        with reported(self.engine, f"reading {self._what}"), self.engine.connect() as connection:
            rows = list(map(tuple, connection.execute(query).all()))
        same, before = self._known.get(part, ((), {}))
        if rows != same:
            fresh = [row for row in rows if row not in before]
            made = self._apart(self._what, fresh, lambda row: (row, then(self._codec.decode(self._parsed(row)))))
            known = before | dict(made)
            before = {row: known[row] for row in rows if row in known}
            self._known[part] = rows, before
        return [*before.values()]

    def _parsed(self, row: Sequence[Any]) -> list[Any]:
        pairs = zip(row, self._columns, strict=True)
        return [json.loads(value) if isinstance(column.type, JSON) and value else value for value, column in pairs]

    def read_first(self, *where: Condition, order_by: Iterable[Any] = (), within: Connection | None = None) -> R | None:
        """The first record that meets all conditions, or None."""
        query = self._every.where(*where).order_by(*order_by).limit(1)
        with self._joined(within, "reading") as connection:
            row = connection.execute(query).first()
        return None if row is None else self._codec.decode(row)

    def add(self, item: R, within: Connection | None = None) -> int:
        """Appends a record; returns its number (0 in a table without)."""
        with self._joined(within, "writing") as connection:
            (number,) = connection.execute(insert(self.table), self._codec.encode(item)).inserted_primary_key or (0,)
            return number if isinstance(number, int) else 0

    def add_all(self, items: Iterable[R], within: Connection | None = None) -> None:
        """Appends records in one transaction."""
        items = list(items)
        if not items:
            return
        with self._joined(within, "writing") as connection:
            if self._appending is None:
                connection.execute(insert(self.table), [self._codec.encode(item) for item in items])
            else:
                statement, values_of = self._appending
                rows = map(values_of, items)
                # Mostly they are what a driver takes, which is seen much faster than each is turned into that.
                plain = (row if SCALARS.issuperset(map(type, row)) else tuple(map(_stored, row)) for row in rows)
                connection.exec_driver_sql(statement, [*plain])

    def put_all(self, items: Iterable[R], within: Connection | None = None, **fixed: Any) -> None:
        """Writes records in place of those with the same key; of two with one key the later stands.

        The key is what the table holds unique; `fixed` columns have one value in all of them.
        """
        if rows := self._by_key(items):
            with self._joined(within, "writing") as connection:
                self._delete_keys(rows, connection)
                connection.execute(insert(self.table), [row | fixed for row in rows.values()])

    def delete_all(self, items: Iterable[R], within: Connection | None = None) -> None:
        """Deletes what has the key of one of these records."""
        if rows := self._by_key(items):
            with self._joined(within, "deleting") as connection:
                self._delete_keys(rows, connection)

    def _by_key(self, items: Iterable[R]) -> dict[tuple[Any, ...], dict[str, Any]]:
        rows = (self._codec.encode(item) for item in items)
        return {tuple(row[key.name] for key in self._key): row for row in rows}

    def _delete_keys(self, places: Iterable[tuple[Any, ...]], connection: Connection) -> None:
        same = delete(self.table).where(*(key == bindparam(f"the_{key.name}") for key in self._key))
        names = [f"the_{key.name}" for key in self._key]
        connection.execute(same, [dict(zip(names, place, strict=True)) for place in places])

    def amend(self, item: R, *where: Condition, within: Connection | None = None) -> int:
        """Writes all of a record over the rows that meet the conditions; returns how many."""
        return self.change(self._codec.encode(item), *where, within=within)

    def change(self, values: Mapping[str, Any], *where: Condition, within: Connection | None = None) -> int:
        """Changes these columns of the rows that meet the conditions; returns how many rows."""
        with self._joined(within, "changing") as connection:
            return connection.execute(update(self.table).where(*where).values(values)).rowcount

    def delete(self, *where: Condition, within: Connection | None = None) -> int:
        """Deletes the rows that meet the conditions; returns how many."""
        with self._joined(within, "deleting") as connection:
            return connection.execute(delete(self.table).where(*where)).rowcount

    def _joined(self, within: Connection | None, doing: str) -> AbstractContextManager[Connection]:
        return transaction(self.engine, f"{doing} {self._what}") if within is None else nullcontext(within)


def _key(table: Table) -> list[Column[Any]]:
    unique = next((item for item in table.constraints if isinstance(item, UniqueConstraint)), None)
    return list(unique.columns if unique is not None else table.primary_key.columns)

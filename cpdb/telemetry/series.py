"""Reads rolled-up or raw memory as evenly spaced series, one a pair: what an export writes and a backtest reads."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Engine, func, select, true

from cpdb.engine import reported
from cpdb.model import Communication, Pair, Seconds
from cpdb.schema import PATTERN_TABLES, batches, covered, observations
from cpdb.telemetry.batches import Batches, as_rows
from cpdb.telemetry.columns import StoredBatch
from cpdb.telemetry.names import Names
from cpdb.telemetry.retention import COARSE_S, FINE_S, bucket_end

QUANTITIES = ("bytes", "packets", "connections")
# Rows of how many buckets are held at once.
BUCKETS_AT_ONCE = 60


@dataclass(slots=True)
class _Bucket:
    """Sums and seconds of one bucket: by flow key, and what each observer covered with complete batches."""

    sums: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    listed_s: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    complete_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class RatePoint(NamedTuple):
    """A mean rate up to `t`; connections only where seconds are still known one by one."""

    t: Seconds
    bytes_per_s: float
    connections_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """What to read: means over `step_s` for buckets with since < end <= until; one of QUANTITIES, per second."""

    step_s: int
    since: Seconds
    until: Seconds
    quantity: str = "bytes"


def tier_of(step_s: int) -> int:
    """The step of the rows to read for `step_s`: 1 (batches), 10 or 60. Raises ValueError when none divides it."""
    if step_s < FINE_S:
        return 1
    for tier in (COARSE_S, FINE_S):
        if step_s % tier == 0:
            return tier
    raise ValueError(f"a step of {step_s} s cannot be read; below 10 s any, above it multiples of 10")


class Series:
    """Reader of evenly spaced series. A value is None where nobody looked, 0 where a pair was silent."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names
        self._batches = Batches(engine, names)

    def pairs(self, window: Window) -> list[Pair]:
        """Pairs of which something is known in the window, by name."""
        with reported(self._engine, "reading pairs"):
            numbers = self._numbers(window)
            return sorted({self._pair(number) for number in numbers}, key=lambda pair: (pair.source, pair.virtual_ip))

    def newest(self, until: Seconds) -> Seconds | None:
        """When somebody last looked, not after `until`; of what is rolled up, the bucket's end. Raises StoreError."""
        times = [batches.c.t, covered.c.t, *(table.c.t for table in PATTERN_TABLES.values())]
        with reported(self._engine, "reading communications"), self._engine.connect() as connection:
            found = [connection.execute(select(func.max(at)).where(at <= until)).scalar() for at in times]
        return max((float(one) for one in found if one is not None), default=None)

    def step_at(self, t: Seconds) -> int:
        """The finest step, in seconds, in which what was before `t` is still known: 1, 10 or 60. Raises StoreError."""
        steps = ((1, batches.c.t), *((step_s, table.c.t) for step_s, table in PATTERN_TABLES.items()))
        with reported(self._engine, "reading communications"), self._engine.connect() as connection:
            for step_s, at in steps:
                known = select(at).where(at > t - COARSE_S, at <= t + step_s).limit(1)
                if connection.execute(known).first() is not None:
                    return step_s
        return 1

    def communications_at(self, t: Seconds, recent_s: Seconds) -> list[Communication]:
        """Rows of the last `recent_s` before `t`, oldest first; where those are gone, of the bucket in which `t` lies.

        In a bucket only who spoke has a row. Raises StoreError.
        """
        if found := self._batches.read(0, t - recent_s, t):
            return as_rows(found, self._names)
        for step_s, table in PATTERN_TABLES.items():
            at, end = table.c, bucket_end(t, step_s)
            columns = (at.flow_key_id, at.covered_s, at.bytes, at.packets, at.connections, at.flags)
            with reported(self._engine, "reading communications"), self._engine.connect() as connection:
                rows = connection.execute(select(*columns).where(at.t == end)).all()
            if rows:
                return [Communication(*self._names.flow_key_of(number), float(end), *rest) for number, *rest in rows]
        return []

    def _numbers(self, window: Window) -> set[int]:
        tier = tier_of(window.step_s)
        if tier == 1:
            batches = self._batches.read(0, window.since, window.until)
            return {number for batch in batches for number in set(batch.key_ids)}
        table = PATTERN_TABLES[tier]
        query = select(table.c.flow_key_id).distinct().where(table.c.t > window.since, table.c.t <= window.until)
        with self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def rows(self, window: Window) -> Iterator[tuple[int, Mapping[Pair, float]]]:
        """Each bucket's end and its rates by pair, oldest first; a pair that is not named is missing there.

        Raises StoreError.
        """
        with reported(self._engine, "reading observations"):
            watched = self._watched()
        first, last = bucket_end(window.since, window.step_s), bucket_end(window.until, window.step_s)
        width = window.step_s * BUCKETS_AT_ONCE
        for start in range(first, last, width):
            end = min(start + width, last)
            with reported(self._engine, "reading communications"):
                buckets = self._buckets(window, start, end)
            for t in range(start + window.step_s, end + 1, window.step_s):
                yield t, self._rates(buckets.get(t, _Bucket()), watched, t)

    def _watched(self) -> dict[str, list[tuple[int, float]]]:
        """Each observer's flow keys, and since when it proves their silence."""
        watched: dict[str, list[tuple[int, float]]] = defaultdict(list)
        query = select(observations.c.observer, observations.c.flow_key_id, observations.c.since)
        with self._engine.connect() as connection:
            for observer, number, since in connection.execute(query):
                watched[observer].append((number, since))
        return watched

    def _buckets(self, window: Window, start: int, end: int) -> dict[int, _Bucket]:
        tier = tier_of(window.step_s)
        return self._of_batches(window, start, end) if tier == 1 else self._of_rows(window, start, end, tier)

    def _of_batches(self, window: Window, start: int, end: int) -> dict[int, _Bucket]:
        buckets: dict[int, _Bucket] = defaultdict(_Bucket)
        for item in self._batches.read(0, start, end):
            bucket = buckets[bucket_end(item.t, window.step_s)]
            column = {"bytes": item.bytes, "packets": item.packets, "connections": item.connections}[window.quantity]
            for number, value in zip(item.key_ids, column, strict=True):
                bucket.sums[number] += value
            if item.complete:
                bucket.complete_s[item.observer] += item.interval_s
            else:
                for number in set(item.key_ids):
                    bucket.listed_s[number] += item.interval_s
        return buckets

    def _of_rows(
        self, window: Window, start: int, end: int, tier: int, only: Collection[int] | None = None
    ) -> dict[int, _Bucket]:
        buckets: dict[int, _Bucket] = defaultdict(_Bucket)
        table = PATTERN_TABLES[tier]
        asked = true() if only is None else table.c.flow_key_id.in_(list(only))
        columns = (table.c.t, table.c.flow_key_id, table.c.covered_s, table.c[window.quantity])
        times = covered.c.t > start, covered.c.t <= end, covered.c.step_s == tier
        with self._engine.connect() as connection:
            for t, number, listed_s, value in connection.execute(
                select(*columns).where(table.c.t > start, table.c.t <= end, asked)
            ):
                bucket = buckets[bucket_end(t, window.step_s)]
                bucket.sums[number] += value
                bucket.listed_s[number] += listed_s
            for t, observer, seconds in connection.execute(
                select(covered.c.t, covered.c.observer, covered.c.covered_s).where(*times)
            ):
                buckets[bucket_end(t, window.step_s)].complete_s[observer] += seconds
        return buckets

    def _rates(self, bucket: _Bucket, watched: Mapping[str, Iterable[tuple[int, float]]], t: int) -> dict[Pair, float]:
        seconds: dict[Pair, float] = defaultdict(float)
        sums: dict[Pair, float] = defaultdict(float)
        for observer, complete_s in bucket.complete_s.items():
            for number, since in watched.get(observer, ()):
                if since < t:
                    pair = self._pair(number)
                    seconds[pair] = max(seconds[pair], complete_s)
        for number, listed_s in bucket.listed_s.items():
            pair = self._pair(number)
            seconds[pair] = max(seconds[pair], listed_s)
        for number, value in bucket.sums.items():
            sums[self._pair(number)] += value
        return {pair: sums[pair] / covered_s for pair, covered_s in seconds.items() if covered_s > 0}

    def history(self, pair: Pair, since: Seconds, until: Seconds) -> list[RatePoint]:
        """What one pair did with since < t <= until, oldest first: each second, or each bucket where those are gone.

        Silence that an observer has proved is 0; where nobody looked there is no point. Raises StoreError.
        """
        with reported(self._engine, "reading communications"):
            own = {
                number
                for number, key in self._names.flow_keys().items()
                if key.source == pair.source and key.virtual_ip == pair.virtual_ip
            }
            if found := self._batches.read(0, since, until):
                return list(_of_pair(found, own))
            step_s = FINE_S if self._covers(FINE_S, since, until) else COARSE_S
            buckets = self._of_rows(Window(step_s, since, until), int(since), int(until), step_s, own)
            everyone = self._watched().items()
        watched = {
            observer: [(number, since) for number, since in keys if number in own] for observer, keys in everyone
        }
        rates = ((t, self._rates(bucket, watched, t).get(pair)) for t, bucket in sorted(buckets.items()))
        return [RatePoint(float(t), rate) for t, rate in rates if rate is not None]

    def _covers(self, step_s: int, since: Seconds, until: Seconds) -> bool:
        at = PATTERN_TABLES[step_s].c.t
        with self._engine.connect() as connection:
            return connection.execute(select(at).where(at > since, at <= until).limit(1)).first() is not None

    def _pair(self, number: int) -> Pair:
        flow_key = self._names.flow_key_of(number)
        return Pair(flow_key.source, flow_key.virtual_ip)


def _of_pair(found: Iterable[StoredBatch], own: Collection[int]) -> Iterator[RatePoint]:
    """The points of one pair; who has once listed it proves its silence from then on."""
    listing: set[str] = set()
    for item in found:
        places = [place for place, number in enumerate(item.key_ids.tolist()) if number in own]
        if places:
            listing.add(item.observer)
        elif not (item.complete and item.observer in listing):
            continue
        if item.interval_s > 0:
            size, connections = (sum(column[place] for place in places) for column in (item.bytes, item.connections))
            yield RatePoint(item.t, size / item.interval_s, connections / item.interval_s)

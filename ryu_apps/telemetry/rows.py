"""From counters to rows: what each pair said, in columns, and what each link carried since the last look."""

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

from cpdb import IMPLAUSIBLE, Batch, FlowKey, LinkLoad
from ryu_apps.telemetry.counters import (
    NO_CLOCK,
    ClockMark,
    CounterDelta,
    CounterReading,
    Entry,
    FlowCounters,
    PollDelta,
    PortCounters,
    PortSample,
)

Seconds = float
Pace = Callable[[Iterable[Any]], Iterator[Any]]

# Larger growth is nonsense, and would not fit a signed 64-bit column.
MAX_GROWTH = 2**62
# A controller that was away for longer begins anew: one row over such a time would teach nobody anything.
RESUME_S = 900.0


@dataclass(frozen=True, slots=True)
class LinkEnds:
    """Both ends of a port's link by name; `edge` when the far end is no switch."""

    here: str
    there: str
    edge: bool


@dataclass(frozen=True, slots=True)
class SampleSource:
    """How one switch's growth is read: who a key belongs to, whether it counts openings, and what cannot be true.

    `account` gives the talk and whether the key's packets are openings of connections; None for a key of nobody.
    `judge(talks, bytes, seconds)` gives the places of rows that cannot be true.
    """

    observer: str
    account: Callable[[int], tuple[FlowKey, bool] | None]
    judge: Callable[[Sequence[FlowKey], Sequence[int], Seconds], Collection[int]] = lambda *_: ()


def paced(items: Iterable[Any], pause: Callable[[], None], every: int = 2000) -> Iterator[Any]:
    """The items, with a pause after every so many."""
    rest = iter(items)
    while chunk := list(islice(rest, every)):
        yield from chunk
        if len(chunk) == every:
            pause()


class SwitchCounters:
    """Counters of entries and ports of all switches. `clock`: by which times are told."""

    def __init__(self, pace: Pace = iter) -> None:
        """`pace` is put round every long iteration: it may let others run in between, but nobody who calls here."""
        self._pace = pace
        self._ports: dict[int, PortCounters] = {}
        self._flows: dict[int, FlowCounters] = {}
        self._watched: dict[int, Seconds] = {}
        self._ports_looked: dict[int, Seconds] = {}
        self._said: set[str] = set()
        self.clock: ClockMark = NO_CLOCK

    def connected(self, dpid: int, now: Seconds, kept: bytes | None = None) -> None:
        """From now on the switch is watched. What existed before has an unknown past, unless it is in `kept`,

        the dump of an earlier controller's counters; ValueError when that makes no sense (then it is as if None).
        """
        if dpid in self._flows:
            return
        self._flows[dpid] = FlowCounters(now)
        self._ports_looked[dpid] = now
        if kept is not None:
            earlier = FlowCounters.load(kept, self.clock)
            if now - RESUME_S < earlier.looked < now:
                self._flows[dpid] = earlier

    def forget(self, dpid: int) -> None:
        """What another controller has counted meanwhile is not known here."""
        self._flows.pop(dpid, None)
        self._ports.pop(dpid, None)

    def shift(self, by: Seconds) -> None:
        """The clock was set by so much: intervals remain as long as they were."""
        self.clock = self.clock._replace(ahead_s=self.clock.ahead_s + by)
        for flows in self._flows.values():
            flows.shift(by)
        for ports in self._ports.values():
            ports.shift(by)
        self._ports_looked = {dpid: at + by for dpid, at in self._ports_looked.items()}

    def look(self, dpid: int, entries: Iterable[Entry], now: Seconds) -> PollDelta:
        """A complete answer of a switch: (key, packets, bytes, age in seconds) of each entry."""
        return self._of(dpid, now).look(self._pace(entries), now)

    def removed(self, dpid: int, entry: Entry, now: Seconds) -> None:
        """The final counters of an entry that is gone."""
        self._of(dpid, now).removed(entry, now)

    def _of(self, dpid: int, now: Seconds) -> FlowCounters:
        return self._flows.setdefault(dpid, FlowCounters(now))

    def dump(self, dpid: int) -> bytes:
        """A switch's counters for the next controller."""
        return self._flows[dpid].dump(self.clock)

    def make_batches(self, look: PollDelta, source: SampleSource) -> list[Batch]:
        """A look as batches: one that is also the proof of everybody else's silence, then those of late entries."""
        if look.empty:
            return []
        batches = []
        columns = _columns(self._pace(look.grown), look.t - look.since, source)
        if columns[0] or (look.whole and source.observer in self._said):
            batches.append(_batch(source.observer, look.t, look.since, columns, look.whole))
            self._said.add(source.observer)
        for since in sorted({late[0] for late in look.late}):
            grown = [(key, packets, size) for start, key, packets, size in look.late if start == since]
            batches.append(
                _batch(source.observer, look.t, since, _columns(grown, look.t - since, source), complete=False)
            )
        return batches

    def ports(self, dpid: int, samples: Iterable[PortSample], now: Seconds) -> list[tuple[PortSample, CounterDelta]]:
        """A complete answer with a switch's port counters: each port's growth in sent and received (bytes, packets,
        drops), where there is anything sound to say.
        """
        since = self._ports_looked.get(dpid)
        self._ports_looked[dpid] = now
        ports, told = self._ports.setdefault(dpid, PortCounters()), []
        for one in samples:
            values = (one.tx_bytes, one.tx_packets, one.tx_dropped, one.rx_bytes, one.rx_packets, one.rx_dropped)
            growth = ports.grow(one.port, CounterReading(one.t, one.age_s, values), since)
            if growth is not None:
                told.append((one, growth))
        return told


_Columns = tuple[list[FlowKey], "array[int]", "array[int]", "array[int]", "array[int]"]


def _columns(grown: Iterable[tuple[int, int, int]], seconds: Seconds, source: SampleSource) -> _Columns:
    # Plain numbers in three lists: a container for each talk would wake the garbage collector again and again.
    places: dict[FlowKey, int] = {}
    sizes: list[int] = []
    packets: list[int] = []
    openings: list[int] = []
    account = source.account
    for key, more_packets, more in grown:
        found = account(key)
        if found is None:
            continue
        talk, opens = found
        place = places.setdefault(talk, len(sizes))
        if place == len(sizes):
            sizes.append(0)
            packets.append(0)
            openings.append(0)
        sizes[place] += more
        packets[place] += more_packets
        if opens:
            openings[place] += more_packets
    talks = list(places)
    columns = tuple(array("q", map(min, column, repeat(MAX_GROWTH))) for column in (sizes, packets, openings))
    return talks, *columns, _flags(talks, columns[0], seconds, source)  # type: ignore[return-value]


def _flags(talks: Sequence[FlowKey], sizes: Sequence[int], seconds: Seconds, source: SampleSource) -> "array[int]":
    flags = array("B", bytes(len(talks)))
    for place in {*source.judge(talks, sizes, seconds), *(n for n, size in enumerate(sizes) if size == MAX_GROWTH)}:
        flags[place] = IMPLAUSIBLE
    return flags


def _batch(observer: str, t: Seconds, since: Seconds, columns: _Columns, complete: bool) -> Batch:
    talks, sizes, packets, openings, flags = columns
    return Batch(
        observer, t, t - since, talks, sizes, packets, openings, flags if any(flags) else None, complete=complete
    )


def loads(ends: LinkEnds, growth: CounterDelta) -> list[LinkLoad]:
    """Rows for what left a port, and on edge ports also for what came in."""
    rows = [_load(ends.here, ends.there, growth, growth.values[:3])]
    if ends.edge:
        rows.append(_load(ends.there, ends.here, growth, growth.values[3:]))
    return rows


def _load(start: str, end: str, growth: CounterDelta, values: tuple[int, ...]) -> LinkLoad:
    size, packets, drops = (min(value, MAX_GROWTH) for value in values)
    return LinkLoad(start, end, growth.t, growth.interval_s, size, packets, drops)

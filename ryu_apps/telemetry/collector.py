"""Asks every switch for its counters, each at its own pace, and makes whole answers into rows for the database."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any, Protocol
from zlib import compress, decompress

import structlog

from cpdb import Durations, KeptCounts, Publisher, RefreshReport, tenure_mark
from ryu_apps.framework import kill, ofproto, sleep, spawn
from ryu_apps.openflow import FlowColumns, MultipartKind, PortColumns
from ryu_apps.rules import PortId
from ryu_apps.switch.wire import Wire
from ryu_apps.telemetry.counters import CounterDelta, Entry, PollDelta, PortSample
from ryu_apps.telemetry.doubts import CounterDoubts
from ryu_apps.telemetry.rows import LinkEnds, SampleSource, SwitchCounters, loads, paced
from ryu_apps.telemetry.writer import Writer

Seconds = float


# An answer that has not come after so many periods is given up; a switch that answers slowly is asked less often.
MAX_ROUNDS = 3
# Counters that did not move are kept this often: only the time of the last look is new.
KEEP_EVERY_S = 5.0
_log = structlog.get_logger("ryu_apps.telemetry.collector")


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Which flow entries to ask for, and whether what they match is wanted besides their counters."""

    cookie: int = 0
    mask: int = 0
    table: int = ofproto.OFPTT_ALL
    matches: bool = False


@dataclass(slots=True)
class _Watch:
    thread: Any = None
    waiting: dict[int, list[Any]] = field(default_factory=dict)
    rounds: int = 0
    asked_at: Seconds = 0.0


class Poller:
    """One green thread a switch. Only answers to own questions count: other applications may ask as well."""

    def __init__(self, every_s: Seconds, flows: FlowFilter, clock: Callable[[], Seconds] = monotonic) -> None:
        """`clock` only measures how long answers take, into `durations`."""
        self.durations = Durations()
        self._clock = clock
        self._every_s = every_s
        self._flows = flows
        self._watches: dict[int, _Watch] = {}

    def start(self, wire: Wire) -> None:
        """Begins to ask a switch."""
        self.stop(wire.dpid)
        watch = self._watches[wire.dpid] = _Watch()
        watch.thread = spawn(self._ask, wire, watch)

    def stop(self, dpid: int) -> None:
        """Stops asking."""
        watch = self._watches.pop(dpid, None)
        if watch is not None:
            kill(watch.thread)

    def _ask(self, wire: Wire, watch: _Watch) -> None:
        # Switches that connect together are asked apart.
        sleep(self._every_s * (wire.dpid * 0.618 % 1))
        while True:
            if not watch.waiting or watch.rounds >= MAX_ROUNDS:
                watch.rounds = 0
                rules = wire.ask_rules(self._flows.cookie, self._flows.mask, self._flows.table)
                asked = (rules, wire.request(MultipartKind.PORTS))
                watch.waiting, watch.asked_at = {xid: [] for xid in asked}, self._clock()
            watch.rounds += 1
            sleep(self._every_s)

    def refused(self, dpid: int, xid: int) -> None:
        """The switch will not answer that question: there is nothing to wait for."""
        watch = self._watches.get(dpid)
        if watch is not None:
            watch.waiting.pop(xid, None)

    def gather(self, message: Any) -> Any:
        """Columns of the whole answer once its last part is here; None before that, or when others had asked."""
        watch = self._watches.get(message.datapath.id)
        if watch is None or message.xid not in watch.waiting:
            return None
        part = message.columns
        if self._flows.matches and isinstance(part, FlowColumns):
            part.matches = message.matches()
        watch.waiting[message.xid].append(part)
        if message.flags & ofproto.OFPMPF_REPLY_MORE:
            return None
        parts = watch.waiting.pop(message.xid)
        self.durations.add(self._clock() - watch.asked_at)
        return parts[0] if len(parts) == 1 else type(part).joined(parts)


def port_samples(dpid: int, columns: PortColumns, now: Seconds) -> list[PortSample]:
    """Counters of real ports; the switch's own local port is none."""
    rows = zip(
        columns.number, columns.age_s, columns.tx_packets, columns.tx_bytes, columns.tx_dropped,
        columns.rx_packets, columns.rx_bytes, columns.rx_dropped, strict=True,
    )  # fmt: skip
    return [PortSample(dpid, number, now, *rest) for number, *rest in rows if number < ofproto.OFPP_MAX]


# An entry that rested for longer says nothing about the switch.
MAX_REST_S = 60.0
# So many times between distinct values are needed before anything is said, and so many are remembered.
MIN_GAPS, MAX_GAPS = 20, 512
# Entries also rest by themselves, which makes times longer, never shorter: the low end belongs to the switch.
LOW = 0.1
_SAMPLE = 64
_TELL_EVERY_S = 30.0
_CHANGE_MIN = 0.2


class RefreshTimes:
    """Times between distinct values of busy entries, switch by switch."""

    def __init__(self) -> None:
        self._gaps: dict[int, deque[Seconds]] = {}
        self._publisher: Publisher[int, RefreshReport] = Publisher(_TELL_EVERY_S, same=_nearly_equal)

    def add(self, dpid: int, gaps: Sequence[Seconds]) -> None:
        """Times between distinct values from one look, a bounded sample of them."""
        known = self._gaps.setdefault(dpid, deque(maxlen=MAX_GAPS))
        busy = [gap for gap in gaps if gap <= MAX_REST_S]
        known.extend(busy[:: max(1, len(busy) // _SAMPLE)])

    def refresh_s(self, dpid: int) -> Seconds | None:
        """Seconds between distinct values of the switch's counters; None while too little was seen.

        It is the low decile of the times seen, so it is never shorter than the time between two questions.
        """
        gaps = sorted(self._gaps.get(dpid, ()))
        return gaps[int(LOW * len(gaps))] if len(gaps) >= MIN_GAPS else None

    def news(self, name_of: Callable[[int], str], now: Seconds) -> list[RefreshReport]:
        """A record for each switch whose refresh changed, or was not told for long."""
        facts: dict[int, RefreshReport | None] = {}
        for dpid in self._gaps:
            refresh_s = self.refresh_s(dpid)
            facts[dpid] = None if refresh_s is None else RefreshReport(name_of(dpid), refresh_s, now)
        return list(self._publisher.publish(facts, now).said.values())


def _nearly_equal(before: RefreshReport, report: RefreshReport) -> bool:
    return abs(report.refresh_s - before.refresh_s) <= _CHANGE_MIN * before.refresh_s


class Attribution(Protocol):
    """Whose the counters of an application's switches are."""

    def name_of(self, dpid: int) -> str:
        """A switch's name."""

    def read_entries(self, dpid: int, columns: FlowColumns, now: Seconds) -> "Answer":
        """Flow statistics as entries with keys, and how their growth is read; without a source nobody is told."""

    def neighbour(self, at: PortId) -> LinkEnds | None:
        """Who is at both ends of a port's link; None when there is nothing worth a row."""

    def flows_grew(self, look: PollDelta) -> None:
        """What grew since the last answer."""

    def port_grew(self, at: PortId, growth: CounterDelta) -> None:
        """A port's counters grew."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One switch's flow statistics, and the source that says whose they are."""

    entries: Iterable[Entry]
    source: SampleSource | None


@dataclass(slots=True)
class Tenures:
    """In which tenure each switch is counted (its lease's token; none: nobody else ever counts it), and for whom.

    `place` is where this controller's own files are. While `others` wait, counters are stored beside their rows.
    """

    place: str = ""
    others: Callable[[], bool] = lambda: False
    tokens: dict[int, int] = field(default_factory=dict)

    def mark(self, dpid: int) -> str:
        """What tells the tenure in a batch's writer."""
        token = self.tokens.get(dpid, 0)
        return tenure_mark(dpid, token) if token else ""

    def counts(self, dpid: int, dump: bytes) -> list[KeptCounts]:
        """What is to be stored of counters together with their rows."""
        token = self.tokens.get(dpid, 0)
        body = compress(dump, 1) if token and self.others() else None
        return [KeptCounts(dpid, token, self.place, body)] if token else []

    def newest(self, stored: KeptCounts | None, own: bytes | None) -> bytes | None:
        """The counters that the last stored rows end with: beside them, in an own file, or (None) nobody knows."""
        if stored is None or (stored.body is None and stored.keeper in ("", self.place)):
            return own
        return None if stored.body is None else decompress(stored.body)


class Collector:
    """From answers of switches to rows; what a switch counted before is taken over when it connects."""

    def __init__(
        self, attribution: Attribution, writer: Writer, every_s: Seconds, flows: FlowFilter = FlowFilter()
    ) -> None:
        self.accounts = SwitchCounters(pace)
        self.refresh = RefreshTimes()
        self.doubts = CounterDoubts()
        self.attribution = attribution
        self._writer = writer
        self._poller = Poller(every_s, flows)
        self._dumped: dict[int, Seconds] = {}
        self.tenures = Tenures()
        # Flow entries answered with so far
        self.samples = 0

    @property
    def polls(self) -> Durations:
        """How long answers took."""
        return self._poller.durations

    def switch_up(self, wire: Wire, now: Seconds, kept: bytes | None) -> None:
        """A switch connected: its counters go on from what was kept, and it is asked from now on."""
        try:
            self.accounts.connected(wire.dpid, now, kept)
        except ValueError as error:
            _log.warning("kept counters are left out", dpid=f"{wire.dpid:016x}", reason=str(error))
        self._poller.start(wire)

    def switch_down(self, dpid: int) -> None:
        """A switch is no longer asked."""
        self._poller.stop(dpid)
        self.doubts.forget(dpid)

    def refused(self, dpid: int, xid: int) -> None:
        """A switch will not answer a question."""
        self._poller.refused(dpid, xid)

    def take_flows(self, message: Any, now: Seconds) -> None:
        """Part of an answer with flow statistics."""
        columns, dpid = self._poller.gather(message), message.datapath.id
        if columns is None:
            return
        self.samples += len(columns)
        answer = self.attribution.read_entries(dpid, columns, now)
        look = self.accounts.look(dpid, answer.entries, now)
        self.refresh.add(dpid, look.gaps)
        told = answer.source if self.doubts.look(dpid, columns, look.fallen, now) is None else None
        batches = self.accounts.make_batches(look, told) if told is not None else []
        dumps, counts = {}, []
        if look.grown or look.late or now - self._dumped.get(dpid, 0.0) >= KEEP_EVERY_S:
            dumps[dpid] = self.accounts.dump(dpid)
            counts = self.tenures.counts(dpid, dumps[dpid])
            self._dumped[dpid] = now
        mark = self.tenures.mark(dpid)
        self._writer.offer([*(replace(batch, writer=mark) for batch in batches), *counts], now, dumps)
        self.attribution.flows_grew(look)

    def take_ports(self, message: Any, now: Seconds) -> None:
        """Part of an answer with port counters."""
        columns, dpid = self._poller.gather(message), message.datapath.id
        if columns is None:
            return
        for sample, growth in self.accounts.ports(dpid, port_samples(dpid, columns, now), now):
            at = PortId(dpid, sample.port)
            self.attribution.port_grew(at, growth)
            self.doubts.port_received(dpid, growth.values[4])
            ends = self.attribution.neighbour(at)
            if ends is not None:
                self._writer.offer(loads(ends, growth), now)

    def watch(self, now: Seconds) -> None:
        """Once a second: how old the switches' counters may be."""
        self._writer.offer(self.refresh.news(self.attribution.name_of, now), now)


def pace(items: Iterable[Any]) -> Iterator[Any]:
    """A long iteration that lets the connections' messages in; handlers of events still wait for each other."""
    return paced(items, partial(sleep, 0))

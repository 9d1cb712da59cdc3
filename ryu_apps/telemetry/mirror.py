"""The passive half that both applications share: polls counters, turns them into rows, carries rows to the database."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from cpdb import ForepathError, Spool, Store, open_store
from ryu_apps.declared import Declared
from ryu_apps.framework import (
    DEAD_DISPATCHER,
    MAIN_DISPATCHER,
    OPENFLOW_13,
    RyuApp,
    alarm_clock,
    beside,
    handles,
    off_loop,
    ofp_event,
    ofproto,
    sleep,
    spawn,
)
from ryu_apps.openflow import FlowColumns
from ryu_apps.reading import LOOK_EVERY_S, Reading, look
from ryu_apps.rules import PortId
from ryu_apps.settings import ControllerSettings, load_controller
from ryu_apps.status.counters import Staleness, Tallies
from ryu_apps.switch.asked import Complaints, SwitchError, unmatched
from ryu_apps.switch.connections import harden
from ryu_apps.switch.refusals import refusals
from ryu_apps.switch.wire import Wire
from ryu_apps.telemetry.counters import Entry, Look
from ryu_apps.telemetry.polling import Filter, Polling, port_samples
from ryu_apps.telemetry.rows import Accounts, Book, Neighbour, loads, paced
from ryu_apps.telemetry.writer import Kept, Row, Writer, store_rows

Seconds = float

FLUSH_EVERY_S = 0.25
REOPEN_EVERY_S = 2.0
WATCH_EVERY_S = 1.0
# Counters that did not move are kept this often: only the time of the last look is new.
KEEP_EVERY_S = 5.0
_log = structlog.get_logger("ryu_apps.telemetry.mirror")


class MirrorApp(RyuApp):
    """Base of the applications. Below this class nothing reads a clock: `now` is an argument from here on."""

    OFP_VERSIONS = (OPENFLOW_13,)
    FLOWS = Filter()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = load_controller()
        self.database_url, self.settings = settings.database.url, settings.controller
        harden(self.settings.connections)
        self.accounts = Accounts(self.pace)
        self.complaints = Complaints()
        self.staleness = Staleness()
        self.writer = make_writer(settings)
        self.wires: dict[int, tuple[Any, Wire]] = {}
        self.store: Store | None = None
        self.failures = 0
        self._polling = Polling(self.settings.poll_s, self.FLOWS)
        self._dumped: dict[int, Seconds] = {}
        self._tallies = Tallies()
        self.reading = Reading(self._open, self.declare)
        self._due = alarm_clock()

    def start(self) -> Any:
        """Starts the loops beside the event handlers."""
        # What is loaded by now stays: looking through it for garbage would only hold everybody up.
        gc.freeze()
        self.every(FLUSH_EVERY_S, "writing", self._write, self._due)
        self.every(FLUSH_EVERY_S, "guarding what waits", self.writer.guard)
        self.every(self.settings.wanted_s, "reading what is wanted", self.reading.whole)
        self.every(WATCH_EVERY_S, "watching the switches' counters", self.watch)
        return super().start()

    def every(self, period_s: Seconds, doing: str, body: Callable[[Seconds], None], due: Any = None) -> None:
        """Calls `body(now)` again and again, at once when `due` is set; nothing that goes wrong there is fatal."""
        due = due or alarm_clock()

        def loop() -> None:
            while True:
                due.clear()
                self.attempt(doing, lambda: body(time.time()))
                due.wait(period_s)

        spawn(loop)

    def attempt(self, doing: str, body: Callable[[], None]) -> None:
        """Whatever goes wrong in `body` is logged and counted."""
        try:
            body()
        except Exception:  # noqa: BLE001
            self.failures += 1
            _log.exception("loop goes on after an error", doing=doing, failures=self.failures)

    def tell_now(self, rows: Iterable[Row]) -> None:
        """Hands over rows that somebody waits for: they are written at once."""
        rows = list(rows)
        if rows:
            self.writer.offer(rows)
            self._due.set()

    # ---- database

    def _open(self) -> Store | None:
        if self.store is None:
            try:
                self.store = off_loop(open_store, self.database_url)
                _log.info("database open", url=self.store.engine.url.render_as_string(hide_password=True))
                beside(look(self.database_url), LOOK_EVERY_S, self._hurry)
            except ForepathError as error:
                _log.warning("no database, forwarding goes on", reason=str(error))
                sleep(REOPEN_EVERY_S)
        return self.store

    def _hurry(self) -> None:
        self.attempt("reading what has changed", self.reading.wanted)

    def _write(self, _now: Seconds) -> None:
        self.writer.flush(partial(store_rows, self.store) if self.store is not None else None)

    # ---- for the applications

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        raise NotImplementedError

    def joined(self, datapath: Any, wire: Wire, now: Seconds) -> None:
        """A switch finished its handshake."""

    def left(self, dpid: int, now: Seconds) -> None:
        """A switch lost its connection."""

    def flows(self, dpid: int, columns: FlowColumns, now: Seconds) -> None:
        """A complete answer with flow statistics."""
        raise NotImplementedError

    def name_of(self, dpid: int) -> str:
        """A switch's name."""
        raise NotImplementedError

    def neighbour(self, dpid: int, port: int) -> Neighbour | None:
        """Who is at both ends of a port's link; None when there is nothing worth a row."""
        raise NotImplementedError

    def port_grew(self, at: PortId, growth: Any) -> None:
        """A port's counters grew."""

    def tallies(self) -> dict[tuple[str, str], int]:
        """Everything that went wrong so far, by kind and reason."""
        spool, kept = self.writer.spool, self.writer.kept
        return (
            {("refused", reason): count for reason, count in refusals.counts.items()}
            | {
                ("lost", "rows"): self.writer.lost,
                ("lost", "batches on disk"): spool.lost if spool is not None else 0,
                ("lost", "counters not kept"): kept.failures,
                ("failed", "loops"): self.failures,
            }
            | self.complaints.tallies()
        )

    def watch(self, now: Seconds) -> None:
        """Once a second: what the counters themselves are worth."""
        self.writer.offer(self.staleness.news(self.name_of, now), now)
        self.writer.offer(self._tallies.news(self.tallies(), now), now)

    @staticmethod
    def pace(items: Iterable[Any]) -> Iterator[Any]:
        """A long iteration that lets the connections' messages in; handlers of events still wait for each other."""
        return paced(items, partial(sleep, 0))

    def tell(self, dpid: int, entries: Iterable[Entry], book: Book | None, now: Seconds) -> Look:
        """Turns a complete answer into batches and hands them to the writer; without a book nobody is told."""
        look = self.accounts.look(dpid, entries, now)
        self.staleness.add(dpid, look.gaps)
        batches = self.accounts.tell(look, book) if book is not None else []
        dumps = {}
        if look.grown or look.late or now - self._dumped.get(dpid, 0.0) >= KEEP_EVERY_S:
            dumps[dpid] = self.accounts.dump(dpid)
            self._dumped[dpid] = now
        self.writer.offer(batches, now, dumps)
        return look

    # ---- events

    @handles(ofp_event.EventOFPStateChange, MAIN_DISPATCHER, DEAD_DISPATCHER)
    def on_state(self, event: Any) -> None:
        """A switch came or went."""
        datapath, now = event.datapath, time.time()
        if event.state == MAIN_DISPATCHER:
            self._leave(datapath.id, now)
            wire = Wire(datapath)
            self.wires[datapath.id] = (datapath, wire)
            self._resume(datapath.id, now)
            self.joined(datapath, wire, now)
            self._polling.start(wire)
        elif datapath.id in self.wires and self.wires[datapath.id][0] is datapath:
            # Not so when the switch has already come back on a newer connection, or never finished its handshake.
            self._leave(datapath.id, now)

    def _resume(self, dpid: int, now: Seconds) -> None:
        try:
            self.accounts.connected(dpid, now, self.writer.kept.read(dpid))
        except ValueError as error:
            _log.warning("kept counters are left out", dpid=f"{dpid:016x}", reason=str(error))

    def _leave(self, dpid: int, now: Seconds) -> None:
        if dpid in self.wires:
            self._polling.stop(dpid)
            self.wires.pop(dpid)[1].close()
            self.left(dpid, now)

    @handles(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_flows(self, event: Any) -> None:
        """Part of an answer with flow statistics."""
        columns = self._polling.gather(event.msg)
        if columns is not None:
            self.flows(event.msg.datapath.id, columns, time.time())

    @handles(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    def on_ports(self, event: Any) -> None:
        """Part of an answer with port counters."""
        columns = self._polling.gather(event.msg)
        if columns is None:
            return
        now, dpid = time.time(), event.msg.datapath.id
        for one, growth in self.accounts.ports(dpid, port_samples(dpid, columns, now), now):
            self.port_grew(PortId(dpid, one.port), growth)
            ends = self.neighbour(dpid, one.port)
            if ends is not None:
                self.writer.offer(loads(ends, growth), now)

    @handles(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def on_error(self, event: Any) -> None:
        """A switch refused something."""
        one = event.msg
        if one.type == ofproto.OFPET_EXPERIMENTER:
            self._complain(one, f"OFPET_EXPERIMENTER/{one.experimenter:#x}/{one.code}")
        else:
            kind = ofproto.ofp_error_type_to_str(one.type)
            self._complain(one, f"{kind}/{ofproto.ofp_error_code_to_str(one.type, one.code)}")

    def _complain(self, message: Any, reason: str) -> None:
        now, dpid = time.time(), message.datapath.id
        error = SwitchError(message.xid, reason, bytes(message.data or b""))
        self._polling.refused(dpid, message.xid)
        self.complaints.add(self.name_of(dpid), self.refused(dpid, error), reason, now)

    def refused(self, dpid: int, error: SwitchError) -> str:
        """What an error is about."""
        asked = self.wires[dpid][1].asked.take(error.xid) if dpid in self.wires else None
        return asked or unmatched(error)


def make_writer(settings: ControllerSettings) -> Writer:
    """The writer with its place on disk; where there is none, a database that is away costs what the queue sheds."""
    directory, storage = settings.state_directory(), settings.controller.storage
    spool = None
    if directory is not None:
        try:
            spool = Spool(directory / "spool", storage.spool_mib << 20)
        except ForepathError as error:
            _log.warning("no spool, a long absence of the database will cost rows", reason=str(error))
    kept = Kept(directory / "counters" if directory is not None else None)
    return Writer(storage.max_rows, uuid4().hex, spool, kept, off_loop)

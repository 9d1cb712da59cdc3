"""The passive half that both applications share: polls counters, turns them into rows, carries rows to the database."""

import time
from collections.abc import Callable
from typing import Any

import structlog

from cpdb import ForepathError, Store, open_store
from ryu_apps.accounting import Accounts, Neighbour
from ryu_apps.datapath import Wire
from ryu_apps.declared import Declared, read_declared
from ryu_apps.framework import (
    DEAD_DISPATCHER,
    MAIN_DISPATCHER,
    OPENFLOW_13,
    RyuApp,
    handles,
    harden,
    off_loop,
    ofp_event,
    sleep,
    spawn,
)
from ryu_apps.polling import Filter, Polling, port_samples
from ryu_apps.settings import load
from ryu_apps.writer import Writer, store_rows

Seconds = float

FLUSH_EVERY_S = 0.25
REOPEN_EVERY_S = 2.0
_log = structlog.get_logger("ryu_apps.mirror")


class MirrorApp(RyuApp):
    """Base of the applications. Below this class nothing reads a clock: `now` is an argument from here on."""

    OFP_VERSIONS = (OPENFLOW_13,)
    FLOWS = Filter()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = load()
        harden()
        self.accounts = Accounts()
        self.writer = Writer(self.settings.most_rows)
        self.wires: dict[int, tuple[Any, Wire]] = {}
        self.store: Store | None = None
        self.failures = 0
        self._polling = Polling(self.settings.poll_s, self.FLOWS)

    def start(self) -> Any:
        """Starts the loops beside the event handlers."""
        self.every(FLUSH_EVERY_S, "writing", self._write)
        self.every(self.settings.wanted_s, "reading what is wanted", self._read)
        return super().start()

    def every(self, period_s: Seconds, doing: str, body: Callable[[Seconds], None]) -> None:
        """Calls `body(now)` again and again; whatever goes wrong there is logged and counted, never fatal."""

        def loop() -> None:
            while True:
                try:
                    body(time.time())
                except Exception:  # noqa: BLE001
                    self.failures += 1
                    _log.exception("loop goes on after an error", doing=doing, failures=self.failures)
                sleep(period_s)

        spawn(loop)

    # ---- database

    def _open(self) -> Store | None:
        if self.store is None:
            try:
                self.store = off_loop(open_store, self.settings.database_url)
                _log.info("database open", url=self.store.engine.url.render_as_string(hide_password=True))
            except ForepathError as error:
                _log.warning("no database, forwarding goes on", reason=str(error))
                sleep(REOPEN_EVERY_S)
        return self.store

    def _write(self, _now: Seconds) -> None:
        store = self.store
        if store is not None:
            self.writer.flush(lambda rows: off_loop(store_rows, store, rows))

    def _read(self, now: Seconds) -> None:
        store = self._open()
        if store is None:
            return
        try:
            declared = off_loop(read_declared, store, now)
        except ForepathError as error:
            _log.warning("what is wanted cannot be read, the last reading stands", reason=str(error))
            return
        self.declare(declared, time.time())

    # ---- for the applications

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        raise NotImplementedError

    def joined(self, datapath: Any, wire: Wire, now: Seconds) -> None:
        """A switch finished its handshake."""

    def left(self, dpid: int, now: Seconds) -> None:
        """A switch lost its connection."""

    def flows(self, dpid: int, entries: list[Any], now: Seconds) -> None:
        """A complete answer with flow statistics."""
        raise NotImplementedError

    def neighbour(self, dpid: int, port: int) -> Neighbour | None:
        """Who is at both ends of a port's link; None when there is nothing worth a row."""
        raise NotImplementedError

    # ---- events

    @handles(ofp_event.EventOFPStateChange, MAIN_DISPATCHER, DEAD_DISPATCHER)
    def on_state(self, event: Any) -> None:
        """A switch came or went."""
        datapath, now = event.datapath, time.time()
        if event.state == MAIN_DISPATCHER:
            self._leave(datapath.id, now)
            wire = Wire(datapath)
            self.wires[datapath.id] = (datapath, wire)
            self.accounts.connected(datapath.id, now)
            self.joined(datapath, wire, now)
            self._polling.start(wire)
        elif datapath.id in self.wires and self.wires[datapath.id][0] is datapath:
            # Not so when the switch has already come back on a newer connection, or never finished its handshake.
            self._leave(datapath.id, now)

    def _leave(self, dpid: int, now: Seconds) -> None:
        if dpid in self.wires:
            self._polling.stop(dpid)
            self.wires.pop(dpid)[1].close()
            self.left(dpid, now)

    @handles(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_flows(self, event: Any) -> None:
        """Part of an answer with flow statistics."""
        entries = self._polling.gather(event.msg)
        if entries is not None:
            self.flows(event.msg.datapath.id, entries, time.time())

    @handles(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    def on_ports(self, event: Any) -> None:
        """Part of an answer with port counters."""
        entries = self._polling.gather(event.msg)
        if entries is not None:
            now = time.time()
            samples = port_samples(event.msg.datapath.id, entries, now)
            self.writer.offer(self.accounts.ports(samples, now, self.neighbour))

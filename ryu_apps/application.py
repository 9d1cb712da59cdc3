"""What both applications are made of: events of the framework, handed on as plain data to the parts they concern."""

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from cpdb import ALIVE, READY, Figures, SwitchReport, notify_systemd, serve_metrics
from ryu_apps.database import Database
from ryu_apps.declared import Declared
from ryu_apps.effects import Alert
from ryu_apps.framework import (
    DEAD_DISPATCHER,
    MAIN_DISPATCHER,
    OPENFLOW_13,
    FrameworkApp,
    Loops,
    handles,
    ofp_event,
    ofproto,
)
from ryu_apps.settings import load_controller
from ryu_apps.status.alarms import AlarmLog, EventCountPublisher
from ryu_apps.status.metrics import controller_figures
from ryu_apps.switch.connections import harden
from ryu_apps.switch.errors import SwitchError, SwitchErrors, refusals, unmatched
from ryu_apps.switch.wire import Wire
from ryu_apps.telemetry.collector import Collector
from ryu_apps.telemetry.counters import CLOCK_STEP_S, NO_CLOCK, ClockMark
from ryu_apps.telemetry.writer import Writer

Seconds = float

WATCH_EVERY_S = 1.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_log = structlog.get_logger("ryu_apps.application")
DPID_TWICE = "dpid_twice"


def _twins(datapath: Any, served: str, name: str) -> Alert:
    detail = (
        f"two switches say to be dpid {datapath.id:016x}: the one at {served} is served, the one at {datapath.address} "
        "is turned away; give one of them another datapath id"
    )
    return Alert(DPID_TWICE, name, name, detail)


class WallClock:
    """The time of day; calls `was_set(seconds)` when somebody has set it, which a clock that nobody can set shows."""

    def __init__(self, was_set: Callable[[Seconds], None]) -> None:
        self._was_set = was_set
        self._ahead = time.time() - time.monotonic()

    def mark(self) -> ClockMark:
        """What times told from now on are by."""
        boot = UUID(BOOT_ID.read_text().strip()).bytes if BOOT_ID.exists() else NO_CLOCK.boot
        return ClockMark(boot, self._ahead)

    def now(self) -> Seconds:
        """Unix seconds."""
        now = time.time()
        before, self._ahead = self._ahead, now - time.monotonic()
        if abs(by := self._ahead - before) > CLOCK_STEP_S:
            _log.warning("the clock was set", by_s=round(by, 1))
            self._was_set(by)
        return now


class SwitchApp(FrameworkApp):
    """Registers handlers and starts loops. Below this class nothing reads a clock: `now` is an argument from here on.

    An application sets `collector`, and says what a reading of the database and a switch that comes or goes mean to it.
    """

    OFP_VERSIONS = (OPENFLOW_13,)
    collector: Collector

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = load_controller()
        self.settings, self._metrics = settings.controller, settings.metrics
        self.first_label = settings.routing.first_label
        harden(self.settings.connections, settings.trust())
        self.loops = Loops()
        self.clock = WallClock(lambda by: self.collector.accounts.shift(by))
        self.database = Database(settings, self.loops, self.declare)
        self.writer = self.database.writer
        # Switches that are served, and those that are connected while another controller is their master
        self.wires: dict[int, Wire] = {}
        self.standing: dict[int, Wire] = {}
        self.switch_errors = SwitchErrors()
        self.alarms = AlarmLog()
        # What went wrong so far, by kind and reason: told whenever a count has changed
        self.counts: list[Callable[[], Mapping[tuple[str, str], int]]] = [
            partial(_own_counts, self.writer, self.loops),
            self.switch_errors.tallies,
        ]
        self._publisher = EventCountPublisher()

    def start(self) -> Any:
        """Starts the loops beside the event handlers."""
        self.collector.accounts.clock = self.clock.mark()
        # What is loaded by now stays: looking through it for garbage would only hold everybody up.
        gc.freeze()
        self.database.start()
        notify_systemd(READY)
        serve_metrics(self._metrics, "controller", self._figures)
        self.loops.every(WATCH_EVERY_S, "watching the switches' counters", self.watch)
        return super().start()

    # ---- what an application makes of it

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        raise NotImplementedError

    def joined(self, datapath: Any, wire: Wire, now: Seconds) -> None:
        """A switch is served from now on."""

    def left(self, dpid: int, now: Seconds) -> None:
        """A switch lost its connection, or has another master."""

    def refused(self, dpid: int, error: SwitchError, now: Seconds) -> str:  # noqa: ARG002
        """What an error of a switch is about."""
        request = self.wires[dpid].requests.take(error.xid) if dpid in self.wires else None
        return request or unmatched(error)

    def watch(self, now: Seconds) -> None:
        """Once a second: what the counters themselves are worth, and what went wrong so far."""
        notify_systemd(ALIVE)
        while refusals.strangers:
            self.alarms.record(refusals.strangers.popleft(), now)
        self.collector.watch(now)
        self.writer.offer(self._publisher.news(_joined(self.counts), now), now)

    def _figures(self) -> Figures:
        return controller_figures(self.wires, self.writer, self.collector, _joined(self.counts))

    # ---- events

    @handles(ofp_event.EventOFPStateChange, MAIN_DISPATCHER, DEAD_DISPATCHER)
    def on_state(self, event: Any) -> None:
        """A switch came or went."""
        datapath, now = event.datapath, time.time()
        if event.state == MAIN_DISPATCHER:
            known = self.wires.get(datapath.id) or self.standing.get(datapath.id)
            if known is not None and not known.serves(datapath) and known.datapath.lives():
                # One is served; by turns, each would undo what the other was told.
                name, served = self.collector.attribution.name_of(datapath.id), str(known.datapath.address)
                self.alarms.record(_twins(datapath, served, name), now)
                datapath.refuse_twin()
                return
            self._leave(datapath.id, now)
            self.met(Wire(datapath, self.settings.places()), now)
        elif any(wires[datapath.id].serves(datapath) for wires in (self.wires, self.standing) if datapath.id in wires):
            # Not so when the switch has already come back on a newer connection, or never finished its handshake.
            self._leave(datapath.id, now)

    def met(self, wire: Wire, now: Seconds) -> None:
        """A switch finished its handshake."""
        self.serve(wire, now, self.writer.kept.read(wire.dpid))

    def serve(self, wire: Wire, now: Seconds, kept: bytes | None) -> None:
        """Counts and looks after a switch from now on, beginning with the counters that were kept of it."""
        # What another controller kept is by the clock as it is now: what was set before must not move it.
        self.clock.now()
        self.wires[wire.dpid] = wire
        # First: kept counters must be there before the switch can say that an entry is gone.
        self.collector.switch_up(wire, now, kept)
        self.joined(wire.datapath, wire, now)
        self.writer.offer([_introduction(wire, now)], now)

    def _leave(self, dpid: int, now: Seconds) -> None:
        if dpid in self.standing:
            self.standing.pop(dpid).close()
        if dpid in self.wires:
            self.collector.switch_down(dpid)
            self.wires.pop(dpid).close()
            self.left(dpid, now)

    @handles(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_flows(self, event: Any) -> None:
        """Part of an answer with flow statistics."""
        self.collector.take_flows(event.msg, self.clock.now())

    @handles(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    def on_ports(self, event: Any) -> None:
        """Part of an answer with port counters."""
        self.collector.take_ports(event.msg, self.clock.now())

    @handles(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def on_error(self, event: Any) -> None:
        """A switch refused something."""
        message, dpid, now = event.msg, event.msg.datapath.id, time.time()
        if message.type == ofproto.OFPET_EXPERIMENTER:
            reason = f"OFPET_EXPERIMENTER/{message.experimenter:#x}/{message.code}"
        else:
            kind = ofproto.ofp_error_type_to_str(message.type)
            reason = f"{kind}/{ofproto.ofp_error_code_to_str(message.type, message.code)}"
        error = SwitchError(message.xid, reason, bytes(message.data or b""))
        self.collector.refused(dpid, message.xid)
        name = self.collector.attribution.name_of(dpid)
        self.switch_errors.add(name, self.refused(dpid, error, now), reason, now)


def _introduction(wire: Wire, now: Seconds) -> SwitchReport:
    """A switch's own name is that of its local port, as in Open vSwitch, where that is the bridge."""
    ports = {number: port.name.decode(errors="replace") for number, port in wire.datapath.ports.items()}
    return SwitchReport(wire.dpid, ports.pop(ofproto.OFPP_LOCAL, ""), ports, now)


def _joined(sources: Iterable[Callable[[], Mapping[tuple[str, str], int]]]) -> dict[tuple[str, str], int]:
    return {place: count for source in sources for place, count in source().items()}


def _own_counts(writer: Writer, loops: Loops) -> dict[tuple[str, str], int]:
    spool = writer.spool
    return {("refused", reason): count for reason, count in refusals.counts.items()} | {
        ("lost", "rows"): writer.lost,
        ("lost", "batches on disk"): spool.lost if spool is not None else 0,
        ("lost", "counters not kept"): writer.kept.failures,
        ("failed", "loops"): loops.failures,
    }

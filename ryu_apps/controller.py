"""`ryu-manager ryu_apps.controller`: forwards, steers virtual IPs, keeps switches equal to what is wanted, mirrors.

This file only joins: events go to the parts that they concern, what the parts decide is carried out in one place.
"""

import time
from typing import Any

import structlog

from cpdb import FlowKey
from ryu_apps.declared import Declared
from ryu_apps.framework import MAIN_DISPATCHER, handles, ofp_event, ofproto
from ryu_apps.network import Network
from ryu_apps.pacing import Pacing
from ryu_apps.reconciling_app import ReconcilingApp, is_up, ports_of
from ryu_apps.rules import PORT_MAX, PortId
from ryu_apps.switch.wire import Wire
from ryu_apps.telemetry.foreign import front
from ryu_apps.telemetry.listeners import Listeners
from ryu_apps.telemetry.sampling import Sampled

Seconds = float

TICK_S, ASK_EVERY_S = 0.5, 0.05
_log = structlog.get_logger("ryu_apps.controller")


class Controller(ReconcilingApp):
    """Joins the network, its switches, their counters and the database."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.listeners = Listeners(self.settings)
        self._pacing = Pacing(self.carry_out)
        self._ticked = float("-inf")
        self.counts += [self.listeners.counts, self.status.alarms.tallies]
        self.counts.append(lambda: {("implausible", "rows"): self.attribution.implausible})
        self.counts.append(lambda: {("failed", "switches left as they are"): self.switches.failures})

    def start(self) -> Any:
        """Starts the loops."""
        thread = super().start()
        self.listeners.start(self._sampled)
        self.loops.every(ASK_EVERY_S, "ticking", self._tick)
        return thread

    def _sampled(self, packet: Sampled, agent: str) -> FlowKey | None:
        # Attribution is made anew when switches change their controller.
        return self.attribution.counted.sample(packet, agent, self.attribution.sampled)

    def _tick(self, now: Seconds) -> None:
        # Whether destinations live shows sooner than anything else that time brings.
        if 0 <= now - self._ticked < TICK_S:
            if self.wires and self.network.services.is_due(now):
                self.carry_out(self.network.ask(now), now)
            return
        self._ticked = now
        if not self.wires and self.duty.others:
            # Standing by: nothing is known at first hand, and nothing told.
            return
        for dpid, wire in self.wires.items():
            self.network.held_ports.hold(dpid, wire.datapath.gate.held)
        self.carry_out([*self.network.tick(now), *self.lacks()], now)
        self.database.write_now(self.status.answers(now))
        self.writer.offer(self.status.alarms.news(now))
        if self.switches.declared:
            self.writer.offer(self.status.news(now))
            self.status.ask_counts(self.wires, now)
            self.foreign.front = front(self.network, self.settings.first_table)
            self.foreign.ask(self.wires, now)
            self.network.routes.kept.ask(self.wires, self.network.routes.keeping, now)

    def watch(self, now: Seconds) -> None:
        """Once a second: sampled rows, and what the counters are worth."""
        super().watch(now)
        mine = {self.attribution.name_of(dpid) for dpid in self.wires}
        sampled = self.listeners.make_batches(now)
        ours = (one for one in sampled if one.observer.partition("/")[2] in mine or not self.duty.others)
        self.writer.offer(ours, now)
        self.network.talkers.look(now)
        self.ask_doubted()
        self.attribution.watch(self.network.topology.links.speeds, now)

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        self.declared = declared
        self.network.declare(declared, now)
        self.switches.declared = True
        self.carry_out((), now)
        # What needs no switch to answer is told without waiting for one.
        if self.wires or not self.duty.others:
            self.database.write_now(self.status.answers(now))

    # ---- switches

    def joined(self, datapath: Any, wire: Wire, now: Seconds) -> None:
        """A switch is ours: find out what it holds, then send the difference."""
        _log.info("switch connected", switch=self.attribution.name_of(wire.dpid))
        # Where another controller was master, it wrote down where hosts are.
        self.network.topology.remember(now)
        self.switches.joined(wire, now)
        for port in datapath.ports.values():
            _learn_speed(self.network, wire.dpid, port)
        self.carry_out(self.network.topology.switch_up(wire.dpid, ports_of(wire), now), now)

    def left(self, dpid: int, now: Seconds) -> None:
        """A switch went away, or has another master; the others go round it."""
        _log.warning("switch gone", switch=self.attribution.name_of(dpid))
        self.switches.left(dpid)
        self.network.topology.switch_down(dpid)
        self.network.held_ports.hold(dpid, frozenset())
        self.carry_out((), now)

    @handles(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def on_port(self, event: Any) -> None:
        """A port changed."""
        now, port, dpid = time.time(), event.msg.desc, event.msg.datapath.id
        _learn_speed(self.network, dpid, port)
        if dpid not in self.wires:
            self.stood_by(self.standing[dpid], now)
        elif port.port_no < PORT_MAX:
            up = None if event.msg.reason == ofproto.OFPPR_DELETE else is_up(port)
            self.carry_out(self.network.port_changed(PortId(dpid, port.port_no), up, now), now)

    @handles(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet(self, event: Any) -> None:
        """A frame that no rule knows what to do with."""
        message, now = event.msg, time.time()
        at = PortId(message.datapath.id, message.match["in_port"])
        if at.port < PORT_MAX and at.dpid in self.wires:
            self.network.held_ports.hold(at.dpid, message.datapath.gate.held)
            wait_s = self._pacing.offer(self.network.packet_in(at, message.data, now, message.cookie), now)
            if wait_s is not None:
                self.loops.later(wait_s, "settling what packets taught", self._pacing.flush)


def _learn_speed(network: Network, dpid: int, port: Any) -> None:
    # What a port says of itself: kbit/s, 0 when the switch does not know.
    if port.curr_speed and port.port_no < PORT_MAX:
        network.topology.links.speeds[PortId(dpid, port.port_no)] = port.curr_speed * 125.0

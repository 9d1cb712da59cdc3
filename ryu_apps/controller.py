"""`ryu-manager ryu_apps.controller`: forwards, steers virtual IPs, keeps switches equal to what is wanted, mirrors.

This file only joins: events go to the network (which decides), decisions go to the installer (which sends).
"""

import time
from typing import Any

import structlog

from ryu_apps.declared import Declared
from ryu_apps.framework import MAIN_DISPATCHER, handles, ofp_event, ofproto, sleep, spawn
from ryu_apps.installer import Installer
from ryu_apps.pacing import Pacing
from ryu_apps.rules import PORT_MAX, PortId, RuleKey
from ryu_apps.status.inventory import Census
from ryu_apps.status.live import Live
from ryu_apps.status.vitals import Vitals
from ryu_apps.switch.asked import SwitchError
from ryu_apps.switch.wire import Wire
from ryu_apps.telemetry.measuring import MeasuringApp

Seconds = float

TICK_S = 0.5
_log = structlog.get_logger("ryu_apps.controller")


class Controller(MeasuringApp):
    """Joins the network, its switches and the database."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.installer = Installer(self.network, self.wires, self.settings.first_meter)
        self._pacing = Pacing(self.installer.settle)
        self.census = Census()
        self.vitals = Vitals()
        self.live = Live()

    def start(self) -> Any:
        """Starts the loops."""
        thread = super().start()
        self.every(TICK_S, "ticking", self._tick)
        return thread

    def _tick(self, now: Seconds) -> None:
        effects = self.network.tick(now)
        self.network.stale = True
        self.installer.settle(effects, now)
        self._report(now)
        self.writer.offer(self.network.watchman.news(now))
        if self.installer.declared:
            self.writer.offer(self.census.news(self.network, now))
            self.writer.offer(self.vitals.news(self.network.destinations.words(), now))
            self._count_live(now)

    def _count_live(self, now: Seconds) -> None:
        virtual_ips = self.network.declared.virtual_ips.values()
        self.live.ask(virtual_ips, self.wires, now)
        self.writer.offer(self.live.news(virtual_ips, self.network.pairs, now))

    def _report(self, now: Seconds) -> None:
        self.tell_now(self.installer.news(now))

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        news = declared.generation != self.network.declared.generation
        self.network.declare(declared, now)
        self.installer.declared = True
        self.installer.settle((), now)
        if news:
            # What needs no switch to answer is told without waiting for one.
            self._report(now)

    # ---- switches

    def joined(self, datapath: Any, wire: Wire, now: Seconds) -> None:
        """A switch connected: find out what it holds, then send the difference."""
        _log.info("switch connected", switch=self.name_of(wire.dpid))
        self.installer.joined(wire, now)
        for port in datapath.ports.values():
            self.learn_speed(wire.dpid, port)
        ports = {number: _is_up(port) for number, port in datapath.ports.items() if number < PORT_MAX}
        self.installer.settle(self.network.switch_up(wire.dpid, ports, now), now)

    def left(self, dpid: int, now: Seconds) -> None:
        """A switch went away; the others go round it."""
        _log.warning("switch gone", switch=self.name_of(dpid))
        self.installer.left(dpid)
        self.network.switch_down(dpid)
        self.installer.settle((), now)

    def lost(self, dpid: int, key: RuleKey, now: Seconds) -> None:
        """A switch dropped a rule."""
        self.installer.lost(dpid, key, now)

    @handles(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def on_port(self, event: Any) -> None:
        """A port changed."""
        now, port, dpid = time.time(), event.msg.desc, event.msg.datapath.id
        self.learn_speed(dpid, port)
        if port.port_no < PORT_MAX:
            up = None if event.msg.reason == ofproto.OFPPR_DELETE else _is_up(port)
            self.installer.settle(self.network.port(PortId(dpid, port.port_no), up, now), now)

    @handles(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet(self, event: Any) -> None:
        """A frame that no rule knows what to do with."""
        message, now = event.msg, time.time()
        at = PortId(message.datapath.id, message.match["in_port"])
        if at.port < PORT_MAX:
            wait_s = self._pacing.offer(self.network.packet_in(at, message.data, now, message.cookie), now)
            if wait_s is not None:
                spawn(self._settle_later, wait_s)

    def _settle_later(self, wait_s: Seconds) -> None:
        sleep(wait_s)
        self.attempt("settling what packets taught", lambda: self._pacing.flush(time.time()))

    # ---- answers

    @handles(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_rules(self, event: Any) -> None:
        """What a switch holds, when that was the question."""
        self.installer.read(event.msg, time.time())

    @handles(ofp_event.EventOFPMeterFeaturesStatsReply, MAIN_DISPATCHER)
    def on_meter_features(self, event: Any) -> None:
        """Whether a switch has meters."""
        self.installer.read(event.msg, time.time())

    @handles(ofp_event.EventOFPMeterConfigStatsReply, MAIN_DISPATCHER)
    def on_meters(self, event: Any) -> None:
        """The meters that a switch holds."""
        self.installer.read(event.msg, time.time())

    @handles(ofp_event.EventOFPAggregateStatsReply, MAIN_DISPATCHER)
    def on_count(self, event: Any) -> None:
        """How many entries a switch has."""
        self.live.answered(event.msg.datapath.id, event.msg.xid, event.msg.body.flow_count)

    @handles(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def on_barrier(self, event: Any) -> None:
        """A switch has done what it was sent."""
        self.installer.passed(event.msg.datapath.id, event.msg.xid)
        self._report(time.time())

    @handles(ofp_event.EventOFPGroupDescStatsReply, MAIN_DISPATCHER)
    def on_groups(self, event: Any) -> None:
        """The groups that a switch holds."""
        self.installer.read(event.msg, time.time())

    @handles(ofp_event.EventOFPGroupFeaturesStatsReply, MAIN_DISPATCHER)
    def on_group_features(self, event: Any) -> None:
        """What groups a switch can have."""
        self.installer.read(event.msg, time.time())

    def refused(self, dpid: int, error: SwitchError) -> str:
        """A switch refused something: what it was about."""
        return self.installer.refused(dpid, error, time.time()) or super().refused(dpid, error)


def _is_up(port: Any) -> bool:
    return not port.state & ofproto.OFPPS_LINK_DOWN and not port.config & ofproto.OFPPC_PORT_DOWN

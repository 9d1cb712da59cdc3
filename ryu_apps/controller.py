"""`ryu-manager ryu_apps.controller`: forwards, steers virtual IPs, keeps switches equal to what is wanted, mirrors.

This file only joins: events go to the parts that they concern, what the parts decide is carried out in one place.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from ryu_apps.application import SwitchApp
from ryu_apps.declared import Declared
from ryu_apps.effects import Alert, Effect, PacketOut, Resubmit
from ryu_apps.framework import MAIN_DISPATCHER, handles, ofp_event, ofproto, spawn
from ryu_apps.network import Network
from ryu_apps.openflow import decode_entries, decode_match
from ryu_apps.pacing import Pacing
from ryu_apps.paths.routing import RouteTiming
from ryu_apps.rules import (
    KIND_SHIFT,
    OWNER,
    OWNER_MASK,
    OWNER_SHIFT,
    PORT_MAX,
    Kind,
    PortId,
    RuleKey,
    Table,
    is_ours,
    kind_of,
)
from ryu_apps.services.pairs import Pairs
from ryu_apps.status.publishers import Status
from ryu_apps.switch.errors import SwitchError
from ryu_apps.switch.wire import Wire
from ryu_apps.switches import Switches
from ryu_apps.telemetry.attribution import PairAttribution
from ryu_apps.telemetry.collector import Collector, FlowFilter
from ryu_apps.telemetry.foreign import ForeignRules, front
from ryu_apps.telemetry.sflow import Sampling, bound, receive

Seconds = float

# Where the match begins in a message about a removed flow entry; OpenFlow 1.3.5, 7.4.2
_REMOVED_MATCH_AT = 48
# Where the body begins in a multipart reply; 7.3.5
_BODY_AT = 16

TICK_S, ASK_EVERY_S = 0.5, 0.05
# Bits of a cookie that tell an accounting entry: kinds PAIR and PAIR_SYN differ in the lowest kind bit.
_ACCOUNTS = FlowFilter(OWNER << OWNER_SHIFT | Kind.PAIR << KIND_SHIFT, OWNER_MASK | 0xE << KIND_SHIFT, Table.ACCOUNT)
_READS = [
    ofp_event.EventOFPFlowStatsReply,
    ofp_event.EventOFPMeterFeaturesStatsReply,
    ofp_event.EventOFPMeterConfigStatsReply,
    ofp_event.EventOFPGroupDescStatsReply,
    ofp_event.EventOFPGroupFeaturesStatsReply,
]
_log = structlog.get_logger("ryu_apps.controller")


class Controller(SwitchApp):
    """Joins the network, its switches, their counters and the database."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings, sflow = self.settings, self.settings.sflow
        timing = RouteTiming(1.5 * settings.poll_s + 0.5, settings.pairs.path_timeout_s)
        pairs = Pairs(settings.pairs.max_pairs, settings.pairs.idle_s, settings.pairs.forget_s)
        self.network = Network(pairs, settings.probes, timing)
        if settings.group_mbit_per_s:
            self.network.flooding.limit_kbit_s = max(1, int(settings.group_mbit_per_s * 1000))
        self.network.guest = settings.guest()
        self.switches = Switches(self.network, settings.first_meter)
        self.attribution = PairAttribution(self.network, frozenset(sflow.agents) if sflow.listen else frozenset())
        self.collector = Collector(self.attribution, self.writer, settings.poll_s, _ACCOUNTS)
        self.foreign = ForeignRules()
        self.sampling = Sampling(sflow.by_address())
        self.status = Status(self.network, self.switches)
        self.alarms = self.status.alarms
        self._receiver = bound(sflow.listen) if sflow.listen else None
        self._pacing = Pacing(self._carry_out)
        self._ticked = float("-inf")
        self.counts += [self.sampling.counts, self.status.alarms.tallies]
        self.counts.append(lambda: {("implausible", "rows"): self.attribution.implausible})
        self.counts.append(lambda: {("failed", "switches left as they are"): self.switches.failures})

    def start(self) -> Any:
        """Starts the loops."""
        thread = super().start()
        if self._receiver is not None:
            spawn(receive, self._receiver, _hand_to(self.sampling, self.attribution))
        self.loops.every(ASK_EVERY_S, "ticking", self._tick)
        return thread

    def _tick(self, now: Seconds) -> None:
        # Whether destinations live shows sooner than anything else that time brings.
        if 0 <= now - self._ticked < TICK_S:
            if self.network.services.is_due(now):
                self._carry_out(self.network.ask(now), now)
            return
        self._ticked = now
        self._carry_out(self.network.tick(now), now)
        self.database.write_now(self.status.answers(now))
        self.writer.offer(self.status.alarms.news(now))
        if self.switches.declared:
            self.writer.offer(self.status.news(now))
            self.status.ask_counts(self.wires, now)
            self.foreign.front = front(self.network, self.settings.first_table)
            self.foreign.ask(self.wires, now)

    def watch(self, now: Seconds) -> None:
        """Once a second: sampled rows, and what the counters are worth."""
        super().watch(now)
        self.writer.offer(self.sampling.make_batches(now), now)
        self.attribution.watch(self.network.topology.links.speeds, now)

    def _carry_out(self, effects: Iterable[Effect], now: Seconds) -> None:
        """The one place where decisions are carried out: switches are brought up to date before frames are sent."""
        self.switches.settle(now)
        for effect in effects:
            match effect:
                case PacketOut(dpid, ports, data):
                    if dpid in self.wires:
                        self.wires[dpid].out(ports, data)
                case Resubmit():
                    self.switches.resubmit(effect)
                case Alert():
                    self.status.alarms.record(effect, now)

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        self.network.declare(declared, now)
        self.switches.declared = True
        self._carry_out((), now)
        # What needs no switch to answer is told without waiting for one.
        self.database.write_now(self.status.answers(now))

    # ---- switches

    def joined(self, datapath: Any, wire: Wire, now: Seconds) -> None:
        """A switch connected: find out what it holds, then send the difference."""
        _log.info("switch connected", switch=self.attribution.name_of(wire.dpid))
        wire.introduce()
        self.switches.joined(wire, now)
        for port in datapath.ports.values():
            _learn_speed(self.network, wire.dpid, port)
        ports = {number: _is_up(port) for number, port in datapath.ports.items() if number < PORT_MAX}
        self._carry_out(self.network.topology.switch_up(wire.dpid, ports, now), now)

    def left(self, dpid: int, now: Seconds) -> None:
        """A switch went away; the others go round it."""
        _log.warning("switch gone", switch=self.attribution.name_of(dpid))
        self.switches.left(dpid)
        self.network.topology.switch_down(dpid)
        self._carry_out((), now)

    @handles(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def on_port(self, event: Any) -> None:
        """A port changed."""
        now, port, dpid = time.time(), event.msg.desc, event.msg.datapath.id
        _learn_speed(self.network, dpid, port)
        if port.port_no < PORT_MAX:
            up = None if event.msg.reason == ofproto.OFPPR_DELETE else _is_up(port)
            self._carry_out(self.network.port_changed(PortId(dpid, port.port_no), up, now), now)

    @handles(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet(self, event: Any) -> None:
        """A frame that no rule knows what to do with."""
        message, now = event.msg, time.time()
        at = PortId(message.datapath.id, message.match["in_port"])
        if at.port < PORT_MAX:
            wait_s = self._pacing.offer(self.network.packet_in(at, message.data, now, message.cookie), now)
            if wait_s is not None:
                self.loops.later(wait_s, "settling what packets taught", self._pacing.flush)

    # ---- answers

    @handles(_READS, MAIN_DISPATCHER)
    def on_read(self, event: Any) -> None:
        """A part of what a switch holds, when that was the question."""
        now, message, dpid = time.time(), event.msg, event.msg.datapath.id
        if self.foreign.is_asked(dpid, message.xid):
            more = bool(message.flags & ofproto.OFPMPF_REPLY_MORE)
            found = self.foreign.take(dpid, message.xid, decode_entries(bytes(message.buf[_BODY_AT:])), more)
            if found is not None:
                alerts = self.foreign.judge(dpid, self.attribution.name_of(dpid), found, now)
                self._carry_out(alerts, now)
        elif self.switches.read(message, dpid, now):
            self._carry_out((), now)

    @handles(ofp_event.EventOFPAggregateStatsReply, MAIN_DISPATCHER)
    def on_count(self, event: Any) -> None:
        """How many entries a switch has."""
        self.status.live.answered(event.msg.datapath.id, event.msg.xid, event.msg.body.flow_count)

    @handles(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def on_barrier(self, event: Any) -> None:
        """A switch has done what it was sent."""
        self.switches.passed(event.msg.datapath.id, event.msg.xid)
        self.database.write_now(self.status.answers(time.time()))

    @handles(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def on_removed(self, event: Any) -> None:
        """The last word on an entry; when a switch dropped it by itself, it is sent again."""
        message, dpid, now = event.msg, event.msg.datapath.id, time.time()
        if is_ours(message.cookie) and kind_of(message.cookie) in (Kind.PAIR, Kind.PAIR_SYN):
            age_s = message.duration_sec + message.duration_nsec / 1e9
            entry = (message.cookie, message.packet_count, message.byte_count, age_s)
            self.collector.accounts.removed(dpid, entry, now)
            match = decode_match(message.buf, _REMOVED_MATCH_AT)
            key = RuleKey(message.table_id - self.settings.first_table, message.priority, match)
            if self.switches.lost(dpid, key):
                self._carry_out((), now)

    def refused(self, dpid: int, error: SwitchError, now: Seconds) -> str:
        """A switch refused something: what it was about."""
        return self.switches.refused(dpid, error, now) or super().refused(dpid, error, now)


def _is_up(port: Any) -> bool:
    return not port.state & ofproto.OFPPS_LINK_DOWN and not port.config & ofproto.OFPPC_PORT_DOWN


def _learn_speed(network: Network, dpid: int, port: Any) -> None:
    # What a port says of itself: kbit/s, 0 when the switch does not know.
    if port.curr_speed and port.port_no < PORT_MAX:
        network.topology.links.speeds[PortId(dpid, port.port_no)] = port.curr_speed * 125.0


def _hand_to(sampling: Sampling, attribution: PairAttribution) -> Callable[[bytes, str, Seconds], None]:
    return lambda data, peer, now: sampling.take(data, peer, attribution.sampled, now)

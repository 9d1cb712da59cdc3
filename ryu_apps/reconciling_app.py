"""An application whose switches are kept as is wanted: the parts that know what that is, and what switches answer."""

import time
from collections.abc import Iterable
from typing import Any

from ryu_apps.accounts import Talkers, parse_accounts
from ryu_apps.effects import Alert, Effect, PacketOut, Resubmit
from ryu_apps.framework import MAIN_DISPATCHER, handles, ofp_event, ofproto
from ryu_apps.network import Network
from ryu_apps.openflow import ALL_TABLES, decode_entries, decode_match
from ryu_apps.paths.routing import RouteTiming
from ryu_apps.rules import KIND_SHIFT, OWNER, OWNER_MASK, OWNER_SHIFT, PORT_MAX, Kind, RuleKey, Table, is_ours, kind_of
from ryu_apps.services.pairs import PairBudget, Pairs
from ryu_apps.shared_app import SharedApp
from ryu_apps.status.publishers import Status
from ryu_apps.switch.errors import SwitchError
from ryu_apps.switch.wire import Wire
from ryu_apps.switches import Switches
from ryu_apps.telemetry.attribution import PairAttribution
from ryu_apps.telemetry.collector import Collector, FlowFilter
from ryu_apps.telemetry.foreign import ForeignRules, vlan_matched
from ryu_apps.topology.state import stand_in

Seconds = float

# Where the match begins in a message about a removed flow entry; OpenFlow 1.3.5, 7.4.2
_REMOVED_MATCH_AT = 48
# Where the body begins in a multipart reply; 7.3.5
_BODY_AT = 16
# Bits of a cookie that tell an accounting entry: kinds PAIR and PAIR_SYN differ in the lowest kind bit.
_ACCOUNTS = FlowFilter(OWNER << OWNER_SHIFT | Kind.PAIR << KIND_SHIFT, OWNER_MASK | 0xE << KIND_SHIFT, Table.ACCOUNT)
_READS = [
    ofp_event.EventOFPFlowStatsReply,
    ofp_event.EventOFPTableStatsReply,
    ofp_event.EventOFPTableFeaturesStatsReply,
    ofp_event.EventOFPMeterFeaturesStatsReply,
    ofp_event.EventOFPMeterConfigStatsReply,
    ofp_event.EventOFPGroupDescStatsReply,
    ofp_event.EventOFPGroupFeaturesStatsReply,
]


class ReconcilingApp(SharedApp):
    """Joins the network, its switches and their counters; what follows from events is carried out in one place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._build()
        self.collector = Collector(self.attribution, self.writer, self.settings.poll_s, _ACCOUNTS)
        self.foreign = ForeignRules()
        self.status = Status(self.network, self.switches, lambda dpid: self.duty.is_elsewhere(dpid, self.wires))
        self.alarms = self.status.alarms

    def _build(self) -> None:
        settings, accounts = self.settings, self.settings.accounts
        timing = RouteTiming(1.5 * settings.poll_s + 0.5, settings.pairs.path_timeout_s)
        of = settings.pairs
        pairs = Pairs(PairBudget(of.max_pairs, of.port_share, of.source_share), of.idle_s, of.forget_s)
        self.network = Network(pairs, settings.probes, timing)
        if settings.group_mbit_per_s:
            self.network.flooding.limit_kbit_s = max(1, int(settings.group_mbit_per_s * 1000))
        self.network.join(settings, self.first_label)
        self.switches = Switches(self.network, settings.first_meter)
        least = accounts.from_mbit_per_s * 125_000
        self.network.talkers = Talkers(accounts.max_pairs, least, parse_accounts(accounts.declared))
        # Where talkers are counted, samples only find them.
        told = frozenset() if self.network.talkers.enabled else settings.sampled_switches()
        self.attribution = PairAttribution(self.network, told)

    def begin_anew(self, now: Seconds) -> None:
        """As a restart would: the database and the switches say how it is."""
        before, is_declared = self.network, self.switches.declared
        self._build()
        self.collector.attribution = self.attribution
        self.status.begin_anew(self.network, self.switches)
        if is_declared:
            self.network.declare(before.declared, now)
            self.switches.declared = True
        stand_in(self.network.topology, before.topology, before.declared.links, now)

    def share_key(self, key: bytes) -> None:
        """Links are found by frames that any controller of this database has signed."""
        self.network.topology.signer.share(key)

    def stood_by(self, wire: Wire, now: Seconds) -> None:
        """A switch that another may be master of: its ports are known, and nothing is done to it."""
        topology = self.network.topology
        topology.links.set_ports(wire.dpid, ports_of(wire), now)
        for host in [host for host in topology.hosts if host.at.dpid == wire.dpid]:
            topology.hosts.leave(host.at)

    def carry_out(self, effects: Iterable[Effect], now: Seconds) -> None:
        """The one place where decisions are carried out: switches are brought up to date before frames are sent."""
        if not self.duty.may_change():
            return
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

    def lacks(self) -> list[Alert]:
        """What switches lack, which are slow, and whose counters are not believed."""
        return [*self.switches.alerts(), *self.collector.doubts.alerts(self.attribution.name_of)]

    def ask_doubted(self) -> None:
        """Asks what all our rules counted at switches whose pairs count nothing."""
        known = self.wires
        self.collector.doubts.ask(
            known, lambda dpid: known[dpid].ask_count(OWNER << OWNER_SHIFT, OWNER_MASK, ALL_TABLES)
        )

    # ---- answers

    @handles(_READS, MAIN_DISPATCHER)
    def on_read(self, event: Any) -> None:
        """A part of what a switch holds, when that was the question."""
        now, message, dpid = time.time(), event.msg, event.msg.datapath.id
        if self.foreign.is_asked(dpid, message.xid):
            more = bool(message.flags & ofproto.OFPMPF_REPLY_MORE)
            found = self.foreign.take(dpid, message.xid, decode_entries(bytes(message.buf[_BODY_AT:])), more)
            if found is not None:
                for one in found:
                    self.network.vlans.saw(vlan_matched(one), "a rule of somebody else matches it", now)
                alerts = self.foreign.judge(dpid, self.attribution.name_of(dpid), found, now)
                self.carry_out(alerts, now)
        elif self.network.routes.kept.is_asked(dpid, message.xid):
            self.network.routes.kept.take(dpid, decode_entries(bytes(message.buf[_BODY_AT:])), now)
        elif self.switches.read(message, dpid, now):
            self.carry_out((), now)

    @handles(ofp_event.EventOFPAggregateStatsReply, MAIN_DISPATCHER)
    def on_count(self, event: Any) -> None:
        """How many entries a switch has."""
        dpid, xid, body = event.msg.datapath.id, event.msg.xid, event.msg.body
        self.status.live.answered(dpid, xid, body.flow_count)
        self.collector.doubts.answered(dpid, xid, body.packet_count)

    @handles(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def on_barrier(self, event: Any) -> None:
        """A switch has done what it was sent."""
        now = time.time()
        self.switches.passed(event.msg.datapath.id, event.msg.xid)
        session = self.switches.sessions.get(event.msg.datapath.id)
        if session is not None and session.settled and session.window.waiting:
            self.carry_out((), now)
        self.database.write_now(self.status.answers(now))

    @handles(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def on_removed(self, event: Any) -> None:
        """The last word on an entry; when a switch dropped it by itself, it is sent again."""
        message, dpid, now = event.msg, event.msg.datapath.id, self.clock.now()
        if is_ours(message.cookie) and kind_of(message.cookie) in (Kind.PAIR, Kind.PAIR_SYN):
            age_s = message.duration_sec + message.duration_nsec / 1e9
            entry = (message.cookie, message.packet_count, message.byte_count, age_s)
            self.collector.accounts.removed(dpid, entry, now)
            match = decode_match(message.buf, _REMOVED_MATCH_AT)
            key = RuleKey(message.table_id - self.settings.first_table, message.priority, match)
            if self.switches.lost(dpid, key):
                self.carry_out((), now)

    def refused(self, dpid: int, error: SwitchError, now: Seconds) -> str:
        """A switch refused something: what it was about."""
        return self.switches.refused(dpid, error, now) or super().refused(dpid, error, now)


def is_up(port: Any) -> bool:
    return not port.state & ofproto.OFPPS_LINK_DOWN and not port.config & ofproto.OFPPC_PORT_DOWN


def ports_of(wire: Wire) -> dict[int, bool]:
    return {number: is_up(port) for number, port in wire.datapath.ports.items() if number < PORT_MAX}

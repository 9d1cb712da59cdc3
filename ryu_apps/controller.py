"""`ryu-manager ryu_apps.controller`: forwards, steers virtual IPs, keeps switches equal to what is wanted, mirrors.

This file only joins: events go to the network (which decides), decisions go to the sessions (which send).
"""

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import structlog

from ryu_apps.accounting import Neighbour
from ryu_apps.census import Census
from ryu_apps.counters import Growth
from ryu_apps.datapath import Wire, decode_match
from ryu_apps.declared import Declared
from ryu_apps.discovery import PortId
from ryu_apps.effects import Effect, Out, Resubmit
from ryu_apps.framework import MAIN_DISPATCHER, handles, ofp_event, ofproto, spawn
from ryu_apps.listening import bound, receive
from ryu_apps.mirror import MirrorApp
from ryu_apps.network import Network
from ryu_apps.openflow import FlowColumns
from ryu_apps.pairs import Pairs
from ryu_apps.pipeline import desired
from ryu_apps.policing import allot
from ryu_apps.polling import Filter, flow_entries
from ryu_apps.reports import Reports
from ryu_apps.rules import (
    KIND_SHIFT,
    OWNER,
    OWNER_MASK,
    OWNER_SHIFT,
    PORT_MAX,
    Kind,
    RuleKey,
    Table,
    is_ours,
    kind_of,
    number_of,
)
from ryu_apps.sampling import Sampling
from ryu_apps.session import Session
from ryu_apps.settings import agents
from ryu_apps.shares import Limits, limits, share
from ryu_apps.witness import Witness

Seconds = float

TICK_S = 0.5
_log = structlog.get_logger("ryu_apps.controller")
# Bits of a cookie that tell an accounting entry: kinds PAIR and PAIR_SYN differ in the lowest kind bit.
_ACCOUNTS = Filter(OWNER << OWNER_SHIFT | Kind.PAIR << KIND_SHIFT, OWNER_MASK | 0xE << KIND_SHIFT, Table.ACCOUNT)


class Controller(MirrorApp):
    """Joins the network, its switches and the database."""

    FLOWS = _ACCOUNTS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pairs = Pairs(self.settings.most_pairs, self.settings.idle_s, self.settings.forget_s)
        self.network = Network(pairs)
        self.sessions: dict[int, Session] = {}
        self.reports = Reports()
        self.census = Census()
        self.witness = Witness(self.network)
        self.sampling = Sampling(agents(self.settings))
        self._sampled = frozenset(agents(self.settings).values()) if self.settings.sflow_listen else frozenset()
        self._receiver = bound(self.settings.sflow_listen) if self.settings.sflow_listen else None
        # Bytes/s of each port that says how fast it is
        self._speeds: dict[PortId, float] = {}
        self._declared = False

    def start(self) -> Any:
        """Starts the loops."""
        thread = super().start()
        self.every(TICK_S, "ticking", self._tick)
        if self._receiver is not None:
            spawn(receive, self._receiver, self.on_sample)
        return thread

    def _tick(self, now: Seconds) -> None:
        effects = self.network.tick(now)
        self.network.stale = True
        self._settle(effects, now)
        self._report(now)
        if self._declared:
            self.writer.offer(self.census.news(self.network, now))

    def declare(self, declared: Declared, now: Seconds) -> None:
        """A new reading of the database."""
        self.network.declare(declared, now)
        self._declared = True
        self._settle((), now)

    # ---- switches

    def joined(self, datapath: Any, wire: Wire, now: Seconds) -> None:
        """A switch connected: find out what it holds, then send the difference."""
        _log.info("switch connected", switch=self.network.picture.directory.switch(wire.dpid))
        session = self.sessions[wire.dpid] = Session(wire, self.settings.first_meter, now)
        session.begin()
        for port in datapath.ports.values():
            self._learn_speed(wire.dpid, port)
        ports = {number: _is_up(port) for number, port in datapath.ports.items() if number < PORT_MAX}
        self._settle(self.network.switch_up(wire.dpid, ports, now), now)

    def left(self, dpid: int, now: Seconds) -> None:
        """A switch went away; the others go round it."""
        _log.warning("switch gone", switch=self.network.picture.directory.switch(dpid))
        self.sessions.pop(dpid, None)
        self.network.switch_down(dpid)
        self._settle((), now)

    def _learn_speed(self, dpid: int, port: Any) -> None:
        # kbit/s; 0 when the switch does not know.
        if port.curr_speed and port.port_no < PORT_MAX:
            self._speeds[PortId(dpid, port.port_no)] = port.curr_speed * 125.0

    @handles(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def on_port(self, event: Any) -> None:
        """A port changed."""
        now, port = time.time(), event.msg.desc
        self._learn_speed(event.msg.datapath.id, port)
        if port.port_no < PORT_MAX:
            up = None if event.msg.reason == ofproto.OFPPR_DELETE else _is_up(port)
            self._settle(self.network.port(PortId(event.msg.datapath.id, port.port_no), up, now), now)

    @handles(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet(self, event: Any) -> None:
        """A frame that no rule knows what to do with."""
        message, now = event.msg, time.time()
        at = PortId(message.datapath.id, message.match["in_port"])
        if at.port < PORT_MAX:
            self._settle(self.network.packet_in(at, message.data, now, message.cookie), now)

    @handles(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_rules(self, event: Any) -> None:
        """What a switch holds, when that was the question."""
        self._read_held(event.msg)

    @handles(ofp_event.EventOFPMeterFeaturesStatsReply, MAIN_DISPATCHER)
    def on_meter_features(self, event: Any) -> None:
        """Whether a switch has meters."""
        self._read_held(event.msg)

    @handles(ofp_event.EventOFPMeterConfigStatsReply, MAIN_DISPATCHER)
    def on_meters(self, event: Any) -> None:
        """The meters that a switch holds."""
        self._read_held(event.msg)

    @handles(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def on_barrier(self, event: Any) -> None:
        """A switch has done what it was sent."""
        session = self.sessions.get(event.msg.datapath.id)
        if session is not None:
            session.passed(event.msg.xid)
            self._report(time.time())

    @handles(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def on_error(self, event: Any) -> None:
        """A switch refused something."""
        session = self.sessions.get(event.msg.datapath.id)
        if session is not None:
            kind = ofproto.ofp_error_type_to_str(event.msg.type)
            code = ofproto.ofp_error_code_to_str(event.msg.type, event.msg.code)
            session.error(event.msg.xid, f"{kind}/{code}", time.time())

    def _read_held(self, message: Any) -> None:
        now, session = time.time(), self.sessions.get(message.datapath.id)
        if session is not None and session.read(message, now) and session.ready:
            self.network.stale = True
            self._settle((), now)

    # ---- decisions become messages

    def _settle(self, effects: Iterable[Effect], now: Seconds) -> None:
        if self.network.stale:
            self.network.stale = False
            self._reconcile(now)
        for effect in effects:
            match effect:
                case Out(dpid, ports, data):
                    if dpid in self.wires:
                        self.wires[dpid][1].out(ports, data)
                case Resubmit():
                    self._resubmit(effect)

    def _reconcile(self, now: Seconds) -> None:
        ready = [session for session in self.sessions.values() if session.ready]
        for session in ready:
            if self._declared and not session.adopted:
                session.adopted = True
                self.network.pairs.adopt(session.holding.rules.values(), self.network.virtual_ips, now)
        wanted = limits(self.network, now)
        for session in ready:
            self._bring_up_to_date(session, wanted, now)

    def _bring_up_to_date(self, session: Session, wanted: Limits, now: Seconds) -> None:
        part = share(self.network, session.dpid, wanted)
        taken = {
            number_of(rule.cookie): rule.meter
            for rule in session.holding.rules.values()
            if kind_of(rule.cookie) is Kind.LIMIT and rule.meter is not None
        }
        limited = [one.number for one in part.police if one.rate_kbit_s is not None]
        meters = allot(limited, taken, self.settings.first_meter)
        if session.reconcile(desired(part, meters, session.has_meters), now, may_delete=self._declared):
            session.barrier(lambda: None)

    def _resubmit(self, effect: Resubmit) -> None:
        sessions = [self.sessions[dpid] for dpid in effect.after if dpid in self.sessions]
        entry = self.sessions.get(effect.at.dpid)
        if entry is None or not all(session.ready for session in sessions):
            return
        missing = {session.dpid for session in sessions}

        def passed(dpid: int) -> None:
            missing.discard(dpid)
            if not missing:
                entry.wire.resubmit(effect.at.port, effect.data)

        for session in sessions:
            session.barrier(partial(passed, session.dpid))

    def _report(self, now: Seconds) -> None:
        self.writer.offer(self.reports.news(self.network, self.sessions, limits(self.network, now), now))

    # ---- statistics become rows

    def flows(self, dpid: int, columns: FlowColumns, now: Seconds) -> None:
        """Counters of the pairs that enter at a switch."""
        name = self.name_of(dpid)
        book = self.witness.book(dpid, now)
        look = self.tell(dpid, flow_entries(columns), None if name in self._sampled else book, now)
        for key in [key for key, packets, _ in look.grown if packets] + [late[1] for late in look.late]:
            pair = self.network.pairs.of_number(number_of(key))
            if pair is not None:
                pair.active = now

    @handles(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def on_removed(self, event: Any) -> None:
        """The last word on an entry."""
        one = event.msg
        if is_ours(one.cookie) and kind_of(one.cookie) in (Kind.PAIR, Kind.PAIR_SYN):
            age_s = one.duration_sec + one.duration_nsec / 1e9
            entry = (one.cookie, one.packet_count, one.byte_count, age_s)
            now, session = time.time(), self.sessions.get(one.datapath.id)
            self.accounts.removed(one.datapath.id, entry, now)
            if session is not None and session.lost(RuleKey(one.table_id, one.priority, decode_match(one.match))):
                self.network.stale = True
                self._settle((), now)

    def on_sample(self, data: bytes, peer: str, now: Seconds) -> None:
        """A datagram on the sFlow port."""
        self.sampling.take(data, peer, self.witness.sampled, now)

    def port_grew(self, at: PortId, growth: Growth) -> None:
        """A port's counters grew."""
        self.witness.port_grew(at, growth)

    def tallies(self) -> dict[tuple[str, str], int]:
        """Everything that went wrong so far, by kind and reason."""
        return super().tallies() | {
            ("implausible", "rows"): self.witness.implausible,
            ("refused", "sflow"): self.sampling.refused,
            ("lost", "sflow datagrams"): self.sampling.lost,
        }

    def watch(self, now: Seconds) -> None:
        """Once a second: sampled rows, and what the counters are worth."""
        super().watch(now)
        self.writer.offer(self.sampling.tell(now), now)
        self.witness.watch(self._speeds, now)

    def name_of(self, dpid: int) -> str:
        """A switch's declared name, else its number."""
        return self.network.picture.directory.switch(dpid)

    def neighbour(self, dpid: int, port: int) -> Neighbour | None:
        """The switch, declared machine or single host behind a port."""
        at, picture = PortId(dpid, port), self.network.picture
        here = picture.directory.switch(dpid)
        peer = self.network.wiring.peer(at)
        if peer is not None:
            return Neighbour(here, picture.directory.switch(peer.dpid), edge=False)
        if at in picture.machines:
            return Neighbour(here, picture.machines[at], edge=True)
        names = [picture.directory.host(host.address, host.mac) for host in self.network.hosts if host.at == at]
        return Neighbour(here, names[0] if len(names) == 1 else f"{here}:{port}", edge=True)


def _is_up(port: Any) -> bool:
    return not port.state & ofproto.OFPPS_LINK_DOWN and not port.config & ofproto.OFPPC_PORT_DOWN

"""Keeps the switches equal to what is wanted: decisions of the network become messages of the sessions."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from cpdb import ObservedRecord
from ryu_apps.effects import Effect, Out, Resubmit
from ryu_apps.network import Network
from ryu_apps.pipeline import Share, desired
from ryu_apps.policers import allot_meters
from ryu_apps.rules import Desired, Kind, RuleKey, kind_of, number_of
from ryu_apps.shares import Limits, PolicerTable, share
from ryu_apps.status.reservations import Reports
from ryu_apps.status.splits import SplitReports
from ryu_apps.status.weights import WeightReports
from ryu_apps.switch.asked import SwitchError
from ryu_apps.switch.session import Session
from ryu_apps.switch.wire import Wire

Seconds = float


class Installer:
    """One session a switch; `declared` once the database was read: before that nothing is deleted."""

    def __init__(self, network: Network, wires: Mapping[int, tuple[Any, Wire]], first_meter: int) -> None:
        self.network = network
        self.sessions: dict[int, Session] = {}
        self.declared = False
        self._wires = wires
        self._first_meter = first_meter
        self._wishes = PolicerTable()
        # Per switch: what its rules were made from, and the rules
        self._made: dict[int, tuple[tuple[object, ...], Desired]] = {}
        self._reports = Reports()
        self._split_reports = SplitReports()
        self._weight_reports = WeightReports()

    # ---- sessions

    def joined(self, wire: Wire, now: Seconds) -> None:
        """A switch connected: find out what it holds, the difference is sent when that is known."""
        session = self.sessions[wire.dpid] = Session(wire, self._first_meter, now)
        session.begin()

    def left(self, dpid: int) -> None:
        """A switch went away."""
        self.sessions.pop(dpid, None)
        self._made.pop(dpid, None)

    def read(self, message: Any, now: Seconds) -> None:
        """A part of what a switch holds, when that was the question."""
        session = self.sessions.get(message.datapath.id)
        if session is not None and session.read(message, now) and session.ready:
            self.network.stale = True
            self.settle((), now)

    def passed(self, dpid: int, xid: int) -> None:
        """A switch answered a barrier."""
        session = self.sessions.get(dpid)
        if session is not None:
            session.passed(xid)

    def refused(self, dpid: int, error: SwitchError, now: Seconds) -> str | None:
        """A switch answered with an error; returns what that was about, None when the switch has no session."""
        session = self.sessions.get(dpid)
        return None if session is None else session.error(error, now)

    def lost(self, dpid: int, key: RuleKey, now: Seconds) -> None:
        """A switch says that a rule is gone."""
        session = self.sessions.get(dpid)
        if session is not None and session.lost(key):
            self.network.stale = True
            self.settle((), now)

    # ---- decisions become messages

    def settle(self, effects: Iterable[Effect], now: Seconds) -> None:
        """Brings the switches up to date, then carries out effects."""
        if self.network.stale:
            self.network.stale = False
            self._reconcile(now)
        for effect in effects:
            match effect:
                case Out(dpid, ports, data):
                    if dpid in self._wires:
                        self._wires[dpid][1].out(ports, data)
                case Resubmit():
                    self._resubmit(effect)

    def _reconcile(self, now: Seconds) -> None:
        ready = [session for session in self.sessions.values() if session.ready]
        for session in ready:
            if self.declared and not session.adopted:
                session.adopted = True
                self.network.pairs.adopt(session.holding.rules.values(), self.network.virtual_ips, now)
                self.network.destinations.spreads.adopt(session.holding.rules.values(), self.network.virtual_ips)
                self.network.routes.adopt(session.dpid, session.holding.rules.values(), now)
        self.network.routes.follow(self.network, self._holds, now)
        wanted = self._wishes.limits(self.network, now)
        for session in ready:
            self._bring_up_to_date(session, wanted, now)

    def _holds(self, dpid: int, key: RuleKey) -> bool:
        session = self.sessions.get(dpid)
        return session is not None and session.ready and session.confirmed(key)

    def _why_not(self, dpid: int, key: RuleKey) -> str | None:
        session = self.sessions.get(dpid)
        return None if session is None else session.why_not([key])

    def _bring_up_to_date(self, session: Session, wanted: Limits, now: Seconds) -> None:
        part = share(self.network, session.dpid, wanted)
        if not session.has_failover:
            part = replace(part, spares={})
        taken = {
            number_of(rule.cookie): rule.meter
            for rule in session.holding.rules.values()
            if kind_of(rule.cookie) is Kind.LIMIT and rule.meter is not None
        }
        limited = [one.number for one in part.police if one.rate_kbit_s is not None]
        meters = allot_meters(limited, taken, self._first_meter)
        if session.reconcile(self._desired(session, part, meters), now, may_delete=self.declared):
            session.barrier(lambda: None)

    def _desired(self, session: Session, part: Share, meters: Mapping[int, int]) -> Desired:
        made_from = (part, meters, session.has_meters)
        before = self._made.get(session.dpid)
        if before is not None and before[0] == made_from:
            return before[1]
        made = desired(part, meters, session.has_meters)
        self._made[session.dpid] = made_from, made
        return made

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

    # ---- what became of it

    def news(self, now: Seconds) -> list[ObservedRecord]:
        """Rows about wishes whose state on the switches changed since last time."""
        rows: list[ObservedRecord] = []
        rows += self._reports.news(self.network, self.sessions, self._wishes.limits(self.network, now), now)
        rows += self._split_reports.news(self.network, self.network.routes, self._why_not, now)
        rows += self._weight_reports.news(self.network, self.sessions, now)
        return rows

"""Keeps the switches equal to what is wanted: when something has changed, and not before."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from ryu_apps.accounts import AccountShare
from ryu_apps.effects import Alert, Resubmit
from ryu_apps.network import Network
from ryu_apps.one_table import join_tables
from ryu_apps.paths.next_hops import LabelShare, undivided
from ryu_apps.pipeline import Share, desired, limited_by, numbers_of_limits
from ryu_apps.policers import allot_meters
from ryu_apps.rules import Desired, Kind, Rule, RuleKey, Table
from ryu_apps.shares import Limits, PolicerTable, share
from ryu_apps.switch.abilities import Abilities, FittedRules, describe_lacks, fit_rules
from ryu_apps.switch.errors import SwitchError
from ryu_apps.switch.session import GRACE_S, Session
from ryu_apps.switch.wire import Wire

Seconds = float

FAILURES_LOGGED = 20
# Rules in the first table beside those of pairs and virtual IPs, at least
LISTENING = 8
LACKS, SLOW = "switch_lacks", "switch_slow"
_log = structlog.get_logger("ryu_apps.switches")


@dataclass(frozen=True, slots=True)
class _MadeFrom:
    """What a switch's rules follow from."""

    share: Share
    meters: Mapping[int, int]
    has_meters: bool
    abilities: Abilities
    # Who has which address, where the switch has but one table
    owners: Mapping[str, str]


class Switches:
    """One session a switch. `revision` changes whenever one of them has said something, or was told something."""

    def __init__(self, network: Network, first_meter: int) -> None:
        self.sessions: dict[int, Session] = {}
        self.revision = 0
        # How often a switch could not be brought up to date
        self.failures = 0
        # Before the database was read nothing is deleted.
        self.declared = False
        self.policers = PolicerTable()
        self._network = network
        self._first_meter = first_meter
        # The rules of each switch, and what they were made from
        self._made: dict[int, tuple[_MadeFrom, FittedRules]] = {}
        # What was reconciled last, and when time itself changes something next
        self._reconciled: tuple[int, int, bool] = -1, -1, False
        self._due = float("-inf")

    # ---- news of switches

    def joined(self, wire: Wire, now: Seconds) -> None:
        """A switch connected: find out what it holds, the difference is sent when that is known."""
        session = self.sessions[wire.dpid] = Session(wire, self._first_meter, now)
        session.begin()
        self.revision += 1

    def left(self, dpid: int) -> None:
        """A switch went away."""
        self.sessions.pop(dpid, None)
        self._made.pop(dpid, None)
        self.revision += 1

    def read(self, message: Any, dpid: int, now: Seconds) -> bool:
        """A part of what a switch holds, when that was the question; True when that is all of it."""
        session = self.sessions.get(dpid)
        complete = session is not None and session.read(message, now) and session.ready
        self.revision += complete
        return complete

    def passed(self, dpid: int, xid: int) -> None:
        """A switch answered a barrier."""
        session = self.sessions.get(dpid)
        if session is not None:
            session.passed(xid)
            self.revision += 1

    def refused(self, dpid: int, error: SwitchError, now: Seconds) -> str | None:
        """A switch answered with an error; returns what that was about, None when the switch has no session."""
        session = self.sessions.get(dpid)
        self.revision += 1
        return None if session is None else session.error(error, now)

    def lost(self, dpid: int, key: RuleKey) -> bool:
        """A switch says that a rule is gone; True when it has to be sent again."""
        session = self.sessions.get(dpid)
        lost = session is not None and session.lost(key)
        self.revision += lost
        return lost

    # ---- what switches should hold

    def settle(self, now: Seconds) -> None:
        """Brings the switches up to date, when anything is news or due."""
        self._network.flooding.follow(self._network.topology, now)
        if (self._network.revision, self.revision, self.declared) == self._reconciled and now < self._due:
            return
        self._reconcile(now)
        self._reconciled = self._network.revision, self.revision, self.declared
        self._due = min(
            self._network.routes.due, self.policers.until, *(_due(session, now) for session in self.sessions.values())
        )

    def _reconcile(self, now: Seconds) -> None:
        self.revision += 1
        ready = [session for session in self.sessions.values() if session.ready]
        for session in ready:
            if self.declared and not session.adopted:
                session.adopted = True
                self._network.services.adopt(session.dpid, session.holding.rules.values(), now)
                self._network.routes.adopt(session.dpid, session.holding.rules.values(), now)
                self._network.flooding.adopt(session.dpid, session.holding.rules.values())
        self._network.services.unplacing = {one.dpid for one in ready if not one.abilities.places}
        self._network.flooding.follow(self._network.topology, now)
        self._network.routes.follow(self._holds, now)
        wanted = self.policers.limits(self._network, now)
        for session in ready:
            try:
                self._bring_up_to_date(session, wanted, now)
            except Exception:  # noqa: BLE001
                # What one switch makes impossible must not keep the others from what they need.
                self.failures += 1
                if self.failures < FAILURES_LOGGED:
                    _log.exception("a switch is left as it is", dpid=f"{session.dpid:016x}", failures=self.failures)

    def _holds(self, dpid: int, key: RuleKey) -> bool:
        session = self.sessions.get(dpid)
        return session is not None and session.ready and session.confirmed(key)

    def why_not(self, dpid: int, key: RuleKey) -> str | None:
        """Why a switch does not hold a rule, as far as it said so."""
        session = self.sessions.get(dpid)
        if session is not None and session.abilities.one_table:
            return "that it has one table, no split path goes through it"
        return None if session is None else session.why_not([key])

    def alerts(self) -> list[Alert]:
        """What switches lack, and which are slow: something to look at as long as it is so."""
        found, names = [], self._network.topology.snapshot.directory
        for session in (one for one in self.sessions.values() if one.ready):
            name, made = names.switch(session.dpid), self._made.get(session.dpid)
            spared: Mapping[Kind, int] = made[1].spared if made is not None else {}
            for lack in describe_lacks(session.abilities, self._first_meter, spared):
                found.append(Alert(LACKS, f"{name}/{lack.what}", name, f"{name} {lack.detail}"))
            if session.window.slow_for_s():
                found.append(Alert(SLOW, name, name, f"{name} {session.window.describe_wait()}"))
        return found

    def _bring_up_to_date(self, session: Session, wanted: Limits, now: Seconds) -> None:
        session.settle_room(now)
        part = _for_switch(share(self._network, session.dpid, wanted), session)
        taken = {
            number: rule.meter
            for rule in session.holding.rules.values()
            if rule.meter is not None and (number := limited_by(rule)) is not None
        }
        limited = numbers_of_limits(part)
        meters = allot_meters(limited, taken, self._first_meter)
        own = _owners(self._network) if session.abilities.one_table else {}
        want = self._desired(session.dpid, _MadeFrom(part, meters, session.has_meters, session.abilities, own))
        if session.reconcile(want, now, may_delete=self.declared):
            session.barrier(lambda: None)

    def _desired(self, dpid: int, made_from: _MadeFrom) -> Desired:
        before = self._made.get(dpid)
        if before is not None and before[0] == made_from:
            return before[1].want
        want, abilities = desired(made_from.share, made_from.meters, made_from.has_meters), made_from.abilities
        if abilities.one_table:
            want = join_tables(replace(want, rules=_without_extensions(want, abilities)), made_from.owners)
        made = fit_rules(want, abilities)
        self._made[dpid] = made_from, made
        return made.want

    def resubmit(self, effect: Resubmit) -> None:
        """Puts a frame through a switch's tables once all switches that it will cross hold their rules."""
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


def _owners(network: Network) -> dict[str, str]:
    return {address: host.mac for host in network.topology.hosts for address in host.addresses}


def _for_switch(part: Share, session: Session) -> Share:
    """A switch's part in the world as far as the switch can play it."""
    abilities = session.abilities
    if not abilities.has_failover:
        part = replace(part, spares={}, tagging=undivided(part.tagging))
    if not abilities.places:
        # Only sources that no pair counts are told of this way, and placed.
        guest = None if part.guest is None else replace(part.guest, by_connection=False)
        part = replace(part, placing=replace(part.placing, spreads=()), guest=guest)
        part = replace(part, tagging=replace(part.tagging, by_ports=False))
    if abilities.one_table:
        part = replace(part, police=(), tagging=LabelShare(), flood=replace(part.flood, held=()))
        part = replace(part, placing=replace(part.placing, counted=AccountShare()))
    pairs = len(part.pairs.accounts) + len(part.placing.counted.talkers) + len(part.virtual_ips)
    rules = 2 * pairs + LISTENING
    if rules > abilities.room.get(Table.ACCOUNT, rules) and not abilities.one_table:
        # Not all pairs will be counted one by one.
        part = replace(part, placing=replace(part.placing, sums_at=session.dpid))
    return part


def _without_extensions(want: Desired, abilities: Abilities) -> Mapping[RuleKey, Rule]:
    first = replace(abilities, tables=max(Table) + 1)
    return {key: rule for key, rule in want.rules.items() if first.can_hold(rule)}


def _due(session: Session, now: Seconds) -> Seconds:
    """When time itself next changes what a switch holds, or what it may be sent."""
    times = [rule.lease_until for rule in session.holding.rules.values() if rule.lease_until is not None]
    times += session.refused.retry_times()
    # A little later: what has to be older than so long is not when it is exactly so old.
    return min((t + 0.001 for t in (*times, session.since + GRACE_S) if t + 0.001 > now), default=float("inf"))

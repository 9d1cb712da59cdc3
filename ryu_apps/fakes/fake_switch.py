"""A switch that behaves like one, for tests and simulations: tables, priorities, meters, leases, counters."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from cpdb import FIRST_TAG
from ryu_apps.effects import (
    AddGroup,
    AddMeter,
    Change,
    DeleteGroup,
    DeleteMeter,
    DeleteRule,
    ModifyGroup,
    ModifyMeter,
    PutRule,
)
from ryu_apps.fakes.fake_meters import TokenBucket
from ryu_apps.fakes.fake_notes import Notes, noted
from ryu_apps.rules import (
    CONTROLLER,
    PROTO_TCP,
    Action,
    AnswerArp,
    Choose,
    Group,
    KeepConnection,
    LookInto,
    Match,
    MeetOnce,
    Meter,
    Output,
    PickSlot,
    Rule,
    RuleKey,
    SetField,
    Table,
    Tag,
    ToGroup,
    Untag,
    is_ours,
)

Seconds = float

LAST_TABLE = 254


@dataclass(frozen=True, slots=True)
class FlowSample:
    """One flow entry's counters; `age_s` is how long the entry has existed."""

    dpid: int
    cookie: int
    t: Seconds
    age_s: Seconds
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Packet:
    """The parts of a packet that rules look at or rewrite. `flags` are TCP's: "S", "SA", "A"..."""

    eth_src: str
    eth_dst: str
    eth_type: int = 0x0800
    ipv4_src: str | None = None
    ipv4_dst: str | None = None
    ip_proto: int | None = None
    flags: str = ""
    ip_dscp: int = 0
    arp_op: int | None = None
    arp_spa: str | None = None
    arp_tpa: str | None = None
    size: int = 100
    tag: int | None = None
    sport: int | None = None
    dport: int | None = None
    slot: int = 0
    chosen: int | None = None


@dataclass(slots=True)
class _Entry:
    rule: Rule
    since: Seconds
    ends: Seconds | None
    packets: int = 0
    bytes: int = 0


@dataclass(slots=True)
class FakeSwitch:
    """Holds rules and meters and carries packets in virtual time: every call says what time it is."""

    dpid: int
    ports: frozenset[int]
    meters_most: int = 262_144
    _entries: dict[RuleKey, _Entry] = field(default_factory=dict)
    _buckets: dict[int, TokenBucket] = field(default_factory=dict)
    # Ports that are down
    down: set[int] = field(default_factory=set)
    _groups: dict[int, Group] = field(default_factory=dict)
    _notes: Notes = field(default_factory=Notes)
    # Cookie of the rule that last sent a packet to the controller
    asked_by: int = 0

    def apply(self, changes: Iterable[Change], now: Seconds) -> list[str]:
        """Makes changes in order; returns the error texts of those it refuses, as a real switch would."""
        self._expire(now)
        errors = [error for change in changes if (error := self._apply(change, now))]
        kept = {action for one in self._entries.values() for action in one.rule.actions}
        self._notes.keep_only(kept.__contains__)
        return errors

    def _apply(self, change: Change, now: Seconds) -> str | None:
        match change:
            case AddMeter(meter) if meter.number in self._buckets:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_METER_EXISTS"
            case AddMeter(meter) if meter.number > self.meters_most:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_OUT_OF_METERS"
            case ModifyMeter(meter) if meter.number not in self._buckets:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_UNKNOWN_METER"
            case AddMeter(meter) | ModifyMeter(meter):
                self._buckets[meter.number] = TokenBucket(meter, meter.burst_kbit * 1000.0, now)
            case DeleteMeter(number):
                self._buckets.pop(number, None)
                self._entries = {key: one for key, one in self._entries.items() if one.rule.meter != number}
            case AddGroup(group) if group.number in self._groups:
                return "OFPET_GROUP_MOD_FAILED/OFPGMFC_GROUP_EXISTS"
            case ModifyGroup(group) if group.number not in self._groups:
                return "OFPET_GROUP_MOD_FAILED/OFPGMFC_UNKNOWN_GROUP"
            case AddGroup(group) | ModifyGroup(group):
                self._groups[group.number] = group
            case DeleteGroup(number):
                self._groups.pop(number, None)
                self._entries = {key: one for key, one in self._entries.items() if not _goes_to(one.rule, number)}
            case PutRule(rule):
                return self._put(rule, now)
            case DeleteRule(rule):
                held = self._entries.get(rule.key)
                if held is not None and is_ours(held.rule.cookie):
                    del self._entries[rule.key]
        return None

    def _put(self, rule: Rule, now: Seconds) -> str | None:
        if rule.meter is not None and rule.meter not in self._buckets:
            return "OFPET_FLOW_MOD_FAILED/OFPFMFC_UNKNOWN"
        if any(isinstance(one, ToGroup) and one.number not in self._groups for one in rule.actions):
            return "OFPET_BAD_ACTION/OFPBAC_BAD_OUT_GROUP"
        if rule.goto is not None and not rule.table < rule.goto <= LAST_TABLE:
            return "OFPET_BAD_INSTRUCTION/OFPBIC_BAD_TABLE_ID"
        ends = None
        if rule.lease_until is not None:
            # Timeouts are whole seconds, rounded up.
            ends = now + max(1, -(-(rule.lease_until - now) // 1))
        self._entries[rule.key] = _Entry(rule, now, ends)
        return None

    def _expire(self, now: Seconds) -> None:
        self._entries = {key: one for key, one in self._entries.items() if one.ends is None or now < one.ends}

    def rules(self, now: Seconds) -> list[Rule]:
        """What it holds, with the ends of the leases as they are counted here."""
        self._expire(now)
        return [replace(one.rule, lease_until=one.ends) for one in self._entries.values()]

    def meters(self) -> list[Meter]:
        """Its meters."""
        return [bucket.meter for bucket in self._buckets.values()]

    def groups(self) -> list[Group]:
        """Its groups."""
        return list(self._groups.values())

    def samples(self, now: Seconds) -> list[FlowSample]:
        """Counters of all entries."""
        self._expire(now)
        return [
            FlowSample(self.dpid, one.rule.cookie, now, now - one.since, one.packets, one.bytes)
            for one in self._entries.values()
        ]

    def receive(self, packet: Packet, in_port: int, now: Seconds) -> list[tuple[int, Packet]]:
        """Carries a packet through the tables; returns (port, packet) for each copy, CONTROLLER included.

        A packet that no entry of a table matches is dropped, and so is a copy that would go out where it came in.
        """
        self._expire(now)
        out: list[tuple[int, Packet]] = []
        self._carry(0, packet, in_port, now, out)
        return [(port, one) for port, one in out if self._may_leave(port, one, in_port)]

    def _carry(self, first: int, packet: Packet, in_port: int, now: Seconds, out: list[tuple[int, Packet]]) -> Packet:
        table: int | None = first
        while table is not None:
            entry = self._best(table, packet, in_port)
            if entry is None:
                break
            entry.packets += 1
            entry.bytes += packet.size
            rule = entry.rule
            if rule.meter is not None and not self._buckets[rule.meter].admits(packet.size, now):
                break
            for action in self._resolved(rule.actions):
                if isinstance(action, Output):
                    out.append((action.port, packet))
                    self.asked_by = rule.cookie if action.port == CONTROLLER else self.asked_by
                elif isinstance(action, AnswerArp):
                    out.append((in_port, _answer(packet, action)))
                elif isinstance(action, LookInto):
                    packet = self._look_into(action.table, packet, in_port, now, out)
                else:
                    packet = self._changed(packet, action, now)
            table = rule.goto
        return packet

    def _resolved(self, actions: Iterable[Action]) -> Iterable[Action]:
        for action in actions:
            if not isinstance(action, ToGroup):
                yield action
                continue
            # Fast failover: the first bucket whose port is up, none when all are down.
            buckets = self._groups[action.number].buckets
            yield from next((one.actions for one in buckets if one.watch_port not in self.down), ())

    def _look_into(
        self, table: int, packet: Packet, in_port: int, now: Seconds, out: list[tuple[int, Packet]]
    ) -> Packet:
        if table == Table.AFFINITY:
            return self._notes.look(packet, now)  # type: ignore[no-any-return]
        if table == Table.MEET and self._notes.has_met(packet, now):
            return packet
        return self._carry(table, packet, in_port, now, out)

    def _changed(self, packet: Packet, action: Action, now: Seconds) -> Packet:
        match action:
            case Tag(tag):
                return replace(packet, tag=tag)
            case Untag():
                return replace(packet, tag=None)
            case SetField(name, value):
                rewritten: dict[str, Any] = {name: value}
                return replace(packet, **rewritten)
            case PickSlot() | Choose():
                return noted(packet, action)  # type: ignore[no-any-return]
            case KeepConnection():
                self._notes.keep(action, packet, now)
            case MeetOnce():
                self._notes.meet(action, packet, now)
        return packet

    def _may_leave(self, port: int, copy: Packet, in_port: int) -> bool:
        if port == CONTROLLER or (copy.arp_op == 2 and port == in_port):
            return True
        return port in self.ports - self.down and port != in_port

    def _best(self, table: int, packet: Packet, in_port: int) -> _Entry | None:
        found = [one for key, one in self._entries.items() if key.table == table and _fits(key.match, packet, in_port)]
        return max(found, key=lambda one: one.rule.priority, default=None)


def _goes_to(rule: Rule, group: int) -> bool:
    return ToGroup(group) in rule.actions


def _fits(match: Match, packet: Packet, in_port: int) -> bool:
    if match.in_port not in (None, in_port):
        return False
    if match.syn and not (packet.ip_proto == PROTO_TCP and "S" in packet.flags and "A" not in packet.flags):
        return False
    if match.multicast and not int(packet.eth_dst[:2], 16) & 1:
        return False
    if match.tagged and (packet.tag is None or packet.tag < FIRST_TAG):
        return False
    if match.slot is not None and packet.slot & match.slot[1] != match.slot[0]:
        return False
    if match.tcp_dst not in (None, packet.dport) or match.chosen not in (None, packet.chosen):
        return False
    names = ("tag", "eth_type", "eth_src", "eth_dst", "ip_proto", "ipv4_src", "ipv4_dst", "arp_op", "arp_tpa")
    return all(getattr(match, name) in (None, getattr(packet, name)) for name in names)


def _answer(question: Packet, action: AnswerArp) -> Packet:
    return replace(
        question,
        eth_dst=question.eth_src,
        eth_src=action.mac,
        arp_op=2,
        arp_tpa=question.arp_spa,
        arp_spa=action.address,
    )

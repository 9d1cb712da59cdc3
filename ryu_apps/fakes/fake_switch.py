"""A switch that behaves like one, for tests and simulations: tables, priorities, meters, leases, counters."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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
from ryu_apps.fakes.fake_packets import (
    LearnedFlows,
    Packet,
    arp_answer,
    is_arp_reply,
    is_matched,
    noted,
    selected,
    with_bits,
)
from ryu_apps.fakes.fake_profiles import NO_GROUPS, SwitchProfile
from ryu_apps.rules import (
    CONTROLLER,
    NOBODY_UP,
    NORMAL,
    Action,
    AnswerArp,
    ChooseDestination,
    GroupKind,
    LearnConnection,
    LearnNextHop,
    LearnSource,
    Meter,
    NoteSeen,
    NoteUp,
    Output,
    PickBucket,
    PopLabel,
    PushLabel,
    ResubmitTable,
    Rule,
    RuleKey,
    SetField,
    SwitchGroup,
    Table,
    ToGroup,
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


@dataclass(slots=True)
class TokenBucket:
    """Admits what its rate and burst allow."""

    meter: Meter
    tokens_bits: float
    t: Seconds

    def admits(self, size: int, now: Seconds) -> bool:
        """Token bucket: filled at the meter's rate, up to its burst."""
        filled = self.tokens_bits + (now - self.t) * self.meter.rate_kbit_s * 1000
        self.tokens_bits, self.t = min(filled, self.meter.burst_kbit * 1000.0), now
        if self.tokens_bits < size * 8:
            return False
        self.tokens_bits -= size * 8
        return True


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
    profile: SwitchProfile = field(default_factory=SwitchProfile)
    _entries: dict[RuleKey, _Entry] = field(default_factory=dict)
    _buckets: dict[int, TokenBucket] = field(default_factory=dict)
    # Ports that are down
    down: set[int] = field(default_factory=set)
    _groups: dict[int, SwitchGroup] = field(default_factory=dict)
    _learned: LearnedFlows = field(default_factory=LearnedFlows)
    # Cookie of the rule that last sent a packet to the controller
    asked_by: int = 0
    # How often its counters were looked at
    looks: int = 0

    def apply(self, changes: Iterable[Change], now: Seconds) -> list[str]:
        """Makes changes in order; returns the error texts of those it refuses, as a real switch would."""
        self._expire(now)
        errors = [error for change in changes if (error := self._apply(change, now))]
        kept = {action for entry in self._entries.values() for action in entry.rule.actions}
        self._learned.keep_only(kept.__contains__)
        return errors

    def _apply(self, change: Change, now: Seconds) -> str | None:
        match change:
            case AddMeter(meter) if meter.number in self._buckets:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_METER_EXISTS"
            case AddMeter(meter) if meter.number > self.profile.max_meters:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_OUT_OF_METERS"
            case ModifyMeter(meter) if meter.number not in self._buckets:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_UNKNOWN_METER"
            case AddMeter(meter) | ModifyMeter(meter):
                self._buckets[meter.number] = TokenBucket(meter, meter.burst_kbit * 1000.0, now)
            case DeleteMeter(number):
                self._buckets.pop(number, None)
                self._keep(lambda rule: rule.meter != number)
            case AddGroup() | ModifyGroup() if not self.profile.has_groups:
                return NO_GROUPS
            case AddGroup(group) if group.number in self._groups:
                return "OFPET_GROUP_MOD_FAILED/OFPGMFC_GROUP_EXISTS"
            case ModifyGroup(group) if group.number not in self._groups:
                return "OFPET_GROUP_MOD_FAILED/OFPGMFC_UNKNOWN_GROUP"
            case AddGroup(group) | ModifyGroup(group):
                self._groups[group.number] = group
            case DeleteGroup(number):
                self._groups.pop(number, None)
                self._entries = {
                    key: entry for key, entry in self._entries.items() if ToGroup(number) not in entry.rule.actions
                }
            case PutRule(rule):
                return self._put(rule, now)
            case DeleteRule(rule):
                held = self._entries.get(rule.key)
                if held is not None and is_ours(held.rule.cookie):
                    del self._entries[rule.key]
        return None

    def _put(self, rule: Rule, now: Seconds) -> str | None:
        held = (key.table for key in self._entries if rule.key not in self._entries)
        if (reason := self.profile.refusal(rule, held)) is not None:
            return reason
        if rule.meter is not None and rule.meter not in self._buckets:
            return "OFPET_FLOW_MOD_FAILED/OFPFMFC_UNKNOWN"
        if any(isinstance(action, ToGroup) and action.number not in self._groups for action in rule.actions):
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
        self._entries = {key: entry for key, entry in self._entries.items() if entry.ends is None or now < entry.ends}

    def _keep(self, wanted: Callable[[Rule], bool]) -> None:
        self._entries = {key: entry for key, entry in self._entries.items() if wanted(entry.rule)}

    def rules(self, now: Seconds) -> list[Rule]:
        """What it holds, with the ends of the leases as they are counted here."""
        self._expire(now)
        return [replace(entry.rule, lease_until=entry.ends) for entry in self._entries.values()]

    def meters(self) -> list[Meter]:
        """Its meters."""
        return [bucket.meter for bucket in self._buckets.values()]

    def groups(self) -> list[SwitchGroup]:
        """Its groups."""
        return list(self._groups.values())

    def samples(self, now: Seconds) -> list[FlowSample]:
        """Counters of all entries."""
        self._expire(now)
        self.looks += 1
        return [
            FlowSample(
                self.dpid,
                entry.rule.cookie,
                now,
                now - entry.since,
                *self.profile.shown(entry.packets, entry.bytes, self.looks),
            )
            for entry in self._entries.values()
        ]

    def receive(self, packet: Packet, in_port: int, now: Seconds) -> list[tuple[int, Packet]]:
        """Carries a packet through the tables; returns (port, packet) for each copy, CONTROLLER included.

        A packet that no entry of a table matches is dropped, and so is a copy that would go out where it came in.
        """
        self._expire(now)
        out: list[tuple[int, Packet]] = []
        self._carry(0, packet, in_port, now, out)
        return [(port, copy) for port, copy in out if self._may_leave(port, copy, in_port)]

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
            for action in _resolve_groups(rule.actions, self._groups, self.down, packet):
                if isinstance(action, Output):
                    out.append((action.port, packet))
                    self.asked_by = rule.cookie if action.port == CONTROLLER else self.asked_by
                elif isinstance(action, AnswerArp):
                    out.append((in_port, arp_answer(packet, action)))
                elif isinstance(action, ResubmitTable):
                    packet = self._look_into(action.table, packet, in_port, now, out)
                else:
                    packet = self._changed(packet, action, now)
            table = rule.goto
        return packet

    def _look_into(
        self, table: int, packet: Packet, in_port: int, now: Seconds, out: list[tuple[int, Packet]]
    ) -> Packet:
        if table == Table.AFFINITY:
            return self._learned.rewritten(packet, now)
        if table == Table.KEPT:
            return self._learned.with_next_hop(packet, now)
        if table == Table.MEET and self._learned.has_met(packet, now):
            return packet
        return self._carry(table, packet, in_port, now, out)

    def _changed(self, packet: Packet, action: Action, now: Seconds) -> Packet:
        match action:
            case PushLabel(label):
                return replace(packet, label=label)
            case PopLabel():
                return replace(packet, label=None)
            case SetField("icmpv6_type", value):
                return replace(packet, transport=replace(packet.transport, icmpv6_type=int(value)))
            case SetField(name, value):
                rewritten: dict[str, Any] = {name: value}
                return replace(packet, **rewritten)
            case NoteUp(ports, shift):
                up = next((port for port in ports if port in self.ports - self.down), NOBODY_UP)
                return with_bits(packet, up << shift, NOBODY_UP << shift)
            case PickBucket() | ChooseDestination() | NoteSeen():
                return noted(packet, action)
            case LearnConnection():
                self._learned.learn_connection(action, packet, now)
            case LearnNextHop():
                self._learned.learn_next_hop(action, packet, now)
            case LearnSource():
                self._learned.learn_source(action, packet, now)
        return packet

    def _may_leave(self, port: int, copy: Packet, in_port: int) -> bool:
        if port in (CONTROLLER, NORMAL) or (is_arp_reply(copy) and port == in_port):
            return True
        return port in self.ports - self.down and port != in_port

    def _best(self, table: int, packet: Packet, in_port: int) -> _Entry | None:
        matched = [
            entry
            for key, entry in self._entries.items()
            if key.table == table and is_matched(key.match, packet, in_port)
        ]
        return max(matched, key=lambda entry: entry.rule.priority, default=None)


def _resolve_groups(
    actions: Iterable[Action], groups: Mapping[int, SwitchGroup], down: set[int], packet: Packet
) -> Iterable[Action]:
    for action in actions:
        if not isinstance(action, ToGroup):
            yield action
            continue
        group = groups[action.number]
        # Of those whose port is up: by a hash of the connection (select), or the first (fast failover).
        usable = [bucket for bucket in group.buckets if bucket.watch_port not in down]
        if usable:
            chosen = selected(usable, packet) if group.kind is GroupKind.SELECT else usable[0]
            yield from chosen.actions
